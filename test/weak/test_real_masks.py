# SPDX-License-Identifier: Apache-2.0
"""bench/panoptic_real.py: true objects are told apart by class and number, and the gate counts what straight distance misses."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from support import optional
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap

optional("torch")
optional("matplotlib")

STREET = LabelMap.load("street")
CAR, PERSON, ROAD = (STREET.id_of(name) for name in ("car", "person", "road"))


def test_objects_of_two_classes_with_one_number_are_two(panoptic_real: ModuleType) -> None:
    class_id = np.array([CAR, CAR, PERSON, PERSON, PERSON, ROAD, CAR, CAR], np.uint8)
    instance = np.array([7, 7, 7, 7, 7, 7, 8, 0], np.uint16)
    scan = Scan("000000", make_cloud(np.ones((8, 3))), class_id, instance, None)
    objects = panoptic_real.objects_of(scan, STREET, 1)
    assert sorted(points.tolist() for points in objects) == [[0, 1], [2, 3, 4], [6]]
    assert [points.tolist() for points in panoptic_real.objects_of(scan, STREET, 3)] == [[2, 3, 4]]


def test_the_gate_is_the_share_that_straight_distance_misses(panoptic_real: ModuleType) -> None:
    rows = [
        ("straight", "car", 900, 0.9),
        ("straight", "car", 20, 0.4),
        ("straight", "person", 30, 0.1),
        ("straight", "person", 60, 0.6),
    ]
    found = [panoptic_real.Found(*row) for row in (*rows, ("surface", "car", 900, 0.1))]
    gate = panoptic_real.gate(found)
    assert gate["below_half"] == 0.5
    assert gate["opens"]
    assert gate["parts"]["person"] == 0.5
    assert gate["parts"]["below 50 points"] == 1.0
    assert gate["parts"]["500 points and more"] == 0.0
    assert not panoptic_real.gate(found[:1])["opens"]
