# SPDX-License-Identifier: Apache-2.0
"""The things that stand in a street, each built from parts around its own origin on the ground, x forward."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from weakseg_ros.simulate.solids import GAPS, GLASS, WINDOWS, Parts, block, cylinder, ellipsoid, join

CAR, BICYCLE, BUS, MOTORCYCLE, TRUCK, PERSON, BICYCLIST, MOTORCYCLIST = 10, 11, 13, 15, 18, 30, 31, 32
BUILDING, FENCE, STRUCTURE, VEGETATION, TRUNK, POLE, SIGN, OBJECT = 50, 51, 52, 70, 71, 80, 81, 99
MOVING = {CAR: 252, BICYCLIST: 253, PERSON: 254, MOTORCYCLIST: 255, BUS: 257, TRUCK: 258}

Random = np.random.Generator


def car(rng: Random) -> Parts:
    """A hatchback, saloon, estate or van: a body with clearance, wheels and a glazed cabin that leans at both ends."""
    van = rng.random() < 0.18
    length, width = rng.uniform(3.7, 4.9) + 0.5 * van, rng.uniform(1.68, 1.9) + 0.1 * van
    height = rng.uniform(1.85, 2.3) if van else rng.uniform(1.4, 1.7)
    clearance, waist = rng.uniform(0.17, 0.26), height * rng.uniform(0.55, 0.63)
    paint = {"albedo": rng.choice([0.06, 0.12, 0.25, 0.4, 0.55]) * rng.uniform(0.8, 1.2), "gloss": 0.8}
    body = block(CAR, 0, 0, clearance, (length / 2, width / 2, waist - clearance), taper=(0.12, 0.08, 0.06), **paint)
    front = length * (rng.uniform(0.08, 0.14) if van else rng.uniform(0.2, 0.27))
    rear = length * rng.choice([0.02, 0.02, 0.04, 0.16]) * (0.3 if van else 1)
    rise = height - waist
    size = ((length - front - rear) / 2, width / 2 - 0.04, rise)
    lean = (rng.uniform(0.9, 1.6) * (0.6 if van else 1), rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.35))
    cabin = block(CAR, (rear - front) / 2, 0, waist, size, taper=lean, surface=GLASS, **paint)
    return join([body, cabin, *_wheels(CAR, length * 0.31, width / 2 - 0.1, rng.uniform(0.3, 0.36))])


def truck(rng: Random) -> Parts:
    """A lorry: cab, gap, loading box on a frame, wheels."""
    box, width = rng.uniform(4.5, 7.5), rng.uniform(1.15, 1.27)
    height = rng.uniform(2.2, 3.0)
    albedo = rng.uniform(0.2, 0.6)
    cab = block(
        TRUCK, box / 2 + 1.2, 0, 0.55, (0.95, width, rng.uniform(1.9, 2.3)), taper=(0.12, 0, 0.03), surface=GLASS, albedo=albedo
    )
    load = block(TRUCK, 0, 0, 1.0, (box / 2, width, height), albedo=rng.uniform(0.2, 0.7), gloss=0.4)
    frame = block(TRUCK, 0.7, 0, 0.6, (box / 2 + 1.2, 0.5, 0.4), albedo=0.1)
    return join([cab, load, frame, *_wheels(TRUCK, box / 2, width - 0.2, 0.5)])


def bus(rng: Random) -> Parts:
    """A city bus."""
    length = rng.uniform(10.5, 12.5)
    paint = {"albedo": rng.uniform(0.2, 0.5), "gloss": 0.6}
    low = block(BUS, 0, 0, 0.3, (length / 2, 1.27, 0.9), **paint)
    high = block(BUS, 0, 0, 1.2, (length / 2, 1.27, 1.8), taper=(0.05, 0.03, 0.02), surface=GLASS, **paint)
    return join([low, high, *_wheels(BUS, length * 0.3, 1.1, 0.48)])


def person(rng: Random, stride: float = 0.0) -> Parts:
    """Somebody who stands or walks; `stride` is how far the legs are apart, in m along x."""
    tall = rng.uniform(1.5, 1.9)
    hip, girth = tall * 0.48, rng.uniform(0.17, 0.24)
    clothes = {"albedo": rng.uniform(0.1, 0.5)}
    legs = [cylinder(PERSON, side * stride / 2, side * 0.09, 0, 0.075, hip, albedo=rng.uniform(0.08, 0.4)) for side in (1, -1)]
    torso = ellipsoid(PERSON, 0, 0, hip - 0.1, (girth * 0.75, girth * 1.15, tall * 0.42), **clothes)
    arms = [
        cylinder(PERSON, -side * stride / 4, side * girth * 1.25, hip - 0.05, 0.05, tall * 0.32, **clothes) for side in (1, -1)
    ]
    head = ellipsoid(PERSON, 0, 0, tall - 0.25, (0.1, 0.085, 0.25), albedo=0.35)
    return join([*legs, torso, *arms, head])


def two_wheeler(rng: Random, raw: int = BICYCLE) -> Parts:
    """A bicycle or, with a motor's bulk, a motorcycle, upright and without a rider."""
    motor = raw in (MOTORCYCLE, MOTORCYCLIST)
    radius, thick = (0.31, 0.08) if motor else (0.34, 0.03)
    half = rng.uniform(0.65, 0.75) if motor else rng.uniform(0.5, 0.56)
    metal = {"albedo": rng.uniform(0.1, 0.4), "gloss": 0.5}
    wheels = [
        ellipsoid(raw, side * half, 0, 0, (radius, thick, 2 * radius), albedo=0.1, density=np.inf if motor else 9.0)
        for side in (1, -1)
    ]
    frame = block(raw, 0, 0, 0.35, (half * 0.75, 0.16 if motor else 0.035, 0.45), taper=(0.2, 0.1, 0.0), **metal)
    saddle = block(raw, -half * 0.45, 0, 0.78, (0.28 if motor else 0.12, 0.08, 0.12), albedo=0.1)
    bar = block(raw, half * 0.75, 0, 0.9, (0.03, 0.28, 0.1), **metal)
    return join([*wheels, frame, saddle, bar])


