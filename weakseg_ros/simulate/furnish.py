# SPDX-License-Identifier: Apache-2.0
"""What stands along a street: buildings, gardens and their borders, trees, lamps, signs and parked vehicles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from weakseg_ros.simulate import kits
from weakseg_ros.simulate.ground import CELL_M, HALF_LENGTH_M, HALF_WIDTH_M, PARKING, Ground
from weakseg_ros.simulate.solids import Parts, place

ROW_M = 62.0
"""how far from the centre line anything is built"""


@dataclass(frozen=True)
class Side:
    """One side of a section, from the road outwards: parking, green strip, sidewalk, front area, buildings."""

    parking_m: float
    occupied: float
    """share of the parking places that are taken"""
    strip_m: float
    sidewalk_m: float
    setback_m: float
    front: str
    """ground between sidewalk and facade"""
    border: str
    """what stands between sidewalk and front area: fence, hedge, none"""
    built: str
    height_m: float
    trees: float
    """per 10 m"""
    bushes: float
    """per 10 m"""

    def lateral(self, half_road: float, band: str) -> float:
        """Distance from the centre line to the middle of "parking", "strip" or "sidewalk", or to the "border" or "facade"."""
        strip = half_road + self.parking_m
        walk = strip + self.strip_m
        border = walk + self.sidewalk_m
        return {
            "parking": half_road + self.parking_m / 2,
            "strip": strip + self.strip_m / 2,
            "sidewalk": walk + self.sidewalk_m / 2,
            "border": border,
            "facade": border + self.setback_m,
        }[band]


@dataclass(frozen=True)
class Section:
    """A stretch of the street; a side street may open at its end, to the left, to the right or both."""

    start_m: float
    end_m: float
    left: Side
    right: Side
    side_street_half_m: float
    opens_left: bool
    opens_right: bool


@dataclass
class Placer:
    """Puts kits into the world, at positions along the street, and numbers the things."""

    ground: Ground
    half_road: float
    rng: np.random.Generator
    placed: list[Parts] = field(default_factory=list)
    next_instance: int = 1

    def put(self, parts: Parts, x: float, lateral: float, turn: float = 0.0, thing: bool = False) -> None:
        """Stand `parts` at `lateral` m left of the centre line, turned by `turn` against the street's heading."""
        px, py, pz, heading = self.ground.position(x, lateral)
        if abs(px) < HALF_LENGTH_M and abs(py) < HALF_WIDTH_M:
            self.placed.append(place(parts, (px, py, pz), heading + turn, self.next_instance if thing else None))
            self.next_instance += thing

    def spots(self, start: float, end: float, per_10_m: float) -> np.ndarray:
        """Random positions between start and end, on average `per_10_m` every 10 m."""
        count = self.rng.poisson(max(end - start, 0) / 10 * per_10_m)
        return np.sort(self.rng.uniform(start, end, count))


Planting = Callable[[Placer, Side, int, float, float], None]
"""adds to one side (+1 left, -1 right) of a stretch from start to end, in m along the street"""


def furnish(placer: Placer, sections: list[Section], more: Planting | None = None) -> None:
    """Fill both sides of every section and the back rows behind them; `more` adds to each side."""
    gap_before = {1: 0.0, -1: 0.0}
    for section in sections:
        for side, sign, opens in ((section.left, 1, section.opens_left), (section.right, -1, section.opens_right)):
            start = section.start_m + gap_before[sign]
            gap_before[sign] = section.side_street_half_m + 2.0 if opens else 0.0
            end = section.end_m - gap_before[sign]
            if end - start > 6:
                _buildings(placer, side, sign, start, end)
                _front(placer, side, sign, start, end)
                _kerbside(placer, side, sign, start, end)
                _parked(placer, side, sign, start, end)
                _backdrop(placer, side, sign, start, end)
                if more is not None:
                    more(placer, side, sign, start, end)
            if opens:
                _corner(placer, side, sign, section)


