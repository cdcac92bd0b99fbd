# SPDX-License-Identifier: Apache-2.0
"""The method: a street is learned by heart from one click per object, the ladder, odd batches, and a training from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from support.toy_labels import CAR, LABELS, PERSON, ROAD
from weakseg_ros.batches.batches import Batch
from weakseg_ros.cli import main
from weakseg_ros.config import load_yaml
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.methods.combined import Combined, build_method
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.methods.objects.relations import relate
from weakseg_ros.methods.point_panoptic import PointPanoptic
from weakseg_ros.methods.settings import Coarse3dSettings, ErdaSettings, PointPanopticSettings, SupervisedSettings
from weakseg_ros.methods.supervised import Supervised
from weakseg_ros.nets.light import LightNet
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.click_segmenter import ClickSegmenter
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.run_folder import STATISTICS
from weakseg_ros.train.session import make_method
from weakseg_ros.train.survey import DataStatistics
from weakseg_ros.train.train import train
from weakseg_ros.weak.masks_by_rule import ClickSettings, segment_from_clicks
from weakseg_ros.weak.protocols import SparseConfig

SURE = "point_panoptic.sure_pixels"
HEIGHT, WIDTH = 16, 96
SPEC = RangeSpec(HEIGHT, WIDTH, fov_up_deg=5.0, fov_down_deg=-25.0)
OBJECTS = ((CAR, 5, 20, 8.0), (CAR, 24, 38, 8.0), (CAR, 34, 48, 14.0), (PERSON, 55, 59, 6.0), (PERSON, 60, 64, 7.0))
"""class, first and last column, distance in m; the third car is half hidden by the second"""


def street() -> tuple[Tensor, Tensor, Tensor]:
    """Places (3, H, W) m, class and object of each pixel (H, W): boards that stand around the sensor on a plane."""
    up = np.radians(5.0 - (np.arange(HEIGHT) + 0.5) * 30.0 / HEIGHT)[:, None]
    azimuth = np.pi - (np.arange(WIDTH) + 0.5) * 2 * np.pi / WIDTH
    distance = np.broadcast_to(np.where(up < -0.02, 1.7 / np.sin(np.maximum(-up, 0.02)), 0.0), (HEIGHT, WIDTH)).copy()
    class_id, thing = np.where(distance > 0, ROAD, 0), np.zeros((HEIGHT, WIDTH), int)
    for number, (kind, first, last, away) in enumerate(OBJECTS, 1):
        board = np.zeros((HEIGHT, WIDTH), bool)
        board[3:12, first:last] = True
        board &= (distance == 0) | (distance > away)
        distance[board], class_id[board], thing[board] = away, kind, number
    seen = (distance > 0) & (distance < 60)
    ray = np.stack([np.cos(up) * np.cos(azimuth), np.cos(up) * np.sin(azimuth), np.sin(up) * np.ones(WIDTH)])
    xyz = torch.from_numpy(ray * distance * seen).float()
    return xyz, torch.from_numpy(class_id * seen), torch.from_numpy(thing * seen)


XYZ, CLASS_ID, THING = street()
MASK = CLASS_ID > 0


def batch_of(labels: Tensor, scans: int = 1) -> Batch:
    image = torch.cat((XYZ / 10, XYZ.norm(dim=0, keepdim=True) / 10, MASK[None].float()))
    return Batch(*(t[None].expand(scans, *t.shape).clone() for t in (image, labels, MASK, XYZ)))


def sparse_labels(seed: int = 0) -> Tensor:
    """One click on each object and 8 labels on the road."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros_like(CLASS_ID)
    for number in range(1, len(OBJECTS) + 1):
        row, col = (THING == number).nonzero()[torch.randint(int((THING == number).sum()), (1,), generator=generator)][0]
        labels[row, col] = CLASS_ID[row, col]
    road = (CLASS_ID == ROAD).nonzero()
    rows, cols = road[torch.randperm(len(road), generator=generator)[:8]].T
    labels[rows, cols] = ROAD
    return labels


