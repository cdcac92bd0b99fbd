# SPDX-License-Identifier: Apache-2.0
"""The distance branch: equal to the nearest click where nothing is learned, symmetric, and what its losses say by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.objects.anchors import ClickAnchors, click_anchors
from weakseg_ros.methods.objects.distance_branch import DistanceBranch, place_code, shares
from weakseg_ros.methods.objects.distance_losses import assignment_loss, regression_loss, surface_pairs, tie_loss
from weakseg_ros.methods.objects.pseudo_masks import estimate
from weakseg_ros.methods.objects.relations import MAPS, Relations
from weakseg_ros.methods.settings import BranchSettings, PseudoSettings

THINGS = torch.tensor([False, True, True, False, False])
RADIUS = torch.tensor([0.0, 3.5, 1.0, 0.0, 0.0])
CAR, PERSON, ROAD, GRASS = 1, 2, 3, 4
FEATURES, PIXELS = 6, 60


def small(**changes: Any) -> BranchSettings:
    return BranchSettings(**{"branch_width": 16, "branch_heads": 4, "branch_ffn": 24, **changes})


def scene(seed: int, clicks: int = 3) -> tuple[Tensor, Tensor, Tensor, ClickAnchors]:
    """Features, places and probabilities of 60 pixels, and anchors: clicks, then road and grass with 4 pixels each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(PIXELS, dtype=torch.long)
    chosen = torch.randperm(PIXELS, generator=generator)
    labels[chosen[:clicks]] = torch.randint(CAR, PERSON + 1, (clicks,), generator=generator)
    labels[chosen[clicks : clicks + 4]], labels[chosen[clicks + 4 : clicks + 8]] = ROAD, GRASS
    probs = torch.rand(PIXELS, 5, generator=generator)
    xyz = 10 * torch.randn(PIXELS, 3, generator=generator)
    return torch.randn(PIXELS, FEATURES, generator=generator), xyz, probs / probs.sum(1, True), click_anchors(labels, THINGS)


def branch_of(**changes: Any) -> DistanceBranch:
    torch.manual_seed(0)
    return DistanceBranch(FEATURES, 5, small(**changes)).eval()


def reordered(anchors: ClickAnchors, order: Tensor) -> ClickAnchors:
    """The same anchors as another person would have listed them."""
    place = torch.argsort(order)
    return ClickAnchors(anchors.classes[order], anchors.things[order], anchors.pixel, place[anchors.owner])


def test_anchors_are_the_clicks_and_then_the_stuff_that_is_there() -> None:
    anchors = click_anchors(torch.tensor([0, GRASS, CAR, 0, PERSON, CAR, GRASS, ROAD]), THINGS)
    assert anchors.classes.tolist() == [CAR, PERSON, CAR, ROAD, GRASS]
    assert anchors.things.tolist() == [True, True, True, False, False]
    assert anchors.clicks.tolist() == [2, 4, 5]
    values = torch.arange(8.0)[:, None]
    assert anchors.mean(values)[:, 0].tolist() == [2, 4, 5, 7, 3.5]
    assert len(click_anchors(torch.zeros(8, dtype=torch.long), THINGS)) == 0
    few = click_anchors(torch.full((50,), CAR), THINGS, max_clicks=7)
    numbers = torch.ones(50, dtype=torch.long)
    numbers[20] = 2
    for _ in range(10):  # a mask of many labels does not crowd out the object of a single click
        both = click_anchors(torch.full((50,), CAR), THINGS, max_clicks=7, instances=numbers)
        assert 20 in both.pixel.tolist()
        assert len(both.clicks) == 7
    assert len(few.clicks.unique()) == len(few) == 7


@given(st.integers(0, 2**31), st.integers(1, 6))
@settings(deadline=None, max_examples=20)
def test_an_untrained_branch_on_places_finds_the_nearest_click(seed: int, clicks: int) -> None:
    _, xyz, probs, _ = scene(seed)
    labels = torch.zeros(PIXELS, dtype=torch.long)
    labels[torch.randperm(PIXELS, generator=torch.Generator().manual_seed(seed))[:clicks]] = CAR
    anchors = click_anchors(labels, THINGS)
    branch = DistanceBranch(3, 5, small(branch_width=8, rounds=0, similarity="l2"))
    branch.embed = branch.anchor = branch.query = branch.key = branch.anchor_norm = nn.Identity()
    branch.place = nn.Sequential(*branch.place[:2], nn.Linear(8, 3))
    nn.init.zeros_(branch.place[2].weight)
    nn.init.zeros_(branch.place[2].bias)
    branch.class_code = nn.Embedding.from_pretrained(torch.zeros(5, 3))
    (distance,) = branch(0.1 * xyz, xyz, probs, anchors)
    assert torch.equal(distance.argmin(dim=0), torch.cdist(xyz[anchors.clicks], xyz).argmin(dim=0))