def rider(rng: Random, raw: int = BICYCLIST) -> Parts:
    """Somebody on a bicycle or motorcycle; all of it carries the rider's id, as in SemanticKITTI."""
    clothes = {"albedo": rng.uniform(0.1, 0.5)}
    torso = ellipsoid(raw, 0.02, 0, 0.85, (0.2, 0.23, 0.75), **clothes)
    head = ellipsoid(raw, 0.2, 0, 1.5, (0.12, 0.1, 0.26), albedo=0.35)
    legs = [cylinder(raw, 0.05 * side, 0.12 * side, 0.3, 0.08, 0.65, **clothes) for side in (1, -1)]
    arms = [block(raw, 0.3, 0.2 * side, 1.05, (0.22, 0.045, 0.1), **clothes) for side in (1, -1)]
    return join([two_wheeler(rng, raw), torso, head, *legs, *arms])


def tree(rng: Random, scale: float = 1.0) -> Parts:
    """A trunk with some boughs below a crown of overlapping tufts, or a conifer."""
    tall = rng.uniform(5.0, 13.0) * scale
    bark = {"albedo": rng.uniform(0.25, 0.38)}
    leaf = {"albedo": rng.uniform(0.3, 0.45)}
    if rng.random() < 0.15:
        trunk = cylinder(TRUNK, 0, 0, -0.3, rng.uniform(0.1, 0.2), tall * 0.5, **bark)
        tiers = [tuft(rng, 0, 0, 0.5 + i * tall * 0.14, tall * 0.16 * (1 - i / 7), tall * 0.22, leaf, 1.8) for i in range(6)]
        return join([trunk, *tiers])
    clear = rng.uniform(1.8, 3.4) * scale if rng.random() < 0.6 else rng.uniform(0.4, 1.5)
    spread = tall * rng.uniform(0.17, 0.28)
    trunk = cylinder(TRUNK, 0, 0, -0.3, rng.uniform(0.09, 0.34) * scale, clear + 0.3 + tall * 0.15, **bark)
    tufts = []
    for _ in range(rng.integers(6, 13)):
        turn, out = rng.uniform(0, 2 * np.pi), spread * np.sqrt(rng.uniform(0, 0.6))
        z = clear + rng.uniform(-0.3, 0.7 * (tall - clear))
        radius = spread * rng.uniform(0.22, 0.55)
        tufts.append(
            tuft(
                rng,
                out * np.cos(turn),
                out * np.sin(turn),
                z,
                radius,
                radius * rng.uniform(1.2, 1.9),
                leaf,
                rng.uniform(1.0, 3.0),
            )
        )
    return join([trunk, *tufts])


