# SPDX-License-Identifier: Apache-2.0
"""A robot's way through a floor: along the hallway, into each open room and back, always on the ways that are kept free."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.rooms.building import Floor

TURN_M = 0.5
"""the robot looks where it will be after this way"""
GLANCE_DEG, ROOM_GLANCE_DEG = 25.0, 110.0
"""how far it looks to both sides in the hallway, and in rooms"""


@dataclass(frozen=True)
class Walk:
    """A polyline over a floor."""

    points: NDArray[np.float64]
    """(M, 2) m"""
    hall_half_m: float
    """half width of the hallway, along whose middle y is 0"""

    @property
    def length_m(self) -> float:
        """Length of the whole way."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())

    def at(self, way_m: float) -> NDArray[np.float64]:
        """(2,) place after a way; after the end the way begins anew."""
        steps = np.hypot(*np.diff(self.points, axis=0).T)
        done = np.concatenate([[0.0], np.cumsum(steps)])
        along = way_m % done[-1]
        return np.array([np.interp(along, done, self.points[:, axis]) for axis in (0, 1)])

    def pose(self, way_m: float, height_m: float) -> NDArray[np.float64]:
        """(4, 4) sensor to world after a way, heading along it, with glances to the sides and a slight sway."""
        here, ahead = self.at(way_m), self.at(way_m + TURN_M)
        glance = GLANCE_DEG if abs(here[1]) < self.hall_half_m and here[0] > 0 else ROOM_GLANCE_DEG
        heading = np.arctan2(*(ahead - here)[::-1]) + np.radians(glance) * np.sin(1.3 * way_m)
        pitch, roll = np.radians(0.3) * np.sin(2.1 * way_m), np.radians(0.3) * np.sin(1.7 * way_m + 1)
        cy, sy, cp, sp, cr, sr = np.cos(heading), np.sin(heading), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        pose = np.eye(4)
        pose[:3, :3] = (
            np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
            @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
            @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        )
        pose[:3, 3] = *here, height_m
        return pose


def plan_walk(floor: Floor) -> Walk:
    """The way through the open rooms of a floor, in the order of their doors along the hallway."""
    visits = [placed.way_in() for placed in floor.rooms[1:] if placed.is_open]
    visits.sort(key=lambda way: float(way[0, 0]))
    points = [np.array([0.6, 0.0])]
    for way in visits:
        middle = np.array([min(way[0, 0], float(floor.rooms[0].room.size[0]) - 0.6), 0.0])
        points += [middle, way[1], way[2], way[1], middle]
    points.append(np.array([0.6, 0.0]))
    kept = [points[0]]
    kept += [after for before, after in pairwise(points) if np.hypot(*(after - before)) > 1e-6]
    return Walk(np.array(kept), floor.rooms[0].room.size[1] / 2)
