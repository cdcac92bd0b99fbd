# SPDX-License-Identifier: Apache-2.0
"""One scan as panes side by side: the labels, and what each model says, in the colours that were asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.boxes import BOX_DTYPE, boxes
from weakseg_ros.deploy.referring import Referred
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.improve.label.colors import HEIGHT, INTENSITY, PREDICTION, UNCERTAINTY, UNKNOWN, color_points
from weakseg_ros.measure.panoptic import raw_labels
from weakseg_ros.measure.pictures import MEANT, RIGHT, WRONG
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.view.frames import Shown

CLASSES, OBJECTS, ERRORS, FOUND = "classes", "objects", "errors", "found"
LABELS = "labels"
"""title of the pane that shows the ground truth"""
SCAN = "scan"
"""title of the pane where nothing is known but the points"""
DIM = (62, 66, 74)
"""points that belong to no object, or that have no label to be wrong about"""
GOLDEN = 0.618034
"""hues this far apart, as a share of the circle, stay apart for any number of objects"""


@dataclass(frozen=True)
class Side:
    """A scan as one party sees it: a model, or the labels. Meets `improve.label.colors.Seen`."""

    title: str
    cloud: Cloud
    prediction: NDArray[np.uint8] | None
    """(N,) class ids"""
    instance: NDArray[np.uint16] | None
    """(N,) 0 = none"""
    uncertainty: NDArray[np.float32] | None
    confidence: NDArray[np.float32] | None
    wrong: NDArray[np.bool_] | None
    """(N,) points whose label is another class; None where there are no labels, or for the labels themselves"""
    labelled: NDArray[np.bool_] | None
    """(N,) points that have a label"""
    found: Referred | None = None
    """what a question means; None where nothing was asked"""


def sides_of(shown: Shown, models: tuple[str, ...]) -> list[Side]:
    """The labels where there are some, and each model that has an answer; at least the bare scan."""
    labelled = shown.truth > 0 if shown.truth is not None and shown.truth.any() else None
    sides = []
    if labelled is not None and shown.truth is not None:
        sides.append(Side(LABELS, shown.cloud, shown.truth, shown.truth_instance, None, None, None, labelled))
    found = [*shown.found, *[None] * (len(shown.answers) - len(shown.found))]
    for name, answer, meant in zip(models, shown.answers, found, strict=True):
        if answer is not None:
            sides.append(replace(_side_of(name, shown, answer, labelled), found=meant))
    return sides or [Side(SCAN, shown.cloud, None, None, None, None, None, None)]


def _side_of(name: str, shown: Shown, answer: Segmentation, labelled: NDArray[np.bool_] | None) -> Side:
    wrong = labelled & (answer.class_id != shown.truth) if labelled is not None else None
    seen = (answer.class_id, answer.instance_id, answer.uncertainty, answer.confidence)
    return Side(name, shown.cloud, *seen, wrong, labelled)


def looks_of(sides: list[Side]) -> tuple[str, ...]:
    """What the points can be coloured by, the most telling first."""
    known = [
        (FOUND, any(side.found is not None for side in sides)),
        (CLASSES, any(side.prediction is not None for side in sides)),
        (ERRORS, any(side.wrong is not None for side in sides)),
        (UNCERTAINTY, any(side.uncertainty is not None for side in sides)),
        (OBJECTS, any(side.instance is not None and side.instance.any() for side in sides)),
        (INTENSITY, bool(len(sides[0].cloud) and np.ptp(sides[0].cloud.intensity) > 0)),
        (HEIGHT, True),
    ]
    return tuple(name for name, there in known if there)


def colors_of(side: Side, look: str, labels: LabelMap) -> NDArray[np.uint8]:
    """(N, 3) red, green, blue; a side that has no errors or no uncertainty shows its classes instead."""
    if look == FOUND and side.found is not None:
        return np.where(side.found.mask[:, None], MEANT, DIM).astype(np.uint8)
    if look == ERRORS and side.wrong is not None and side.labelled is not None:
        colors = np.full((len(side.cloud), 3), DIM, np.uint8)
        colors[side.labelled] = RIGHT
        colors[side.wrong] = WRONG
        return colors
    if look == OBJECTS and side.instance is not None and side.prediction is not None:
        return _object_colors(side.instance, side.prediction)
    if look in (INTENSITY, HEIGHT):
        return color_points(side, look, labels)
    if look == UNCERTAINTY and side.uncertainty is not None:
        return color_points(side, UNCERTAINTY, labels)
    if side.prediction is None:
        return np.full((len(side.cloud), 3), UNKNOWN, np.uint8)
    return color_points(side, PREDICTION, labels)


def _object_colors(instance: NDArray[np.uint16], class_id: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A bright hue for each object, grey for what is none; objects of two classes may have the same number."""
    hue = (instance.astype(np.float32) + 37.0 * class_id) * GOLDEN % 1.0
    rgb = np.clip(np.abs(hue[:, None] * 6.0 - np.array([3.0, 2.0, 4.0])) * [1, -1, -1] + [-1, 2, 2], 0.0, 1.0)
    colors: NDArray[np.uint8] = (255 * (0.25 + 0.75 * rgb)).astype(np.uint8)
    colors[instance == 0] = DIM
    return colors


def boxes_of(side: Side, labels: LabelMap) -> NDArray[np.void]:
    """(M,) BOX_DTYPE: one box around each object of a side."""
    if side.instance is None or side.prediction is None:
        return np.zeros(0, BOX_DTYPE)
    things = (side.instance > 0) & labels.things[side.prediction]
    ids = np.zeros(len(things), np.uint16)
    if things.any():  # labels may give objects of two classes the same number
        raw = raw_labels(labels, side.prediction[things], side.instance[things])
        ids[things] = np.unique(raw, return_inverse=True)[1].reshape(-1) + 1
    confidence = side.confidence if side.confidence is not None else np.ones(len(ids), np.float32)
    return boxes(side.cloud.xyz, ids, side.prediction, confidence)


def box_edges(found: NDArray[np.void]) -> NDArray[np.float32]:
    """(12 M, 2, 3) the edges of M boxes, m."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], np.float32)
    pairs = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1])
    places = corners * found["size_m"][:, None, :]  # (M, 8, 3)
    cosine, sine = np.cos(found["yaw_rad"])[:, None], np.sin(found["yaw_rad"])[:, None]
    x, y = places[..., 0], places[..., 1]
    turned = np.stack([x * cosine - y * sine, x * sine + y * cosine, places[..., 2]], axis=-1) + found["centre_m"][:, None, :]
    edges: NDArray[np.float32] = turned[:, pairs].reshape(-1, 2, 3).astype(np.float32)
    return edges


def share_wrong(side: Side) -> float | None:
    """Share of the labelled points that a side gets wrong; None where that is not known."""
    if side.wrong is None or side.labelled is None or not side.labelled.any():
        return None
    return float(side.wrong.sum() / side.labelled.sum())
