# SPDX-License-Identifier: Apache-2.0
"""The table of 3DResT on ScanRefer, on a small folder in the exact layout of ScanNet and ScanRefer."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import optional
from weakseg_ros.cli import main
from weakseg_ros.data.scanrefer import read_scanrefer
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import DataError
from weakseg_ros.measure.referring import mask_iou
from weakseg_ros.points.cloud import make_cloud

optional("torch")
scenes_of = importlib.import_module("weakseg_ros.benchmark.referring_scenes")
report = importlib.import_module("weakseg_ros.benchmark.referring_report")
table = importlib.import_module("weakseg_ros.benchmark.referring_table")
EncodedScan = importlib.import_module("weakseg_ros.train.referring_data").EncodedScan

NET = ["randlanet.points=64", "randlanet.neighbours=4", "randlanet.ratios=[2, 2]", "net_width=8"]
FEW = ["steps=2", "batch_size=1", "workers=1", "validate_every=0", "accelerator=cpu"]
STEPS = 20


@pytest.fixture(scope="module")
def scannet(tmp_path_factory: pytest.TempPathFactory, layouts: Any) -> Path:
    root = layouts.write_scannet(tmp_path_factory.mktemp("data") / "scannet", ["scene0000_00"], ["scene0011_00"])
    return layouts.write_scanrefer(root, {"train": ["scene0000_00"], "val": ["scene0011_00"]})


def test_the_table_takes_its_first_steps_and_goes_on(scannet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [f"--training.steps={STEPS}", "--training.burn-in=8", "--training.batch=4", "--ratios", "1.0", "0.25"]
    command = ["benchmark", str(scannet), "--config", "scanrefer_3drest", "--out", str(tmp_path), "--methods", "supervised"]
    assert main([*command, *small, "--override", *NET, *FEW]) == 0
    shutil.rmtree(tmp_path / "net" / "bundle")  # as where it is ended between the net's last checkpoint and its export
    assert main([*command, "both", *small, "--override", *NET, *FEW]) == 0
    said = capsys.readouterr().out
    rows = {row["key"]: row for row in map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())}
    assert list(rows) == ["supervised-r1-s1", "supervised-r0.25-s1", "both-r0.25-s1"], "what is finished is not trained again"
    assert [row["masks"] for row in rows.values()] == [12, 3, 3]
    assert all(row["steps"] == STEPS and 0 <= row["miou"] <= row["ceiling"] <= 1 for row in rows.values())
    assert "| both | 1 % | not trained | +8.34 | 3DResT, arXiv 2504.12599, abstract |" in said
    assert "| both | 25 % | " in said
    assert (tmp_path / "benchmark.tex").is_file()
    (scannet / "ScanRefer_filtered_val.json").rename(scannet / "away")
    assert main([*command, "--report-only"]) == 0
    assert main([*command, *small]) == 2
    assert "ScanRefer_filtered_val.json: was not found (looked in" in capsys.readouterr().err
    (scannet / "away").rename(scannet / "ScanRefer_filtered_val.json")


def test_unique_and_multiple_are_told_by_the_owners_rule(tmp_path: Path) -> None:
    """Classes are NYU40's, 17 and all others; an object counts once, by its first description."""
    objects = [("0", "office_chair", "a"), ("0", "office_chair", "b"), ("1", "chair", "c"), ("2", "desk", "d")]
    objects += [("3", "monitor", "e"), ("4", "trash_can", "f"), ("5", "bed", "g"), ("6", "unheard of", "h")]
    rows = [{"scene_id": "s", "object_id": i, "object_name": name, "description": text} for i, name, text in objects]
    rows.append({"scene_id": "t", "object_id": "0", "object_name": "monitor", "description": "alone"})
    (tmp_path / "x.json").write_text(json.dumps(rows))
    categories = {"office chair": 5, "chair": 5, "desk": 14, "monitor": 40, "trash can": 39, "bed": 4}
    found = read_scanrefer(tmp_path / "x.json", categories)
    assert [row.case for row in found] == [
        *("multiple", "multiple", "multiple"),  # an office chair is a chair
        "unique",
        *("multiple", "multiple"),  # a monitor and a trash can are both of the others
        "unique",
        "multiple",
        "unique",
    ]
    assert found[0].confusable == (2,)
    assert found[4].confusable == (5, 7)


