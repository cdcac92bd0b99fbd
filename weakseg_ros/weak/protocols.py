# SPDX-License-Identifier: Apache-2.0
"""Which labels of a scan are kept: the protocols of weak supervision, as pure functions of one scan and a seed.

voxel         COARSE3D (arXiv 2210.01784): clicked voxels, drawn over the whole scan, each passing its label on
per_class     ERDA (arXiv 2305.15832): a share of the points of every class, at least one
per_scan      a number of points of each scan, whatever their classes
per_instance  one click per object, and a share of the points of every stuff class
full          every label
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.grid import group_points, points_of_scene
from weakseg_ros.points.labels import LabelMap

LARGEST_CODE = 1 << 63


@dataclass(frozen=True)
class SparseConfig:
    """Sets which labels are kept."""

    protocol: Literal["voxel", "per_class", "per_scan", "per_instance", "full"] = "voxel"
    """Selects how labels are drawn: 'voxel' labels random voxels, 'per_class' a share of the points of each class, 'per_scan' a
    fixed number of points, 'per_instance' one point of each object, and 'full' keeps every label."""
    ratio: float = setting(0.001, 0.0, 1.0)
    """Sets the label ratio (0 to 1): 'voxel' draws this many voxels per usable point, 'per_class' this share of the points of
    each class, and 'per_instance' this share of the points of each stuff class, where 0 draws none."""
    voxel_m: float = setting(0.06, 1e-3, 100.0)
    """Sets the edge length of a voxel in metres (0.001 to 100), with `protocol` 'voxel' only."""
    points: int = setting(20, 1)
    """Sets the number of labelled points in each scan, with `protocol` 'per_scan' only (1 or more)."""
    grid_m: float = setting(0.0, 0.0, 10.0)
    """Sets the edge length in metres of a grid (0 to 10), with `protocol` 'per_class' only; the ratio then counts grid cells,
    each with its most frequent class, as ERDA draws labels for nets on points, and 0 counts points."""
    propagate: bool = True
    """Gives every point of a drawn voxel the class of its first point, with `protocol` 'voxel' only; False labels only the
    first point."""
    seed: int = setting(0, 0)
    """Seeds the random draw (0 or more); the labels of a scan do not depend on the other scans or on their order."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.ratio == 0 and self.protocol in ("voxel", "per_class"):
            raise ConfigError(f"ratio: 0 labels nothing with protocol '{self.protocol}'; choose a share above 0")

    @property
    def folder_name(self) -> str:
        """Name of the folder that such a draw is stored in."""
        share = {"full": "1", "per_scan": str(self.points)}.get(self.protocol, f"{self.ratio:g}")
        share += f"-g{self.grid_m:g}" if self.grid_m and self.protocol == "per_class" else ""
        return f"{self.protocol}-{share}-s{self.seed}"


@dataclass(frozen=True)
class Draw:
    """The sparse labels of one scan."""

    class_id: NDArray[np.uint8]
    """(N,) 0 = no label"""
    clicks: NDArray[np.int64]
    """(S,) the points that a person would have clicked; with propagation more points than these are labelled"""
    objects: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """those of the clicks that name a single object, whose instance id is a label too"""


def draw_scan(scan: Scan, labels: LabelMap, config: SparseConfig) -> Draw:
    """Draw the labels of one scan; the same for the same scan key, seed and settings.

    `labels` is the map of the scan's class ids. Unusable points are neither clicked nor counted; a scan without labels
    gets none. Raises ConfigError for per_instance on scans without instances.
    """
    if scan.class_id is None:
        return Draw(np.zeros(len(scan.cloud), np.uint8), np.zeros(0, np.int64))
    rng = np.random.default_rng([config.seed, zlib.crc32(scan.key.encode())])
    class_id = np.where(scan.cloud.valid, scan.class_id, 0).astype(np.uint8)
    if config.protocol == "voxel":
        return _draw_voxels(scan, class_id, config, rng)
    if config.protocol == "per_class" and config.grid_m:
        clicks = _draw_cells(scan, class_id, labels.num_classes, config, rng)
    elif config.protocol == "per_class":
        clicks = _draw_per_class(class_id, range(1, labels.num_classes), config.ratio, rng)
    elif config.protocol == "per_scan":
        labelled = np.flatnonzero(class_id)
        clicks = np.sort(rng.choice(labelled, min(config.points, len(labelled)), replace=False))
    elif config.protocol == "per_instance":
        return _draw_per_instance(scan, class_id, labels.things, config.ratio, rng)
    else:
        clicks = np.flatnonzero(class_id)
    return Draw(_only_at(class_id, clicks), clicks)


@dataclass(frozen=True)
class Voxels:
    """Points grouped into V cubes, sorted by their index along x, then y, then z."""

    voxel_of_point: NDArray[np.int64]
    """(N,)"""
    first_point: NDArray[np.int64]
    """(V,) the smallest index of a point in each voxel"""


