# SPDX-License-Identifier: Apache-2.0
"""A street drawn from a seed: a town's habits, its sections with what lines each side, side streets, and what stands there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from weakseg_ros.simulate.furnish import Placer, Section, Side, furnish
from weakseg_ros.simulate.ground import (
    ALBEDO,
    CELL_M,
    HALF_LENGTH_M,
    HALF_WIDTH_M,
    LANE,
    PARKING,
    PLAZA,
    ROAD,
    SIDEWALK,
    TERRAIN,
    Ground,
    waves,
)
from weakseg_ros.simulate.solids import Parts, join
from weakseg_ros.simulate.traffic import Mover, draw_traffic
from weakseg_ros.simulate.variety import plant, vary_materials

DRIVE_HALF_M = 210.0
"""the drive stays within this distance of the street's middle, so that the view never ends"""


@dataclass(frozen=True)
class Town:
    """Habits that a whole street shares; ranges are drawn from, section by section."""

    lane_m: tuple[float, float]
    lanes: tuple[int, ...]
    parking: float
    """share of sides with parked cars along the road"""
    strip: float
    """share of sides with a green strip between road and sidewalk"""
    sidewalk_m: tuple[float, float]
    setback_m: tuple[float, float]
    """from sidewalk to facade"""
    built: tuple[str, ...]
    """what the sides are lined with: terrace, detached, halls, open"""
    height_m: tuple[float, float]
    trees: float
    """per 10 m of a side"""
    bushes: float
    """per 10 m of a side"""
    traffic: float
    """cars per 100 m and lane"""
    people: float
    """per 100 m of a sidewalk"""


TERRACES, HOUSES = ("terrace",) * 4 + ("detached",), ("detached",) * 4 + ("terrace", "open")
TOWNS = {
    "old town": Town((2.6, 3.0), (1,), 0.6, 0.05, (1.2, 3.0), (0.0, 2.0), TERRACES, (7, 14), 0.3, 0.8, 0.8, 2.2),
    "suburb": Town((2.5, 2.9), (1,), 0.5, 0.4, (1.2, 2.2), (2.5, 7.0), HOUSES, (4, 8), 0.9, 2.2, 0.5, 0.7),
    "boulevard": Town((2.9, 3.3), (1, 2), 0.8, 0.7, (2.5, 5.0), (0.0, 4.0), (*TERRACES, "halls"), (9, 20), 1.0, 1.2, 1.5, 2.5),
    "village": Town((2.5, 2.9), (1,), 0.25, 0.3, (1.0, 1.8), (1.0, 6.0), HOUSES, (4, 7), 0.7, 1.8, 0.4, 0.6),
    "outskirts": Town(
        (3.0, 3.5), (1, 2), 0.3, 0.6, (1.5, 2.5), (4.0, 10.0), ("halls", "halls", "open"), (5, 11), 0.8, 2.0, 1.2, 0.4
    ),
    "greenway": Town(
        (2.7, 3.1), (1,), 0.3, 0.6, (1.3, 2.5), (2.0, 6.0), ("open", "open", "detached"), (4, 8), 1.3, 3.0, 0.6, 0.9
    ),
}


@dataclass(frozen=True)
class Street:
    """Everything that can be seen on one street."""

    seed: int
    town: str
    ground: Ground
    parts: Parts
    """what does not move"""
    movers: tuple[Mover, ...]
    ego_lane_m: float
    """lateral position of the drive, left of the centre line positive"""
    speed_m_s: float