def _buildings(placer: Placer, side: Side, sign: int, start: float, end: float) -> None:
    """Facades in a row; detached ones with drives between them that hold a car now and then."""
    rng, facade, x = placer.rng, side.lateral(placer.half_road, "facade"), start + 0.5
    sizes = {"terrace": (7, 18), "detached": (7, 13), "halls": (18, 40), "open": (0, 0)}[side.built]
    while side.built != "open" and x + sizes[0] < end:
        length = min(rng.uniform(*sizes), end - x)
        depth = rng.uniform(8, 12) if side.built != "halls" else rng.uniform(12, 22)
        recess = rng.uniform(0, 0.5) if side.built == "terrace" else rng.uniform(0, 2.5)
        height = side.height_m * rng.uniform(0.75, 1.25)
        turn = (0 if sign > 0 else np.pi) + (rng.normal(0, 0.03) if side.built == "detached" else 0)
        placer.put(kits.house(rng, length, depth, height), x + length / 2, sign * (facade + recess + depth / 2), turn)
        gap = {
            "terrace": 0.0 if rng.random() < 0.9 else rng.uniform(3, 5),
            "detached": rng.uniform(3, 9),
            "halls": rng.uniform(5, 20),
        }[side.built]
        if gap > 3.2 and side.setback_m + depth > 6 and rng.random() < 0.6:
            _drive(placer, side, sign, x + length + gap / 2)
        x += length + gap


def _drive(placer: Placer, side: Side, sign: int, x: float) -> None:
    """A paved way in between two houses, painted onto the ground."""
    rng, ground = placer.rng, placer.ground
    border = side.lateral(placer.half_road, "border")
    for away in np.arange(border, border + rng.uniform(6, 12), CELL_M):
        px, py, _, _ = ground.position(x, sign * away)
        i, j = int((px + HALF_LENGTH_M) / CELL_M), int((py + HALF_WIDTH_M) / CELL_M)
        ground.kinds[max(i - 11, 0) : i + 11, max(j - 1, 0) : j + 2] = PARKING
    if rng.random() < 0.5:
        placer.put(kits.car(rng), x, sign * (border + rng.uniform(3.0, 5.0)), rng.choice([1, -1]) * np.pi / 2, thing=True)


def _front(placer: Placer, side: Side, sign: int, start: float, end: float) -> None:
    """The border of the front area, in pieces with gates between, and the garden behind it."""
    rng, border = placer.rng, side.lateral(placer.half_road, "border")
    deep = side.setback_m if side.built != "open" else 12.0
    x = start
    while side.border != "none" and deep > 1.0 and x < end - 2:
        length = min(rng.uniform(4, 14), end - x)
        kit = kits.fence if side.border == "fence" else kits.hedge
        placer.put(kit(rng, length), x + length / 2, sign * (border + 0.35))
        x += length + rng.choice([0.0, 1.2, 3.5])
    if side.front != "parking" or side.built == "open":
        for spot in placer.spots(start, end, side.bushes * min(deep, 8) / 3):
            placer.put(kits.bush(rng), spot, sign * (border + 0.8 + rng.uniform(0, max(deep - 1, 0.3))))
        for spot in placer.spots(start, end, side.trees * min(deep, 10) / 7):
            if deep > 2.5:
                placer.put(kits.tree(rng, 0.8), spot, sign * (border + rng.uniform(1.2, deep - 0.8)), rng.uniform(0, 6.3))
    elif deep > 5.5:
        _car_park(placer, sign * (border + deep / 2), start + 2, end - 2)


def _car_park(placer: Placer, lateral: float, start: float, end: float) -> None:
    for x in np.arange(start, end, 2.7):
        if placer.rng.random() < 0.45:
            placer.put(kits.car(placer.rng), x, lateral, placer.rng.choice([1, -1]) * np.pi / 2, thing=True)


