# SPDX-License-Identifier: Apache-2.0
"""Labels as a number of points of each scan, whatever their classes."""

from __future__ import annotations

import numpy as np

from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.protocols import SparseConfig, draw_scan

LABELS = LabelMap.load("s3dis")


def scan(points: int, labelled: int) -> Scan:
    xyz = np.random.default_rng(1).uniform(1, 5, (points, 3))
    return Scan("a", make_cloud(xyz), (np.arange(points) < labelled).astype(np.uint8) * 3, None, None)


def test_so_many_labelled_points_are_kept() -> None:
    config = SparseConfig(protocol="per_scan", points=20, seed=3)
    drawn = draw_scan(scan(500, 300), LABELS, config)
    assert np.bincount(drawn.class_id).tolist() == [480, 0, 0, 20]
    assert drawn.clicks.max() < 300
    np.testing.assert_array_equal(drawn.class_id, draw_scan(scan(500, 300), LABELS, config).class_id)
    assert config.folder_name == "per_scan-20-s3"


def test_a_scan_with_fewer_keeps_all_of_them() -> None:
    config = SparseConfig(protocol="per_scan")
    assert np.count_nonzero(draw_scan(scan(50, 7), LABELS, config).class_id) == 7
    assert not draw_scan(scan(50, 0), LABELS, config).class_id.any()