def group_voxels(xyz: NDArray[np.floating[Any]], voxel_m: float) -> Voxels:
    """Group (N, 3) points in m into cubes, counted from half a voxel below the smallest coordinates, in float64.

    COARSE3D, arXiv 2210.01784, as its label generator does it.
    """
    points = xyz.astype(np.float64)
    origin = points.min(axis=0) - voxel_m / 2
    index = np.floor((points - origin) / voxel_m).astype(np.int64)
    if math.prod(int(size) + 1 for size in index.max(axis=0)) >= LARGEST_CODE:  # far outliers: count taken layers only
        index = np.stack([np.unique(column, return_inverse=True)[1] for column in index.T], axis=1)
    size = index.max(axis=0) + 1
    code = (index[:, 0] * size[1] + index[:, 1]) * size[2] + index[:, 2]
    _, first_point, voxel_of_point = np.unique(code, return_index=True, return_inverse=True)
    return Voxels(voxel_of_point, first_point)


def label_voxels(class_id: NDArray[np.uint8], voxels: Voxels, drawn: NDArray[np.int64], propagate: bool) -> NDArray[np.uint8]:
    """(N,) class ids after the voxels `drawn` (S,) were clicked, 0 elsewhere.

    The class of a voxel is that of its first point; with `propagate` every point in it gets this class, also those that
    belong to another one.
    """
    clicks = voxels.first_point[drawn]
    if not propagate:
        return _only_at(class_id, clicks)
    class_of_voxel = np.zeros(len(voxels.first_point), np.uint8)
    class_of_voxel[drawn] = class_id[clicks]
    return class_of_voxel[voxels.voxel_of_point]


def clicks_of_ratio(points: int, ratio: float, candidates: int) -> int:
    """Number of voxels to click: `ratio` of the points, half to even, at least one, at most the labelled voxels."""
    return min(max(1, round(points * ratio)), candidates)


def _draw_voxels(scan: Scan, class_id: NDArray[np.uint8], config: SparseConfig, rng: np.random.Generator) -> Draw:
    usable = np.flatnonzero(scan.cloud.valid)
    sparse = np.zeros_like(class_id)
    if not class_id.any():
        return Draw(sparse, np.zeros(0, np.int64))
    voxels = group_voxels(scan.cloud.xyz[usable], config.voxel_m)
    candidates = np.flatnonzero(class_id[usable[voxels.first_point]])
    count = clicks_of_ratio(len(usable), config.ratio, len(candidates))
    drawn = np.sort(rng.choice(candidates, count, replace=False))
    sparse[usable] = label_voxels(class_id[usable], voxels, drawn, config.propagate)
    return Draw(sparse, usable[voxels.first_point[drawn]])


def _draw_per_class(
    class_id: NDArray[np.uint8], classes: Sequence[int], ratio: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    drawn = [np.zeros(0, np.int64)]
    for wanted in classes:
        points = np.flatnonzero(class_id == wanted)
        if len(points):
            drawn.append(rng.choice(points, max(int(len(points) * ratio), 1), replace=False))
    return np.sort(np.concatenate(drawn))


def _draw_cells(
    scan: Scan, class_id: NDArray[np.uint8], num_classes: int, config: SparseConfig, rng: np.random.Generator
) -> NDArray[np.int64]:
    """One point of each cell that is drawn: the first that has the cell's most frequent class."""
    usable = points_of_scene(scan.cloud)
    grid = group_points(scan.cloud.xyz[usable], config.grid_m)
    of_cell = grid.most_frequent(class_id[usable])
    drawn = _draw_per_class(of_cell, range(1, num_classes), config.ratio, rng)
    chosen = np.zeros(grid.count, np.bool_)
    chosen[drawn] = True
    own = np.flatnonzero(chosen[grid.cell_of_point] & (class_id[usable] == of_cell[grid.cell_of_point]))
    first = np.unique(grid.cell_of_point[own], return_index=True)[1]
    return np.sort(usable[own[first]])


def _draw_per_instance(
    scan: Scan, class_id: NDArray[np.uint8], things: NDArray[np.bool_], ratio: float, rng: np.random.Generator
) -> Draw:
    if scan.instance_id is None:
        raise ConfigError(
            f"protocol: 'per_instance' clicks objects, but {scan.key} has no instance ids; choose voxel or per_class"
        )
    points = np.flatnonzero(things[class_id] & (scan.instance_id > 0))
    identity = scan.instance_id[points].astype(np.int64) * len(things) + class_id[points]
    shuffled = rng.permutation(len(points))
    _, first = np.unique(identity[shuffled], return_index=True)
    objects = points[shuffled[first]]
    stuff = [int(i) for i in np.flatnonzero(~things) if i and ratio]
    clicks = np.sort(np.concatenate([objects, _draw_per_class(class_id, stuff, ratio, rng)]))
    return Draw(_only_at(class_id, clicks), clicks, objects)


def _only_at(class_id: NDArray[np.uint8], points: NDArray[np.int64]) -> NDArray[np.uint8]:
    kept = np.zeros_like(class_id)
    kept[points] = class_id[points]
    return kept