@pytest.mark.parametrize("changes", [{}, {"similarity": "l2"}, {"aggregate": False}])
def test_permuted_anchors_permute_the_distances(changes: dict[str, Any]) -> None:
    branch = branch_of(**changes)
    *inputs, anchors = scene(1)
    order = torch.tensor([4, 1, 0, 3, 2])
    ours, theirs = branch(*inputs, anchors), branch(*inputs, reordered(anchors, order))
    assert len(ours) == 4
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a[order], b, rtol=1e-4, atol=1e-5)
        assert ((a >= 0) & (a <= 1)).all()


def test_each_step_of_the_ladder_adds_its_parts_and_changes_the_answer() -> None:
    inputs = scene(2)
    names = {}
    for row, changes in {
        "learned": {"rounds": 0},
        "aggregate": {"rounds": 1, "enhance": False},
        "enhance": {"rounds": 1},
        "rounds": {"rounds": 3},
    }.items():
        branch = branch_of(**changes)
        names[row] = {name.split(".")[0] for name, _ in branch.named_parameters()}
        distances = branch(*inputs)
        assert len(distances) == changes["rounds"] + 1
        for before, after in pairwise(distances):
            assert not torch.allclose(before, after)
    assert names["learned"] < names["aggregate"] < names["enhance"] == names["rounds"]


def test_a_single_click_and_places_at_the_origin_are_no_trouble() -> None:
    features, xyz, probs, _ = scene(3)
    alone = click_anchors(torch.eye(PIXELS, dtype=torch.long)[5], THINGS)
    distances = branch_of()(features, torch.zeros_like(xyz), probs, alone)
    loss = sum(regression_loss(d, alone) + assignment_loss(d, alone, 0.1) for d in distances)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(place_code(torch.zeros(2, 3))).all()


def test_losses_by_hand() -> None:
    anchors = click_anchors(torch.tensor([CAR, CAR, ROAD, ROAD, 0]), THINGS)
    perfect = torch.tensor([[0.0, 1, 1, 1, 0.5], [1, 0, 1, 1, 0.5], [1, 1, 0, 0, 0.5]])
    assert regression_loss(perfect, anchors).item() == 0
    assert assignment_loss(perfect, anchors, 0.1).item() == pytest.approx(0.0, abs=1e-3)
    half = torch.full((3, 5), 0.5)
    assert regression_loss(half, anchors).item() == pytest.approx(0.25 + 0.25)
    assert assignment_loss(half, anchors, 0.1).item() == pytest.approx(1.0986, abs=1e-3)
    one_road_wrong = perfect.clone()
    one_road_wrong[2, 3] = 1.0
    assert regression_loss(one_road_wrong, anchors).item() == pytest.approx(0.5 / 3)  # a click counts like all of road


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 7), st.sampled_from([1, 2]))
@settings(deadline=None, max_examples=30)
def test_pairs_are_the_neighbours_on_one_surface(seed: int, height: int, width: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(height, width, generator=generator) > 0.3
    at = mask.nonzero()
    xyz = torch.randn(len(at), 3, generator=generator)
    pairs = surface_pairs(xyz, mask, dilation, 1.0, 0.5, 10**6)
    expected = set()
    for i in range(len(at)):
        for j in range(i + 1, len(at)):
            steps = (at[i] - at[j]).abs().tolist()
            reach = max(1.0, 0.5 * min(xyz[i].norm(), xyz[j].norm()))
            if max(steps) == dilation and min(steps) in (0, dilation) and (xyz[i] - xyz[j]).norm() <= reach:
                expected.add((i, j))
    assert {tuple(sorted(pair)) for pair in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)} == expected
    assert len(pairs.left) == len(expected)
    assert len(surface_pairs(xyz, mask, dilation, 1e3, 0.5, 3).left) <= 3


def test_tied_pixels_pay_for_going_different_ways() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    pairs = surface_pairs(torch.zeros(3, 3), mask, 1, 0.3, 0.02, 100)
    together, apart = torch.tensor([[0.0, 0, 0], [1, 1, 1]]), torch.tensor([[0.0, 1, 0], [1, 0, 1]])
    assert tie_loss(together, pairs, 0.1).item() == pytest.approx(0.0, abs=1e-3)
    assert tie_loss(apart, pairs, 0.1).item() > 5
    none = surface_pairs(torch.zeros(0, 3), torch.zeros(4, 4, dtype=torch.bool), 1, 0.3, 0.02, 100)
    assert tie_loss(torch.zeros(2, 0), none, 0.1).item() == 0


