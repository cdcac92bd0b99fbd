# SPDX-License-Identifier: Apache-2.0
"""What S3DIS calls clutter: what stands on tables and floors, hangs on walls and ceilings, and belongs to no other class."""

from __future__ import annotations

import numpy as np

from weakseg_ros.simulate import kits
from weakseg_ros.simulate.rooms.furniture import Kit
from weakseg_ros.simulate.rooms.palette import CLUTTER, Palette, Random
from weakseg_ros.simulate.solids import GLASS, block, cylinder, ellipsoid, join, relabelled


def monitor(rng: Random, palette: Palette) -> Kit:
    """A screen on a foot, or two side by side."""
    black, parts = palette.paint(rng, "plastic"), []
    wide = rng.uniform(0.22, 0.32)
    for x in (0.0,) if rng.random() < 0.6 else (-wide - 0.02, wide + 0.02):
        parts.append(block(CLUTTER, x, 0, 0.1, (wide, 0.02, wide * 1.2), **black))
        parts.append(block(CLUTTER, x, 0, 0, (0.1, 0.08, 0.015), **black))
        parts.append(block(CLUTTER, x, -0.03, 0, (0.03, 0.015, 0.2), **black))
    return Kit(join(parts), (wide, 0.1), 0.5)


def small_thing(rng: Random, palette: Palette) -> Kit:
    """What lies on a table: a keyboard, papers, books, a cup, a telephone, a laptop, a box."""
    kind = int(rng.integers(6))
    paint = palette.paint(rng, "any")
    if kind == 0:
        return _lone(block(CLUTTER, 0, 0, 0, (0.21, 0.07, 0.025), **palette.paint(rng, "plastic")), 0.2, 0.07, 0.03)
    if kind == 1:
        return _lone(
            block(CLUTTER, 0, 0, 0, (0.105, 0.15, rng.uniform(0.01, 0.12)), **palette.paint(rng, "lamp")), 0.11, 0.15, 0.1
        )
    if kind == 2:
        return _lone(cylinder(CLUTTER, 0, 0, 0, 0.04, rng.uniform(0.08, 0.25), **paint), 0.04, 0.04, 0.2)
    if kind == 3:
        lid = block(CLUTTER, 0, -0.12, 0.01, (0.16, 0.01, 0.22), **palette.paint(rng, "plastic"))
        base = block(CLUTTER, 0, 0, 0, (0.16, 0.11, 0.02), **palette.paint(rng, "plastic"))
        return _lone(join([base, lid]), 0.16, 0.13, 0.23)
    size = rng.uniform(0.05, 0.16, 3)
    return _lone(block(CLUTTER, 0, 0, 0, (size[0], size[1], 2 * size[2]), **paint), size[0], size[1], 2 * size[2])


def floor_thing(rng: Random, palette: Palette) -> Kit:
    """What stands about: a bin, a box or a stack of them, a computer, a bag, a plant, a heater, a fan."""
    kind, paint = int(rng.integers(6)), palette.paint(rng, "any")
    if kind == 0:
        return _lone(cylinder(CLUTTER, 0, 0, 0, 0.15, rng.uniform(0.3, 0.6), **paint), 0.15, 0.15, 0.6)
    if kind == 1:
        return _lone(block(CLUTTER, 0, 0, 0, (0.1, 0.22, 0.42), **palette.paint(rng, "plastic")), 0.1, 0.22, 0.42)
    if kind == 2:
        return plant(rng, palette)
    if kind == 3:
        return _lone(ellipsoid(CLUTTER, 0, 0, 0, (0.22, 0.14, rng.uniform(0.25, 0.45)), **paint), 0.22, 0.14, 0.45)
    return boxes(rng, palette)


def boxes(rng: Random, palette: Palette) -> Kit:
    """Cardboard boxes, one on the other."""
    z, parts, half = 0.0, [], rng.uniform(0.15, 0.32, 2)
    for _ in range(rng.integers(1, 5)):
        size, turn = half * rng.uniform(0.7, 1.0, 2), rng.normal(0, 0.15)
        high = rng.uniform(0.15, 0.4)
        parts.append(
            block(CLUTTER, 0, 0, z, (size[0], size[1], high), yaw=turn, **palette.paint(rng, rng.choice(["wood", "any"])))
        )
        z += high
    return _lone(join(parts), half[0], half[1], z)


def plant(rng: Random, palette: Palette) -> Kit:
    """A plant in a pot; rays get some way into its leaves."""
    pot, height = rng.uniform(0.12, 0.22), rng.uniform(0.5, 1.7)
    parts = [cylinder(CLUTTER, 0, 0, 0, pot, rng.uniform(0.2, 0.4), **palette.paint(rng, "any"))]
    for _ in range(rng.integers(2, 6)):
        x, y = rng.normal(0, 0.1, 2)
        leaf = palette.paint(rng, "leaf")
        size = (rng.uniform(0.12, 0.3), rng.uniform(0.12, 0.3), height * rng.uniform(0.3, 0.6))
        parts.append(ellipsoid(CLUTTER, x, y, height * rng.uniform(0.35, 0.5), size, density=rng.uniform(3, 12), **leaf))
    return _lone(join(parts), 0.25, 0.25, height)


