# SPDX-License-Identifier: Apache-2.0
"""A click labels what lies around it, the nearer click wins, and nothing else changes."""

from __future__ import annotations

import numpy as np

from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.weak.neighbourhood import SpreadScans, spread_labels

LABELS = LabelMap.load("street")


def test_the_nearest_click_within_the_radius_counts() -> None:
    x = np.array([10.0, 10.2, 10.35, 10.6, 11.0, 12.0, 10.1])
    xyz = np.column_stack((x, np.zeros(7), np.zeros(7)))
    xyz[6] = np.nan
    class_id = np.array([1, 0, 0, 2, 0, 0, 0], np.uint8)
    source = spread_labels(make_cloud(xyz), class_id, 0.25)  # 0.325 m at 10 m
    assert source.tolist() == [0, 0, 3, 3, -1, -1, -1]
    assert class_id.tolist() == [1, 0, 0, 2, 0, 0, 0], "the input is unchanged"


def test_the_radius_grows_with_the_distance() -> None:
    for distance, reached in ((1.0, False), (60.0, True)):
        xyz = np.array([[distance, 0, 0], [distance, 0.4, 0]])
        assert bool(spread_labels(make_cloud(xyz), np.array([3, 0], np.uint8), 0.25)[1] == 0) == reached


def test_agrees_with_every_pair_of_points() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-20, 20, (500, 3))
    class_id = np.where(rng.random(500) < 0.05, rng.integers(1, 5, 500), 0).astype(np.uint8)
    source = spread_labels(make_cloud(xyz), class_id, 1.5)
    xyz = xyz.astype(np.float32)
    labelled = np.flatnonzero(class_id)
    for i in np.flatnonzero(class_id == 0):
        distance = np.linalg.norm(xyz[labelled] - xyz[i], axis=1)
        nearest = labelled[np.argmin(distance)]
        near = distance.min() <= 1.5 * (1 + 0.03 * np.linalg.norm(xyz[nearest]))
        assert source[i] == (nearest if near else -1)
    assert (source[labelled] == labelled).all()
    assert (source >= 0).sum() > len(labelled)


def test_nothing_clicked_stays_nothing() -> None:
    cloud = make_cloud(np.ones((4, 3)))
    assert (spread_labels(cloud, np.zeros(4, np.uint8), 1.0) == -1).all()


class OneScan:
    """A data set of one scan, clicked on an object."""

    name, keys, labels, spec, intensity_full_scale = "one", ("000000",), LABELS, RangeSpec(16, 64), 1.0
    content_hash = "hash"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Scan:
        cloud = make_cloud(np.array([[10, 0, 0], [10.1, 0, 0], [20, 0, 0]]))
        return Scan("000000", cloud, np.array([2, 0, 0], np.uint8), np.array([7, 0, 0], np.uint16), None)


def test_a_data_set_shows_classes_and_objects_spread() -> None:
    scan = SpreadScans(OneScan(), 0.3)[0]
    assert (scan.class_id.tolist(), scan.instance_id.tolist()) == ([2, 2, 0], [7, 7, 0])
    assert SpreadScans(OneScan(), 0.0)[0].class_id.tolist() == [2, 0, 0]
