# SPDX-License-Identifier: Apache-2.0
"""How much is to be learnt from a point and from a frame, and what a frame looks like; cheap enough for every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.cloud import Cloud

SAMPLE = 12_000
"""points that a frame is judged by"""
SECTORS = 8
RANGE_EDGES_M = (10.0, 25.0)
RINGS = len(RANGE_EDGES_M) + 1
LAYOUT_WEIGHT = 0.5
"""of where things are around the sensor, beside what is there; a turn of the robot changes only the former"""


@dataclass(frozen=True)
class Look:
    """One frame to the eyes of the selection."""

    score: float
    """How much is to be learnt from the frame, 0..1; 0 without an answered point. Half of it is the mean doubt of its points,
    half the mean over the predicted classes of each class's own mean: the quality of a model is counted by class, and a
    doubtful pedestrian has few points."""
    entropy: float
    """mean calibrated entropy of the answered points, 0..1"""
    descriptor: NDArray[np.float32]
    """(D,) what the frame looks like: its classes by distance, and occupancy and doubt by sector around the sensor, with
    D = 3 K + 2 * 24. Shares enter by their square roots, so the Euclidean distance of two frames, 0 to about 2, is
    Hellinger's."""


def doubt(answer: Segmentation, index: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float32]:
    """(n,) how little the model knows of each point, 0..1; 0 where it gave no answer.

    The mean of the calibrated entropy and of how close the second class may be: the margin between the two best classes
    is not known at run time, but it is at least max(0, 2 p - 1) for a confidence p. Where the bundle tells how unlike
    anything labelled a point is, both count as chances of being wrong: 1 - (1 - doubt) (1 - novelty).
    """
    entropy, confidence = answer.uncertainty[index], answer.confidence[index]
    values = 0.5 * (entropy + np.minimum(1.0, 2.0 * (1.0 - confidence)))
    if answer.novelty is not None:
        values = 1.0 - (1.0 - values) * (1.0 - answer.novelty[index])
    values = np.nan_to_num(values * (answer.class_id[index] > 0), nan=0.0, posinf=1.0)
    bounded: NDArray[np.float32] = np.clip(values, 0.0, 1.0).astype(np.float32)
    return bounded


def descriptor_size(num_classes: int) -> int:
    """D, the length of a descriptor for a bundle of K classes."""
    return RINGS * num_classes + 2 * SECTORS * RINGS


def look_at(cloud: Cloud, answer: Segmentation, num_classes: int) -> Look:
    """Score, entropy and descriptor of a frame in one go, about 1 ms for 124000 points."""
    index = _sample(answer)
    class_id, values = answer.class_id[index], doubt(answer, index)
    descriptor = _describe(cloud.xyz[index], class_id, values, num_classes)
    entropy = float(answer.uncertainty[index].mean()) if len(index) else 0.0
    return Look(_score(class_id, values), entropy, descriptor)


def _sample(answer: Segmentation) -> NDArray[np.intp]:
    """Every so-manieth answered point; the step is odd, so that no laser of a power of two is passed over."""
    step = len(answer.class_id) // SAMPLE | 1
    index = np.arange(0, len(answer.class_id), step)
    return index[answer.class_id[index] > 0]


def _score(class_id: NDArray[np.uint8], values: NDArray[np.float32]) -> float:
    if not len(values):
        return 0.0
    counts = np.bincount(class_id)
    present = counts >= max(3, len(class_id) // 2000)
    if not present.any():
        return float(values.mean())
    by_class = np.bincount(class_id, values)[present] / counts[present]
    return float(0.5 * (values.mean() + by_class.mean()))


def _describe(
    xyz: NDArray[np.float32], class_id: NDArray[np.uint8], values: NDArray[np.float32], num_classes: int
) -> NDArray[np.float32]:
    cells, total = SECTORS * RINGS, max(1, len(class_id))
    x, y = xyz[:, 0], xyz[:, 1]
    ring = np.searchsorted(np.square(RANGE_EDGES_M), x * x + y * y)
    turn = (np.arctan2(y, x) + np.pi) * (SECTORS / (2 * np.pi))
    cell = ring * SECTORS + np.minimum(turn.astype(np.intp), SECTORS - 1)
    classes = np.bincount(ring * num_classes + class_id, minlength=RINGS * num_classes)
    occupied = np.bincount(cell, minlength=cells)
    doubtful = np.bincount(cell, values, minlength=cells)
    parts = (np.sqrt(classes / total), LAYOUT_WEIGHT * np.sqrt(occupied / total), LAYOUT_WEIGHT * np.sqrt(doubtful / total))
    return np.concatenate(parts).astype(np.float32)
