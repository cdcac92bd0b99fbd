# SPDX-License-Identifier: Apache-2.0
"""What moves: cars, lorries, buses, riders and walkers, each on its own line along the street, at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weakseg_ros.simulate import kits
from weakseg_ros.simulate.ground import HALF_LENGTH_M, Ground
from weakseg_ros.simulate.solids import Parts, join, place, relabelled

LONGEST_DRIVE_S = 90.0
"""traffic is spread over so much time that the street never runs empty"""


@dataclass(frozen=True)
class Mover:
    """Parts that travel parallel to the street's centre line."""

    shapes: tuple[Parts, ...]
    """one, or the phases of a step, in turn"""
    instance: int
    start_m: float
    lateral_m: float
    speed_m_s: float
    """negative: against the street's direction"""
    sway_s: float = 0.0
    """period of the small changes of speed that the drive itself makes; 0 = steady"""

    def position(self, time_s: float) -> float:
        """Place along the street at a time."""
        return self.start_m + self.speed_m_s * (time_s + speed_wave(time_s, self.sway_s))

    def parts(self, time_s: float, ground: Ground) -> Parts | None:
        """The parts where they are now; None where they have left the street."""
        x = self.position(time_s)
        if abs(x) >= HALF_LENGTH_M - 10:
            return None
        px, py, pz, heading = ground.position(x, self.lateral_m)
        shape = self.shapes[int(abs(x) / 0.35) % len(self.shapes)]
        return place(shape, (px, py, pz), heading + (np.pi if self.speed_m_s < 0 else 0), self.instance)


def speed_wave(time_s: float, period_s: float) -> float:
    """Seconds by which a drive that speeds up and slows down is ahead of a steady one; its speed stays within 30 %."""
    if not period_s:
        return 0.0
    turn = 2 * np.pi / period_s
    return float(0.3 / turn * (1 - np.cos(turn * time_s)))


def moving_parts(movers: Sequence[Mover], time_s: float, ground: Ground) -> Parts:
    """All that moves, at one moment."""
    return join(parts for mover in movers if (parts := mover.parts(time_s, ground)) is not None)


EGO_SWAY_S = 17.0


def draw_traffic(
    rng: np.random.Generator,
    lanes: int,
    lane_m: float,
    half_road: float,
    walks: Sequence[tuple[float, float]],
    traffic: float,
    people: float,
    ego_speed: float,
    next_instance: int,
) -> tuple[Mover, ...]:
    """Vehicles per lane, riders at the edge, walkers on the left and right sidewalk (`walks`: lateral position, width)."""
    movers: list[Mover] = []

    def add(shapes: Sequence[Parts], start: float, lateral: float, speed: float, sway: float = 0.0) -> None:
        raw = int(shapes[0]["raw"][0])
        moving = tuple(relabelled(shape, kits.MOVING[raw]) for shape in shapes)
        movers.append(Mover(moving, next_instance + len(movers), start, lateral, speed, sway))

    for lane in range(lanes):
        oncoming = (lane + 0.5) * lane_m
        speed = rng.uniform(7, 13)
        for start in _starts(rng, -speed, traffic):
            add([_vehicle(rng)], start, oncoming + rng.normal(0, 0.15), -speed)
        speed = ego_speed * rng.uniform(0.7, 1.5)
        for start in _starts(rng, speed, traffic) if lane < lanes - 1 else []:
            add([_vehicle(rng)], start, -(lane + 0.5) * lane_m, speed)
    own_lane = -(lanes - 0.5) * lane_m
    for gap in (rng.uniform(12, 40), rng.uniform(45, 80), rng.uniform(-40, -14)):
        if rng.random() < 0.35 + 0.25 * traffic:
            add([_vehicle(rng)], -210.0 + gap, own_lane, ego_speed, EGO_SWAY_S)
    for direction in (1, -1):
        speed = rng.uniform(3.5, 6.0) * direction
        for start in _starts(rng, speed, 0.5 + 0.25 * people):
            raw = kits.BICYCLIST if rng.random() < 0.85 else kits.MOTORCYCLIST
            add([kits.rider(rng, raw)], start, -direction * (half_road - 0.35), speed)
    for sign, (lateral, width) in zip((1, -1), walks, strict=True):
        for direction in (1, -1):
            for start in _starts(rng, 1.4 * direction, people * 0.7):
                seed = rng.integers(1 << 31)
                steps = [kits.person(np.random.default_rng(seed), stride) for stride in (0.6, 0.3, -0.1, -0.45)]
                offset = sign * lateral + rng.uniform(-0.4, 0.4) * width
                add(steps, start, offset, direction * rng.uniform(1.0, 1.7))
    return tuple(movers)


def _starts(rng: np.random.Generator, speed: float, per_100_m: float) -> np.ndarray:
    """Start positions so that vehicles at `speed` keep a mean density, at least 14 m apart, for the longest drive."""
    first, last = -HALF_LENGTH_M - max(speed, 0) * LONGEST_DRIVE_S, HALF_LENGTH_M - min(speed, 0) * LONGEST_DRIVE_S
    count = rng.poisson((last - first) / 100 * per_100_m)
    starts = np.sort(rng.uniform(first, last, count))
    kept = np.concatenate([[True], np.diff(starts) > 14]) if count else np.zeros(0, bool)
    chosen: np.ndarray = starts[kept]
    return chosen


def _vehicle(rng: np.random.Generator) -> Parts:
    kind = rng.random()
    return kits.bus(rng) if kind < 0.04 else kits.truck(rng) if kind < 0.12 else kits.car(rng)
