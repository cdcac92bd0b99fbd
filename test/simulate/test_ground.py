# SPDX-License-Identifier: Apache-2.0
"""The ground's height, its curbs, and where rays meet it."""

from __future__ import annotations

import numpy as np
import pytest

from weakseg_ros.simulate.ground import (
    ALBEDO,
    CELL_M,
    HALF_LENGTH_M,
    HALF_WIDTH_M,
    RAISED,
    ROAD,
    SIDEWALK,
    Ground,
    Waves,
    cast_ground,
    waves,
)
from weakseg_ros.simulate.raycast import make_rays

FLAT = Waves(((0.0, 0.1, 0.0),))
CURB_M = 0.12
KINDS = np.full((round(2 * HALF_LENGTH_M / CELL_M), round(2 * HALF_WIDTH_M / CELL_M)), ROAD, np.uint8)
BEAMS = np.linspace(4.0, -30.0, 35)


def ground(kinds: np.ndarray = KINDS, rise: Waves = FLAT, across: Waves = FLAT) -> Ground:
    return Ground(FLAT, rise, across, CURB_M, ALBEDO, kinds)


def rays_and_origin(place: Ground, height: float = 1.8, yaw: float = 0.3):
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    origin = np.array([3.0, -1.0, float(place.height(3.0, -1.0)) + height])
    return make_rays(turn, BEAMS, 120, 180.0, -180.0), origin


def test_flat_ground_lies_where_trigonometry_says():
    rays, origin = rays_and_origin(ground())
    distance, kind, cosine = cast_ground(ground(), origin, rays, 100.0)
    down = np.repeat(np.sin(-np.radians(BEAMS)), 120)
    hit = np.isfinite(distance)
    assert (hit == (1.8 / np.maximum(down, 1e-9) * np.sqrt(1 - down**2) < 100)).all()
    np.testing.assert_allclose(distance[hit], 1.8 / down[hit], rtol=1e-4)
    np.testing.assert_allclose(cosine[hit], down[hit], rtol=1e-4)
    assert (kind[hit] == ROAD).all()


@pytest.mark.parametrize("seed", range(4))
def test_points_lie_on_a_hilly_ground_and_nothing_hides_them(seed):
    rng = np.random.default_rng(seed)
    hilly = ground(rise=waves(rng, (0.04, 0.02), (300.0, 60.0)), across=waves(rng, (0.03,), (100.0,)))
    rays, origin = rays_and_origin(hilly)
    distance, _, _ = cast_ground(hilly, origin, rays, 80.0)
    hit = np.isfinite(distance)
    assert 0.5 < hit.mean() < 1
    point = origin[:, None] + distance[hit] * rays.direction[:, hit]
    np.testing.assert_allclose(point[2], hilly.height(point[0], point[1]), atol=0.02)
    for share in (0.3, 0.6, 0.9):
        before = origin[:, None] + share * distance[hit] * rays.direction[:, hit]
        assert (before[2] > hilly.height(before[0], before[1]) - 0.02).all()


def test_a_curb_raises_the_sidewalk_and_shows_its_face():
    kinds = KINDS.copy()
    edge_m = 5.0
    kinds[:, int((edge_m + HALF_WIDTH_M) / CELL_M) :] = SIDEWALK
    stepped = ground(kinds)
    rays, origin = rays_and_origin(stepped)
    distance, kind, _ = cast_ground(stepped, origin, rays, 60.0)
    hit = np.isfinite(distance)
    x, y, z = origin[:, None] + distance[hit] * rays.direction[:, hit]
    sure = np.abs(y - edge_m) > 0.05
    np.testing.assert_array_equal((kind[hit] == SIDEWALK)[sure], (y > edge_m)[sure])
    np.testing.assert_allclose(z[y < edge_m - 0.05], 0, atol=1e-3)
    np.testing.assert_allclose(z[y > edge_m + 0.05], CURB_M, atol=1e-3)
    face = np.abs(y - edge_m) <= 0.05
    assert face.sum() > 10
    assert ((z[face] > -0.01) & (z[face] < CURB_M + 0.01)).all()
    assert len(np.unique(z[face].round(2))) > 3
    np.testing.assert_array_equal(stepped.position(0.0, 8.0)[2], CURB_M)
    assert RAISED[SIDEWALK]
    assert x.min() < -5


def test_the_slope_is_the_derivative():
    wave = waves(np.random.default_rng(1), (0.1, 0.03), (300.0, 50.0))
    u = np.linspace(-200, 200, 101)
    np.testing.assert_allclose(wave.slope(u), (wave.at(u + 1e-4) - wave.at(u - 1e-4)) / 2e-4, atol=1e-6)
    assert np.abs(wave.slope(np.linspace(-500, 500, 5001))).max() < 0.13


def test_the_ground_goes_on_beyond_its_map():
    place = ground()
    assert place.kind_at(np.array([1e4, -1e4]), np.array([-1e4, 1e4])).tolist() == [ROAD, ROAD]
