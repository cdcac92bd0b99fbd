# SPDX-License-Identifier: Apache-2.0
"""Objects from pixels: beside a search over all pairs, across the rear, by centres, and on real cars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.grouping import GroupingSettings, group_centres, group_components, object_radii_m
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.lift import lift
from weakseg_ros.points.projection import RangeSpec, RangeView, project

THINGS = np.array([False, True, True, False])
CAR, PERSON, ROAD = 1, 2, 3
EVERYTHING = GroupingSettings(min_pixels=1)


def image_of(classes: np.ndarray, ranges: np.ndarray, left_deg: float = 180.0) -> tuple[np.ndarray, np.ndarray, RangeView]:
    """A class image, one point per pixel at a given range on a horizontal fan, and their view; range 0 = no point."""
    height, width = classes.shape
    azimuth = np.radians(left_deg - (np.arange(width) + 0.5) * 360.0 / width)
    z = -0.1 * np.arange(height)[:, None] * np.ones(width)
    xyz = np.stack([ranges * np.cos(azimuth), ranges * np.sin(azimuth), z], axis=-1).astype(np.float32).reshape(-1, 3)
    owner = np.where(ranges.ravel() > 0, np.arange(height * width), -1).astype(np.int32)
    view = RangeView(owner, owner.reshape(height, width), np.linalg.norm(xyz, axis=1))
    return np.where(ranges > 0, classes, 0).astype(np.uint8), xyz, view


def by_flooding(classes: np.ndarray, xyz: np.ndarray, view: RangeView, full_circle: bool, rule: GroupingSettings) -> np.ndarray:
    """The definition: start at the first pixel without an id and walk over every tie."""
    height, width = classes.shape
    ids = np.zeros((height, width), int)
    count = 0
    for seed in zip(*np.nonzero(THINGS[classes]), strict=True):
        if ids[seed]:
            continue
        count += 1
        ids[seed], stack = count, [seed]
        while stack:
            row, col = stack.pop()
            here = xyz[view.point_of_pixel[row, col]]
            for r in range(max(0, row - rule.rows), min(height, row + rule.rows + 1)):
                for c in range(col - rule.cols, col + rule.cols + 1):
                    if not full_circle and not 0 <= c < width:
                        continue
                    there = xyz[view.point_of_pixel[r, c % width]]
                    reach = max(rule.gap_m, rule.gap_share * min(np.linalg.norm(here), np.linalg.norm(there)))
                    near = np.linalg.norm(here - there) <= reach
                    if classes[r, c % width] == classes[row, col] and near and not ids[r, c % width]:
                        ids[r, c % width] = count
                        stack.append((r, c % width))
    return ids


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(4, 24), st.booleans(), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_components_are_those_of_a_search_over_all_pairs(
    seed: int, height: int, width: int, full_circle: bool, rows: int, cols: int
) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.choice(4, (height, width), p=[0.1, 0.5, 0.2, 0.2])
    ranges = rng.choice([0.0, 3.0, 3.2, 5.0], (height, width))
    found, xyz, view = image_of(classes, ranges)
    rule = GroupingSettings(rows=rows, cols=min(cols, width // 2), min_pixels=1, gap_m=1.0)
    ours = group_components(found, xyz, view, THINGS, full_circle, rule)
    assert np.array_equal(ours, by_flooding(found, xyz, view, full_circle, rule))


def test_a_large_object_is_the_same_whether_neighbours_are_asked_at_once_or_one_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    found, xyz, view = image_of(rng.choice([CAR, PERSON, ROAD], (40, 300)), rng.choice([3.0, 3.2, 5.0], (40, 300)))
    whole = group_components(found, xyz, view, THINGS, True)
    monkeypatch.setattr("weakseg_ros.deploy.grouping.PAIRS_AT_ONCE", 1)
    assert np.array_equal(group_components(found, xyz, view, THINGS, True), whole)
    assert whole.max() > 1


def test_an_object_across_the_rear_is_one_where_the_image_closes_there() -> None:
    classes = np.full((3, 72), ROAD)
    classes[:, :3] = classes[:, -3:] = CAR
    inputs = image_of(classes, np.full(classes.shape, 4.0))
    assert group_components(*inputs, THINGS, True).max() == 1
    assert group_components(*inputs, THINGS, False).max() == 2


def test_a_range_jump_and_another_class_part_what_touches_in_the_image() -> None:
    classes = np.full((4, 72), CAR)
    classes[:, 40:] = PERSON
    ranges = np.full(classes.shape, 4.0)
    ranges[:, :20] = 8.0
    ids = group_components(*image_of(classes, ranges), THINGS, False, GroupingSettings(gap_m=0.8))
    assert [len(np.unique(ids[:, part])) for part in (slice(0, 20), slice(20, 40), slice(40, 72))] == [1, 1, 1]
    assert ids.max() == 3


def test_small_groups_are_dropped_and_the_largest_kept_in_order() -> None:
    classes = np.full((1, 72), ROAD)
    for start, size in ((2, 2), (20, 5), (36, 9), (60, 7)):
        classes[0, start : start + size] = CAR
    inputs = image_of(classes, np.full(classes.shape, 4.0))
    ids = group_components(*inputs, THINGS, True, GroupingSettings(min_pixels=3, max_objects=2))
    assert (ids[0, 36], ids[0, 60]) == (1, 2)
    assert np.count_nonzero(ids) == 16


def test_without_things_there_is_no_object() -> None:
    for classes in (np.zeros((2, 8), int), np.full((2, 8), ROAD)):
        inputs = image_of(classes, np.full(classes.shape, 4.0))
        heat, offset = np.ones((2, 8), np.float32), np.zeros((2, 2, 8), np.float32)
        assert not group_components(*inputs, THINGS, True).any()
        assert not group_centres(*inputs, heat, offset, np.array([0, 3.5, 1, 0], np.float32)).any()


def centres_of(groups: np.ndarray, xyz: np.ndarray, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Heat and offsets as a good network gives them for the pixels of each group."""
    at = np.flatnonzero(groups)
    middle = np.stack([np.bincount(groups.ravel()[at], xyz[at, axis]) for axis in (0, 1)], axis=1)
    middle /= np.maximum(np.bincount(groups.ravel()[at]), 1)[:, None]
    away = middle[groups.ravel()[at]] - xyz[at, :2]
    unit = xyz[at, :2] / np.linalg.norm(xyz[at, :2], axis=1, keepdims=True)
    heat, offset = np.zeros(groups.shape, np.float32), np.zeros((2, *groups.shape), np.float32)
    heat.ravel()[at] = np.exp(-(away**2).sum(axis=1) / 2)
    offset.reshape(2, -1)[0, at] = (away * unit).sum(axis=1)
    offset.reshape(2, -1)[1, at] = away[:, 1] * unit[:, 0] - away[:, 0] * unit[:, 1]
    offset += noise.normal(0, 0.1, offset.shape)
    return heat, offset


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_offsets_part_cars_that_touch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.zeros((6, 360), int)
    for number in range(8):  # bumper to bumper, 2.8 m each, in every direction
        truth[:, 20 + 40 * number : 60 + 40 * number] = number + 1
    ranges = np.where(truth > 0, 4.0, 0.0)
    classes, xyz, view = image_of(np.where(truth > 0, CAR, ROAD), ranges, left_deg=float(rng.uniform(-180, 180)))
    assert group_components(classes, xyz, view, THINGS, True, EVERYTHING).max() == 1
    heat, offset = centres_of(truth, xyz, rng)
    ids = group_centres(classes, xyz, view, heat, offset, np.array([0, 3.5, 1, 0], np.float32))
    assert np.array_equal(ids, truth)


