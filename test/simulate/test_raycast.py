# SPDX-License-Identifier: Apache-2.0
"""Rays against one solid, beside walking along every ray in small steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.simulate.raycast import Rays, cast, make_rays
from weakseg_ros.simulate.solids import BLOCK, CYLINDER, GAPS, Parts, block, cylinder, ellipsoid, join, place

BEAMS = np.linspace(20.3, -24.6, 11)
FAR = 24.0
STEP = 0.04
ORIGIN = np.array([100.0, -50.0, 2.0])


def from_sensor(x: float, y: float, z: float) -> np.ndarray:
    """A world position given relative to the sensor's."""
    return ORIGIN + np.array([x, y, z])


def tilted(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation by yaw, then pitch, then roll."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return turn @ [[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]] @ [[1, 0, 0], [0, cr, -sr], [0, sr, cr]]


def inside(part: Parts, points: np.ndarray) -> np.ndarray:
    """Which of the points (..., 3) lie in the solid, from its definition."""
    p = points - part["position"][0]
    cos, sin = np.cos(part["yaw"][0]), np.sin(part["yaw"][0])
    x, y, z = p[..., 0] * cos + p[..., 1] * sin, p[..., 1] * cos - p[..., 0] * sin, p[..., 2]
    a, b, height = part["size"][0]
    if part["kind"][0] == CYLINDER:
        return (np.hypot(x, y) <= a) & (z >= 0) & (z <= height)
    if part["kind"][0] == BLOCK:
        front, rear, flank = part["taper"][0]
        return (x <= a - front * z) & (x >= rear * z - a) & (np.abs(y) <= b - flank * z) & (z >= 0) & (z <= height)
    return (x / a) ** 2 + (y / b) ** 2 + ((z - height / 2) / (height / 2)) ** 2 <= 1


def shoot(parts: Parts, rays: Rays, seed: int = 0):
    return cast(parts, ORIGIN, rays, np.full(rays.direction.shape[1], np.inf, np.float32), np.random.default_rng(seed))


coordinate = st.floats(-8, 8)
length = st.floats(0.3, 6)
angle = st.floats(-np.pi, np.pi)
lean = st.floats(0, 0.3)


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(["block", "cylinder", "ellipsoid"]),
    x=coordinate, y=coordinate, z=st.floats(-4, 2), size=st.tuples(length, length, length),
    yaw=angle, taper=st.tuples(lean, lean, lean), heading=angle, pitch=st.floats(-0.2, 0.2), roll=st.floats(-0.2, 0.2),
    sector=st.booleans(),
)  # fmt: skip
def test_every_ray_stops_where_it_first_enters_the_solid(kind, x, y, z, size, yaw, taper, heading, pitch, roll, sector):
    at = from_sensor(x, y, z)
    if kind == "block":
        part = block(50, *at, size, taper=taper, yaw=yaw)
    elif kind == "cylinder":
        part = cylinder(80, *at, size[0], size[2])
    else:
        part = ellipsoid(70, *at, size, yaw=yaw)
    left, right = (100.0, -60.0) if sector else (180.0, -180.0)
    rays = make_rays(tilted(heading, pitch, roll), BEAMS, 48, left, right)
    steps = np.arange(0, FAR, STEP)
    within = inside(part, ORIGIN + steps[:, None, None] * rays.direction.T.astype(np.float64))
    if within[0].any():
        return  # the sensor stands in the solid
    chord = within.sum(axis=0)
    entered = steps[within.argmax(axis=0)]
    hits = shoot(part, rays)
    clear = chord >= 3
    np.testing.assert_allclose(hits.distance[clear], entered[clear], atol=1.5 * STEP)
    assert (hits.part[clear] == 0).all()
    met = np.isfinite(hits.distance) & (hits.distance < FAR)
    ends = ORIGIN + hits.distance[met, None] * rays.direction.T[met]
    wider = part.copy()
    wider["position"] -= [0, 0, 0.05]
    wider["size"] += [0.05, 0.05, 0.1]
    assert inside(wider, ends).all()