def _kerbside(placer: Placer, side: Side, sign: int, start: float, end: float) -> None:
    """What stands between road and sidewalk: trees, lamps, signs, bollards, bins, bicycles, people who wait."""
    rng, half = placer.rng, placer.half_road
    line = side.lateral(half, "strip") if side.strip_m else half + side.parking_m + 0.45
    if side.strip_m or side.sidewalk_m > 2.2:
        for x in np.arange(start + rng.uniform(2, 8), end, rng.uniform(7, 16)):
            if rng.random() < min(1.0, side.trees * 1.2):
                placer.put(kits.tree(rng), x + rng.normal(0, 0.4), sign * line, rng.uniform(0, 6.3))
    for x in np.arange(start + rng.uniform(3, 12), end, rng.uniform(24, 42)):
        placer.put(kits.lamp(rng), x, sign * line, -sign * np.pi / 2)
    for x in placer.spots(start, end, 0.22):
        placer.put(kits.sign(rng), x, sign * (line + rng.normal(0, 0.1)), (np.pi if sign > 0 else 0) + rng.normal(0, 0.1))
    if rng.random() < 0.3:
        for x in np.arange(start + 2, end - 2, rng.uniform(2, 4)):
            placer.put(kits.bollard(rng), x, sign * (half + side.parking_m + 0.3))
    wall = side.lateral(half, "border") - 0.35
    for x in placer.spots(start, end, 0.25):
        placer.put(kits.clutter(rng), x, sign * wall, rng.normal(0, 0.05))
    for x in placer.spots(start, end, 0.2):
        raw = kits.BICYCLE if rng.random() < 0.75 else kits.MOTORCYCLE
        placer.put(kits.two_wheeler(rng, raw), x, sign * wall, rng.normal(0, 0.2), thing=True)
    for x in placer.spots(start, end, 0.12):
        placer.put(kits.person(rng), x, sign * side.lateral(half, "sidewalk"), rng.uniform(0, 6.3), thing=True)
    if rng.random() < 0.12 and side.sidewalk_m > 1.8:
        placer.put(kits.shelter(rng), rng.uniform(start, end), sign * (wall - 0.3), 0 if sign > 0 else np.pi)


def _parked(placer: Placer, side: Side, sign: int, start: float, end: float) -> None:
    rng, lateral = placer.rng, sign * side.lateral(placer.half_road, "parking")
    if not side.parking_m:
        return
    across = side.parking_m > 4
    x = start + rng.uniform(3, 6)
    while x < end - 5:
        big = not across and rng.random() < 0.06
        if rng.random() < side.occupied:
            vehicle = kits.truck(rng) if big else kits.car(rng)
            turn = sign * np.pi / 2 * rng.choice([1, -1]) if across else (np.pi if sign > 0 else 0.0)
            placer.put(vehicle, x + 2.5 * big, lateral + rng.normal(0, 0.08), turn + rng.normal(0, 0.025), thing=True)
        x += 2.6 if across else rng.uniform(5.3, 6.6) + 5 * big


def _backdrop(placer: Placer, side: Side, sign: int, start: float, end: float) -> None:
    """What shows between and behind the first row: further houses, trees, bushes."""
    rng = placer.rng
    behind = side.lateral(placer.half_road, "facade") + (24 if side.built == "halls" else 15)
    x = start
    while x < end - 10:
        length = rng.uniform(9, 20)
        if rng.random() < 0.5:
            lateral = sign * (behind + rng.uniform(6, 26))
            placer.put(
                kits.house(rng, length, 9, side.height_m * rng.uniform(0.8, 1.3)),
                x + length / 2,
                lateral,
                0 if sign > 0 else np.pi,
            )
        x += length + rng.uniform(4, 22)
    near = side.lateral(placer.half_road, "border") + 2 if side.built == "open" else behind
    density = 2.0 if side.built == "open" else 0.5
    for x in placer.spots(start, end, density):
        placer.put(kits.tree(rng, 1.1), x, sign * rng.uniform(near, ROW_M), rng.uniform(0, 6.3))
    for x in placer.spots(start, end, density * 3):
        placer.put(kits.bush(rng), x, sign * rng.uniform(near, near + 14))


def _corner(placer: Placer, side: Side, sign: int, section: Section) -> None:
    """Furniture of a side street: signs or lights at the corner, parked cars and trees along it."""
    rng, half = placer.rng, section.side_street_half_m
    mouth = placer.half_road + side.parking_m
    post = kits.traffic_light if rng.random() < 0.3 else kits.sign
    for edge in (1, -1):
        placer.put(post(rng), section.end_m + edge * (half + 0.8), sign * (mouth + 1.0), 0 if edge < 0 else np.pi)
    for away in np.arange(mouth + 8, ROW_M - 5, 6.5):
        _, _, _, heading = placer.ground.position(section.end_m, 0.0)
        if rng.random() < 0.3:
            placer.put(kits.car(rng), section.end_m + half - 1.0, sign * away, np.pi / 2 - heading, thing=True)
        if rng.random() < 0.35:
            placer.put(kits.tree(rng), section.end_m - half - 1.2, sign * away)
