# SPDX-License-Identifier: Apache-2.0
"""The ground below a sensor as one plane, found in a cloud alone: what height is measured from, whatever the mounting.

The lowest points of polar cells are candidates; the plane that most of them share and few lie below is taken (RANSAC,
Fischler and Bolles, 1981), then fitted by least squares. Everything is a function of the cloud: the same cloud, the same plane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cloud import Cloud

USUAL_HEIGHT_M = 1.75
"""mounting height that stands in where no ground is found, and to which clouds are moved that lie far off it"""
LOWEST_M, HIGHEST_M = 0.6, 2.9
"""mounting heights that need no correction"""
LEVEL_DEG = 2.5
"""a tilt up to this is left as it is: roads slope, and vehicles sway"""
SURE_SHARE = 0.55
"""share from which a cloud is moved onto its ground: indoors the lowest points are chairs and tables"""
STEEPEST = 0.94
"""least cosine between the ground's normal and z: 20 degrees"""
NEAR_M, FAR_M = 2.0, 30.0
SECTORS, RINGS = 48, 12
FEWEST_POINTS, FEWEST_CELLS, LEAST_IN_CELL = 200, 30, 3
FEWEST_ON_PLANE = 10
MOST_POINTS = 24_000
TRIES, REFITS = 120, 4
TOLERANCE_M, TOLERANCE_PER_M = 0.12, 0.01
"""how far a ground point may be off the plane, and how much more for each metre of distance: roads are not flat"""


