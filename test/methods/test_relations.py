# SPDX-License-Identifier: Apache-2.0
"""How pixels lie to clicks: measures by hand, objects of several clicks, what is spread, what is parted, rules as distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from weakseg_ros.methods.objects.anchors import ClickAnchors, click_anchors
from weakseg_ros.methods.objects.handcrafted import Rule, hand_distance
from weakseg_ros.methods.objects.relations import FAR, Relations, relate
from weakseg_ros.methods.objects.sure_pixels import away_loss, with_sure_pixels
from weakseg_ros.methods.settings import SurePixelSettings

THINGS, REACH = torch.tensor([False, True, False]), torch.tensor([0.0, 4.0, 0.0])
BOX, ROAD = 1, 2
HEIGHT, WIDTH = 12, 40
LEFT, RIGHT, HIDDEN = (slice(2, 8), slice(4, 14)), (slice(2, 8), slice(20, 30)), (slice(2, 8), slice(30, 33))


def scene() -> tuple[Tensor, Tensor]:
    """Places (P, 3) m and mask: two walls 10 m ahead, one with a piece 3 m behind it, over ground 2 m below."""
    azimuth = torch.linspace(0.8, -0.8, WIDTH)[None].expand(HEIGHT, WIDTH)
    up = torch.linspace(0.2, -0.4, HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    distance = torch.where(up < 0, -2.0 / up.clamp_max(-0.05).sin(), 0.0)
    for area, away in ((LEFT, 10.0), (RIGHT, 10.0), (HIDDEN, 13.0)):
        distance[area] = away
    distance[distance > 40] = 0.0
    ray = torch.stack((up.cos() * azimuth.cos(), up.cos() * azimuth.sin(), up.sin()), dim=2)
    mask = distance > 0
    return (ray * distance[..., None])[mask], mask


XYZ, MASK = scene()


def clicked(*at: tuple[int, int], instances: tuple[int, ...] = ()) -> ClickAnchors:
    labels, numbers = torch.zeros(HEIGHT, WIDTH, dtype=torch.long), torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    for i, place in enumerate(at):
        labels[place] = BOX
        numbers[place] = instances[i] if instances else 0
    labels[10, ::4] = ROAD
    return click_anchors(labels[MASK], THINGS, instances=numbers[MASK])


def image(values: Tensor) -> Tensor:
    """(P,) -> (H, W), NaN where no point is."""
    plane = torch.full(MASK.shape, torch.nan)
    plane[MASK] = values.float()
    return plane


def test_measures_from_a_click_by_hand() -> None:
    anchors = clicked((4, 6))
    found = relate(XYZ, MASK, anchors, REACH)
    assert found.maps.shape == (1, 6, len(XYZ))
    straight, surface = image(found.of("straight")[0]), image(found.of("surface")[0])
    assert straight[4, 6] == surface[4, 6] == 0
    apart = (XYZ - XYZ[anchors.clicks]).norm(dim=1) / 4.0
    torch.testing.assert_close(found.of("straight")[0], apart.clamp_max(FAR))
    assert (surface[LEFT] >= straight[LEFT] - 1e-4).all()
    assert surface[4, 13] == pytest.approx(float(straight[4, 13]), rel=0.05)
    assert (surface[RIGHT] == FAR).all()  # no surface leads there
    parts = torch.stack([found.of(name)[0] for name in ("along", "across", "height")])
    near = apart < FAR
    torch.testing.assert_close(parts.norm(dim=0)[near], apart[near], rtol=1e-4, atol=1e-4)
    assert image(found.ground)[10].nansum() > 20
    assert image(found.ground)[LEFT].sum() == 0


def test_an_object_of_two_clicks_is_as_near_as_its_nearest_and_comes_first_once() -> None:
    anchors = clicked((4, 6), (4, 25), (5, 12), instances=(3, 0, 3))
    assert anchors.classes.tolist() == [BOX, BOX, ROAD]
    assert anchors.click_owner.tolist() == [0, 1, 0]
    found = relate(XYZ, MASK, anchors, REACH)
    ours, left, right = (relate(XYZ, MASK, clicked(*at), REACH) for at in (((4, 25),), ((4, 6),), ((5, 12),)))
    torch.testing.assert_close(found.of("straight")[0], torch.minimum(left.of("straight")[0], right.of("straight")[0]))
    torch.testing.assert_close(found.maps[1], ours.maps[0])


def test_a_second_click_never_makes_a_surface_longer() -> None:
    alone = relate(XYZ, MASK, clicked((4, 21)), REACH).of("surface")[0]
    behind = relate(XYZ, MASK, clicked((4, 21), (4, 31), instances=(5, 5)), REACH).of("surface")[0]  # seen past the wall's edge
    assert (behind <= alone).all()
    assert (image(behind)[RIGHT] < FAR).sum() == (image(alone)[RIGHT] < FAR).sum()


def test_clicks_spread_over_their_own_surface_and_no_farther() -> None:
    anchors = clicked((4, 6), (4, 25))
    found = relate(XYZ, MASK, anchors, REACH)
    probs = torch.tensor([0.0, 0.5, 0.5]).expand(len(XYZ), 3)
    wide = with_sure_pixels(anchors, found, probs, SurePixelSettings(sure_reach=0.5))
    owner = torch.full((len(XYZ),), -1)
    owner[wide.pixel] = wide.owner
    plane = image(owner)
    assert set(plane[LEFT].unique().tolist()) == {-1.0, 0.0}
    assert set(plane[RIGHT].unique().tolist()) == {-1.0, 1.0}
    assert (plane[HIDDEN] == -1).all()
    assert len(wide.pixel) > len(anchors.pixel) + 20
    unlikely = with_sure_pixels(anchors, found, torch.tensor([0.0, 0.01, 0.99]).expand(len(XYZ), 3), SurePixelSettings())
    assert torch.equal(unlikely.pixel, anchors.pixel)


def test_what_geometry_parts_from_a_click_shall_be_far() -> None:
    anchors = clicked((4, 25))
    found = relate(XYZ, MASK, anchors, REACH)
    far, near = torch.ones(2, len(XYZ)), torch.zeros(2, len(XYZ))
    assert away_loss(far, found) == 0
    assert away_loss(near, found) == 1
    held = torch.zeros_like(near)
    held[0] = found.ground | (found.of("surface")[0] >= FAR)
    assert away_loss(held, found) == 0


@pytest.mark.parametrize("rule", ["euclidean", "surface", "traverse"])
def test_rules_as_distances(rule: Rule) -> None:
    anchors = clicked((4, 6), (4, 25))
    found = relate(XYZ, MASK, anchors, REACH)
    features = torch.randn(len(XYZ), 4, generator=torch.Generator().manual_seed(0))
    probs = torch.full((len(XYZ), 3), 1 / 3)
    distance = hand_distance(rule, found, anchors, features, probs, XYZ, MASK)
    assert distance.shape == (3, len(XYZ))
    assert ((distance >= 0) & (distance <= 1)).all()
    assert distance[[0, 1], anchors.clicks].tolist() == [0, 0]
    assert (distance[2] == distance[2, 0]).all()
    if rule != "traverse":
        inside = image(torch.arange(len(XYZ)))[RIGHT].long()
        assert (distance[1, inside] < distance[0, inside]).all()


def test_no_click_at_all() -> None:
    anchors = clicked()
    found: Relations = relate(XYZ, MASK, anchors, REACH)
    assert found.maps.shape == (0, 6, len(XYZ))
    assert with_sure_pixels(anchors, found, torch.ones(len(XYZ), 3), SurePixelSettings()) is anchors
    for rule in ("euclidean", "traverse"):
        assert hand_distance(rule, found, anchors, torch.ones(len(XYZ), 2), torch.ones(len(XYZ), 3), XYZ, MASK).shape == (
            1,
            len(XYZ),
        )
    assert np.isfinite(float(away_loss(torch.ones(1, len(XYZ)), found)))
