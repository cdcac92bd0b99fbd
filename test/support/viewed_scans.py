# SPDX-License-Identifier: Apache-2.0
"""Scans of a car and a person to look at, their labels, and what a model says of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap

LABELS = LabelMap(
    "four",
    (
        LabelClass(0, "none", (0, 0, 0), False, (0,)),
        LabelClass(1, "road", (255, 0, 255), False, (40,)),
        LabelClass(2, "car", (0, 0, 255), True, (10,)),
        LabelClass(3, "person", (255, 30, 30), True, (30,)),
    ),
)
SCANS = 5


def cloud_of(index: int) -> Any:
    rng = np.random.default_rng(index)
    xyz = rng.uniform(-20, 20, (200, 3)).astype(np.float32)
    xyz[:, 2] = -1.5
    xyz[:40] = [8.0 + index, 2.0, -1.0] + rng.uniform(-1, 1, (40, 3)) * [2.0, 0.9, 0.5]
    xyz[40:60] = [4.0, -6.0, -0.8] + rng.uniform(-1, 1, (20, 3)) * [0.3, 0.3, 0.9]
    return make_cloud(xyz.astype(np.float32), rng.random(200, np.float32), stamp_ns=10**18 + index * 10**8, frame_id="lidar")


def truth_of() -> tuple[np.ndarray, np.ndarray]:
    """(class ids, instances): a car and a person with the same number, as label files may have them."""
    class_id = np.ones(200, np.uint8)
    class_id[:40], class_id[40:60], class_id[190:] = 2, 3, 0
    instance = np.zeros(200, np.uint16)
    instance[:60] = 1
    return class_id, instance


def answer_of(class_id: np.ndarray) -> Segmentation:
    count = len(class_id)
    return Segmentation(
        class_id.astype(np.uint8),
        np.where(class_id == 2, 7, 0).astype(np.uint16),
        np.full(count, 0.75, np.float32),
        np.linspace(0, 1, count, dtype=np.float32),
        np.zeros(count, np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((0, 0), np.uint16),
    )
