# SPDX-License-Identifier: Apache-2.0
"""A world more varied than the plain streets: sensors, materials and planting drawn anew for each street.

A network that has to hold on a sensor and in a place that it never saw is trained on these; see SimulateConfig.varied.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate import kits
from weakseg_ros.simulate.furnish import Placer, Side
from weakseg_ros.simulate.ground import Ground
from weakseg_ros.simulate.kits import Random
from weakseg_ros.simulate.lidar import SensorModel, Shift, load_sensor
from weakseg_ros.simulate.solids import Parts, block, join

KNOWN_SENSORS = ("hdl64e", "os1_64", "generic64", "os1_128", "vlp32c", "hdl64e")
ANY_SENSOR = RangeSpec(height=96, width=1024, fov_up_deg=23.0, fov_down_deg=-25.5, max_range_m=120.0)
"""one range image for all sensors that are drawn, and for most spinning LiDARs"""
DRAWN = "varied"
"""as the name of a sensor: a model drawn anew for each street"""
_SENSOR_DRAW, _WEATHER_DRAW, _MATERIAL_DRAW = 0x5E45, 0x5EA5, 0xA1
_MATERIAL_SPREAD = 0.35
"""standard deviation of the logarithm of a material's brightness between streets"""


def draw_sensor(seed: int) -> SensorModel:
    """A spinning LiDAR: a known one or beams at random, its height, noise and intensity drawn; intensity is 0..1."""
    rng = np.random.default_rng([seed, _SENSOR_DRAW])
    base = load_sensor(str(rng.choice(KNOWN_SENSORS))) if rng.random() < 0.45 else _draw_beams(rng)
    height = float(np.clip(rng.normal(1.8, 0.4), 0.5, 3.3))
    on_car = height > 1.3 and rng.random() < 0.8
    return dataclasses.replace(
        base,
        mount_height_m=height,
        vehicle_m=SensorModel().vehicle_m if on_car else (0.0, 0.0, 0.0),
        intensity_full_scale=1.0,
        range_noise_m=float(rng.uniform(0.005, 0.03)),
        drop_probability=float(rng.uniform(0.0, 0.12)),
        beam_spread=float(rng.uniform(0.02, 0.2)),
        intensity_gain=float(rng.uniform(0.4, 1.6)),
        intensity_falloff=float(rng.choice([0.0, 0.0, 0.5, 1.0])),
        rows="angle",
    )


def draw_shift(seed: int) -> Shift:
    """The weather and the driver's intensity curve of a street; one in four has drops in front of the sensor."""
    rng = np.random.default_rng([seed, _WEATHER_DRAW])
    return Shift(intensity_gamma=float(rng.uniform(0.5, 1.6)), clutter=float(rng.choice([0.0, 0.0, 0.0, 0.005])))


def vary_materials(parts: Parts, ground: Ground, seed: int) -> tuple[Parts, Ground]:
    """Both with the brightness of each class and each kind of ground multiplied by a factor of this street."""
    rng = np.random.default_rng([seed, _MATERIAL_DRAW])
    varied = parts.copy()
    for raw in np.unique(parts["raw"]):
        varied["albedo"][parts["raw"] == raw] *= np.float32(np.exp(_MATERIAL_SPREAD * rng.standard_normal()))
    factor = np.exp(_MATERIAL_SPREAD * rng.standard_normal(len(ground.albedo))).astype(np.float32)
    curb_m = ground.curb_m * float(rng.choice([0.0, 0.3, 1.0, 1.0]))
    return varied, dataclasses.replace(ground, albedo=np.clip(ground.albedo * factor, 0.05, 1.0), curb_m=curb_m)


def plant(placer: Placer, side: Side, sign: int, start: float, end: float) -> None:
    """Beds, clipped hedges, lone walls and sheds along one side: what looks like a wall, a fence, a lawn or none of them."""
    rng, half = placer.rng, placer.half_road
    border = side.lateral(half, "border")
    deep = side.setback_m if side.built != "open" else 12.0
    if side.strip_m:
        for x in placer.spots(start, end, rng.uniform(0.0, 1.0)):
            placer.put(_bed(rng, side.strip_m * 0.9), x, sign * side.lateral(half, "strip"))
    for x in placer.spots(start, end, rng.uniform(0.0, 1.4)):
        placer.put(_bed(rng, min(deep, 3.0)), x, sign * (border + rng.uniform(0.5, max(deep - 0.5, 0.8))))
    for x in placer.spots(start, end, rng.uniform(0.0, 0.35)):
        placer.put(clipped_hedge(rng, rng.uniform(2.0, 14.0)), x, sign * (border + rng.uniform(0.4, max(deep, 1.0))), _turn(rng))
    for x in placer.spots(start, end, 0.08):
        placer.put(kits.fence(rng, rng.uniform(2.0, 9.0)), x, sign * (border + rng.uniform(0.5, max(deep, 1.0))), _turn(rng))
    if deep > 4.0:
        for x in placer.spots(start, end, 0.06):
            placer.put(_shed(rng), x, sign * (border + rng.uniform(2.0, deep)), _turn(rng))
    for x in placer.spots(start, end, rng.uniform(0.0, 0.25)):
        placer.put(_stout_tree(rng), x, sign * (border + rng.uniform(-0.5, max(deep, 0.5))), rng.uniform(0, 6.3))
    _passers_by(placer, side, sign, start, end)


