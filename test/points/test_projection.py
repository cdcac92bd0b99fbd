# SPDX-License-Identifier: Apache-2.0
"""Points to pixels, beside brute force; odd fields of view, odd numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.errors import CloudError
from weakseg_ros.points.cloud import FLAG_NON_FINITE, FLAG_NON_RETURN, Cloud
from weakseg_ros.points.projection import RangeSpec, project

SPEC = RangeSpec(height=16, width=64, fov_up_deg=10.0, fov_down_deg=-30.0, min_range_m=0.5, max_range_m=100.0)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(xyz: object, ring: object = None, height: int = 1) -> Cloud:
    points = np.array(xyz, np.float32).reshape(-1, 3)
    flags = np.where(np.isfinite(points).all(axis=1), 0, FLAG_NON_FINITE).astype(np.uint8)
    flags[(points == 0).all(axis=1)] = FLAG_NON_RETURN
    intensity = np.arange(len(points), dtype=np.float32)
    rings = None if ring is None else np.array(ring, np.uint16)
    return Cloud(points, intensity, flags, rings, height=height, width=len(points) // height)


def at(azimuth_deg: float, inclination_deg: float, distance: float = 10.0) -> list[float]:
    a, i = math.radians(azimuth_deg), math.radians(inclination_deg)
    return [distance * math.cos(i) * math.cos(a), distance * math.cos(i) * math.sin(a), distance * math.sin(i)]


def pixels(cloud: Cloud, spec: RangeSpec) -> list[tuple[int, int] | None]:
    found = project(cloud, spec).pixel_of_point.tolist()
    return [divmod(pixel, spec.width) if pixel >= 0 else None for pixel in found]


coordinate = st.one_of(
    st.floats(-60, 60, width=32),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-40, 1e-20, 0.5, 100.0, 1e30, -1e38, 3.4e38, math.nan, math.inf, -math.inf]),
)
clouds = st.lists(st.tuples(coordinate, coordinate, coordinate), max_size=60).map(make)
specs = st.builds(
    RangeSpec,
    height=st.sampled_from([1, 2, 16]),
    width=st.sampled_from([1, 3, 64]),
    fov_up_deg=st.sampled_from([-5.0, 10.0, 90.0]),
    fov_down_deg=st.sampled_from([-90.0, -30.0, -6.0]),
    fov_left_deg=st.sampled_from([180.0, 60.0]),
    fov_right_deg=st.sampled_from([-180.0, -20.0, 10.0]),
    max_range_m=st.sampled_from([1.0, 50.0, 1e38]),
)


@given(clouds, specs)
@settings(deadline=None, max_examples=200)
def test_nearest_point_owns_its_pixel_and_ties_go_to_the_smaller_index(cloud: Cloud, spec: RangeSpec) -> None:
    view = project(cloud, spec)
    assert view.point_of_pixel.shape == (spec.height, spec.width)
    assert view.pixel_of_point.dtype == view.point_of_pixel.dtype == np.int32
    owners: dict[int, int] = {}
    for point, pixel in enumerate(view.pixel_of_point.tolist()):
        if pixel >= 0:
            best = owners.setdefault(pixel, point)
            if view.range_of_point[point] < view.range_of_point[best]:
                owners[pixel] = point
    expected = np.full(spec.height * spec.width, -1)
    expected[list(owners)] = list(owners.values())
    assert np.array_equal(view.point_of_pixel.ravel(), expected)


@given(clouds, specs)
@settings(deadline=None, max_examples=200)
def test_every_usable_point_within_the_limits_has_the_pixel_of_its_direction(cloud: Cloud, spec: RangeSpec) -> None:
    view = project(cloud, spec)
    x, y, z = cloud.xyz.astype(np.float64).T
    with np.errstate(all="ignore"):
        distance = np.sqrt(x**2 + y**2 + z**2)
        row = (spec.fov_up_deg - np.degrees(np.arcsin(z / distance))) / (spec.fov_up_deg - spec.fov_down_deg) * spec.height
        col = (spec.fov_left_deg - np.degrees(np.arctan2(y + 0.0, x))) / (spec.fov_left_deg - spec.fov_right_deg) * spec.width
    slack = min(0.5, 0.25 * spec.height / (spec.fov_up_deg - spec.fov_down_deg))
    seen = cloud.valid & (view.pixel_of_point >= 0)
    assert np.array_equal(np.isnan(view.range_of_point), ~cloud.valid)
    limited = np.minimum(distance[cloud.valid], np.finfo(np.float32).max)
    np.testing.assert_allclose(view.range_of_point[cloud.valid], limited, rtol=1e-6, atol=1e-45)
    found_row, found_col = np.divmod(view.pixel_of_point, spec.width)
    close = 2e-3
    directed = distance > 1e-37  # nearer ones are denormal: their coordinates hold too few digits for a direction
    for point in np.flatnonzero(seen & directed):
        assert abs(np.clip(row[point], 0.5, spec.height - 0.5) - found_row[point] - 0.5) <= 0.5 + close
        assert abs(np.clip(col[point], 0.5, spec.width - 0.5) - found_col[point] - 0.5) <= 0.5 + close
    inside = (row > close - slack) & (row < spec.height + slack - close) & (col > close) & (col < spec.width - close)
    inside &= (distance > spec.min_range_m) & (distance < spec.max_range_m * (1 - 1e-6)) & cloud.valid
    outside = (row < -slack - close) | (row > spec.height + slack + close) | (col < -close) | (col > spec.width + close)
    outside |= distance > spec.max_range_m * (1 + 1e-6)
    assert seen[inside & directed].all()
    assert not seen[outside & directed].any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 500))
@settings(deadline=None, max_examples=50)
def test_shuffling_the_points_shuffles_their_pixels(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 10, (count, 3)).astype(np.float32)
    order = rng.permutation(count)
    straight, shuffled = project(make(xyz), SPEC), project(make(xyz[order]), SPEC)
    assert np.array_equal(shuffled.pixel_of_point, straight.pixel_of_point[order])
    assert np.array_equal(shuffled.point_of_pixel >= 0, straight.point_of_pixel >= 0)


def test_forward_is_the_middle_left_is_left_and_the_top_is_row_0() -> None:
    cloud = make([at(-0.1, 9.9), at(90, -10.1), at(-90, -29.9), at(179.9, -1), at(-179.9, -1)])
    assert pixels(cloud, SPEC) == [(0, 32), (8, 16), (15, 48), (4, 0), (4, 63)]


def test_both_zeros_behind_the_sensor_are_one_column() -> None:
    cloud = make([[-10, 0.0, 0], [-10, -0.0, 0], [-10, 1e-6, 0], [-10, -1e-6, 0]])
    assert [pixel[1] for pixel in pixels(cloud, SPEC) if pixel] == [0, 0, 0, 63]


@pytest.mark.parametrize(("up", "down"), [(-10.0, -50.0), (60.0, 20.0)])
def test_field_of_view_wholly_below_or_above_the_horizon(up: float, down: float) -> None:
    spec = RangeSpec(height=4, width=8, fov_up_deg=up, fov_down_deg=down)
    step = (up - down) / 4
    cloud = make([at(10, up - (row + 0.5) * step) for row in range(4)] + [at(10, up + 1), at(10, down - 1), at(10, -down)])
    assert [pixel and pixel[0] for pixel in pixels(cloud, spec)] == [0, 1, 2, 3, None, None, None]


def test_sector_to_one_side() -> None:
    spec = RangeSpec(height=2, width=10, fov_up_deg=10, fov_down_deg=-10, fov_left_deg=70, fov_right_deg=20)
    cloud = make([at(69, 1), at(45.1, 1), at(21, 1), at(71, 1), at(19, 1), at(-45, 1), at(180, 1)])
    assert not spec.full_circle
    assert pixels(cloud, spec) == [(0, 0), (0, 4), (0, 9), None, None, None, None]


def test_beam_on_the_edge_keeps_its_row_and_a_point_well_outside_gets_none() -> None:
    cloud = make([at(azimuth, 10.0) for azimuth in range(360)] + [at(azimuth, -30.0) for azimuth in range(360)])
    rows = np.array([pixel[0] if pixel else -1 for pixel in pixels(cloud, SPEC)])
    assert (rows[:360] == 0).all()
    assert (rows[360:] == 15).all()
    assert pixels(make([at(0, 10.2), at(0, 10.3), at(0, -30.2), at(0, -30.3)]), SPEC) == [(0, 32), None, (15, 32), None]


def test_point_0_is_a_point_and_range_limits_are_inclusive() -> None:
    assert project(make([at(0, 0)]), SPEC).point_of_pixel.max() == 0
    exact = make([[0.5, 0, 0], [100, 0, 0], [np.nextafter(np.float32(0.5), np.float32(0)), 0, 0], [100.00001, 0, 0]])
    assert [pixel is not None for pixel in pixels(exact, SPEC)] == [True, True, False, False]


def test_huge_and_tiny_points_have_their_true_range() -> None:
    spec = RangeSpec(height=4, width=8, fov_up_deg=90, fov_down_deg=-90, max_range_m=3.5e38)
    cloud = make([[1e30, 0, 0], [0, -1e38, 0], [1e-40, 0, 0], [3e38, 3e38, 0], [0, 0, -1e-45]])
    view = project(cloud, spec)
    assert (view.pixel_of_point >= 0).all()
    np.testing.assert_allclose(view.range_of_point[:4], [1e30, 1e38, 1e-40, 3.4028235e38], rtol=1e-6, atol=1e-45)


def test_empty_cloud_and_cloud_without_a_usable_point() -> None:
    for cloud in (make([]), make([[math.nan] * 3, [0, 0, 0]])):
        view = project(cloud, SPEC)
        assert (view.point_of_pixel == -1).all()
        assert (view.pixel_of_point == -1).all()


@pytest.mark.parametrize("upwards", [False, True])
def test_ring_gives_the_row_top_first_whichever_way_the_driver_counts(upwards: bool) -> None:
    spec = RangeSpec(height=8, width=16, rows="ring")
    ring = np.repeat(np.arange(8), 16)
    inclination = (ring if upwards else 7 - ring) * 7.0 - 30  # uneven with the spec's field of view on purpose
    cloud = make([at(11 + 22.5 * (n % 16), inclination[n]) for n in range(128)], ring)
    expected = 7 - ring if upwards else ring
    assert [pixel and pixel[0] for pixel in pixels(cloud, spec)] == expected.tolist()


def test_ring_beyond_the_image_gets_no_pixel_and_a_cloud_without_rings_is_refused() -> None:
    spec = RangeSpec(height=8, width=16, rows="ring")
    assert pixels(make([at(0, 0), at(0, 1)], [7, 8]), spec) == [(7, 8), None]
    with pytest.raises(CloudError, match="no ring field") as caught:
        project(make([at(0, 0)]), spec)
    assert caught.value.reason == "no_ring"


def test_organised_cloud_keeps_its_own_grid() -> None:
    spec = RangeSpec(height=2, width=3, rows="grid", max_range_m=50)
    cloud = make([at(0, 80), [0, 0, 0], at(0, 80), at(9, 9, 60), at(0, 0), [math.nan] * 3], height=2)
    view = project(cloud, spec)
    assert view.point_of_pixel.tolist() == [[0, -1, 2], [-1, 4, -1]]
    assert view.pixel_of_point.tolist() == [0, -1, 2, -1, 4, -1]
    with pytest.raises(CloudError, match="2 x 3, found 1 x 6"):
        project(make(cloud.xyz), spec)


def test_official_way_clamps_what_ours_drops(published_projection: ModuleType) -> None:
    cloud = make([at(0, 50), at(0, -60), [-10, -0.0, -0.1]])
    assert pixels(cloud, SPEC)[:2] == [None, None]
    theirs = np.divmod(published_projection.project_official(cloud, SPEC).pixel_of_point, 64)
    assert np.transpose(theirs).tolist() == [[0, 32], [15, 32], [4, 63]]


def test_official_ways_agree_with_ours_inside_the_field_of_view(shared_data: object, published_projection: ModuleType) -> None:
    points = np.fromfile(f"{shared_data}/semantickitti_seq00/velodyne/000000.bin", np.float32).reshape(-1, 4)
    cloud = make(points[:, :3])
    ours = project(cloud, RangeSpec())
    seen = ours.pixel_of_point >= 0
    assert seen.mean() > 0.999
    for code, share in (("coarse3d", 1.0), ("lidar-bonnetal", 0.9999)):
        theirs = published_projection.project_official(cloud, RangeSpec(), code)
        assert (theirs.pixel_of_point == ours.pixel_of_point)[seen].mean() >= share


def test_an_image_is_widened_to_what_most_of_the_cloud_spans() -> None:
    inclinations = np.linspace(-52.3, 9.0, 500)
    cloud = make([at(azimuth, inclination) for azimuth in (-90, 0, 90) for inclination in inclinations])
    narrow, wide = project(cloud, SPEC), project(cloud, SPEC, widen=True)
    assert np.mean(narrow.pixel_of_point < 0) > 0.3
    assert (wide.pixel_of_point >= 0).all()
    assert wide.point_of_pixel.shape == (SPEC.height, SPEC.width)
    rows = wide.pixel_of_point[:500] // SPEC.width
    assert rows[0] == SPEC.height - 1
    assert (np.diff(rows) <= 0).all()


def test_an_edge_stays_where_hardly_a_point_lies_beyond_it() -> None:
    cloud = make([*(at(a, i) for a in range(-90, 90) for i in (-20, 0, 5)), at(0, 60), at(0, -80)])
    narrow, wide = project(cloud, SPEC), project(cloud, SPEC, widen=True)
    np.testing.assert_array_equal(narrow.pixel_of_point, wide.pixel_of_point)
    np.testing.assert_array_equal(narrow.point_of_pixel, wide.point_of_pixel)


def test_straight_up_and_down_are_the_farthest_that_an_image_is_widened() -> None:
    cloud = make([at(a, i) for a in range(-90, 90, 5) for i in (-90, -45, 0, 45, 90)])
    assert (project(cloud, SPEC, widen=True).pixel_of_point >= 0).all()


def test_nothing_is_widened_for_a_cloud_without_usable_points() -> None:
    cloud = make([[math.nan, 0, 0], [0, 0, 0]])
    assert (project(cloud, SPEC, widen=True).pixel_of_point < 0).all()
