# SPDX-License-Identifier: Apache-2.0
"""Both panoptic heads: what they are taught by hand, that they learn it, and that the exported ones answer alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support import optional
from support.toy_labels import CAR, LABELS, PERSON, ROAD
from weakseg_ros.batches.batches import Batch
from weakseg_ros.deploy.bundle import BundleInfo, NetRule
from weakseg_ros.deploy.engines.torch import rules_of
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.deploy.grouping import group_centres
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.objects.centre_losses import along_ray, centre_losses
from weakseg_ros.methods.objects.matching import objects_of, query_head_losses
from weakseg_ros.methods.objects.pseudo_masks import PseudoLabels
from weakseg_ros.methods.objects.targets import Targets, head_losses, outside_loss, pseudo_targets, true_targets
from weakseg_ros.methods.settings import QuerySettings
from weakseg_ros.nets.heads.centres import CentreHead
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.heads.queries import QueryHead
from weakseg_ros.nets.light import LightNet
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.projection import RangeSpec, project

THINGS, RADIUS = torch.tensor([False, True, True, False]), torch.tensor([0.0, 3.5, 1.0, 0.0])
HEIGHT, WIDTH = 16, 64
SMALL = QuerySettings(queries=12, query_width=16, query_heads=2, query_layers=2)


def scene() -> tuple[Batch, Tensor]:
    """Two scans of a road with three boxes each, and the objects (B, H, W)."""
    azimuth = torch.linspace(np.pi, -np.pi, WIDTH + 1)[:-1]
    ray = torch.stack((azimuth.cos(), azimuth.sin(), torch.zeros(WIDTH)))[:, None].expand(3, HEIGHT, WIDTH)
    labels = torch.full((2, HEIGHT, WIDTH), ROAD)
    objects, distance = torch.zeros_like(labels), torch.full((2, HEIGHT, WIDTH), 15.0)
    for scan in range(2):
        for number, (kind, left) in enumerate(((CAR, 5), (CAR, 12), (PERSON, 40)), 1):
            cols = slice(left + 9 * scan, left + 9 * scan + (5 if kind == CAR else 2))
            labels[scan, 4:10, cols], objects[scan, 4:10, cols] = kind, number + 3 * scan
            distance[scan, 4:10, cols] = 8.0
    xyz = ray[None] * distance[:, None]
    image = torch.cat((xyz / 10, (labels == ROAD)[:, None].float(), distance[:, None] / 10), dim=1)
    return Batch(image, labels, torch.ones_like(labels, dtype=torch.bool), xyz, objects), objects


def made(kind: str) -> tuple[LightNet, nn.Module]:
    torch.manual_seed(0)
    net = LightNet(5, 4, width=16)
    head = CentreHead(net.feature_channels) if kind == "centre" else QueryHead(net.feature_channels, net.stage_channels, 4, SMALL)
    return net, head


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["centre", "query"])
def test_a_head_learns_the_objects_of_two_scans(kind: str) -> None:
    net, head = made(kind)
    batch, _ = scene()
    targets, optimizer = true_targets(batch, THINGS), torch.optim.AdamW([*net.parameters(), *head.parameters()], 5e-3)
    history = []
    for _ in range(40):
        losses = head_losses(head, batch, net(batch.image), targets, THINGS, RADIUS, SMALL)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert not [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert np.mean(history[-5:]) < 0.5 * history[0]
    net.eval(), head.eval()
    with torch.no_grad():
        ours, theirs = head(net(batch.image)), head(net(batch.image.flip(0)))
    for name, a, b in zip(head.outputs, ours, theirs, strict=True):
        assert not torch.allclose(a, b, atol=1e-3), name
        torch.testing.assert_close(a, b.flip(0), rtol=1e-3, atol=1e-3)


def test_perfect_centres_cost_nothing_and_become_the_objects_again() -> None:
    batch, objects = scene()
    assert batch.xyz is not None
    inside = objects > 0
    place = batch.xyz.permute(0, 2, 3, 1)[inside][:, :2]
    wanted = torch.stack([place[objects[inside] == n].mean(dim=0) for n in objects[inside]]) - place
    heat, offset = torch.zeros(objects.shape), torch.zeros(2, 2, HEIGHT, WIDTH)
    radius = RADIUS[batch.labels]
    heat[inside] = torch.exp(-(wanted**2).sum(dim=1) / (2 * (0.4 * radius[inside]) ** 2))
    offset.permute(0, 2, 3, 1)[inside] = along_ray(wanted, place)
    losses = centre_losses((heat, offset), objects, batch.xyz, radius)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx({"centre": 0, "offset": 0}, abs=1e-6)
    assert centre_losses((heat, -offset), objects, batch.xyz, radius)["offset"] > 0.05
    spec = RangeSpec(HEIGHT, WIDTH, fov_up_deg=10.0, fov_down_deg=-10.0)
    cloud = make_cloud(batch.xyz[0, :, 7].T.numpy())  # one row of the image
    view = project(cloud, spec)
    planes = {"class": batch.labels, "heat": heat, "offset": offset.permute(0, 2, 3, 1), "objects": objects}
    seen = {name: np.zeros((HEIGHT, WIDTH, *plane.shape[3:]), plane[0].numpy().dtype) for name, plane in planes.items()}
    for name, plane in planes.items():
        held = view.point_of_pixel >= 0
        seen[name][held] = plane[0, 7].numpy()[view.point_of_pixel[held]]
    offsets = np.ascontiguousarray(seen["offset"].transpose(2, 0, 1))
    classes = seen["class"].astype(np.uint8)
    found = group_centres(classes, cloud.xyz, view, seen["heat"], offsets, RADIUS.numpy())
    pairs = {(int(a), int(b)) for a, b in zip(found[found > 0], seen["objects"][found > 0], strict=True)}
    assert len({b for _, b in pairs}) == len(pairs) >= 2


def test_objects_for_the_queries_by_hand() -> None:
    instance = torch.tensor([0, 7, 7, 0, 9, 0, 0])
    class_id = torch.tensor([ROAD, CAR, CAR, CAR, PERSON, 0, ROAD])
    objects = objects_of(instance, class_id, THINGS)
    assert objects.classes.tolist() == [CAR - 1, PERSON - 1, ROAD - 1]
    assert objects.masks.tolist() == [[0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1]]
    nothing = objects_of(torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long), THINGS)
    assert nothing.masks.shape == (0, 3)


def test_renumbered_objects_and_scans_without_any_are_no_trouble_to_the_queries() -> None:
    net, head = made("query")
    assert isinstance(head, QueryHead)
    batch, objects = scene()
    answers = head.every_answer(net(batch.image))
    ours = query_head_losses(answers, objects, batch.labels, THINGS, SMALL)
    theirs = query_head_losses(answers, torch.where(objects > 0, 50 - objects, 0), batch.labels, THINGS, SMALL)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])
    empty = query_head_losses(answers, torch.zeros_like(objects), torch.zeros_like(objects), THINGS, SMALL)
    assert all(torch.isfinite(value) for value in empty.values())
    assert empty["query_mask"] == 0


def test_pseudo_targets_keep_scans_apart_and_labels_as_they_are() -> None:
    batch, _ = scene()
    every_third = (torch.arange(HEIGHT * WIDTH) % 3 == 0).view(HEIGHT, WIDTH)
    labels = batch.labels * (torch.arange(WIDTH) % 8 == 0)
    batch = replace(batch, labels=labels)
    found = PseudoLabels(torch.arange(HEIGHT * WIDTH) % 3, torch.full((HEIGHT * WIDTH,), PERSON), every_third.flatten())
    targets = pseudo_targets(batch, [(0, found), (1, found)])
    assert targets.instances[0].unique().tolist() == [0, 1, 2]
    assert targets.instances[1].unique().tolist() == [0, 3, 4]
    assert torch.equal(targets.class_id[1], torch.where(labels[1] > 0, labels[1], PERSON))
    assert torch.equal(targets.outside[1], every_third & (labels[1] == 0))
    alone = pseudo_targets(batch, [(1, found)])
    assert not alone.instances[0].any()
    assert not alone.outside[0].any()  # a scan without labels says nothing
    assert torch.equal(alone.class_id[0], labels[0])


def test_one_number_in_two_classes_is_two_objects() -> None:
    batch, objects = scene()
    same = replace(batch, instances=(objects > 0).long())  # cars and person of a scan share their number
    numbers = true_targets(same, THINGS).instances
    assert len(numbers[(objects > 0) & (batch.labels == CAR)].unique()) == 1
    assert len(numbers[objects > 0].unique()) == 2
    assert not numbers[batch.labels == ROAD].any()


def test_queries_learn_nothing_from_a_scan_of_which_nothing_is_known() -> None:
    batch, _ = scene()
    net, head = made("query")
    answers = head.every_answer(net(batch.image))
    nothing = torch.zeros_like(batch.labels[:1])
    silent = query_head_losses([(c[:1], m[:1]) for c, m in answers], nothing, nothing, THINGS, SMALL)
    assert {name: value.item() for name, value in silent.items()} == {"query_class": 0.0, "query_mask": 0.0, "query_dice": 0.0}
    silent["query_class"].backward()  # yet every parameter has a gradient, of zero


def test_what_looks_like_a_thing_outside_all_objects_pays_for_it() -> None:
    probs = torch.tensor([0.0, 0.3, 0.2, 0.5]).view(1, 4, 1, 1).expand(1, 4, 1, 4).clone()
    probs[0, :, 0, 1] = torch.tensor([0.0, 0.9, 0.0, 0.1])
    outside = torch.tensor([[[True, False, True, False]]])
    known = torch.tensor([[[0, 0, ROAD, 0]]])  # the third is taught its class by another loss
    targets = Targets(torch.zeros(1, 1, 4, dtype=torch.long), known, outside)
    assert outside_loss(probs, targets, THINGS).item() == pytest.approx(-np.log(0.5))
    assert outside_loss(probs, Targets(targets.instances, known, outside & False), THINGS).item() == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["centre", "query"])
def test_the_exported_head_answers_as_torch_does(kind: str) -> None:
    optional("onnxscript")
    from weakseg_ros.train.onnx_file import compare, export_onnx

    net, head = made(kind)
    batch, _ = scene()
    net(batch.image)
    spec = RangeSpec(HEIGHT, WIDTH, fov_up_deg=10.0, fov_down_deg=-10.0)
    told = plain_spec(spec, ("x", "y", "z", "intensity", "range"), IntensityRule(False))
    heads = Heads([head])
    info = BundleInfo(name="t", input=told, labels=LABELS, net=NetRule("light", {"width": 16}), heads=rules_of(heads))
    graph = DeployGraph(net, 4, 1.0, heads).eval()
    parity = compare(graph, export_onnx(graph, info), batch.image.numpy())
    assert parity["class_agreement"] > 0.999
    assert max(parity[f"{name}_difference"] for name in head.outputs) < 1e-3


def test_query_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="not a multiple"):
        QuerySettings(query_width=10, query_heads=4)


def test_a_net_without_objects_in_a_batch_teaches_nothing() -> None:
    net, head = made("centre")
    batch, objects = scene()
    out: NetOutput = net(batch.image)
    losses = head_losses(
        head, batch, out, true_targets(Batch(batch.image, batch.labels, batch.mask), THINGS), THINGS, RADIUS, SMALL
    )
    assert all(value == 0 for value in losses.values())
    assert objects.any()
