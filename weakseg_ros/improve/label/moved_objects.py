# SPDX-License-Identifier: Apache-2.0
"""Which labelled objects of one scan still stand where another scan sees their place.

A ray that goes through where an object was and ends well behind it says that the object has gone; one that ends there says
that it stands; one that ends before says nothing, since something hides the place. Cars and people that have moved are told
from parked ones by that alone: no speed, no tracking, and nothing that could follow the wrong one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from weakseg_ros.points.projection import RangeSpec

BEHIND_M, BEHIND_SHARE = 0.4, 0.01
"""a ray that ends so far behind a point, the latter times its range, has gone through its place"""
MOST_GONE = 0.15
"""an object with a larger share of such points among those in sight has moved"""
RAYS = 4
"""the rays next to a point's direction; the place is empty where all of them go through"""
LEAST_RAD = np.radians(0.5)
"""how far aside those rays may be, at the least"""
GAP_M, CELL_M = 0.5, 0.25
"""points of one class without a number belong to one object where no gap is larger; they are gathered in such cells first"""


class Sight:
    """The rays of a scan: points (N, 3) m as its sensor sees them, of a range image as `spec` says."""

    def __init__(self, xyz: NDArray[np.float32], spec: RangeSpec) -> None:
        away = np.linalg.norm(xyz, axis=1)
        usable = away > 0.0
        self._away = away[usable]
        self._rays = cKDTree(xyz[usable] / self._away[:, None]) if usable.any() else None
        step_deg = max((spec.fov_up_deg - spec.fov_down_deg) / spec.height, 360.0 / spec.width)
        self._aside_rad = max(LEAST_RAD, float(np.radians(0.75 * step_deg)))

    def looks_through(self, xyz: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """((N,) whether rays go through these places (N, 3) and end behind, (N,) whether one ends there)."""
        away = np.linalg.norm(xyz, axis=1)
        if self._rays is None or not len(xyz):
            return np.zeros(len(xyz), np.bool_), np.zeros(len(xyz), np.bool_)
        apart, ray = self._rays.query(xyz / np.maximum(away, 1e-6)[:, None], k=RAYS, distance_upper_bound=self._aside_rad)
        known = np.isfinite(apart)
        end = np.where(known, np.append(self._away, np.inf)[ray], np.inf) - away[:, None]
        margin = (BEHIND_M + BEHIND_SHARE * away)[:, None]
        there = (known & (np.abs(end) <= margin)).any(axis=1)
        through = known.any(axis=1) & ((end > margin) | ~known).all(axis=1)
        return through, there

    def moved(self, xyz: NDArray[np.float32], number: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(M,) which of the objects 0..M-1 have moved, by their points (P, 3) where they were and whose each is (P,)."""
        through, there = self.looks_through(xyz)
        count = int(number.max(initial=-1)) + 1
        gone = np.bincount(number[through], minlength=count)
        stands = np.bincount(number[there], minlength=count)
        return np.asarray(gone > MOST_GONE * (gone + stands))


def objects_of(xyz: NDArray[np.float32], class_id: NDArray[np.uint8], instance_id: NDArray[np.uint16]) -> NDArray[np.int64]:
    """(P,) the number 0..M-1 of each point's object: by its instance, else by the points (P, 3) that it hangs together with."""
    own = (class_id.astype(np.int64) << 32) | instance_id.astype(np.int64) << 16
    loose = np.flatnonzero(instance_id == 0)
    cells, cell = np.unique(
        np.column_stack([class_id[loose], np.floor(xyz[loose] / CELL_M)]).astype(np.int64), axis=0, return_inverse=True
    )
    if len(cells):
        pairs = cKDTree(cells[:, 1:] * CELL_M).query_pairs(GAP_M, output_type="ndarray")
        pairs = pairs[cells[pairs[:, 0], 0] == cells[pairs[:, 1], 0]]
        links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))
        own[loose] = -1 - connected_components(links, directed=False)[1][cell.reshape(-1)].astype(np.int64)
    return np.asarray(np.unique(own, return_inverse=True)[1], np.int64)