def clipped_hedge(rng: Random, length: float) -> Parts:
    """A hedge as dense as it is even, with a flat top: to a LiDAR nearly a wall."""
    height, width = rng.uniform(0.4, 2.6), rng.uniform(0.2, 0.9)
    leaf = {"albedo": rng.uniform(0.25, 0.5), "density": float(np.exp(rng.uniform(np.log(8.0), np.log(80.0))))}
    body = block(kits.VEGETATION, 0, 0, -0.2, (length / 2, width, height + 0.2), taper=(0, 0, rng.uniform(0.0, 0.08)), **leaf)
    twigs = [
        kits.tuft(rng, x, 0, height - 0.25, rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.7), {"albedo": leaf["albedo"]}, 6.0)
        for x in rng.uniform(-length / 2, length / 2, rng.integers(0, 1 + int(length)))
    ]
    return join([body, *twigs])


def _bed(rng: Random, width: float) -> Parts:
    """Low planting, knee-high at most: a mat of leaves with tufts that stand out."""
    length, half, height = rng.uniform(0.8, 7.0), max(0.25, width * rng.uniform(0.3, 1.0) / 2), rng.uniform(0.12, 0.7)
    leaf = {"albedo": rng.uniform(0.25, 0.5)}
    mat = block(
        kits.VEGETATION, 0, 0, -0.15, (length / 2, half, height + 0.15), taper=(0.3, 0.3, 0.3), density=rng.uniform(6, 50), **leaf
    )
    spots = rng.uniform(-1.0, 1.0, (rng.integers(2, 9), 2)) * (length / 2, half)
    tufts = [kits.tuft(rng, x, y, -0.1, rng.uniform(0.2, 0.6), height * rng.uniform(1.0, 2.2), leaf, 8.0) for x, y in spots]
    return join([mat, *tufts] if rng.random() < 0.7 else tufts)


def _shed(rng: Random) -> Parts:
    """A garage, a shed, an electrical substation: a building without windows."""
    size = (rng.uniform(0.8, 3.2), rng.uniform(0.8, 2.6), rng.uniform(1.9, 3.2))
    return block(kits.BUILDING, 0, 0, -0.3, size, albedo=rng.uniform(0.2, 0.6))


def _stout_tree(rng: Random) -> Parts:
    """An old tree: a trunk as wide as a person that forks above head height, its crown far up."""
    radius, clear = rng.uniform(0.2, 0.55), rng.uniform(2.5, 5.0)
    bark = {"albedo": rng.uniform(0.2, 0.4)}
    trunk = block(kits.TRUNK, 0, 0, -0.3, (radius * 0.8, radius * 0.8, clear), taper=(0.02, 0.02, 0.02), **bark)
    boughs = [
        block(kits.TRUNK, 0, 0, clear - 0.4, (radius * 0.4, radius * 0.4, 2.5), taper=(s * 0.4, -s * 0.4, 0.02), **bark)
        for s in (1, -1)
    ]
    leaf = {"albedo": rng.uniform(0.28, 0.45)}
    spots = rng.normal(0, 1.6, (8, 2))
    crown = [kits.tuft(rng, x, y, clear + rng.uniform(0.3, 3.0), 1.6, 2.6, leaf, rng.uniform(0.8, 2.5)) for x, y in spots]
    return join([trunk, *boughs, *crown])


def _passers_by(placer: Placer, side: Side, sign: int, start: float, end: float) -> None:
    """More people, alone and in groups, and more two-wheelers than the plain streets have."""
    rng, walk = placer.rng, side.lateral(placer.half_road, "sidewalk")
    for x in placer.spots(start, end, 0.25):
        for _ in range(rng.choice([1, 1, 2, 4])):
            across = sign * (walk + rng.normal(0, 0.8))
            placer.put(kits.person(rng, rng.uniform(0, 0.7)), x + rng.normal(0, 0.9), across, rng.uniform(0, 6.3), thing=True)
    for x in placer.spots(start, end, 0.12):
        raw = kits.BICYCLIST if rng.random() < 0.75 else kits.MOTORCYCLIST
        across = sign * (placer.half_road - rng.uniform(0.3, 1.5))
        placer.put(kits.rider(rng, raw), x, across, rng.normal(0, 0.2), thing=True)


def _turn(rng: Random) -> float:
    """Mostly along the street, now and then across it."""
    return float(rng.choice([0.0, 0.0, np.pi / 2]) + rng.normal(0, 0.05))


def _draw_beams(rng: Random) -> SensorModel:
    """Beams between a random top and bottom, evenly spaced or closer together near the horizon."""
    beams = int(rng.choice([32, 40, 64, 64, 64, 80, 128]))
    top, bottom = rng.uniform(1.5, 22.5), rng.uniform(-25.5, -14.0)
    columns = int(rng.choice([1024, 1800, 2048]))
    if rng.random() < 0.5:
        return SensorModel(DRAWN, beams, float(top), float(bottom), columns=columns)
    dense = rng.uniform(-6.0, 0.0)
    angles = np.interp(np.linspace(0.0, 1.0, beams), [0.0, 0.5, 1.0], [top, dense, bottom])
    return SensorModel(DRAWN, beams, inclinations_deg=tuple(angles.tolist()), columns=columns)
