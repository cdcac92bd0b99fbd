# SPDX-License-Identifier: Apache-2.0
"""What stands in rooms: tables, chairs, sofas, bookcases, boards. Each around its own origin on the floor, facing +y.

A kit's back is towards -y, where a wall may be. `Kit.half` is the footprint, half lengths along x and y in m.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from weakseg_ros.simulate.rooms.palette import BOARD, BOOKCASE, CHAIR, SOFA, TABLE, Palette, Random
from weakseg_ros.simulate.solids import Parts, block, cylinder, join


@dataclass(frozen=True)
class Kit:
    """One thing of one class."""

    parts: Parts
    half: tuple[float, float]
    """half lengths of the footprint along x and y in m"""
    height: float
    low: float = 0.0
    """m above the floor, of what hangs"""


Maker = Callable[[Random, Palette], Kit]


def desk(rng: Random, palette: Palette) -> Kit:
    """A desk: a top on four legs or two side panels, now and then with a pedestal of drawers."""
    x, y, top = rng.uniform(0.55, 0.95), rng.uniform(0.3, 0.42), rng.uniform(0.68, 0.78)
    return _table(rng, palette, x, y, top, panels=rng.random() < 0.4, pedestal=rng.random() < 0.5)


def long_table(rng: Random, palette: Palette, length: float, width: float) -> Kit:
    """A table for meetings, `length` x `width` m."""
    return _table(rng, palette, length / 2, width / 2, rng.uniform(0.7, 0.76), panels=rng.random() < 0.6, pedestal=False)


def counter(rng: Random, palette: Palette) -> Kit:
    """A kitchen's or a reception's counter, closed to the floor."""
    x, y, top = rng.uniform(0.8, 1.6), rng.uniform(0.28, 0.36), rng.uniform(0.86, 1.1)
    body = block(TABLE, 0, 0, 0, (x, y, top - 0.04), **palette.paint(rng, "wood"))
    return Kit(
        join([body, block(TABLE, 0, 0, top - 0.04, (x + 0.03, y + 0.03, 0.04), **palette.paint(rng, "plastic"))]), (x, y), top
    )


def round_table(rng: Random, palette: Palette) -> Kit:
    """A round table on one post."""
    radius, top = rng.uniform(0.35, 0.65), rng.choice([rng.uniform(0.42, 0.5), rng.uniform(0.7, 0.76)])
    wood, metal = palette.paint(rng, "wood"), palette.paint(rng, "metal")
    plate = cylinder(TABLE, 0, 0, top - 0.035, radius, 0.035, **wood)
    post = cylinder(TABLE, 0, 0, 0.03, 0.05, top - 0.06, **metal)
    return Kit(join([plate, post, cylinder(TABLE, 0, 0, 0, radius * 0.6, 0.03, **metal)]), (radius, radius), top)


def coffee_table(rng: Random, palette: Palette) -> Kit:
    """A low table in front of a sofa."""
    return _table(
        rng, palette, rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.4), rng.uniform(0.35, 0.45), rng.random() < 0.3, False
    )


def office_chair(rng: Random, palette: Palette) -> Kit:
    """A swivel chair on a star of five feet, with or without arms."""
    seat, half, back = rng.uniform(0.42, 0.52), rng.uniform(0.22, 0.27), rng.uniform(0.35, 0.65)
    cloth, metal = palette.paint(rng, rng.choice(["fabric", "leather"])), palette.paint(rng, "plastic")
    parts = [
        block(CHAIR, 0, 0, seat - 0.07, (half, half, 0.08), **cloth),
        block(CHAIR, 0, 0.03 - half, seat + 0.06, (half * 0.9, 0.035, back), taper=(0.03, 0.03, 0.0), **cloth),
        cylinder(CHAIR, 0, 0, 0.08, 0.03, seat - 0.15, **metal),
    ]
    turn = rng.uniform(0, 2)
    parts += [
        block(CHAIR, 0.14 * np.cos(a), 0.14 * np.sin(a), 0.04, (0.15, 0.02, 0.05), yaw=a, **metal)
        for a in turn + np.arange(5) * 2 * np.pi / 5
    ]
    if rng.random() < 0.6:
        parts += [block(CHAIR, s * (half + 0.02), 0, seat + 0.16, (0.025, half * 0.7, 0.03), **metal) for s in (1, -1)]
        parts += [block(CHAIR, s * (half + 0.02), 0, seat - 0.02, (0.02, 0.03, 0.18), **metal) for s in (1, -1)]
    return Kit(join(parts), (half, half), seat + back)


def plain_chair(rng: Random, palette: Palette) -> Kit:
    """A chair on four legs, upholstered or not."""
    seat, half, back = rng.uniform(0.42, 0.48), rng.uniform(0.2, 0.25), rng.uniform(0.32, 0.5)
    cover, frame = (
        palette.paint(rng, rng.choice(["fabric", "wood", "plastic"])),
        palette.paint(rng, rng.choice(["metal", "wood"])),
    )
    parts = [
        block(CHAIR, 0, 0, seat - 0.04, (half, half, 0.05), **cover),
        block(CHAIR, 0, 0.02 - half, seat + rng.uniform(0.0, 0.15), (half, 0.02, back), **cover),
        *_legs(CHAIR, half - 0.02, half - 0.02, seat - 0.04, 0.015, frame),
    ]
    return Kit(join(parts), (half, half), seat + back)


def sofa(rng: Random, palette: Palette, seats: int | None = None) -> Kit:
    """An armchair, or a sofa of two or three seats, with cushions."""
    seats = seats or int(rng.choice([1, 2, 2, 3]))
    half, deep, seat = 0.32 * seats + 0.15, rng.uniform(0.38, 0.48), rng.uniform(0.36, 0.45)
    back, arm = rng.uniform(0.3, 0.45), rng.uniform(0.15, 0.25)
    cloth = palette.paint(rng, rng.choice(["fabric", "leather"]))
    parts = [
        block(SOFA, 0, 0, 0.06, (half, deep, seat - 0.18), **cloth),
        block(SOFA, 0, 0.11 - deep, seat - 0.1, (half, 0.11, back + 0.1), taper=(0.0, 0.0, 0.12), **cloth),
        *[block(SOFA, s * (half - 0.07), 0, seat - 0.12, (0.08, deep, arm + 0.1), **cloth) for s in (1, -1)],
    ]
    for place in np.arange(seats) - (seats - 1) / 2:
        parts.append(block(SOFA, place * 0.64, 0.08, seat - 0.12, (0.3, deep - 0.1, 0.13), taper=(0.1, 0.1, 0.1), **cloth))
    return Kit(join(parts), (half, deep), seat + back)


def bookcase(rng: Random, palette: Palette) -> Kit:
    """Shelves with books in some, of any height; the rows of books are part of it, as in S3DIS."""
    half, deep, height = (
        rng.uniform(0.35, 0.75),
        rng.uniform(0.13, 0.2),
        rng.choice([rng.uniform(0.8, 1.3), rng.uniform(1.7, 2.2)]),
    )
    wood = palette.paint(rng, rng.choice(["wood", "metal"]))
    levels = np.linspace(0.04, height - 0.02, max(3, round(height / 0.37)))
    parts = [block(BOOKCASE, s * half, 0, 0, (0.012, deep, height), **wood) for s in (1, -1)]
    parts += [block(BOOKCASE, 0, 0, z, (half, deep, 0.02), **wood) for z in levels]
    if rng.random() < 0.75:
        parts.append(block(BOOKCASE, 0, 0.008 - deep, 0, (half, 0.008, height), **wood))
    full = rng.uniform(0.2, 1.0)
    for low, high in pairwise(levels):
        parts += _books(rng, palette, half, deep, float(low) + 0.02, float(high - low) - 0.04, full)
    return Kit(join(parts), (half, deep), height)


def cupboard(rng: Random, palette: Palette) -> Kit:
    """A bookcase with doors."""
    half, deep, height = rng.uniform(0.4, 0.6), rng.uniform(0.2, 0.25), rng.uniform(1.0, 2.1)
    body = block(BOOKCASE, 0, 0, 0.05, (half, deep, height - 0.05), **palette.paint(rng, rng.choice(["wood", "metal"])))
    grips = [block(BOOKCASE, s * 0.04, deep, height * 0.5, (0.01, 0.015, 0.15), **palette.paint(rng, "metal")) for s in (1, -1)]
    return Kit(join([body, *grips]), (half, deep), height)


def board(rng: Random, palette: Palette) -> Kit:
    """A white, green or cork board on a wall, with a frame and a tray."""
    half, low, high = rng.uniform(0.45, 1.5), rng.uniform(0.75, 1.1), rng.uniform(1.8, 2.15)
    frame = palette.paint(rng, "metal")
    parts = [block(BOARD, 0, 0.0, low, (half, 0.012, high - low), **palette.paint(rng, "board"))]
    parts += [block(BOARD, 0, 0.0, z, (half, 0.02, 0.03), **frame) for z in (low, high - 0.03)]
    parts += [block(BOARD, s * half, 0.0, low, (0.015, 0.02, high - low), **frame) for s in (1, -1)]
    if rng.random() < 0.6:
        parts.append(block(BOARD, 0, 0.05, low - 0.01, (half * 0.7, 0.04, 0.02), **frame))
    return Kit(join(parts), (half, 0.03), high, low)


def _table(rng: Random, palette: Palette, x: float, y: float, top: float, panels: bool, pedestal: bool) -> Kit:
    wood, metal = palette.paint(rng, "wood"), palette.paint(rng, rng.choice(["metal", "wood"]))
    parts = [block(TABLE, 0, 0, top - 0.035, (x, y, 0.035), **wood)]
    if panels:
        parts += [block(TABLE, s * (x - 0.04), 0, 0, (0.02, y * 0.9, top - 0.035), **wood) for s in (1, -1)]
        parts.append(block(TABLE, 0, 0.05 - y, top - 0.45, (x - 0.05, 0.01, 0.41), **wood))
    else:
        parts += _legs(TABLE, x - 0.05, y - 0.05, top - 0.035, 0.025, metal)
    if pedestal:
        parts.append(block(TABLE, x - 0.27, 0, 0.03, (0.2, y * 0.85, top - 0.1), **palette.paint(rng, "wood")))
    return Kit(join(parts), (x, y), top)


def _legs(raw: int, x: float, y: float, height: float, half: float, paint: dict[str, object]) -> list[Parts]:
    return [block(raw, i * x, j * y, 0, (half, half, height), **paint) for i, j in product((1, -1), (1, -1))]


def _books(rng: Random, palette: Palette, half: float, deep: float, z: float, room: float, full: float) -> list[Parts]:
    """One shelf's books, in a few runs of one height."""
    parts, x = [], -half + 0.03
    while x < half - 0.1:
        run = min(rng.uniform(0.08, 0.35), half - 0.02 - x)
        if rng.random() < full:
            size = (run / 2, deep * rng.uniform(0.5, 0.9), room * rng.uniform(0.55, 0.92))
            parts.append(block(BOOKCASE, x + run / 2, size[1] - deep + 0.01, z, size, **palette.paint(rng, "any")))
        x += run
    return parts
