# SPDX-License-Identifier: Apache-2.0
"""A room while it is built: its outline, what stands where, and the things in it, each an instance of one class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.rooms.furniture import Kit
from weakseg_ros.simulate.rooms.palette import Palette, Random
from weakseg_ros.simulate.solids import Parts, place

TRIES = 12
"""places that are tried for a thing before it is left out"""


class Opening(NamedTuple):
    """A hole in the wall of an edge, in m along the edge and above the floor."""

    edge: int
    start: float
    end: float
    low: float
    high: float


class Footprint(NamedTuple):
    """An upright box that is taken."""

    x: float
    y: float
    half: tuple[float, float]
    yaw: float
    low: float
    high: float

    def corners(self) -> NDArray[np.float64]:
        """(4, 2) seen from above."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        own = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * self.half
        corners: NDArray[np.float64] = own @ np.array([[cos, sin], [-sin, cos]]) + (self.x, self.y)
        return corners

    def meets(self, other: Footprint) -> bool:
        """Whether both share some space: no axis of either separates them."""
        if self.high <= other.low or other.high <= self.low:
            return False
        mine, others = self.corners(), other.corners()
        for yaw in (self.yaw, other.yaw):
            for axis in ((np.cos(yaw), np.sin(yaw)), (-np.sin(yaw), np.cos(yaw))):
                one, two = mine @ axis, others @ axis
                if one.max() <= two.min() or two.max() <= one.min():
                    return False
        return True


@dataclass
class Room:
    """A room in its own frame: convex outline, anticlockwise, the floor at z = 0."""

    kind: str
    corners: NDArray[np.float64]
    """(M, 2) m"""
    height: float
    rng: Random
    palette: Palette
    mess: float
    """0 tidy to 1"""
    doors: list[Opening] = field(default_factory=list)
    windows: list[Opening] = field(default_factory=list)
    parts: list[Parts] = field(default_factory=list)
    things: list[int] = field(default_factory=list)
    """class of each instance; they count from 1"""
    taken: list[Footprint] = field(default_factory=list)

    @property
    def size(self) -> tuple[float, float]:
        """Extent along x and y in m."""
        return float(np.ptp(self.corners[:, 0])), float(np.ptp(self.corners[:, 1]))

    @property
    def middle(self) -> NDArray[np.float64]:
        """(2,) mean of the corners."""
        mean: NDArray[np.float64] = self.corners.mean(axis=0)
        return mean

    def edge(self, number: int) -> tuple[NDArray[np.float64], float, float]:
        """Start, yaw and length of an edge; the room lies to its left."""
        start = self.corners[number % len(self.corners)]
        way = self.corners[(number + 1) % len(self.corners)] - start
        return start, float(np.arctan2(way[1], way[0])), float(np.hypot(*way))

    def at_edge(self, number: int, along: float, inwards: float) -> tuple[float, float]:
        """Place `along` m of an edge and `inwards` m from it."""
        start, yaw, _ = self.edge(number)
        cos, sin = np.cos(yaw), np.sin(yaw)
        return float(start[0] + cos * along - sin * inwards), float(start[1] + sin * along + cos * inwards)

    def put(self, parts: Parts, x: float = 0.0, y: float = 0.0, yaw: float = 0.0, z: float = 0.0) -> None:
        """Add one thing, whatever stands there."""
        self.things.append(int(parts["raw"][0]))
        self.parts.append(place(parts, (x, y, z), yaw, len(self.things)))

    def is_free(self, footprint: Footprint) -> bool:
        """Whether a footprint lies in the room and on nothing that is taken."""
        inside = all(self._left_of(number, footprint.corners()) for number in range(len(self.corners)))
        return inside and not any(footprint.meets(other) for other in self.taken)

    def _left_of(self, number: int, points: NDArray[np.float64]) -> bool:
        start, yaw, _ = self.edge(number)
        return bool(((points - start) @ (-np.sin(yaw), np.cos(yaw)) > -1e-6).all())

    def stand(self, kit: Kit, x: float, y: float, yaw: float) -> bool:
        """Put a kit at a place if that is free; whether it was."""
        footprint = Footprint(x, y, kit.half, yaw, kit.low, kit.height)
        if not self.is_free(footprint):
            return False
        self.taken.append(footprint)
        self.put(kit.parts, x, y, yaw)
        return True

    def against_wall(self, kit: Kit, gap: float = 0.02, edges: tuple[int, ...] = ()) -> tuple[float, float, float] | None:
        """Put a kit with its back to a wall, at random; its x, y and yaw, or None where no place was found."""
        numbers = edges or tuple(range(len(self.corners)))
        lengths = np.array([self.edge(number)[2] for number in numbers])
        for _ in range(TRIES):
            number = int(self.rng.choice(numbers, p=lengths / lengths.sum()))
            _, yaw, length = self.edge(number)
            x, y = self.at_edge(number, self.rng.uniform(0, length), kit.half[1] + gap)
            if self.stand(kit, x, y, yaw):
                return x, y, yaw
        return None

    def anywhere(self, kit: Kit, yaw: float | None = None) -> tuple[float, float, float] | None:
        """Put a kit on a free place, turned at random without a `yaw`; its x, y and yaw, or None."""
        turn = self.rng.uniform(-np.pi, np.pi) if yaw is None else yaw
        spot = self.find(kit, turn)
        if spot is None:
            return None
        self.stand(kit, *spot, turn)
        return *spot, turn

    def find(self, kit: Kit, yaw: float) -> tuple[float, float] | None:
        """A free place for a kit, at random; None where none was found."""
        low, high = self.corners.min(axis=0), self.corners.max(axis=0)
        for x, y in self.rng.uniform(low, high, (2 * TRIES, 2)):
            if self.is_free(Footprint(float(x), float(y), kit.half, yaw, kit.low, kit.height)):
                return float(x), float(y)
        return None