def made(**changes: Any) -> tuple[LightNet, PointPanoptic]:
    torch.manual_seed(0)
    net = LightNet(5, LABELS.num_classes, width=16)
    small = {"branch_width": 32, "branch_heads": 4, "branch_ffn": 32, "tie_pairs": 3000, "branch_gradient": 1.0}
    return net, PointPanoptic(PointPanopticSettings(**{**small, **changes}), task_of(net))


def task_of(net: LightNet, protocol: str = "full") -> Task:
    return Task(net, torch.tensor([99, 3, 2, 8]), LABELS, SupervisedSettings(), protocol)


def with_supervised(method: PointPanoptic, net: LightNet) -> Combined:
    return Combined({"supervised": Supervised(SupervisedSettings(), task_of(net)), "point_panoptic": method})


def learned(steps: int, **changes: Any) -> tuple[LightNet, PointPanoptic, Batch]:
    net, method = made(**changes)
    batch, whole = batch_of(sparse_labels()), with_supervised(method, net)
    optimizer = torch.optim.AdamW([*net.parameters(), *method.parameters()], 5e-3)
    for step in range(steps):
        total = torch.stack(list(whole.losses(batch, net(batch.image), step / steps).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return net, method, batch


def mask_iou(found: Tensor, true: Tensor) -> list[float]:
    return [float(((found == n) & (true == n)).sum() / ((found == n) | (true == n)).sum()) for n in range(1, len(OBJECTS) + 1)]


def in_click_order(batch: Batch) -> Tensor:
    """(P,) the true objects, numbered as their clicks follow each other in the image."""
    clicked = THING[(batch.labels[0] > 0) & (THING > 0)]
    number = torch.zeros(len(OBJECTS) + 1, dtype=torch.long)
    number[clicked] = torch.arange(1, len(clicked) + 1)
    return number[THING[MASK]]


@pytest.mark.slow
def test_a_street_is_learned_by_heart_from_one_click_per_object() -> None:
    net, method, batch = learned(120, rounds=1)
    with torch.no_grad():
        (scan,) = method._scans(batch, net(batch.image))
        distance = scan.distances[-1]
    own = distance[scan.anchors.owner, scan.anchors.pixel]
    assert own.max() < 0.1
    (found,) = method.pseudo_labels(batch, net(batch.image))
    truth = in_click_order(batch)
    assert np.mean(mask_iou(found.instance, truth)) > 0.5


@pytest.mark.slow
def test_the_geometric_prior_spreads_a_click_and_rounds_spread_it_farther() -> None:
    ious = []
    for changes in ({"tie_weight": 0.0, "rounds": 1}, {"tie_weight": 3.0, "rounds": 0}, {"tie_weight": 3.0, "rounds": 3}):
        net, method, batch = learned(80, metric=False, sure_weight=0.0, class_power=1.0, stage_one=1.0, **changes)
        (found,) = method.pseudo_labels(batch, net(batch.image))
        ious.append(np.mean(mask_iou(found.instance, in_click_order(batch))))
    assert ious == sorted(ious)  # 0.41, 0.60, 0.69


def test_a_scan_without_labels_and_one_without_clicks() -> None:
    net, method = made()
    road_only = torch.where(sparse_labels() == ROAD, ROAD, 0)
    for labels, count in ((torch.zeros_like(CLASS_ID), 0), (road_only, 1)):
        batch = batch_of(labels)
        losses = method.losses(batch, net(batch.image), 0.0)
        assert all(torch.isfinite(value) for value in losses.values())
        found = method.pseudo_labels(batch, net(batch.image))
        assert len(found) == count
        assert all(not labels.instance.any() for labels in found)


def test_hundreds_of_clicks_and_half_precision() -> None:
    net, method = made(max_clicks=300)
    batch = batch_of(torch.where(MASK, CAR, 0), scans=2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(batch, net(batch.image), 0.0)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    found = method.pseudo_labels(batch, net(batch.image))
    assert [int(labels.instance.max()) for labels in found] == [300, 300]


def test_the_map_says_which_classes_are_objects_and_how_large() -> None:
    _, method = made()
    assert torch.equal(method.things, torch.tensor([False, True, True, False]))
    assert method.radius_m.tolist() == [0.0, 3.5, 1.0, 0.0]
    assert "things" in method.state_dict()


@pytest.mark.parametrize("without", [{"rounds": 0}, {"aggregate": False}, {"enhance": False}])
def test_every_parameter_of_a_ladder_row_is_trained(without: dict[str, Any]) -> None:
    net, method = made(**without)
    batch = batch_of(sparse_labels())
    torch.stack(list(method.losses(batch, net(batch.image), 1.0).values())).sum().backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_share_of_the_branchs_gradient_reaches_the_net(share: float) -> None:
    gradients = []
    for part in (1.0, share):
        net, method = made(branch_gradient=part)
        batch = batch_of(sparse_labels())
        losses = method.losses(batch, net(batch.image), 0.0)
        torch.stack([losses["distance"], losses["assignment"]]).sum().backward()
        gradients.append(net.stem[0].weight.grad.clone())
    torch.testing.assert_close(gradients[1], share * gradients[0], rtol=1e-3, atol=1e-6)


def test_pseudo_labels_teach_from_stage_two_on() -> None:
    net, method = made(stage_one=0.4, stage_ramp=0.2)
    batch = batch_of(sparse_labels())
    first, ramp, second = (method.losses(batch, net(batch.image), progress) for progress in (0.39, 0.5, 0.9))
    assert not {"centre", "offset", "pseudo"} & first.keys()
    assert first["head"] == 0
    assert {"centre", "offset", "pseudo", "distance", "sure_pixels"} < second.keys()
    assert 0 < ramp["pseudo"] < second["pseudo"]


@pytest.mark.parametrize("changes", [{"distance": "euclidean"}, {"distance": "traverse"}, {"truth_instances": True}])
def test_rows_without_a_learned_distance_train_the_same_head(changes: dict[str, Any]) -> None:
    net, method = made(**changes)
    assert method.branch is None
    truth = changes.get("truth_instances", False)
    batch = replace(batch_of(CLASS_ID if truth else sparse_labels()), instances=THING[None] if truth else None)
    losses = method.losses(batch, net(batch.image), 1.0)
    assert "distance" not in losses
    assert losses["centre"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert ("pseudo" in losses) != truth


def test_permuted_clicks_permute_the_masks_and_no_pixel_has_two() -> None:
    net, method, batch = learned(12, rounds=1, stage_one=1.0)
    with torch.no_grad():
        (scan,) = method._scans(batch, net(batch.image))
        order = torch.tensor([3, 0, 4, 2, 1, 5])
        place = order.argsort()
        anchors = ClickAnchors(
            scan.anchors.classes[order], scan.anchors.things[order], scan.anchors.pixel, place[scan.anchors.owner]
        )
        relations = relate(scan.xyz, scan.mask, anchors, method.settings.reach * method.radius_m)
        ours = method._estimate(scan).instance
        theirs = method._estimate(replace(scan, anchors=anchors, relations=relations)).instance
    number = torch.cat((torch.zeros(1, dtype=torch.long), place[:5] + 1))
    assert torch.equal(number[ours], theirs)
    assert len(ours.unique()) == 6


def test_together_with_semantic_weak_supervision() -> None:
    net, batch = LightNet(5, LABELS.num_classes, width=16), batch_of(sparse_labels())
    branch = {"branch_width": 16, "branch_heads": 4, "branch_ffn": 16, "tie_pairs": 500}
    own = {"distance", "assignment", "sure_pixels", "tie", "centre", "offset", "pseudo"}
    own = {"supervised.focal", "supervised.lovasz", *(f"point_panoptic.{loss}" for loss in own)}
    settings = {
        "supervised": SupervisedSettings(),
        "erda": ErdaSettings(),
        "coarse3d": Coarse3dSettings(),
        "point_panoptic": PointPanopticSettings(**branch),
    }
    extra = {"erda": {"erda.alignment"}, "coarse3d": {"coarse3d.contrast"}}
    extra["erda+coarse3d"] = extra["erda"] | extra["coarse3d"]
    for name, more in extra.items():
        method = build_method(f"{name}+point_panoptic", settings, task_of(net))
        assert method.losses(batch, net(batch.image), 0.9).keys() == own | more
        assert {"centre", "offset"} <= set(method.deployable().outputs)


def write_scans(folder: Path, count: int = 3) -> None:
    usable = MASK.flatten().numpy()
    xyz = XYZ.flatten(1).T.numpy()[usable]
    raw = LABELS.to_raw(CLASS_ID.flatten().numpy()[usable]).astype(np.uint32)
    raw |= (THING.flatten().numpy()[usable] << 16).astype(np.uint32)
    with ScanWriter(folder, LABELS, SPEC, source="test", seed=0, intensity_full_scale=1.0) as writer:
        for _ in range(count):
            writer.write(make_cloud(xyz, np.zeros(len(xyz))), raw)


def config_of(folder: Path) -> TrainConfig:
    return TrainConfig(
        data=folder / "scans",
        out=folder / "run",
        draw=SparseConfig(protocol="per_instance", ratio=0.01),
        method="point_panoptic",
        point_panoptic=PointPanopticSettings(branch_width=16, branch_heads=4, branch_ffn=16, tie_pairs=500),
        net_width=16,
        steps=6,
        warmup_steps=1,
        batch_size=2,
        hold_out=0.0,
        validate_every=0,
        log_every=1,
        accelerator="cpu",
        precision="32-true",
    )


@pytest.mark.slow
def test_it_trains_from_files_with_clicks_drawn_per_object(tmp_path: Path, mask_quality: ModuleType) -> None:
    write_scans(tmp_path / "scans")
    config = config_of(tmp_path)
    rows = [row for row in train(config).metrics() if "point_panoptic.distance" in row]
    assert len(rows) == 6
    assert rows[-1]["point_panoptic.distance"] < rows[0]["point_panoptic.distance"]
    quality = mask_quality.judge_run(tmp_path / "run", 2)
    assert {name: len(values) for name, values in quality.by_class.items()} == {"car": 6, "person": 4}
    assert 0 < quality.mean < 1
    check_clicks_of_run(tmp_path / "run")
    resumed = train(replace(config, out=tmp_path / "half"), stop_at=3)
    assert train(replace(config, out=resumed.path, resume=True)).metrics()[-1]["loss"] == pytest.approx(rows[-1]["loss"])


@pytest.mark.parametrize(
    ("stated", "protocol", "expected"),
    [
        (None, "per_instance", True),
        (None, "voxel", False),
        (None, "full", False),
        (False, "per_instance", False),
        (True, "voxel", True),
    ],
)
def test_clicks_drawn_on_every_object_say_where_none_is(stated: bool | None, protocol: str, expected: bool) -> None:
    net = LightNet(5, LABELS.num_classes, width=16)
    method = PointPanoptic(PointPanopticSettings(all_clicked=stated), task_of(net, protocol))
    assert method.settings.all_clicked is expected


@pytest.mark.parametrize("head", ["centre", "query"])
def test_mixed_precision_keeps_places_exact(tmp_path: Path, head: str) -> None:
    write_scans(tmp_path / "scans")
    config = config_of(tmp_path)
    head_first = replace(config.point_panoptic, head=head, stage_one=0.2)
    config = replace(config, precision="bf16-mixed", point_panoptic=head_first, steps=4)
    exact = train(replace(config, precision="32-true", out=tmp_path / "exact")).metrics()
    rows = [row for row in train(config).metrics() if SURE in row]
    assert len(rows) == 4
    first = next(row for row in exact if SURE in row)
    assert rows[0][SURE] == pytest.approx(first[SURE], rel=0.02)


def test_stored_clicks_on_every_object_say_so_too(tmp_path: Path) -> None:
    write_scans(tmp_path / "scans")
    assert main(["sparse", str(tmp_path / "scans"), "--protocol", "per_instance", "--ratio", "0.01"]) == 0
    (stored,) = (tmp_path / "scans" / "sparse").iterdir()
    config = replace(config_of(tmp_path), draw=SparseConfig(protocol="full"), sparse_labels=stored)
    net = LightNet(5, LABELS.num_classes, width=16)
    statistics = load_yaml(DataStatistics, train(config, stop_at=1).path / STATISTICS)
    method = make_method(config, net, statistics, LABELS).part(PointPanoptic)
    assert method is not None
    assert method.settings.all_clicked


def check_clicks_of_run(run: Path) -> None:
    """Masks from clicks by what the run learned: by rule without it, permuted with the clicks, for any number of them."""
    usable = MASK.flatten().numpy()
    cloud = make_cloud(XYZ.flatten(1).T.numpy()[usable], np.zeros(usable.sum()))
    thing, class_id = THING[MASK].numpy(), CLASS_ID[MASK].numpy()
    segmenter, rule = ClickSegmenter(run), ClickSegmenter()
    assert segmenter.learned
    assert not rule.learned
    clicks = np.array([np.flatnonzero(thing == n)[2] for n in range(1, 6)])
    ours = segmenter.segment(cloud, clicks, class_id[clicks], LABELS, SPEC)
    assert ours[clicks].tolist() == [0, 1, 2, 3, 4]
    order = np.array([2, 4, 0, 1, 3])
    theirs = segmenter.segment(cloud, clicks[order], class_id[clicks[order]], LABELS, SPEC)
    np.testing.assert_array_equal(np.append(order, -1)[theirs], ours)
    foreign = LabelMap("other", (*LABELS.classes[:2], replace(LABELS.classes[2], name="walker"), LABELS.classes[3]))
    mixed = segmenter.segment(cloud, clicks, class_id[clicks], foreign, SPEC)  # cars as learned, walkers by rule
    cars_alone = segmenter.segment(cloud, clicks[:3], class_id[clicks[:3]], LABELS, SPEC)
    np.testing.assert_array_equal(mixed[cars_alone >= 0], cars_alone[cars_alone >= 0])
    assert set(mixed.tolist()) == {-1, 0, 1, 2, 3, 4}
    by_rule = rule.segment(cloud, clicks, class_id[clicks], LABELS, SPEC)
    np.testing.assert_array_equal(by_rule, segment_from_clicks(cloud, clicks, class_id[clicks], LABELS, SPEC))
    none = segmenter.segment(cloud, np.zeros(0, np.int64), np.zeros(0, np.int64), LABELS, SPEC)
    assert (none == -1).all()
    few = replace(cloud, **{name: getattr(cloud, name)[:3] for name in ("xyz", "intensity", "flags")}, height=1, width=3)
    assert segmenter.segment(few, np.array([1]), np.array([CAR]), LABELS, SPEC)[1] == 0
    small = segmenter.segment(cloud, clicks, class_id[clicks], LABELS, SPEC, ClickSettings(reach=0.1))
    assert 0 < (small >= 0).sum() < (ours >= 0).sum()
    posts, owner = two_people_in_one_column()
    clicked = np.array([np.flatnonzero(owner == 0)[2], np.flatnonzero(owner == 1)[2]])
    fine = segmenter.segment(posts, clicked, np.array([PERSON, PERSON]), LABELS, replace(SPEC, width=4 * WIDTH))
    np.testing.assert_array_equal(fine, owner)  # however coarse the image that the net was trained on
    many = np.flatnonzero(thing > 0)[:300]
    found = segmenter.segment(cloud, many, class_id[many], LABELS, SPEC)
    np.testing.assert_array_equal(found[many], np.arange(len(many)))


def two_people_in_one_column() -> tuple[Cloud, NDArray[np.int64]]:
    """Two people at 6 and 9 m in the same column of SPEC, half of it each, over a floor; and whose each point is, -1 = floor."""
    up = np.radians(5.0 - (np.arange(4, 9) + 0.5) * 30.0 / HEIGHT)
    azimuth = np.pi - (WIDTH // 2 + np.array([0.125, 0.625])) * 2 * np.pi / WIDTH
    ray = np.stack(np.broadcast_arrays(np.cos(azimuth)[:, None], np.sin(azimuth)[:, None], np.tan(up)), axis=2)
    xyz = (ray * np.array([6.0, 9.0])[:, None, None]).reshape(-1, 3)
    floor = np.stack(np.meshgrid(np.arange(5.0, 11.0, 0.5), np.arange(-2.0, 2.0, 0.5), xyz[:, 2].min() - 0.5), axis=-1)
    places = np.concatenate((xyz, floor.reshape(-1, 3)))
    return make_cloud(places, np.zeros(len(places))), np.repeat([0, 1, -1], [len(up), len(up), floor.size // 3])
