# SPDX-License-Identifier: Apache-2.0
"""Labels for nets on points: a share of the cells of each class, or a number of points of each scan."""

from __future__ import annotations

import numpy as np
import pytest

from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.protocols import SparseConfig, draw_scan

LABELS = LabelMap.load("s3dis")


def scan(cells: int = 400, each: int = 10) -> Scan:
    """Cells of 4 cm, 1 m apart, of `each` points: the first of wall, three of floor, the others of the cell's own class."""
    middle = np.arange(cells, dtype=np.float32)
    xyz = np.zeros((cells * each, 3), np.float32)
    xyz[:, 0] = np.repeat(middle, each) + np.tile(np.linspace(-0.005, 0.005, each), cells)
    own = np.where(middle < cells // 4, 1, 2).astype(np.uint8)  # a quarter ceiling, the others floor
    class_id = np.repeat(own, each).reshape(cells, each)
    class_id[:, 0], class_id[:, 1:4] = 3, 2
    return Scan("a", make_cloud(xyz), class_id.ravel(), None, None)


def test_a_share_of_the_cells_of_each_class_is_labelled_at_a_point_of_that_class() -> None:
    drawn = draw_scan(scan(), LABELS, SparseConfig(protocol="per_class_cell", ratio=0.1, voxel_m=0.04))
    counts = np.bincount(drawn.class_id, minlength=4)
    assert counts[1:4].tolist() == [10, 30, 0]  # 100 cells of ceiling, 300 of floor; no cell is mostly wall
    assert len(np.unique(drawn.clicks // 10)) == 40
    assert set(drawn.clicks[drawn.class_id[drawn.clicks] == 1] % 10) == {4}  # the cell's first point of its class
    per_point = draw_scan(scan(), LABELS, SparseConfig(protocol="per_class", ratio=0.1))
    assert np.count_nonzero(per_point.class_id) == 400  # ten times as many cells


def test_a_number_of_points_whatever_their_classes() -> None:
    config = SparseConfig(protocol="per_scan", points=20, seed=3)
    drawn = draw_scan(scan(), LABELS, config)
    assert np.count_nonzero(drawn.class_id) == 20
    np.testing.assert_array_equal(drawn.class_id, draw_scan(scan(), LABELS, config).class_id)
    assert config.folder_name == "per_scan-20-s3"
    assert np.count_nonzero(draw_scan(scan(1, 10), LABELS, config).class_id) == 10


@pytest.mark.parametrize("protocol", ["per_class_cell", "per_scan"])
def test_a_scan_without_labels_gets_none(protocol: str) -> None:
    empty = Scan("a", make_cloud(np.ones((5, 3))), np.zeros(5, np.uint8), None, None)
    drawn = draw_scan(empty, LABELS, SparseConfig(protocol=protocol))  # type: ignore[arg-type]
    assert not drawn.class_id.any()
