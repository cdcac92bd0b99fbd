# SPDX-License-Identifier: Apache-2.0
"""Points thinned by a grid: one mean point for each cell that holds any, and back from the cells to the points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cloud import Cloud

MOST_LAYERS = 1 << 20
"""cells along an axis; far outliers are brought nearer, layer by layer, before codes overflow"""
MOST_CELLS = 1 << 22
"""a box of so many cells is a table; larger ones are sorted"""


FARTHEST_M = 1e6
"""a point with a larger coordinate is none of a scene, and would spoil the means of others"""


@dataclass(frozen=True)
class Grid:
    """N points in the cells that hold any."""

    cell_of_point: NDArray[np.intp]
    """(N,)"""
    count: int
    """number of cells, M"""

    @cached_property
    def points_of_cell(self) -> NDArray[np.intp]:
        """(M,) how many points each cell holds, at least one."""
        return np.bincount(self.cell_of_point, minlength=self.count)

    @cached_property
    def first_point(self) -> NDArray[np.intp]:
        """(M,) the first point of each cell."""
        first = np.empty(self.count, np.intp)
        first[self.cell_of_point[::-1]] = np.arange(len(self.cell_of_point) - 1, -1, -1)
        return first

    def mean(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """(N,) values -> (M,) their means."""
        sums = np.bincount(self.cell_of_point, values, self.count)
        return (sums / self.points_of_cell).astype(np.float32)

    def most_frequent(self, class_id: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N,) class ids -> (M,) the most frequent one above 0 in each cell, the smallest of equals; 0 where none is."""
        found = np.zeros(self.count, np.uint8)
        labelled = np.flatnonzero(class_id)
        if len(labelled):
            cells, inverse = np.unique(self.cell_of_point[labelled], return_inverse=True)
            classes = int(class_id.max()) + 1
            counts = np.bincount(inverse * classes + class_id[labelled], minlength=len(cells) * classes)
            found[cells] = counts.reshape(len(cells), classes).argmax(axis=1)
        return found


def points_of_scene(cloud: Cloud) -> NDArray[np.intp]:
    """The usable points that are no farther than FARTHEST_M, in order."""
    with np.errstate(invalid="ignore"):
        near: NDArray[np.bool_] = cloud.valid & (np.abs(cloud.xyz) < FARTHEST_M).all(axis=1)
    return np.flatnonzero(near)


def group_points(xyz: NDArray[np.float32], cell_m: float) -> Grid:
    """The cells of `cell_m` in x, y and z that hold the (N, 3) finite points, counted from the smallest coordinates."""
    if not len(xyz):
        return Grid(np.zeros(0, np.intp), 0)
    points = np.ascontiguousarray(xyz.T, np.float64)
    layers = [_layers(axis, cell_m) for axis in points]
    sizes = [int(layer.max()) + 1 for layer in layers]
    code = (layers[0] * sizes[1] + layers[1]) * sizes[2] + layers[2]
    cells = sizes[0] * sizes[1] * sizes[2]
    if cells > MOST_CELLS:
        codes, inverse = np.unique(code, return_inverse=True)
        return Grid(inverse, len(codes))
    held = np.zeros(cells, np.bool_)
    held[code] = True
    number = np.cumsum(held)
    return Grid(number[code] - 1, int(number[-1]))


def _layers(axis: NDArray[np.float64], cell_m: float) -> NDArray[np.int64]:
    layer = np.floor((axis - axis.min()) / cell_m)
    if layer.max() < MOST_LAYERS:
        return np.asarray(layer, np.int64)
    return np.unique(layer, return_inverse=True)[1].astype(np.int64)