def test_a_pixel_far_from_every_centre_and_a_class_without_heat_stay_alone() -> None:
    classes = np.full((2, 72), CAR)
    classes[:, 36:] = PERSON
    classes, xyz, view = image_of(classes, np.full(classes.shape, 6.0))
    heat, offset = np.zeros(classes.shape, np.float32), np.zeros((2, *classes.shape), np.float32)
    heat[0, 3] = 1.0
    ids = group_centres(classes, xyz, view, heat, offset, np.array([0, 2.0, 2.0, 0], np.float32))
    near = np.linalg.norm(xyz[:, :2] - xyz[3, :2], axis=1).reshape(classes.shape) <= 2.0
    assert np.array_equal(ids > 0, near & (classes == CAR))


def test_every_thing_has_a_radius_and_stuff_none() -> None:
    labels = LabelMap.load("semantickitti")
    radii = object_radii_m(labels)
    assert np.array_equal(radii > 0, labels.things)
    assert radii[labels.id_of("truck")] > radii[labels.id_of("car")] > radii[labels.id_of("person")]


def test_settings_outside_their_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows: 0 is outside"):
        GroupingSettings(rows=0)


def test_real_cars_are_found_from_their_true_classes(shared_data: Path) -> None:
    scans = open_scans(shared_data / "semantickitti_seq00")
    scan = scans[0]
    view = project(scan.cloud, scans.spec)
    classes = np.where(view.point_of_pixel >= 0, scan.class_id[view.point_of_pixel], 0).astype(np.uint8)
    ids = lift(group_components(classes, scan.cloud.xyz, view, scans.labels.things, True), view, 0)
    true = scan.instance_id * scans.labels.things[scan.class_id]
    found = 0
    for number in np.unique(true[true > 0]):
        mine = true == number
        best = np.bincount(ids[mine]).argmax()
        found += best > 0 and (mine & (ids == best)).sum() / (mine | (ids == best)).sum() > 0.5
    assert found >= 11  # of 14


def test_ids_do_not_depend_on_the_order_of_the_points() -> None:
    rng = np.random.default_rng(3)
    xyz = rng.uniform(-20, 20, (4000, 3)) * [1, 1, 0.05]
    labels = LabelMap.load("street")
    cloud = make_cloud(xyz)
    shuffled = make_cloud(xyz[::-1])
    spec = RangeSpec(height=16, width=256, fov_up_deg=15, fov_down_deg=-15)
    answers = []
    for one in (cloud, shuffled):
        view = project(one, spec)
        classes = np.where(view.point_of_pixel >= 0, labels.id_of("car"), 0).astype(np.uint8)
        answers.append(group_components(classes, one.xyz, view, labels.things, True, EVERYTHING))
    assert np.array_equal(*answers)
    assert answers[0].max() > 10
