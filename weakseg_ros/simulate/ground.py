# SPDX-License-Identifier: Apache-2.0
"""The ground: a smooth height, a painted map of kinds (road, sidewalk, ...) in which some stand a curb higher, and rays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.raycast import Floats, Rays

ROAD, LANE, PARKING, SIDEWALK, TERRAIN, PLAZA = range(6)
Numbers = Any
"""a number or an array of numbers; what comes out has the shape that went in"""

RAW_ID = np.array([40, 60, 44, 48, 72, 49], np.uint16)
ALBEDO = np.array([0.36, 0.75, 0.48, 0.50, 0.53, 0.44], np.float32)
ROUGHNESS_M = np.array([0.004, 0.004, 0.006, 0.006, 0.035, 0.006], np.float32)
RAISED = np.array([False, False, False, True, True, True])

CELL_M = 0.125
HALF_LENGTH_M = 320.0
HALF_WIDTH_M = 75.0


@dataclass(frozen=True)
class Waves:
    """A smooth function of one coordinate: a sum of sines, with its derivative."""

    terms: tuple[tuple[float, float, float], ...]
    """amplitude in m, wave number in rad/m, phase of each sine"""

    def at(self, u: Numbers) -> Numbers:
        """Value at `u` (any shape)."""
        return sum(amplitude * np.sin(u * number + phase) for amplitude, number, phase in self.terms)

    def slope(self, u: Numbers) -> Numbers:
        """Derivative at `u` (any shape)."""
        return sum(amplitude * number * np.cos(u * number + phase) for amplitude, number, phase in self.terms)


def waves(rng: np.random.Generator, slopes: tuple[float, ...], lengths_m: tuple[float, ...]) -> Waves:
    """Sines of about the given wavelengths, each as steep as `slopes` at most says."""
    number = 2 * np.pi / (np.array(lengths_m) * rng.uniform(0.8, 1.25, len(lengths_m)))
    amplitude = np.array(slopes) * rng.uniform(0.2, 1.0, len(slopes)) / number
    phase = rng.uniform(0, 2 * np.pi, len(slopes))
    return Waves(tuple(zip(amplitude.tolist(), number.tolist(), phase.tolist(), strict=True)))


@dataclass(frozen=True)
class Ground:
    """A street's ground. x runs along the street, the centre line lies at `centre(x)`; z is `rise` and a curb on top."""

    centre: Waves
    rise_x: Waves
    rise_y: Waves
    curb_m: float
    albedo: Floats
    """of each kind on this street"""
    kinds: NDArray[np.uint8]
    """(nx, ny) kind of each cell of CELL_M, painted by the street"""

    def height(self, x: Numbers, y: Numbers) -> Numbers:
        """z of the road surface in m, without the curb."""
        return self.rise_x.at(x) + self.rise_y.at(y)

    def kind_at(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(N,) kind of the ground at world positions (N,) m; beyond the map that of its nearest cell."""
        i = ((x + HALF_LENGTH_M) / CELL_M).astype(np.int32).clip(0, self.kinds.shape[0] - 1)
        j = ((y + HALF_WIDTH_M) / CELL_M).astype(np.int32).clip(0, self.kinds.shape[1] - 1)
        kinds: NDArray[np.uint8] = self.kinds[i, j]
        return kinds

    def position(self, x: float, lateral: float) -> tuple[float, float, float, float]:
        """World x, y, z and heading at `lateral` m left of the centre line."""
        heading = float(np.arctan(self.centre.slope(x)))
        y = float(self.centre.at(x)) + lateral / np.cos(heading)
        z = float(self.height(x, y))
        z += self.curb_m * bool(RAISED[self.kind_at(np.array([x]), np.array([y]))[0]])
        return x, y, z, heading


def cast_ground(
    ground: Ground, origin: NDArray[np.float64], rays: Rays, limit_m: float
) -> tuple[Floats, NDArray[np.uint8], Floats]:
    """(H * W,) each: m along a ray to the ground (inf where it misses it), the ground's kind, and the cosine of incidence.

    Along each column the surface is a polyline over geometrically growing distances; a ray ends on the first piece that
    rises above it. Where a ray meets the raised level in front of a curb but the road behind it, it ends on the curb's face.
    """
    flat = np.hypot(rays.direction[0], rays.direction[1])
    tangent = rays.direction[2] / np.maximum(flat, 1e-6)
    low_rays = np.flatnonzero(tangent < 0.08)
    distances = np.geomspace(0.7, limit_m * 1.05, 72)
    relief = _relief(ground, origin, rays, distances)
    high = _first_crossing(relief + ground.curb_m, distances, tangent, low_rays, rays.columns)
    low = _first_crossing(relief, distances, tangent, low_rays, rays.columns)
    heading = rays.direction[:2, low_rays] / flat[low_rays]

    def kind_at(reach: Floats) -> NDArray[np.uint8]:
        safe = np.minimum(reach, limit_m)
        return ground.kind_at(heading[0] * safe + origin[0], heading[1] * safe + origin[1])

    above, below = kind_at(high), kind_at(low)
    on_top = RAISED[above]
    on_face = ~on_top & RAISED[below]
    reach, kind = np.where(on_top, high, low), np.where(on_top, above, below)
    face = np.flatnonzero(on_face)
    reach[face] = _curb_face(ground, origin, heading[:, face], high[face], low[face])
    full_reach = np.full(len(flat), np.inf, np.float32)
    full_kind = np.zeros(len(flat), np.uint8)
    full_cosine = np.ones(len(flat), np.float32)
    full_reach[low_rays] = np.where(reach < limit_m, reach / flat[low_rays], np.inf)
    full_kind[low_rays] = kind
    full_cosine[low_rays] = np.where(on_face, flat[low_rays] * 0.8, np.abs(rays.direction[2, low_rays]))
    return full_reach, full_kind, full_cosine


def _relief(ground: Ground, origin: NDArray[np.float64], rays: Rays, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """(W, K) height of the road surface below the sensor, along the heading of each column."""
    ahead = np.arctan2(rays.rotation[1, 0], rays.rotation[0, 0])
    azimuth = rays.left_rad - (np.arange(rays.columns) + 0.5) * rays.step_rad + ahead
    x = np.cos(azimuth)[:, None] * distances + origin[0]
    y = np.sin(azimuth)[:, None] * distances + origin[1]
    relief: NDArray[np.float64] = ground.height(x, y) - origin[2]
    return relief


def _first_crossing(
    relief: NDArray[np.float64], distances: NDArray[np.float64], tangent: Floats, index: NDArray[np.intp], columns: int
) -> Floats:
    """Horizontal distance at which rays of the given tangents first meet the polyline of their column; inf if never."""
    count = len(distances)
    slopes = relief / distances
    horizon = np.maximum.accumulate(slopes, axis=1)
    column = index % columns
    keys = horizon + 1e3 * np.arange(len(relief))[:, None]
    found = np.searchsorted(keys.ravel(), tangent[index] + 1e3 * column) - column * count
    after = found.clip(1, count - 1)
    before = after - 1
    d0, d1 = distances[before], distances[after]
    z0, z1 = relief[column, before], relief[column, after]
    gradient = (z1 - z0) / (d1 - d0)
    reach = (z0 - gradient * d0) / np.minimum(tangent[index] - gradient, -1e-9)
    reach = np.where(found == 0, z0 / np.minimum(tangent[index], -1e-9), reach.clip(d0, d1))
    return np.where(found < count, reach, np.inf).astype(np.float32)


def _curb_face(ground: Ground, origin: NDArray[np.float64], heading: Floats, start: Floats, end: Floats) -> Floats:
    """Bisect the way between the two levels' crossings for where the raised kind begins."""
    near, far = start.copy(), np.minimum(end, start + 30)
    for _ in range(6):
        middle = (near + far) / 2
        raised = RAISED[ground.kind_at(heading[0] * middle + origin[0], heading[1] * middle + origin[1])]
        near, far = np.where(raised, near, middle), np.where(raised, middle, far)
    return far
