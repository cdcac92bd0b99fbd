# SPDX-License-Identifier: Apache-2.0
"""Objects from one click each, by rule: a yard with cars on a slope, the cases at the edge, and 14 real objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec, project
from weakseg_ros.weak.ground import GroundSettings, ground_points
from weakseg_ros.weak.masks_by_rule import ClickSettings, segment_from_clicks

LABELS = LabelMap.load("street")
CAR, PERSON, ROAD = (LABELS.id_of(name) for name in ("car", "person", "road"))
SPEC = RangeSpec(height=32, width=720, fov_up_deg=5.0, fov_down_deg=-25.0)
SLOPE = 0.03
CARS = ((8.0, 5.0), (8.0, 8.4), (-9.0, 0.0), (0.0, -7.0))
"""centre x and y of cars 4 x 1.8 x 1.5 m; the third lies across the rear, the first hides a part of the second"""
BOXES = (*((x, y, 2.0, 0.9, 1.5) for x, y in CARS), (0.0, -9.5, 9.0, 0.2, 3.0))
"""centre x and y, half length, half width and height in m: the cars, and a wall that nobody clicks"""


def cast(spec: RangeSpec = SPEC) -> tuple[Cloud, np.ndarray]:
    """A yard that rises ahead, seen from 1.7 m above it: a cloud, and the box of each point (0 = ground)."""
    rows, cols = np.meshgrid(np.arange(spec.height) + 0.5, np.arange(spec.width) + 0.5, indexing="ij")
    up = np.radians(spec.fov_up_deg - rows * (spec.fov_up_deg - spec.fov_down_deg) / spec.height).ravel()
    azimuth = np.pi - cols.ravel() * 2 * np.pi / spec.width
    ray = np.stack([np.cos(up) * np.cos(azimuth), np.cos(up) * np.sin(azimuth), np.sin(up)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(ray[:, 2] < SLOPE * ray[:, 0], 1.7 / (SLOPE * ray[:, 0] - ray[:, 2]), np.inf)
        box = np.zeros(len(ray), int)
        for number, (x, y, length, width, height) in enumerate(BOXES, 1):
            floor = SLOPE * x - 1.7
            low, high = np.array([x - length, y - width, floor]), np.array([x + length, y + width, floor + height])
            bounds = np.sort(np.stack([low / ray, high / ray]), axis=0)
            enter, leave = bounds[0].max(axis=1), bounds[1].min(axis=1)
            hit = (enter > 0) & (enter < leave) & (enter < distance)
            distance[hit], box[hit] = enter[hit], number
    seen = distance < 60
    return make_cloud((ray * np.where(seen, distance, 0)[:, None]).astype(np.float32)), np.where(seen, box, 0)


YARD, BOX_OF_POINT = cast()


def one_click_each(rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.choice(np.flatnonzero(BOX_OF_POINT == number)) for number in range(1, len(CARS) + 1)])


def overlap(mine: np.ndarray, true: np.ndarray) -> float:
    return float((mine & true).sum() / (mine | true).sum())


@pytest.mark.parametrize("seed", range(5))
def test_cars_are_found_from_any_click_on_them(seed: int) -> None:
    clicks = one_click_each(np.random.default_rng(seed))
    found = segment_from_clicks(YARD, clicks, np.full(4, CAR), LABELS, SPEC)
    assert min(overlap(found == i, BOX_OF_POINT == i + 1) for i in range(4)) > 0.7
    assert np.array_equal(found[clicks], np.arange(4))


def test_the_way_along_surfaces_parts_what_the_straight_way_confuses() -> None:
    scores = {"surface": [], "straight": []}
    for seed in range(5):
        clicks = one_click_each(np.random.default_rng(seed))
        for distance, score in scores.items():
            found = segment_from_clicks(YARD, clicks, np.full(4, CAR), LABELS, SPEC, ClickSettings(distance=distance))
            score.append(np.mean([overlap(found == i, BOX_OF_POINT == i + 1) for i in range(4)]))
    assert np.mean(scores["surface"]) > np.mean(scores["straight"])


@pytest.mark.parametrize("distance", ["surface", "straight"])
def test_permuted_clicks_permute_the_masks(distance: str) -> None:
    rng = np.random.default_rng(1)
    clicks, classes = one_click_each(rng), np.array([CAR, CAR, PERSON, CAR])
    rule = ClickSettings(distance=distance)
    found = segment_from_clicks(YARD, clicks, classes, LABELS, SPEC, rule)
    order = rng.permutation(4)
    again = segment_from_clicks(YARD, clicks[order], classes[order], LABELS, SPEC, rule)
    assert np.array_equal(np.where(again >= 0, order[again], -1), found)


def test_the_class_bounds_the_object() -> None:
    click = np.array([np.flatnonzero(BOX_OF_POINT == 4)[0]])
    rule = ClickSettings(reach=1.0)
    as_car, as_person = (segment_from_clicks(YARD, click, [k], LABELS, SPEC, rule) == 0 for k in (CAR, PERSON))
    apart = np.linalg.norm(YARD.xyz - YARD.xyz[click], axis=1)
    assert apart[as_person].max() <= 1.0
    assert np.array_equal(as_person, as_car & (apart <= 1.0))


def test_a_gap_that_is_too_wide_is_not_crossed() -> None:
    clicks = one_click_each(np.random.default_rng(0))[:1]
    wide = ClickSettings(gap_m=3.0, without_ground=False, reach=3.0)
    narrow = ClickSettings(gap_m=0.3, gap_share=0.0, reach=3.0)
    second = BOX_OF_POINT == 2
    assert (segment_from_clicks(YARD, clicks, [CAR], LABELS, SPEC, wide)[second] == 0).any()
    assert (segment_from_clicks(YARD, clicks, [CAR], LABELS, SPEC, narrow)[second] == -1).all()


def test_no_click_gives_no_mask_and_an_empty_cloud_too() -> None:
    none = np.zeros(0, int)
    assert (segment_from_clicks(YARD, none, none, LABELS, SPEC) == -1).all()
    assert len(segment_from_clicks(make_cloud(np.zeros((0, 3))), none, none, LABELS, SPEC)) == 0


def test_an_object_of_three_points_and_clicks_that_lie_nowhere() -> None:
    xyz = np.concatenate([YARD.xyz, [[0.0, 12.0, 1.0], [0.05, 12.0, 1.0], [0.0, 12.0, 0.6], [1.0, 0.0, 9.0], [np.nan] * 3]])
    cloud = make_cloud(xyz)
    first = len(YARD)
    found = segment_from_clicks(cloud, [first, first + 3, first + 4], [PERSON] * 3, LABELS, SPEC)
    assert found[first:].tolist() == [0, 0, 0, 1, 2]
    assert (found == 1).sum() == (found == 2).sum() == 1  # above the image, and not a place at all


def test_two_clicks_on_one_point_and_on_one_pixel() -> None:
    click = one_click_each(np.random.default_rng(2))[2]
    found = segment_from_clicks(YARD, [click, click], [CAR, CAR], LABELS, SPEC)
    assert set(np.unique(found)) == {-1, 0}
    cloud = make_cloud(np.concatenate([YARD.xyz, YARD.xyz[click : click + 1] * 1.001]))
    both = segment_from_clicks(cloud, [click, len(YARD)], [CAR, CAR], LABELS, SPEC)
    assert (both == 1).sum() == 1
    assert np.array_equal(both[:-1] == 0, found == 0)


def test_three_hundred_clicks_part_the_yard() -> None:
    rng = np.random.default_rng(0)
    clicks = rng.choice(np.flatnonzero(YARD.valid), 300, replace=False)
    found = segment_from_clicks(YARD, clicks, rng.choice([CAR, PERSON], 300), LABELS, SPEC)
    assert np.array_equal(np.unique(found), np.arange(-1, 300))


def test_clicks_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="of a cloud that has"):
        segment_from_clicks(YARD, [len(YARD)], [CAR], LABELS, SPEC)
    with pytest.raises(DataError, match="'road' has no countable objects; click car"):
        segment_from_clicks(YARD, [0], [ROAD], LABELS, SPEC)
    with pytest.raises(DataError, match="class 99"):
        segment_from_clicks(YARD, [0], [99], LABELS, SPEC)
    with pytest.raises(DataError, match="1 point, but 2 classes"):
        segment_from_clicks(YARD, [0], [CAR, CAR], LABELS, SPEC)


def test_a_slope_is_ground_and_what_stands_on_it_is_not() -> None:
    usable = np.flatnonzero(YARD.valid)
    ground = ground_points(YARD.xyz[usable])
    car = BOX_OF_POINT[usable] > 0
    assert ground[~car].mean() > 0.95
    above = YARD.xyz[usable, 2] - (SLOPE * YARD.xyz[usable, 0] - 1.7) > 0.4
    assert not ground[car & above].any()
    assert not ground_points(np.array([[1e3, 0, -5]], np.float32), GroundSettings()).any()


def test_the_rules_need_no_torch() -> None:
    code = "import sys, weakseg_ros.weak.masks_by_rule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_real_objects_from_one_click_each(shared_data: Path) -> None:
    scans = open_scans(shared_data / "semantickitti_seq00")
    scores: dict[str, list[float]] = {"surface": [], "straight": []}
    for number in range(3):
        scan = scans[number]
        view = project(scan.cloud, scans.spec)
        objects = scan.instance_id * scans.labels.things[scan.class_id]
        names = np.unique(objects[objects > 0])
        assert len(names) == 14
        rng = np.random.default_rng(number)
        clicks = np.array([rng.choice(np.flatnonzero(objects == name)) for name in names])
        for rule in (ClickSettings(), ClickSettings(distance="straight", reach=0.8)):
            found = segment_from_clicks(scan.cloud, clicks, scan.class_id[clicks], scans.labels, scans.spec, rule, view)
            scores[rule.distance] += [overlap(found == i, objects == name) for i, name in enumerate(names)]
    assert np.mean(scores["surface"]) > 0.7  # 0.84 over more clicks
    assert np.mean(scores["straight"]) > 0.6  # 0.79 over more clicks