@dataclass(frozen=True)
class GroundPlane:
    """height = normal . xyz + offset_m, in m above the ground."""

    normal: NDArray[np.float64]
    """(3,) unit vector, up"""
    offset_m: float
    """height of the origin"""
    share: float
    """share of the candidate cells that lie on the plane, 0 to 1; 0 = no ground was found, and the plane is assumed"""

    @property
    def tilt_deg(self) -> float:
        """Angle between the plane's normal and the cloud's z axis."""
        return float(np.degrees(np.arccos(np.clip(self.normal[2], -1.0, 1.0))))

    def height(self, xyz: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, 3) m -> (N,) m above the ground."""
        return np.asarray(xyz @ self.normal.astype(np.float32) + np.float32(self.offset_m), np.float32)


ASSUMED = GroundPlane(np.array([0.0, 0.0, 1.0]), USUAL_HEIGHT_M, 0.0)


def find_ground(xyz: NDArray[np.floating], usable: NDArray[np.bool_] | None = None) -> GroundPlane:
    """The ground plane of (N, 3) points in m, z roughly up; ASSUMED where there are too few near the sensor.

    Where `usable` (N,) is given, the other points do not count, and may be anything.
    """
    candidates = _lowest_of_cells(_thinned(xyz, usable))
    if len(candidates) < FEWEST_CELLS:
        return ASSUMED
    tolerance = TOLERANCE_M + TOLERANCE_PER_M * np.hypot(candidates[:, 0], candidates[:, 1])
    plane = _best_plane(candidates, tolerance)
    return ASSUMED if plane is None else _refitted(plane, candidates, tolerance)


def stand_level(cloud: Cloud, ground: GroundPlane) -> tuple[Cloud, GroundPlane]:
    """The cloud with its ground level and its origin at a usual height, where it is far off either; and its ground then.

    Non-returns stay at the origin. A cloud whose ground is not sure stays as it is.
    """
    tilted, high = ground.tilt_deg > LEVEL_DEG, not LOWEST_M < ground.offset_m < HIGHEST_M
    if ground.share < SURE_SHARE or not (tilted or high):
        return cloud, ground
    xyz = cloud.xyz.astype(np.float64)
    if tilted:
        xyz = xyz @ _rotation_to_z(ground.normal).T
        ground = replace(ground, normal=ASSUMED.normal)
    if high:
        xyz[:, 2] += ground.offset_m - USUAL_HEIGHT_M
        ground = replace(ground, offset_m=USUAL_HEIGHT_M)
    xyz[~cloud.valid] = cloud.xyz[~cloud.valid]
    return replace(cloud, xyz=xyz.astype(np.float32)), ground


def _thinned(xyz: NDArray[np.floating], usable: NDArray[np.bool_] | None) -> NDArray[np.floating]:
    """(M, 3) fewer than twice MOST_POINTS of the usable points, evenly taken."""
    if usable is None:
        return xyz[:: max(1, len(xyz) // MOST_POINTS)]
    chosen = np.flatnonzero(usable)
    return xyz.take(chosen[:: max(1, len(chosen) // MOST_POINTS)], axis=0)


def _lowest_of_cells(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(M, 3) nearly the lowest of the (N, 3) points in each polar cell that holds a few."""
    distance = np.hypot(points[:, 0], points[:, 1])
    near = np.flatnonzero((distance > NEAR_M) & (distance < FAR_M))
    points, distance = points.take(near, axis=0).astype(np.float64), distance[near]
    if len(points) < FEWEST_POINTS:
        return np.zeros((0, 3))
    sector = ((np.arctan2(points[:, 1], points[:, 0]) + np.pi) / (2 * np.pi) * SECTORS).astype(int) % SECTORS
    ring = (np.log(distance / NEAR_M) / np.log(FAR_M / NEAR_M) * RINGS).astype(int).clip(0, RINGS - 1)
    cell, order = _by_cell_and_height(sector * RINGS + ring, points[:, 2])
    first = np.concatenate([[0], np.flatnonzero(np.diff(cell)) + 1])
    count = np.diff(np.append(first, len(order)))
    filled = count >= LEAST_IN_CELL
    lowest: NDArray[np.float64] = points[order[first[filled] + count[filled] // 10]]
    return lowest  # not the very lowest: stray points lie below the ground


def _by_cell_and_height(cell: NDArray[np.int64], z: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells in ascending order, and the points in that order, each cell's from low to high and equal ones as they came.

    One sort of whole numbers, an eighth of the time of `np.lexsort`: the cell above the bits of the height as a float32 above
    the point's number, which must be below 65,536.
    """
    with np.errstate(over="ignore"):  # what is too high for a float32 is the highest
        bits = (z.astype(np.float32) + np.float32(0.0)).view(np.int32)  # -0.0 becomes 0.0, which it equals
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)  # a float's bits count downwards below 0
    key = (cell << 48) + ((bits + (1 << 31)) << 16) + np.arange(len(cell))
    key.sort()
    return key >> 48, key & 0xFFFF


def _best_plane(candidates: NDArray[np.float64], tolerance: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(4,) normal and offset of the plane through three candidates that most of them share; None where all are steep."""
    rng = np.random.default_rng(0)  # the same for every cloud, so that the same cloud has the same ground
    picks = rng.integers(len(candidates), size=(TRIES, 3))
    a, b, c = candidates[picks[:, 0]], candidates[picks[:, 1]], candidates[picks[:, 2]]
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1)
    usable = length > 1e-3
    normal = normal[usable] / length[usable, None]
    normal *= np.where(normal[:, 2:] < 0, -1.0, 1.0)
    level = normal[:, 2] >= STEEPEST
    if not level.any():
        return None
    normal, a = normal[level], a[usable][level]
    offset = -(normal * a).sum(axis=1)
    height = candidates @ normal.T + offset  # (M, T)
    on, below = np.abs(height) < tolerance[:, None], height < -3.0 * tolerance[:, None]
    best = int((on.sum(axis=0) - below.sum(axis=0)).argmax())
    return np.append(normal[best], offset[best])


def _refitted(plane: NDArray[np.float64], candidates: NDArray[np.float64], tolerance: NDArray[np.float64]) -> GroundPlane:
    normal, offset = plane[:3], float(plane[3])
    for _ in range(REFITS):
        on = np.abs(candidates @ normal + offset) < 1.5 * tolerance
        if on.sum() < FEWEST_ON_PLANE:
            break
        rows = np.column_stack([candidates[on, :2], np.ones(int(on.sum()))])
        slope_x, slope_y, height = np.linalg.lstsq(rows, candidates[on, 2], rcond=None)[0]
        steep = float(np.sqrt(slope_x**2 + slope_y**2 + 1.0))
        normal, offset = np.array([-slope_x, -slope_y, 1.0]) / steep, -float(height) / steep
    share = float((np.abs(candidates @ normal + offset) < tolerance).mean())
    return GroundPlane(normal, offset, share)


def _rotation_to_z(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) the shortest rotation that takes a unit vector, not -z, to z (Rodrigues' formula)."""
    x, y, z = np.cross(normal, [0.0, 0.0, 1.0])
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: NDArray[np.float64] = np.eye(3) + cross + cross @ cross / (1.0 + normal[2])
    return rotation
