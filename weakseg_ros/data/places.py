# SPDX-License-Identifier: Apache-2.0
"""Where a robot was, from the messages of ROS 2 that say so: odometry, poses and satellite fixes, read by hand from their CDR."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import NamedTuple

ODOMETRY, POSE, FIX = "nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/NavSatFix"
METRES_A_DEGREE = 111_320.0


class Place(NamedTuple):
    """A place on the ground, in metres; all satellite fixes share one origin, each odometry has its own."""

    x_m: float
    y_m: float
    is_global: bool


def place_of(kind: str, data: bytes) -> Place | None:
    """The place that a serialized message of a type in PLACE_TYPES tells; None where it tells none or is damaged."""
    try:
        place = PLACE_TYPES[kind](_Reader(data))
    except (struct.error, IndexError):
        return None
    return place if math.isfinite(place.x_m) and math.isfinite(place.y_m) else None


class _Reader:
    """The members of a message in plain CDR, one after another, each aligned to its own size."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data[4:], 0
        self._order = "<" if data[1] & 1 else ">"
        self._next("i", 4), self._next("I", 4)  # the stamp
        self.text()

    def _next(self, kind: str, size: int) -> float:
        self._at = -(-self._at // size) * size
        (value,) = struct.unpack_from(self._order + kind, self._data, self._at)
        self._at += size
        return float(value)

    def text(self) -> None:
        """Pass over a string."""
        length = int(self._next("I", 4))
        self._at += length

    def pair(self) -> tuple[float, float]:
        """Two numbers of 64 bits."""
        return self._next("d", 8), self._next("d", 8)

    def skip_status(self) -> None:
        """Pass over the status of a fix."""
        self._next("b", 1), self._next("H", 2)


def _odometry(reader: _Reader) -> Place:
    reader.text()  # the body's frame
    return Place(*reader.pair(), False)


def _pose(reader: _Reader) -> Place:
    return Place(*reader.pair(), False)


def _fix(reader: _Reader) -> Place:
    """Metres north and east of 0 N 0 E on a sphere; right to a percent within a town, which is what cells of a map need."""
    reader.skip_status()
    latitude, longitude = reader.pair()
    return Place(longitude * METRES_A_DEGREE * math.cos(math.radians(latitude)), latitude * METRES_A_DEGREE, True)


PLACE_TYPES: dict[str, Callable[[_Reader], Place]] = {FIX: _fix, ODOMETRY: _odometry, POSE: _pose}
"""in the order of preference"""