def bush(rng: Random) -> Parts:
    """A shrub of a few tufts that reach the ground."""
    leaf = {"albedo": rng.uniform(0.28, 0.45)}
    width = rng.uniform(0.45, 1.5)
    spots = rng.normal(0, width * 0.5, (rng.integers(3, 7), 2))
    return join(
        [
            tuft(rng, x, y, -0.2, width * rng.uniform(0.3, 0.8), width * rng.uniform(0.7, 1.9), leaf, rng.uniform(3, 8))
            for x, y in spots
        ]
    )


def hedge(rng: Random, length: float) -> Parts:
    """A clipped hedge along x, slightly uneven."""
    height, width = rng.uniform(0.8, 2.2), rng.uniform(0.25, 0.5)
    leaf = {"albedo": rng.uniform(0.28, 0.42), "density": rng.uniform(5, 12)}
    edges = np.linspace(-length / 2, length / 2, max(2, int(length / 3)) + 1)
    pieces = [(a, b, rng.uniform(0.9, 1.1), rng.uniform(0.85, 1.1)) for a, b in pairwise(edges)]
    return join(
        [
            block(VEGETATION, (a + b) / 2, 0, -0.2, ((b - a) / 2, width * w, 0.2 + height * h), taper=(0, 0, 0.05), **leaf)
            for a, b, w, h in pieces
        ]
    )


def fence(rng: Random, length: float) -> Parts:
    """A wall, a railing, a board fence or wire mesh along x, with posts."""
    style = rng.choice(["wall", "railing", "boards", "mesh"])
    height = rng.uniform(0.8, 1.9)
    half = length / 2
    if style == "wall":
        return block(FENCE, 0, 0, -0.3, (half, rng.uniform(0.1, 0.18), height * 0.8 + 0.3), albedo=rng.uniform(0.25, 0.45))
    posts = [
        block(FENCE, x, 0, -0.3, (0.05, 0.05, height + 0.35), albedo=0.3)
        for x in np.arange(-half, half + 0.1, rng.uniform(1.8, 3.0))
    ]
    if style == "mesh":
        panel = block(FENCE, 0, 0, 0.05, (half, 0.02, height), density=rng.uniform(6, 14), albedo=0.25)
    else:
        period, share = (
            (rng.uniform(0.11, 0.16), rng.uniform(0.15, 0.3))
            if style == "railing"
            else (rng.uniform(0.12, 0.2), rng.uniform(0.6, 0.92))
        )
        panel = block(
            FENCE, 0, 0, 0.08, (half, 0.02, height), surface=GAPS, pattern=(period, share, 1, 1), albedo=rng.uniform(0.15, 0.4)
        )
    rail = block(FENCE, 0, 0, height - 0.05, (half, 0.03, 0.07), albedo=0.25)
    return join([panel, rail, *posts])


def house(rng: Random, length: float, depth: float, height: float) -> Parts:
    """A building whose street face is -y: windows, plinth, perhaps a gable, bays, balconies, steps."""
    face = {"albedo": rng.uniform(0.3, 0.6)}
    panes = (rng.uniform(1.8, 3.4), rng.uniform(0.3, 0.55), rng.uniform(2.7, 3.3), rng.uniform(0.4, 0.6))
    walls = block(BUILDING, 0, 0, -1.5, (length / 2, depth / 2, height + 1.5), surface=WINDOWS, pattern=panes, **face)
    extras = [walls, block(BUILDING, 0, 0, -1.5, (length / 2 + 0.06, depth / 2 + 0.06, 1.5 + rng.uniform(0.3, 0.9)), **face)]
    if rng.random() < 0.7:
        roof, rise = depth / 2 + 0.4, rng.uniform(2, 4)
        extras.append(
            block(BUILDING, 0, 0, height, (length / 2 + 0.3, roof, rise), taper=(0, 0, roof / rise * 0.98), albedo=0.25)
        )
    for _ in range(rng.integers(0, 1 + int(length / 4))):
        x = rng.uniform(-length / 2 + 1.2, length / 2 - 1.2)
        if rng.random() < 0.5:
            extras.append(block(BUILDING, x, -depth / 2 - 0.5, rng.choice([2.8, 3.0]), (1.4, 0.6, 1.0), albedo=0.35))
        else:
            size = (rng.uniform(0.8, 1.4), rng.uniform(0.3, 0.9), rng.uniform(2.5, height + 1))
            extras.append(block(BUILDING, x, -depth / 2, -0.5, size, surface=WINDOWS, pattern=panes, **face))
    if rng.random() < 0.5:
        extras.append(
            block(BUILDING, rng.uniform(-0.3, 0.3) * length, -depth / 2, -0.3, (0.7, 0.9, rng.uniform(0.5, 0.8)), albedo=0.35)
        )
    return join(extras)