def build_street(seed: int, varied: bool = False) -> Street:
    """The street of a seed, plain or `varied`; the same seed gives the same street."""
    rng = np.random.default_rng([seed, 0x57])
    name = str(rng.choice(list(TOWNS)))
    town = TOWNS[name]
    lanes, lane = int(rng.choice(town.lanes)), rng.uniform(*town.lane_m)
    half_road = lanes * lane + rng.uniform(0.2, 1.4)
    sections = _sections(rng, town)
    ground = _ground(rng, sections, half_road)
    placer = Placer(ground, half_road, rng)
    furnish(placer, sections, plant if varied else None)
    walks = [
        (side.lateral(half_road, "sidewalk"), side.sidewalk_m)
        for side in (sections[len(sections) // 2].left, sections[len(sections) // 2].right)
    ]
    speed = drive_speed(seed)
    movers = draw_traffic(rng, lanes, lane, half_road, walks, town.traffic, town.people, speed, placer.next_instance)
    parts = join(placer.placed)
    if varied:
        parts, ground = vary_materials(parts, ground, seed)
    return Street(seed, name, ground, parts, movers, -(lanes - 0.5) * lane, speed)


def drive_speed(seed: int) -> float:
    """Mean speed of the drive on the street of a seed, in m/s; known without building the street."""
    return float(np.random.default_rng([seed, 0x5E]).uniform(6.0, 11.0))


def _sections(rng: np.random.Generator, town: Town) -> list[Section]:
    """The street cut into stretches of 35 to 110 m, with or without a side street between two of them."""
    edges = [-HALF_LENGTH_M]
    while edges[-1] < HALF_LENGTH_M:
        edges.append(edges[-1] + rng.uniform(35, 110))
    edges[-1] = HALF_LENGTH_M
    sides = [_side(rng, town), _side(rng, town)]
    sections = []
    for start, end in pairwise(edges):
        for i in (0, 1):
            if rng.random() < 0.6:
                sides[i] = _side(rng, town, sides[i].sidewalk_m)
        crossing = (0, 1, 2, 3)[rng.choice(4, p=[0.3, 0.25, 0.25, 0.2])]
        sections.append(Section(start, end, sides[0], sides[1], rng.uniform(2.3, 4.0), bool(crossing & 1), bool(crossing & 2)))
    return sections


def _side(rng: np.random.Generator, town: Town, sidewalk_m: float | None = None) -> Side:
    parked = rng.random() < town.parking
    perpendicular = parked and rng.random() < 0.2
    front = str(rng.choice(["terrain", "terrain", "terrain", "sidewalk", "parking", "plaza"]))
    return Side(
        parking_m=(5.0 if perpendicular else rng.uniform(1.9, 2.3)) if parked else 0.0,
        occupied=rng.uniform(0.2, 0.9),
        strip_m=rng.uniform(0.8, 3.0) if rng.random() < town.strip else 0.0,
        sidewalk_m=sidewalk_m or rng.uniform(*town.sidewalk_m),
        setback_m=rng.uniform(*town.setback_m),
        front=front,
        border=str(rng.choice(["fence", "hedge", "hedge", "none"])),
        built=str(rng.choice(town.built)),
        height_m=rng.uniform(*town.height_m),
        trees=town.trees * rng.uniform(0.2, 1.6),
        bushes=town.bushes * rng.uniform(0.1, 1.8),
    )


def _ground(rng: np.random.Generator, sections: list[Section], half_road: float) -> Ground:
    """Height, course and painted kinds of the whole street."""
    centre = waves(rng, (0.10, 0.05), (420.0, 150.0))
    rise_x, rise_y = waves(rng, (0.025, 0.012, 0.006), (500.0, 160.0, 45.0)), waves(rng, (0.03, 0.02), (260.0, 90.0))
    x = np.arange(-HALF_LENGTH_M, HALF_LENGTH_M, CELL_M) + CELL_M / 2
    y = np.arange(-HALF_WIDTH_M, HALF_WIDTH_M, CELL_M) + CELL_M / 2
    cosine = 1 / np.hypot(1, centre.slope(x))
    lateral = ((y[None, :] - centre.at(x)[:, None]) * cosine[:, None]).astype(np.float32)
    kinds = np.full(lateral.shape, TERRAIN, np.uint8)
    dashes = bool(rng.random() < 0.7)
    for section in sections:
        span = slice(*np.searchsorted(x, [section.start_m, section.end_m]))
        _paint_section(kinds[span], lateral[span], section, half_road)
    if dashes:
        kinds[(np.abs(lateral) < 0.07) & (x % 9 < 4)[:, None]] = LANE
    if rng.random() < 0.4:
        kinds[np.abs(np.abs(lateral) - half_road + 0.25) < 0.07] = LANE
    for section in sections[:-1]:
        _paint_crossing(kinds, lateral, x, section, half_road, bool(rng.random() < 0.4))
    curb, albedo = rng.uniform(0.06, 0.16), ALBEDO * rng.uniform(0.75, 1.2, len(ALBEDO)).astype(np.float32)
    return Ground(centre, rise_x, rise_y, curb, albedo, kinds)


def _paint_section(kinds: np.ndarray, lateral: np.ndarray, section: Section, half_road: float) -> None:
    kinds[np.abs(lateral) < half_road] = ROAD
    front = {"terrain": TERRAIN, "sidewalk": SIDEWALK, "parking": PARKING, "plaza": PLAZA}
    for side, sign in ((section.left, 1), (section.right, -1)):
        bands = [half_road, half_road + side.parking_m]
        bands += [bands[1] + side.strip_m, bands[1] + side.strip_m + side.sidewalk_m]
        bands += [bands[3] + side.setback_m]
        palette = np.array([255, PARKING, TERRAIN, SIDEWALK, front[side.front], TERRAIN], np.uint8)
        here = palette[np.searchsorted(np.array(bands, np.float32), sign * lateral, side="right")]
        kinds[here != 255] = here[here != 255]


def _paint_crossing(
    kinds: np.ndarray, lateral: np.ndarray, x: np.ndarray, section: Section, half_road: float, zebra: bool
) -> None:
    """A side street at the section's end, with sidewalks along it and perhaps a zebra crossing before it."""
    half = section.side_street_half_m
    near = np.flatnonzero(np.abs(x - section.end_m) < half + 8)
    span = slice(near[0], near[-1] + 1)
    away = np.abs(x[span] - section.end_m)[:, None]
    here, beside = lateral[span], kinds[span]
    for sign, opens in ((1, section.opens_left), (-1, section.opens_right)):
        if opens:
            beyond = sign * here >= half_road
            beside[beyond & (away < half + 1.8) & (sign * here > half_road + 1.0)] = SIDEWALK
            beside[beyond & (away < half + 1.2 * np.exp(-(sign * here - half_road) / 1.5))] = ROAD
    if zebra and (section.opens_left or section.opens_right):
        stripes = (np.abs(here) < half_road) & (here % 1.0 < 0.5) & (np.abs(x[span] - section.end_m + half + 3.5) < 1.5)[:, None]
        beside[stripes] = LANE
