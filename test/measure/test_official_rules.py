# SPDX-License-Identifier: Apache-2.0
"""The evaluation rules of S3DIS, ScanNet and SensatUrban on cases worked out by hand: every raw point counts, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.scans import open_scans
from weakseg_ros.measure.metrics import ConfusionMatrix


def judged(scans: ScanSet, answer: str) -> ConfusionMatrix:
    """What a model that gives every point the same class gets."""
    matrix = ConfusionMatrix(scans.labels.num_classes)
    for scan in (scans[i] for i in range(len(scans))):
        assert scan.class_id is not None
        matrix.add(np.full(len(scan.cloud), scans.labels.id_of(answer)), scan.class_id)
    return matrix


def test_s3dis_area_5_is_the_mean_of_13_classes_over_its_raw_points(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_s3dis(tmp_path, ["Area_1/office_1", "Area_5/office_1", "Area_5/hallway_1"])
    matrix = judged(open_scans(root, "val"), "wall")
    # two rooms of 9 objects of 40 points, 3 of them walls: 240 hits, 480 false alarms
    assert matrix.iou[3] == pytest.approx(240 / 720)
    assert matrix.miou == pytest.approx(240 / 720 / 13)


def test_six_folds_add_up_their_points_before_the_mean(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_s3dis(tmp_path, ["Area_1/office_1", "Area_2/office_1", "Area_2/office_2"])
    folds = [judged(open_scans(root, sequences=[area]), answer) for area, answer in (("Area_1", "wall"), ("Area_2", "floor"))]
    total = sum(folds, ConfusionMatrix(14))
    # walls: 120 hits in Area 1, 240 false alarms there and 240 missed in Area 2; floors: 80 hits, 640 false alarms, 40 missed
    assert total.iou[3] == pytest.approx(120 / 600)
    assert total.iou[2] == pytest.approx(80 / 760)
    assert total.miou == pytest.approx((120 / 600 + 80 / 760) / 13)


def test_scannet_leaves_out_what_its_benchmark_leaves_out(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_scannet(tmp_path, ["scene0000_00"], ["scene0011_00"])
    matrix = judged(open_scans(root, "val"), "chair")
    # wall, floor and shower curtain of 20 vertices each, two chairs; the monitor and 10 vertices of no object do not count
    assert matrix.iou[5] == pytest.approx(40 / 100)
    assert matrix.miou == pytest.approx(40 / 100 / 20)


def test_sensaturban_counts_its_class_0(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_sensaturban(tmp_path, ["birmingham_block_0", "birmingham_block_1"], points=130)
    matrix = judged(open_scans(root, "val"), "ground")
    assert matrix.miou == pytest.approx(10 / 130 / 13)
