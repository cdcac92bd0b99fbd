# SPDX-License-Identifier: Apache-2.0
"""The superpoints of a scan from the network's answers: objects, what stands alone among the rest, and cells of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.grouping import group_components
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeView
from weakseg_ros.points.superpoints import Superpoints

STANDS_ALONE = ("pole", "trunk", "traffic-sign", "traffic-cone", "traffic cone", "barrier", "bench")
"""classes of stuff whose connected pixels are single objects all the same"""
MOST_SINGLE, MOST_PIECES = 64, 16
STRIDE = 2
"""the rest is looked at in every second row and column, and the features are means of two by two pixels"""
CELL_M = 6.0
"""side of the cells that the rest is cut into"""
NEAR_M = 2.0
"""side of the cells, three by three, in which the classes around a superpoint are counted"""
_HALF_CELLS = 32


@dataclass(frozen=True)
class FoundSuperpoints:
    """The superpoints of a scan, and where they are in its range image."""

    superpoints: Superpoints
    image: NDArray[np.int32]
    """(H, W) number of the superpoint of each pixel, -1 = none"""


def find_superpoints(answer: Segmentation, xyz: NDArray[np.float32], labels: LabelMap, full_circle: bool) -> FoundSuperpoints:
    """The superpoints of a cloud, `xyz` (N, 3) m, with the answer that a segmenter gave with `settings.refer`.

    Singles come first, the nearest at the front; of the rest the largest pieces are kept.
    """
    assert answer.seen is not None, "the segmenter was asked to keep what it saw"
    view, classes = answer.seen.pixels, answer.class_image
    image = np.full(classes.shape, -1, np.int32)
    singles = _singles(answer, xyz, view, labels, full_circle)
    number, count = _nearest_first(singles, xyz, view)
    image[singles > 0] = number[singles[singles > 0]]
    pieces = _pieces(classes, singles, xyz, view)
    small = image[::STRIDE, ::STRIDE]
    small[pieces >= 0] = pieces[pieces >= 0] + count
    _spread(image, classes, singles)
    return FoundSuperpoints(_measured(image, answer, xyz, count, int(pieces.max(initial=-1)) + 1, labels.num_classes), image)


def _singles(
    answer: Segmentation, xyz: NDArray[np.float32], view: RangeView, labels: LabelMap, full_circle: bool
) -> NDArray[np.int32]:
    """(H, W) single objects from 1 up, 0 = none: those of the answer, or connected pixels where it has none."""
    objects = answer.instance_image
    if not objects.any():
        objects = group_components(answer.class_image, xyz, view, labels.things, full_circle)
    alone = np.array([row.name in STANDS_ALONE and not row.thing for row in labels.classes])
    others = group_components(answer.class_image, xyz, view, alone, full_circle).astype(np.int32)
    return np.where(others > 0, others + int(objects.max()), objects.astype(np.int32))


def _nearest_first(singles: NDArray[np.int32], xyz: NDArray[np.float32], view: RangeView) -> tuple[NDArray[np.int32], int]:
    """(new number of each old one, -1 = left out; how many are kept)."""
    at = np.flatnonzero(singles)
    old, points = singles.ravel()[at], xyz[view.point_of_pixel.ravel()[at]]
    size = np.bincount(old, minlength=int(singles.max()) + 1)
    away = np.bincount(old, np.hypot(points[:, 0], points[:, 1]), len(size)) / np.maximum(size, 1)
    order = np.argsort(np.where(size > 0, away, np.inf), kind="stable")[: min(MOST_SINGLE, int((size > 0).sum()))]
    number = np.full(len(size), -1, np.int32)
    number[order] = np.arange(len(order))
    return number, len(order)


def _pieces(
    classes: NDArray[np.uint8], singles: NDArray[np.int32], xyz: NDArray[np.float32], view: RangeView
) -> NDArray[np.int32]:
    """(H / STRIDE, W / STRIDE) numbers of the largest cells of one class among what is no single object, -1 = none."""
    classes, owner = classes[::STRIDE, ::STRIDE], view.point_of_pixel[::STRIDE, ::STRIDE]
    number = np.full(classes.shape, -1, np.int32)
    rest = (classes > 0) & (singles[::STRIDE, ::STRIDE] == 0) & (owner >= 0)
    if not rest.any():
        return number
    points = xyz[owner[rest]]
    cell = np.clip(np.floor(points[:, :2] / CELL_M), -_HALF_CELLS, _HALF_CELLS - 1).astype(np.int64) + _HALF_CELLS
    key = (classes[rest].astype(np.int64) * 2 * _HALF_CELLS + cell[:, 0]) * 2 * _HALF_CELLS + cell[:, 1]
    size = np.bincount(key)
    largest = np.argsort(-size, kind="stable")[: min(MOST_PIECES, int((size > 0).sum()))]
    of_key = np.full(len(size), -1, np.int32)
    of_key[largest] = np.arange(len(largest))
    number[rest] = of_key[key]
    return number


def _spread(image: NDArray[np.int32], classes: NDArray[np.uint8], singles: NDArray[np.int32]) -> None:
    """Give the pixels between those that were looked at the piece of their neighbour, where it has their class."""
    rows, cols = (np.arange(size) // STRIDE * STRIDE for size in image.shape)
    source = np.ix_(rows, cols)
    free = (image < 0) & (singles == 0) & (singles[source] == 0) & (classes == classes[source]) & (classes > 0)
    image[free] = image[source][free]


def _measured(
    image: NDArray[np.int32], answer: Segmentation, xyz: NDArray[np.float32], singles: int, pieces: int, num_classes: int
) -> Superpoints:
    """What the superpoints of an image are like: objects by all their pixels, the rest by those that were looked at."""
    assert answer.seen is not None
    looked = image < singles
    looked[::STRIDE, ::STRIDE] = True
    row, col = np.nonzero(looked & (image >= 0))
    order = np.argsort(image[row, col], kind="stable")
    row, col = row[order], col[order]
    number, owner = image[row, col], answer.seen.pixels.point_of_pixel[row, col]
    count = singles + pieces
    size = np.bincount(number, minlength=count).astype(np.float32)
    share = 1 / np.maximum(size, 1)
    start = np.searchsorted(number, np.arange(count))
    points, kind = xyz[owner], answer.class_image[row, col].astype(np.int64)
    low, high = (pick.reduceat(points, start, axis=0) if count else np.zeros((0, 3)) for pick in (np.minimum, np.maximum))
    features = answer.seen.features[:, row // STRIDE, col // STRIDE].T  # (P, D)
    values = np.concatenate([points, answer.confidence[owner][:, None], features], axis=1)
    mean = (np.add.reduceat(values, start, axis=0) if count else values[:0]) * share[:, None]
    centre = mean[:, :3].astype(np.float32)
    classes = np.bincount(number * num_classes + kind, minlength=count * num_classes).reshape(count, num_classes) * share[:, None]
    is_single = np.arange(count) < singles
    return Superpoints(
        centre=centre,
        width_m=np.hypot(*(high - low)[:, :2].T).astype(np.float32),
        height_m=(high - low)[:, 2].astype(np.float32),
        points=np.where(is_single, size, size * STRIDE**2).astype(np.float32),
        confidence=mean[:, 3].astype(np.float32),
        classes=classes.astype(np.float32),
        around=_around(centre, answer, xyz, num_classes),
        single=is_single,
        features=mean[:, 4:].astype(np.float32),
    )


def _around(centre: NDArray[np.float32], answer: Segmentation, xyz: NDArray[np.float32], num_classes: int) -> NDArray[np.float32]:
    """(S, K) share of the pixels in each class, in the cells about each centre."""
    assert answer.seen is not None
    owner = answer.seen.pixels.point_of_pixel[::STRIDE, ::STRIDE]
    kind = answer.class_image[::STRIDE, ::STRIDE]
    there = (owner >= 0) & (kind > 0)
    side = 2 * _HALF_CELLS
    cell = _cells(xyz[owner[there]][:, :2])
    flat = (cell[:, 0] * side + cell[:, 1]) * num_classes + kind[there]
    counts = np.bincount(flat, minlength=side * side * num_classes).reshape(side, side, num_classes)
    own = np.clip(_cells(centre[:, :2]), 1, side - 2)
    near = sum(counts[own[:, 0] + i, own[:, 1] + j] for i in (-1, 0, 1) for j in (-1, 0, 1))
    total = np.asarray(near, np.float32).reshape(len(centre), num_classes)
    share: NDArray[np.float32] = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    return share


def _cells(xy: NDArray[np.float32]) -> NDArray[np.int64]:
    """(P, 2) the cell of each place; what is farther away falls in the outermost."""
    inside: NDArray[np.float32] = np.clip(np.floor(xy / NEAR_M), -_HALF_CELLS, _HALF_CELLS - 1)
    return inside.astype(np.int64) + _HALF_CELLS
