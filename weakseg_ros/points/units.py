# SPDX-License-Identifier: Apache-2.0
"""In which unit is a cloud? In the one in which its ground lies as far below the sensor as grounds do, if not in metres.

Nothing else in a cloud's positions has a size: a street in feet is a larger street. So a unit is a guess, and where two of
them fit, both are named with the height that the sensor would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.ground import USUAL_HEIGHT_M, find_ground

UNITS_M = {"millimetres": 0.001, "centimetres": 0.01, "inches": 0.0254, "decimetres": 0.1, "feet": 0.3048}
LOW_M, HIGH_M = 0.5, 3.4
"""heights above the ground of sensors on robots, cars and trucks"""
CLEAR_SHARE = 0.4
"""of the lowest points around the sensor lie on the ground, in the unit that is meant"""
LEVEL_SHARE, LEVEL_DEG = 0.55, 10.0
"""the same, and its tilt, where nothing else says that the unit is wrong"""
FARTHEST_M, FAR_SHARE = 400.0, 0.99
"""no LiDAR has one of a hundred returns farther away"""


def units_of_ground(xyz: NDArray[np.floating], level: bool = False) -> dict[str, float]:
    """Heights of the sensor in m, by the unit in which (N, 3) points show a clear ground at a usual one; metres are not asked.

    With `level`, only a ground that is neither tilted nor doubtful counts.
    """
    least_share, most_deg = (LEVEL_SHARE, LEVEL_DEG) if level else (CLEAR_SHARE, 90.0)
    heights = {}
    for name, unit_m in UNITS_M.items():
        scaled = xyz * unit_m
        plane = find_ground(scaled)
        fits = plane.share >= least_share and plane.tilt_deg <= most_deg and LOW_M <= plane.offset_m <= HIGH_M
        if fits and not beyond_any_lidar(scaled):
            heights[name] = plane.offset_m
    return _likely_first(heights)


def units_of_height(height: float) -> dict[str, float]:
    """Heights of the sensor in m, by the unit in which a ground that is so far below the origin would be at a usual one."""
    return _likely_first({name: height * unit_m for name, unit_m in UNITS_M.items() if LOW_M <= height * unit_m <= HIGH_M})


def unit_values(units: Sequence[str], heights: Mapping[str, float]) -> str:
    """Values of unit_m, where there are several each with the height of the sensor that it means."""
    if len(units) == 1:
        return f"{UNITS_M[units[0]]:g}"
    meant = {name: f" (for a sensor {height:.1f} m above the ground)" for name, height in heights.items()}
    return " or ".join(f"{UNITS_M[name]:g}{meant.get(name, '')}" for name in units)


def beyond_any_lidar(xyz: NDArray[np.floating]) -> bool:
    """Whether more points than strays are farther away than any LiDAR reaches, were (N, 3) points in m."""
    return bool(np.quantile(np.linalg.norm(xyz, axis=1), FAR_SHARE) > FARTHEST_M)


def _likely_first(heights: dict[str, float]) -> dict[str, float]:
    """The unit first in which the sensor is nearest to a usual height, by ratio."""
    return dict(sorted(heights.items(), key=lambda entry: abs(math.log(entry[1] / USUAL_HEIGHT_M))))