def lie(xyz: Tensor, anchors: ClickAnchors, reach: float = 1.4, gate: Tensor = RADIUS) -> Relations:
    """How pixels lie to the clicks, on a scene without ground or surfaces."""
    straight = torch.cdist(xyz[anchors.clicks], xyz) / (reach * gate[anchors.classes[anchors.things]])[:, None]
    maps = torch.zeros(len(straight), len(MAPS), len(xyz))
    maps[:, MAPS.index("straight")] = straight.clamp_max(2)
    return Relations(maps, torch.zeros(len(xyz), dtype=torch.bool))


def one_hot(classes: list[int], sure: float = 0.9) -> Tensor:
    probs = torch.full((len(classes), 5), (1 - sure) / 4)
    probs[torch.arange(len(classes)), classes] = sure
    return probs


def test_pseudo_labels_by_hand() -> None:
    #          0    1    2    3       4     5     6          7
    classes = [CAR, CAR, CAR, PERSON, CAR, ROAD, CAR, CAR]
    classes.append(ROAD)
    labels = torch.tensor([CAR, 0, 0, PERSON, 0, 0, 0, CAR, ROAD])
    xyz = torch.tensor([[x, 0.0, 0.0] for x in (0, 1, 4, 4.5, 20, 3, 3, 5, 6)])
    anchors = click_anchors(labels, THINGS)  # clicks 0, 3, 7
    distance = torch.full((4, 9), 0.5)
    distance[0, [1, 2, 4, 5, 6]] = 0.1
    distance[1, 2] = 0.0
    distance[2, 6] = 0.05
    near, some = lie(xyz, anchors, reach=1.2), PseudoSettings("class")
    found = estimate(distance, near, one_hot(classes), anchors, THINGS, some)
    assert found.instance.tolist() == [1, 1, 1, 2, 0, 0, 3, 3, 0]  # 4 is too far, 5 is road, 2 is no person
    assert found.class_id.tolist() == [CAR, CAR, CAR, PERSON, 0, ROAD, CAR, CAR, ROAD]  # 4 may be a car without a click
    assert not found.outside.any()
    every = estimate(distance, near, one_hot(classes), anchors, THINGS, PseudoSettings("class", all_clicked=True))
    assert every.class_id.tolist() == found.class_id.tolist()  # 4 is no car, but of stuff nothing is likely
    rather = one_hot(classes)
    rather[4, ROAD] = 0.2
    assert estimate(distance, near, rather, anchors, THINGS, some).class_id[4] == 0
    assert estimate(distance, near, rather, anchors, THINGS, PseudoSettings("class", all_clicked=True)).class_id[4] == ROAD
    assert every.outside.tolist() == (every.instance == 0).tolist()
    near.ground[1] = True
    assert estimate(distance, near, one_hot(classes), anchors, THINGS, some).instance[1] == 0
    near = lie(xyz, anchors)
    loose = estimate(distance, near, one_hot(classes), anchors, THINGS, PseudoSettings(radius_gate=False))
    assert loose.instance.tolist() == [1, 1, 1, 2, 1, 0, 3, 3, 0]
    distance[3, 6] = 0.0
    unsure = torch.full((9, 5), 0.2)  # where classes say nothing, stuff wins by its distance
    assert estimate(distance, near, unsure, anchors, THINGS, PseudoSettings()).instance.tolist() == [1, 1, 2, 2, 0, 1, 0, 3, 0]
    assert estimate(distance, near, one_hot(classes, 0.4), anchors, THINGS, some).class_id[5] == 0


@given(st.integers(0, 2**31), st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_every_pixel_of_a_clicked_class_has_exactly_one_object(seed: int, clicks: int) -> None:
    _, xyz, probs, anchors = scene(seed, clicks)
    distance = torch.rand(len(anchors), PIXELS, generator=torch.Generator().manual_seed(seed)) * 0.9
    found = estimate(distance, lie(xyz, anchors), probs, anchors, THINGS, PseudoSettings("class", radius_gate=False))
    present = torch.zeros(5, dtype=torch.bool)
    present[anchors.classes] = True
    thing = THINGS[(probs * present).argmax(dim=1)]
    thing[anchors.pixel] = anchors.things[anchors.owner]
    assert torch.equal(found.instance > 0, thing)
    assert found.instance[anchors.clicks].tolist() == list(range(1, clicks + 1))
    assert torch.equal(found.class_id[anchors.pixel], anchors.classes[anchors.owner])


def test_shares_sum_to_one_and_follow_the_distance() -> None:
    share = shares(torch.tensor([[0.0, 0.5], [0.5, 0.5]]), 0.1)
    torch.testing.assert_close(share.sum(dim=0), torch.ones(2))
    assert share[0, 0] > 0.99


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="not a multiple"):
        BranchSettings(branch_width=100, branch_heads=8)
    with pytest.raises(ConfigError, match="rounds"):
        BranchSettings(rounds=11)