def test_cosine_is_that_of_the_surface_normal():
    rays = make_rays(np.eye(3), np.array([0.0]), 360, 180.0, -180.0)
    wall = shoot(block(50, *from_sensor(5.5, 0, -2), (0.5, 4, 4)), rays)
    met = wall.part == 0
    azimuth = np.radians(180 - (np.arange(360) + 0.5))
    np.testing.assert_allclose(wall.distance[met], 5 / np.cos(azimuth[met]), rtol=1e-5)
    np.testing.assert_allclose(wall.cosine[met], np.cos(azimuth[met]), rtol=1e-4)
    for ball in (ellipsoid(70, *from_sensor(5, 0, -2), (2, 2, 4)), cylinder(80, *from_sensor(5, 0, -2), 2, 4)):
        hits = shoot(ball, rays)
        met = hits.part == 0
        end = hits.distance[met] * rays.direction[:2, met] - [[5], [0]]
        np.testing.assert_allclose(hits.cosine[met], np.abs((end / 2 * rays.direction[:2, met]).sum(axis=0)), atol=2e-3)
        assert hits.cosine[met].max() > 0.99


def test_the_nearest_part_wins_whatever_the_order():
    rays = make_rays(np.eye(3), np.array([0.0, -3.0]), 90, 180.0, -180.0)
    near, far = block(10, *from_sensor(6, 0, -2), (1, 2, 4)), block(50, *from_sensor(12, 0, -2), (1, 20, 4))
    one, other = shoot(join([near, far]), rays), shoot(join([far, near]), rays)
    np.testing.assert_array_equal(one.distance, other.distance)
    np.testing.assert_array_equal(one.part[one.part >= 0], 1 - other.part[one.part >= 0])
    ahead = 44
    assert one.part[ahead] == 0
    assert (one.part == 1).any()


def test_nothing_beyond_the_limit_is_met():
    rays = make_rays(np.eye(3), np.array([0.0]), 90, 180.0, -180.0)
    wall = block(50, *from_sensor(6, 0, -2), (1, 2, 4))
    hits = cast(wall, ORIGIN, rays, np.full(90, 4.0, np.float32), np.random.default_rng(0))
    assert (hits.part == -1).all()
    assert (hits.distance == 4.0).all()
    empty = cast(wall[:0], ORIGIN, rays, np.full(90, 4.0, np.float32), np.random.default_rng(0))
    assert (empty.part == -1).all()


@pytest.mark.parametrize("density", [0.2, 1.0, 3.0])
def test_foliage_lets_as_many_rays_through_as_beer_and_lambert_say(density):
    rays = make_rays(np.eye(3), np.linspace(1, -1, 40), 720, 180.0, -180.0)
    leaves = block(70, *from_sensor(10, 0, -3), (0.5, 30, 6), density=density)
    hits = shoot(leaves, rays)
    ahead = rays.direction[0] > 0.8
    chord = 1 / rays.direction[0, ahead]
    through = (hits.part[ahead] == -1).mean()
    assert through == pytest.approx(np.exp(-density * chord).mean(), abs=0.02)
    depth = hits.distance[ahead] * rays.direction[0, ahead] - 9.5
    stopped = hits.part[ahead] == 0
    assert depth[stopped].min() >= -1e-3
    assert depth[stopped].max() <= 1 + 1e-3


def test_a_ray_from_within_foliage_starts_at_the_sensor():
    rays = make_rays(np.eye(3), np.array([0.0]), 400, 180.0, -180.0)
    hits = shoot(ellipsoid(70, *from_sensor(0, 0, -3), (3, 3, 6), density=1.0), rays)
    assert (hits.part == 0).mean() == pytest.approx(1 - np.exp(-3.0), abs=0.05)
    assert hits.distance[hits.part == 0].min() < 0.1


def test_a_railing_lets_rays_through_between_its_bars():
    rays = make_rays(np.eye(3), np.linspace(2, -2, 20), 2000, 180.0, -180.0)
    fence = block(51, *from_sensor(10, 0, -3), (0.01, 8, 6), surface=GAPS, pattern=(0.5, 0.3, 1, 1))
    wall = block(51, *from_sensor(10, 0, -3), (0.01, 8, 6))
    stopped = (shoot(fence, rays).part == 0).sum() / (shoot(wall, rays).part == 0).sum()
    assert stopped == pytest.approx(0.3, abs=0.02)


def test_placing_turns_and_moves_and_keeps_the_original():
    kit = join([block(10, 1, 0, 0, (2, 1, 1)), cylinder(10, 0, 2, 0.5, 0.3, 1)])
    placed = place(kit, (10, 20, 3), np.pi / 2, instance=7)
    np.testing.assert_allclose(placed["position"], [[10, 21, 3], [8, 20, 3.5]], atol=1e-12)
    assert (placed["instance"] == 7).all()
    assert (kit["instance"] == 0).all()
    np.testing.assert_allclose(placed["yaw"] - kit["yaw"], np.pi / 2)