def scene() -> tuple[Any, Segmentation, np.ndarray]:
    """Two things that touch, found as one object, and a floor of two segments."""
    xyz = np.array([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [2, 0, 0], [2.1, 0, 0], [3, 1, 0], [3, 1.1, 0], [3, 1.2, 0]], np.float32)
    rgb = np.full((8, 3), 255, np.uint8)
    instance = np.array([1, 1, 1, 0, 0, 0, 0, 0], np.uint16)
    class_id = np.array([2, 2, 1, 1, 1, 1, 1, 1], np.uint8)
    ones = np.ones(8, np.float32)
    empty = np.zeros((1, 8))
    answer = Segmentation(
        class_id=class_id,
        instance_id=instance,
        confidence=ones,
        uncertainty=0 * ones,
        flags=np.zeros(8, np.uint8),
        class_image=empty.astype(np.uint8),
        instance_image=empty.astype(np.uint16),
    )
    return make_cloud(xyz, rgb=rgb), answer, np.array([7, 7, 9, 3, 3, 9, 9, 9])


def test_superpoints_are_objects_and_the_segments_of_the_rest() -> None:
    cloud, answer, segments = scene()
    superpoints, of_point = scenes_of.superpoints_of(cloud, answer, segments, 3)
    assert of_point.tolist() == [0, 0, 0, 2, 2, 1, 1, 1]
    assert superpoints.single.tolist() == [True, False, False]
    np.testing.assert_allclose(superpoints.classes[0], [0, 1 / 3, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(superpoints.centre[2, 0] - superpoints.centre[0, 0], 1.95, atol=1e-5)
    np.testing.assert_allclose(superpoints.features, 0.5)
    np.testing.assert_allclose(superpoints.around.sum(axis=1), 1)


def test_the_iou_is_that_over_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the truth has 2 points, the superpoint 3; both share 2, so that IoU is 2/3, and Acc@0.5 counts it."""
    cloud, answer, segments = scene()
    superpoints, of_point = scenes_of.superpoints_of(cloud, answer, segments, 3)
    truth = np.array([5, 5, 0, 0, 0, 6, 6, 6], np.uint16)
    encoded = EncodedScan.counted(superpoints, of_point, truth)
    for chosen in ([True, False, False], [True, True, False], [False, False, True]):
        mask = np.array(chosen)[of_point]
        for target in (5, 6):
            assert encoded.iou(np.array(chosen), (target,)) == pytest.approx(mask_iou(mask, truth == target), abs=1e-6)
    assert encoded.iou(np.array([True, False, False]), (5,)) == pytest.approx(2 / 3)
    monkeypatch.setattr(scenes_of, "MOST", 1)
    superpoints, of_point = scenes_of.superpoints_of(cloud, answer, segments, 3)
    assert of_point.tolist() == [0, 0, 0, -1, -1, -1, -1, -1]
    assert EncodedScan.counted(superpoints, of_point, truth).iou(np.array([True]), (6,)) == 0.0


def test_scenes_that_are_described_must_be_there(scannet: Path, tmp_path: Path) -> None:
    rows = [{"scene_id": "scene0707_00", "object_id": "1", "object_name": "chair", "description": "a chair"}]
    for split in ("train", "val"):
        (tmp_path / f"ScanRefer_filtered_{split}.json").write_text(json.dumps(rows))
    expressions = scenes_of.descriptions_of(scannet, tmp_path)
    with pytest.raises(DataError, match=r"lacks 1 of the 1 scene that are described \(scene0707_00\)"):
        scenes_of.open_scenes(scannet, expressions, None)