def appliance(rng: Random, palette: Palette) -> Kit:
    """A copier, a fridge, a vending machine, a filing cabinet: a large box with a step or a lid."""
    x, y, height = rng.uniform(0.25, 0.5), rng.uniform(0.25, 0.4), rng.choice([rng.uniform(0.7, 1.2), rng.uniform(1.5, 2.0)])
    body = block(CLUTTER, 0, 0, 0.03, (x, y, height), **palette.paint(rng, rng.choice(["metal", "plastic", "any"])))
    lid = block(CLUTTER, x * 0.3, 0, height + 0.03, (x * 0.6, y * 0.8, 0.12), **palette.paint(rng, "plastic"))
    return _lone(join([body, lid]), x, y, height + 0.15)


def radiator(rng: Random, palette: Palette) -> Kit:
    """A heater below a window."""
    half, height = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.6)
    return Kit(block(CLUTTER, 0, 0, 0.12, (half, 0.05, height), **palette.paint(rng, "frame")), (half, 0.06), height + 0.12)


def wall_thing(rng: Random, palette: Palette) -> Kit:
    """What hangs on a wall: a picture, a screen, a fire extinguisher, a coat, a panel, a pipe."""
    kind, paint = int(rng.integers(5)), palette.paint(rng, "any")
    if kind == 0:
        half, low = rng.uniform(0.15, 0.5), rng.uniform(1.1, 1.4)
        return Kit(block(CLUTTER, 0, 0, low, (half, 0.015, rng.uniform(0.3, 0.7)), **paint), (half, 0.03), low + 0.7, low)
    if kind == 1:
        half, low = rng.uniform(0.4, 0.8), rng.uniform(0.9, 1.3)
        screen = block(CLUTTER, 0, 0.04, low, (half, 0.035, half * 1.15), **palette.paint(rng, "plastic"))
        return Kit(screen, (half, 0.08), low + half * 1.15, low)
    if kind == 2:
        red = {**palette.paint(rng, "any"), "rgb": np.array([170, 30, 25], np.uint8)}
        return Kit(cylinder(CLUTTER, 0, 0.05, 0.5, 0.08, 0.5, **red), (0.1, 0.1), 1.0, 0.5)
    if kind == 3:
        return Kit(ellipsoid(CLUTTER, 0, 0.05, 0.9, (0.2, 0.1, 0.9), **paint), (0.2, 0.12), 1.8, 0.9)
    half, low = rng.uniform(0.12, 0.4), rng.uniform(0.3, 1.5)
    return Kit(
        block(CLUTTER, 0, 0.03, low, (half, 0.06, half * 2), **palette.paint(rng, "metal")), (half, 0.1), low + half * 2, low
    )


def lamp(rng: Random, palette: Palette, height: float) -> Kit:
    """A lamp below the ceiling, flat against it or hanging."""
    x, y, drop = rng.uniform(0.15, 0.65), rng.uniform(0.06, 0.3), rng.choice([0.05, 0.05, rng.uniform(0.2, 0.5)])
    body = block(CLUTTER, 0, 0, height - drop - 0.03, (x, y, 0.06), **palette.paint(rng, "lamp"))
    rods = [block(CLUTTER, s * x * 0.8, 0, height - drop, (0.006, 0.006, drop), **palette.paint(rng, "metal")) for s in (1, -1)]
    return Kit(join([body, *rods]), (x, y), height, height - drop)


def duct(rng: Random, palette: Palette, length: float, height: float) -> Kit:
    """A duct or a cable tray along x below the ceiling."""
    half, high = rng.uniform(0.1, 0.3), rng.uniform(0.08, 0.3)
    body = block(CLUTTER, 0, 0, height - high - 0.1, (length / 2, half, high), **palette.paint(rng, "metal"))
    return Kit(body, (length / 2, half), height, height - high - 0.1)


def toilet(rng: Random, palette: Palette) -> Kit:
    """A toilet with its cistern."""
    white = palette.paint(rng, "ceramic")
    bowl = ellipsoid(CLUTTER, 0, 0.08, 0, (0.19, 0.26, 0.42), **white)
    return Kit(join([bowl, block(CLUTTER, 0, -0.24, 0.4, (0.2, 0.09, 0.38), **white)]), (0.2, 0.34), 0.8)


def basin(rng: Random, palette: Palette) -> Kit:
    """A wash basin on the wall with a mirror above it."""
    white = palette.paint(rng, "ceramic")
    bowl = ellipsoid(CLUTTER, 0, 0, 0.68, (0.27, 0.22, 0.2), **white)
    mirror = block(CLUTTER, 0, -0.2, 1.1, (0.3, 0.01, 0.7), surface=GLASS, **palette.paint(rng, "glass"))
    return Kit(join([bowl, mirror]), (0.3, 0.22), 1.8, 0.6)


def person(rng: Random, palette: Palette) -> Kit:
    """Somebody who stands: clutter to S3DIS."""
    parts = relabelled(kits.person(rng, rng.uniform(0, 0.5)), CLUTTER)
    for row in range(len(parts)):
        parts["rgb"][row] = palette.paint(rng, "any")["rgb"]
    return _lone(parts, 0.3, 0.3, 1.9)


def _lone(parts: np.ndarray, x: float, y: float, height: float) -> Kit:
    return Kit(parts, (float(x), float(y)), float(height))
