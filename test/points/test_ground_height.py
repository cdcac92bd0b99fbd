# SPDX-License-Identifier: Apache-2.0
"""The ground plane is found at any mounting, and clouds are put upright on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.ground import ASSUMED, USUAL_HEIGHT_M, _by_cell_and_height, find_ground, stand_level

HEIGHTS = (-3e38, -7.5, -1.7, -1.6999999, -1e-40, -0.0, 0.0, 1e-40, 0.25, 1.7, 3e38)


def street(seed: int = 0, height_m: float = 1.8) -> NDArray[np.float64]:
    """(N, 3) m a flat road seen by a sensor at a height, with walls, a car and some stray points below the road."""
    rng = np.random.default_rng(seed)
    road = np.column_stack([rng.uniform(-28, 28, (6000, 2)), rng.normal(-height_m, 0.02, 6000)])
    wall = np.column_stack([rng.uniform(-28, 28, 2500), np.full(2500, 9.0), rng.uniform(-height_m, 4.0, 2500)])
    car = np.column_stack([rng.uniform(4, 8, 800), rng.uniform(-4, -2, 800), rng.uniform(-height_m, 1.2 - height_m, 800)])
    stray = np.column_stack([rng.uniform(-28, 28, (40, 2)), rng.uniform(-height_m - 4, -height_m - 1, 40)])
    return np.concatenate([road, wall, car, stray])


def tilt(pitch_deg: float, roll_deg: float) -> NDArray[np.float64]:
    (cp, cr), (sp, sr) = np.cos(np.radians([pitch_deg, roll_deg])), np.sin(np.radians([pitch_deg, roll_deg]))
    return np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])


@settings(deadline=None, max_examples=25)
@given(st.floats(0.3, 4.0), st.floats(-12, 12), st.floats(-12, 12), st.integers(0, 5))
def test_height_above_the_road_does_not_depend_on_the_mounting(height_m: float, pitch: float, roll: float, seed: int) -> None:
    xyz = street(seed, height_m) @ tilt(pitch, roll).T
    ground = find_ground(xyz)
    assert ground.share > 0.5
    assert np.median(np.abs(ground.height(xyz[:6000]))) < 0.1
    assert ground.offset_m == pytest.approx(height_m, abs=0.12)


def test_too_few_points_and_walls_alone_have_no_ground() -> None:
    wall = np.column_stack([np.full(3000, 9.0), np.zeros(3000), np.linspace(-5, 5, 3000)])
    for xyz in (np.zeros((0, 3)), np.full((50, 3), 5.0), wall):
        assert find_ground(xyz) == ASSUMED or find_ground(xyz).share == 0.0


@pytest.mark.parametrize(("height_m", "pitch"), [(0.2, 0.0), (4.5, 0.0), (1.8, 8.0), (3.6, -6.0)])
def test_clouds_far_off_are_put_upright_and_their_non_returns_stay(height_m: float, pitch: float) -> None:
    xyz = np.concatenate([street(1, height_m) @ tilt(pitch, 0).T, np.zeros((5, 3))])
    cloud = make_cloud(xyz)
    upright, ground = stand_level(cloud, find_ground(cloud.xyz[cloud.valid]))
    assert ground.tilt_deg < 2.6
    assert 0.6 < ground.offset_m < 2.9
    assert not upright.xyz[-5:].any()
    np.testing.assert_array_equal(upright.flags, cloud.flags)
    distances = np.linalg.norm(np.diff(xyz[:6000], axis=0), axis=1)
    np.testing.assert_allclose(np.linalg.norm(np.diff(upright.xyz[:6000], axis=0), axis=1), distances, atol=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 575), st.sampled_from(HEIGHTS)), min_size=1, max_size=60))
def test_cells_are_sorted_as_by_two_keys(pairs: list[tuple[int, float]]) -> None:
    cell, z = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], np.float32)
    expected = np.lexsort((z, cell))
    sorted_cell, order = _by_cell_and_height(cell, z)
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(sorted_cell, cell[expected])


def test_points_that_are_not_usable_do_not_count() -> None:
    xyz = np.concatenate([street().astype(np.float32)] * 8)  # so many that they are thinned
    usable = np.random.default_rng(0).random(len(xyz)) < 0.8
    xyz[~usable] = [3.0, 3.0, -9.0]
    xyz[np.flatnonzero(~usable)[::2]] = np.nan
    ours, plain = find_ground(xyz, usable), find_ground(xyz[usable])
    np.testing.assert_array_equal(ours.normal, plain.normal)
    assert (ours.offset_m, ours.share) == (plain.offset_m, plain.share)
    assert ours.share > 0.5


def test_an_ordinary_cloud_is_left_as_it_is() -> None:
    cloud = make_cloud(street())
    same, ground = stand_level(cloud, find_ground(cloud.xyz))
    assert same is cloud
    assert ground.offset_m == pytest.approx(1.8, abs=0.05)
    assert ASSUMED.offset_m == USUAL_HEIGHT_M
