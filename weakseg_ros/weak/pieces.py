# SPDX-License-Identifier: Apache-2.0
"""Pieces cut by geometry: a click labels the piece of its scan that it lies in, where no other click says otherwise.

After LESS (Liu et al., Label-Efficient Semantic Segmentation for LiDAR Point Clouds, ECCV 2022), which has people label
such pieces: what stands on the ground falls apart where surfaces do, and the ground is cut into cells. A point takes the
nearest label of its own piece, so that two classes in a piece split it. These labels weigh less than those of a person,
and less where their class has many of its own.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from weakseg_ros.data.scan_files import content_hash
from weakseg_ros.data.scan_sets import ChangedScans, Scan, ScanSet, readable
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeSpec, project
from weakseg_ros.weak.ground import ground_points
from weakseg_ros.weak.piece_settings import PieceSettings
from weakseg_ros.weak.propagate import LARGEST_WEIGHT
from weakseg_ros.weak.surfaces import SurfaceSettings, surface_graph

_APART_M = 1e4
"""between two pieces where the nearest label of a point's own one is looked for: farther than any reach"""


def pieces_of(cloud: Cloud, spec: RangeSpec, settings: PieceSettings) -> NDArray[np.int64]:
    """(N,) the number of each point's piece, -1 for points that are not in the image or hidden in it."""
    owner = project(cloud, spec).point_of_pixel.ravel()
    at = np.flatnonzero(owner >= 0)
    points = owner[at]
    xyz = cloud.xyz[points]
    ground = ground_points(xyz)
    piece = np.full(len(cloud), -1, np.int64)
    joins = SurfaceSettings(gap_m=settings.gap_m, gap_share=settings.gap_share)
    ways = surface_graph(at[~ground], xyz[~ground], (spec.height, spec.width), spec.full_circle, joins)
    count, above = connected_components(ways, directed=False)
    piece[points[~ground]] = above
    cells = np.floor(xyz[ground, :2] / settings.ground_cell_m).astype(np.int64)
    if len(cells):
        piece[points[ground]] = count + np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
    return piece


class PieceScans(ChangedScans):
    """Training scans in which a given label labels its piece too; `label_weight` says how much each label counts.

    Labels that were propagated from other scans stay, and are not spread over pieces.
    """

    def __init__(self, scans: ScanSet, settings: PieceSettings) -> None:
        super().__init__(scans)
        self.settings = settings
        counts = np.zeros(scans.labels.num_classes)
        for _, scan in readable(scans, []):
            counts += np.bincount(_given_of(scan), minlength=len(counts))
        self.class_weight: NDArray[np.float64] = settings.weight * settings.half_labels / (settings.half_labels + counts)

    @property
    def content_hash(self) -> str:
        return content_hash({"scans": self._scans.content_hash, "pieces": repr(self.settings)})

    def changed(self, scan: Scan, index: int) -> Scan:
        given = _given_of(scan)
        class_id = given.copy() if scan.class_id is None else scan.class_id.copy()
        weight = (given > 0).astype(np.float32) if scan.label_weight is None else scan.label_weight.copy()
        if given.any():
            piece = pieces_of(scan.cloud, self.spec, self.settings)
            free = np.flatnonzero((class_id == 0) & (piece >= 0))
            source, distance_m = nearest_in_piece(scan.cloud.xyz, piece, np.flatnonzero(given), free, self.settings.reach_m)
            reached, source, distance_m = free[source >= 0], source[source >= 0], distance_m[source >= 0]
            class_id[reached] = given[source]
            near = np.exp(-((distance_m / self.settings.reach_m) ** 2))
            weight[reached] = np.minimum(self.class_weight[class_id[reached]] * near, LARGEST_WEIGHT)
        return dataclasses.replace(scan, class_id=class_id, label_weight=weight)


def nearest_in_piece(
    xyz: NDArray[np.float32], piece: NDArray[np.int64], labelled: NDArray[np.int64], free: NDArray[np.int64], reach_m: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(F,) the nearest of the points `labelled` (L,) in the own piece of each of `free` (F,), -1 = none; its distance in m."""
    labelled = labelled[piece[labelled] >= 0]
    if not len(labelled) or not len(free):
        return np.full(len(free), -1), np.full(len(free), np.inf)

    def apart(points: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.column_stack([xyz[points], piece[points] * _APART_M])

    distance, nearest = cKDTree(apart(labelled)).query(apart(free), distance_upper_bound=reach_m)
    return np.where(np.isfinite(distance), labelled[np.minimum(nearest, len(labelled) - 1)], -1), distance


def _given_of(scan: Scan) -> NDArray[np.uint8]:
    """(N,) the labels that a person gave, 0 = none."""
    if scan.class_id is None:
        return np.zeros(len(scan.cloud), np.uint8)
    return scan.class_id if scan.label_weight is None else scan.class_id * (scan.label_weight >= 1.0)
