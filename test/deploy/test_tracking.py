# SPDX-License-Identifier: Apache-2.0
"""Ids that stay: moving objects and a moving sensor, crossings, occlusions, other names, gaps and leaps in time, limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.track_settings import TrackSettings
from weakseg_ros.deploy.tracking import Tracker
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap

NAMES = ("none", "car", "truck", "person", "bicyclist", "road")
CAR, TRUCK, PERSON, BICYCLIST, ROAD = 1, 2, 3, 4, 5
LABELS = LabelMap("yard", tuple(LabelClass(i, n, (i, i, i), 0 < i < 5, (i,) if i else ()) for i, n in enumerate(NAMES)))
PERIOD_NS = 100_000_000
SIZE = {CAR: (4.2, 1.8), TRUCK: (8.0, 2.5), PERSON: (0.5, 0.5), BICYCLIST: (1.7, 0.5)}
Thing = tuple[int, float, float]
"""class, and x, y of its middle in the world"""


def shape_of(thing: Thing, seed: int) -> np.ndarray:
    """(40, 3) points on an object."""
    class_id, x, y = thing
    rng = np.random.default_rng([class_id, seed])
    length, width = SIZE[class_id]
    return np.column_stack([rng.uniform(-0.5, 0.5, (40, 2)) * (length, width), rng.uniform(-1.5, 0.0, 40)]) + np.array(
        [x, y, 0.0]
    )


def seen(
    things: Sequence[Thing | None],
    ids: Sequence[int] | None = None,
    scan: int = 0,
    pose: np.ndarray | None = None,
    stamp_ns: int | None = None,
    frame_id: str = "lidar",
) -> tuple[Segmentation, Cloud]:
    """A scan of the things that are not None, each with its id (by default its place in the list), from a sensor at `pose`."""
    names = ids or range(1, len(things) + 1)
    present = [(name, thing) for name, thing in zip(names, things, strict=True) if thing is not None]
    parts = [shape_of(thing, name if ids is None else 0) for name, thing in present]
    world = np.concatenate([*parts, [[30.0, -40.0, -1.5]]])
    here = np.eye(4) if pose is None else pose
    xyz = (world - here[:3, 3]) @ here[:3, :3]
    class_id = np.array([thing[0] for _, thing in present for _ in range(40)] + [ROAD], np.uint8)
    instance_id = np.array([name for name, _ in present for _ in range(40)] + [0], np.uint16)
    ones = np.ones(len(xyz), np.float32)
    stamp = scan * PERIOD_NS if stamp_ns is None else stamp_ns
    cloud = make_cloud(xyz, stamp_ns=stamp, frame_id=frame_id)
    return Segmentation(class_id, instance_id, ones, ones, cloud.flags, class_id[None], instance_id[None]), cloud


def ids_of(answer: Segmentation) -> list[int]:
    """The id of each object, in the order of their points; each has one only."""
    found = answer.instance_id[:-1].reshape(-1, 40)
    assert (found == found[:, :1]).all()
    np.testing.assert_array_equal(answer.instance_image[0], answer.instance_id)
    return found[:, 0].tolist()


def follow(
    tracker: Tracker, scans: Sequence[Sequence[Thing | None]], poses: Sequence[np.ndarray] | None = None
) -> list[list[int]]:
    """Ids scan by scan; the odometry is given where there are poses."""
    answers = []
    for number, things in enumerate(scans):
        pose = poses[number] if poses is not None else None
        answers.append(ids_of(tracker.update(*seen(things, scan=number, pose=pose), pose)))
    return answers


def turned(x: float, y: float, yaw: float) -> np.ndarray:
    """(4, 4) a pose on the ground."""
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


@pytest.mark.parametrize(
    ("class_id", "speed"), [(CAR, 0.0), (CAR, 15.0), (TRUCK, 25.0), (PERSON, 1.8), (BICYCLIST, 6.0)], ids=str
)
def test_a_moving_object_keeps_its_id(class_id: int, speed: float) -> None:
    scans = [[(class_id, 10.0 + speed * t / 10, 5.0), (CAR, -20.0, -6.0)] for t in range(20)]
    ids = follow(Tracker(LABELS), scans)
    assert ids == [ids[0]] * 20
    assert len(set(ids[0])) == 2


@pytest.mark.parametrize("odometry", [True, False])
def test_parked_cars_keep_their_ids_while_we_drive_a_curve(odometry: bool) -> None:
    cars = [(CAR, 8.0 * i, side) for i in range(-3, 8) for side in (-6.0, 6.0)]
    poses = [turned(1.2 * t, 0.01 * t * t, 0.02 * t) for t in range(25)]
    tracker = Tracker(LABELS)
    ids = []
    for number, pose in enumerate(poses):
        answer = tracker.update(*seen(cars, scan=number, pose=pose), pose if odometry else None)
        ids.append(ids_of(answer))
    assert ids == [ids[0]] * len(poses)


def test_odometry_may_come_late_jump_and_cease() -> None:
    cars = [(CAR, 7.0 * i, side) for i in range(-3, 8) for side in (-5.0, 6.0)]
    poses = [turned(1.0 * t, 0.0, 0.01 * t) for t in range(30)]
    far = turned(5e5, -4e6, 2.0)
    broken = [np.full((4, 4), np.nan), np.zeros((4, 4))]
    given = [None] * 8 + [far @ p for p in poses[8:14]] + poses[14:18] + broken + poses[20:22] + [None] * 8
    tracker = Tracker(LABELS)
    ids = [
        ids_of(tracker.update(*seen(cars, scan=number, pose=poses[number]), odometry)) for number, odometry in enumerate(given)
    ]
    assert ids == [ids[0]] * len(poses)


def test_ids_stay_with_those_who_cross() -> None:
    scans = [[(PERSON, 8.0, -2.0 + 0.15 * t), (PERSON, 8.7, 2.0 - 0.15 * t)] for t in range(28)]
    ids = follow(Tracker(LABELS), scans)
    assert ids == [ids[0]] * 28


@pytest.mark.parametrize(("hidden", "back"), [(2, True), (12, True), (25, False)])
def test_an_occluded_object_comes_back_under_its_id(hidden: int, back: bool) -> None:
    path = [(CAR, 10.0 + 0.8 * t, 5.0) for t in range(40)]
    scans = [[None if 10 <= t < 10 + hidden else path[t], (CAR, -20.0, -6.0)] for t in range(40)]
    ids = follow(Tracker(LABELS, TrackSettings(max_age_s=1.5)), scans)
    assert (ids[10 + hidden][0] == ids[0][0]) == back
    assert {scan[-1] for scan in ids} == {ids[0][1]}


def test_an_id_stays_within_its_kind() -> None:
    tracker = Tracker(LABELS)
    (car,) = ids_of(tracker.update(*seen([(CAR, 10, 5)], scan=0)))
    assert ids_of(tracker.update(*seen([(TRUCK, 10, 5)], scan=1))) == [car]
    (person,) = ids_of(tracker.update(*seen([(PERSON, 10, 5)], scan=2)))
    assert person != car
    assert ids_of(tracker.update(*seen([(BICYCLIST, 10, 5)], scan=3))) == [person]


def test_the_larger_part_of_a_split_object_keeps_the_id() -> None:
    tracker = Tracker(LABELS)
    answer, cloud = seen([(CAR, 10, 5)])
    (whole,) = ids_of(tracker.update(answer, cloud))
    again, cloud = seen([(CAR, 10, 5)], scan=1)
    crumb = np.argsort(cloud.xyz[:40, 0])[:8]
    again.instance_id[crumb] = 2
    split = tracker.update(again, cloud)
    assert set(np.delete(split.instance_id[:40], crumb)) == {whole}
    assert set(split.instance_id[crumb]).isdisjoint({0, whole})


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.booleans())
@settings(deadline=None, max_examples=40)
def test_names_within_a_scan_do_not_matter(seed: int, count: int, odometry: bool) -> None:
    rng = np.random.default_rng(seed)
    plain, renamed = Tracker(LABELS), Tracker(LABELS)
    things = [(int(rng.integers(1, 5)), *rng.uniform(-30, 30, 2)) for _ in range(count)]
    for number in range(5):
        visible: list[Thing | None] = [thing if rng.random() < 0.8 else None for thing in things]
        things = [(kind, x + rng.normal(0, 0.3), y + rng.normal(0, 0.3)) for kind, x, y in things]
        names = (rng.permutation(65535)[:count] + 1).tolist()
        pose = turned(0.5 * number, 0.0, 0.01 * number)
        given_pose = pose if odometry else None
        first = plain.update(*seen(visible, list(range(1, count + 1)), number, pose), given_pose)
        second = renamed.update(*seen(visible, names, number, pose), given_pose)
        np.testing.assert_array_equal(first.instance_id, second.instance_id)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 3, 300]), st.floats(0.0, 0.3))
@settings(deadline=None, max_examples=60)
def test_instances_are_neither_split_nor_joined_whatever_comes(seed: int, count: int, most: int, faulty: float) -> None:
    rng = np.random.default_rng(seed)
    tracker = Tracker(LABELS, TrackSettings(max_objects=most))
    for number in range(6):
        xyz = rng.normal(0, 20, (count, 3)).astype(np.float32)
        xyz[rng.random(count) < faulty] = rng.choice([np.nan, np.inf, 1e30])
        instance_id = (rng.integers(0, 6, count) * rng.choice([1, 13_000], count)).astype(np.uint16)
        class_id = rng.integers(0, 6, count).astype(np.uint8)
        image = rng.integers(0, 7, (3, 5)).astype(np.uint16)
        ones = np.ones(count, np.float32)
        cloud = make_cloud(xyz, stamp_ns=int(rng.choice([0, number * PERIOD_NS, number, -number, number * 10**12])))
        answer = Segmentation(class_id, instance_id, ones, ones, cloud.flags, image.astype(np.uint8), image)
        pose = turned(*rng.normal(0, 1e6, 3)) if rng.random() < 0.5 else None
        tracked = tracker.update(answer, cloud, pose)
        before = np.concatenate([instance_id, image.ravel()])
        after = np.concatenate([tracked.instance_id, tracked.instance_image.ravel()])
        pairs = {(int(a), int(b)) for a, b in zip(before, after, strict=True)}
        assert len(pairs) == len(set(before.tolist())) == len(set(after.tolist()))
        assert all((a == 0) == (b == 0) for a, b in pairs)
        np.testing.assert_array_equal(tracked.class_id, class_id)


def test_an_empty_scan_is_no_obstacle() -> None:
    tracker = Tracker(LABELS)
    first = ids_of(tracker.update(*seen([(CAR, 10, 5)], scan=0)))
    nothing = np.zeros(0, np.float32)
    no_ids, image = nothing.astype(np.uint16), np.zeros((2, 3), np.uint16)
    empty = make_cloud(np.zeros((0, 3), np.float32), stamp_ns=PERIOD_NS, frame_id="lidar", width=0)
    no_class = nothing.astype(np.uint8)
    answer = Segmentation(no_class, no_ids, nothing, nothing, no_class, image.astype(np.uint8), image)
    assert tracker.update(answer, empty).instance_id.shape == (0,)
    assert ids_of(tracker.update(*seen([], scan=2))) == []
    assert ids_of(tracker.update(*seen([(CAR, 10, 5)], scan=3))) == first


def test_a_bag_that_begins_anew_starts_all_over() -> None:
    tracker = Tracker(LABELS)
    first = ids_of(tracker.update(*seen([(CAR, 10, 5)], stamp_ns=50 * PERIOD_NS)))
    assert ids_of(tracker.update(*seen([(CAR, 10, 5)], stamp_ns=51 * PERIOD_NS))) == first
    second = ids_of(tracker.update(*seen([(CAR, 10, 5)], stamp_ns=10 * PERIOD_NS)))
    assert second != first
    assert ids_of(tracker.update(*seen([(CAR, 10, 5)], stamp_ns=11 * PERIOD_NS))) == second
    assert ids_of(tracker.update(*seen([(CAR, 10, 5)], stamp_ns=12 * PERIOD_NS, frame_id="other"))) != second


def test_stamps_that_stand_still_do_not_matter() -> None:
    scans = [[(CAR, 10.0 + 1.5 * t, 5.0), (PERSON, 5.0, -4.0)] for t in range(15)]
    tracker = Tracker(LABELS)
    ids = [ids_of(tracker.update(*seen(things, stamp_ns=0))) for things in scans]
    assert ids == [ids[0]] * 15


@pytest.mark.parametrize("with_odometry", [False, True])
def test_after_a_long_pause_nobody_inherits_an_id(with_odometry: bool) -> None:
    tracker = Tracker(LABELS)
    pose = np.eye(4) if with_odometry else None
    before = ids_of(tracker.update(*seen([(CAR, 10.0, 5.0), (CAR, -20.0, -8.0)], stamp_ns=0), pose))
    after = ids_of(tracker.update(*seen([(CAR, 60.0, -5.0), (CAR, 30.0, 40.0)], stamp_ns=30 * 10**9), pose))
    assert not set(before) & set(after)


def test_ids_come_again_only_after_all_others_and_never_twice_at_once() -> None:
    tracker = Tracker(LABELS, TrackSettings(max_age_s=0.0))
    stays, last, given_again = (CAR, -20.0, -6.0), 0, 0
    kept = ids_of(tracker.update(*seen([stays])))
    instance_id = np.arange(1, 30_001, dtype=np.uint16)
    for number in range(1, 6):
        crowd = np.random.default_rng(number).normal(0, 40, (30_000, 3))
        cloud = make_cloud(np.concatenate([shape_of(stays, 1), crowd]), stamp_ns=number * PERIOD_NS, frame_id="lidar")
        ids = np.concatenate([np.full(40, 40_000, np.uint16), instance_id])
        ones, class_id = np.ones(len(ids), np.float32), np.full(len(ids), CAR, np.uint8)
        image = np.zeros((1, 1), np.uint16)
        answer = Segmentation(class_id, ids, ones, ones, cloud.flags, image.astype(np.uint8), image)
        found = tracker.update(answer, cloud).instance_id
        assert found[0] == kept[0]
        assert len(np.unique(found)) == 30_001
        assert found.min() > 0
        new = found[40:]
        given_again += int(new.min()) < last
        last = int(new.max())
    assert given_again


def test_more_instances_than_ids_to_spare() -> None:
    tracker = Tracker(LABELS, TrackSettings(max_age_s=10.0))
    for number in range(3):
        xyz = np.random.default_rng(number).normal(0, 40, (65_535, 3))
        cloud = make_cloud(xyz, stamp_ns=number * PERIOD_NS)
        ids, ones = np.arange(1, 1 << 16, dtype=np.uint16), np.ones(65_535, np.float32)
        image = np.zeros((1, 1), np.uint16)
        answer = Segmentation(ones.astype(np.uint8), ids, ones, ones, cloud.flags, image.astype(np.uint8), image)
        assert len(np.unique(tracker.update(answer, cloud).instance_id)) == 65_535