def lamp(rng: Random) -> Parts:
    """A street lamp; its arm reaches along x."""
    tall, reach = rng.uniform(4.5, 9.0), rng.uniform(0.0, 1.8)
    shaft = cylinder(POLE, 0, 0, -0.2, rng.uniform(0.06, 0.12), tall + 0.2, albedo=0.25, gloss=0.3)
    arm = block(POLE, reach / 2, 0, tall - 0.1, (reach / 2 + 0.15, 0.05, 0.1), albedo=0.25)
    return join([shaft, arm, cylinder(POLE, 0, 0, -0.2, 0.13, 1.1, albedo=0.25)])


def sign(rng: Random) -> Parts:
    """One or two traffic signs on a post, facing along -x."""
    tall = rng.uniform(2.1, 2.8)
    post = cylinder(POLE, 0, 0, -0.2, rng.uniform(0.03, 0.05), tall + 0.4, albedo=0.3)
    plates = [
        block(SIGN, -0.06, 0, tall - 0.3, (0.015, rng.uniform(0.28, 0.45), rng.uniform(0.5, 0.8)), albedo=rng.uniform(0.4, 1.0))
    ]
    if rng.random() < 0.4:
        plates.append(block(SIGN, -0.06, 0, tall - 0.8, (0.015, rng.uniform(0.25, 0.4), 0.35), albedo=rng.uniform(0.4, 1.0)))
    return join([post, *plates])


def traffic_light(rng: Random) -> Parts:
    """A traffic light, labelled as pole and sign."""
    post = cylinder(POLE, 0, 0, -0.2, 0.07, rng.uniform(3.2, 3.8), albedo=0.2)
    return join([post, block(SIGN, -0.15, 0, 2.3, (0.14, 0.15, 0.9), albedo=0.2), cylinder(POLE, 0, 0, 0, 0.1, 1.0, albedo=0.2)])


def bollard(rng: Random) -> Parts:
    """A bollard."""
    return cylinder(POLE, 0, 0, -0.1, rng.uniform(0.05, 0.1), rng.uniform(0.8, 1.1), albedo=rng.uniform(0.2, 0.5))


def clutter(rng: Random) -> Parts:
    """A bin, a cabinet or a bench: what label maps leave out."""
    shape = [(0.3, 0.35, rng.uniform(0.9, 1.2)), (0.5, 0.2, rng.uniform(0.9, 1.4)), (0.8, 0.25, 0.45)][rng.integers(3)]
    return block(OBJECT, 0, 0, 0, shape, taper=(0.0, 0.0, -0.05), albedo=rng.uniform(0.1, 0.4))


def shelter(rng: Random) -> Parts:
    """A bus stop's shelter, open to -y."""
    half = rng.uniform(1.4, 2.2)
    back = block(STRUCTURE, 0, 0.6, 0, (half, 0.03, 2.3), surface=GLASS, albedo=0.2, gloss=0.8)
    sides = [block(STRUCTURE, s * half, 0, 0, (0.03, 0.6, 2.3), surface=GLASS, albedo=0.2, gloss=0.8) for s in (1, -1)]
    return join([back, *sides, block(STRUCTURE, 0, 0, 2.3, (half + 0.1, 0.75, 0.12), albedo=0.3)])


def _wheels(raw: int, along: float, across: float, radius: float) -> list[Parts]:
    spots = [(i * along, j * across) for i in (1, -1) for j in (1, -1)]
    return [ellipsoid(raw, x, y, 0, (radius, 0.13, 2 * radius), albedo=0.06) for x, y in spots]


def tuft(
    rng: Random, x: float, y: float, z: float, radius: float, height: float, leaf: dict[str, float], density: float
) -> Parts:
    """A ball of leaves, in which a ray stops after 1 / density m on average."""
    size = (radius * rng.uniform(0.8, 1.2), radius * rng.uniform(0.8, 1.2), height)
    return ellipsoid(VEGETATION, x, y, z, size, yaw=rng.uniform(0, np.pi), density=density, **leaf)
