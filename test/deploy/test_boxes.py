# SPDX-License-Identifier: Apache-2.0
"""Boxes around instances: known rectangles from any side, few points, faulty points, and what a box says of its object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.deploy.boxes import BOX_DTYPE, boxes, objects_of, rows_of


def box_of(xyz: np.ndarray, instance: int = 7, class_id: int = 2, confidence: float = 0.5) -> np.void:
    """The box of one object, which all the points belong to."""
    count = len(xyz)
    found = boxes(
        np.asarray(xyz, np.float32),
        np.full(count, instance, np.uint16),
        np.full(count, class_id, np.uint8),
        np.full(count, confidence, np.float32),
    )
    assert found.shape == (1,)
    return found[0]


def two_sides(length: float, width: float, yaw: float, centre: tuple[float, float], seed: int = 0) -> np.ndarray:
    """(300, 3) points on the long and the short side of an upright box that face -x and -y before it is turned."""
    rng = np.random.default_rng(seed)
    along = np.column_stack([rng.uniform(-length / 2, length / 2, 200), np.full(200, -width / 2)])
    across = np.column_stack([np.full(100, -length / 2), rng.uniform(-width / 2, width / 2, 100)])
    plan = np.concatenate([along, across, [[-length / 2, -width / 2], [length / 2, -width / 2], [-length / 2, width / 2]]])
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return np.column_stack([plan @ turn.T + centre, rng.uniform(-1.6, -0.1, len(plan))])


@given(
    length=st.floats(3.0, 12.0),
    share=st.floats(0.3, 0.8),
    yaw=st.floats(-np.pi / 2, np.pi / 2),
    x=st.floats(-80, 80),
    y=st.floats(-80, 80),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_two_visible_sides_give_the_whole_rectangle(
    length: float, share: float, yaw: float, x: float, y: float, seed: int
) -> None:
    box = box_of(two_sides(length, share * length, yaw, (x, y), seed))
    apart = (box["yaw_rad"] - yaw + np.pi / 2) % np.pi - np.pi / 2
    assert abs(apart) <= np.radians(2.0)
    np.testing.assert_allclose(box["size_m"][:2], (length, share * length), rtol=0.08)
    np.testing.assert_allclose(box["centre_m"][:2], (x, y), atol=0.05 * length)


def test_a_box_says_what_its_points_say() -> None:
    xyz = np.array([[4, 0, 0], [6, 0, 1], [6, 1, 2], [4, 1, -1], [90, 90, 90]], np.float32)
    instance = np.array([9, 9, 9, 9, 0], np.uint16)
    class_id = np.array([3, 3, 1, 3, 1], np.uint8)
    confidence = np.array([0.9, 0.7, 0.2, 0.6, 1.0], np.float32)
    found = boxes(xyz, instance, class_id, confidence)
    assert found.dtype == BOX_DTYPE
    (box,) = found
    assert (box["instance_id"], box["class_id"], box["points"]) == (9, 3, 4)
    assert box["score"] == pytest.approx(0.6)
    np.testing.assert_allclose(box["centre_m"], (5, 0.5, 0.5), atol=1e-5)
    np.testing.assert_allclose(box["size_m"], (2, 1, 3), atol=1e-5)
    assert box["yaw_rad"] == pytest.approx(0.0, abs=1e-6)


def test_length_is_never_less_than_width() -> None:
    box = box_of([[0, 0, 0], [1, 0, 0], [1, 3, 0], [0, 3, 0]])
    np.testing.assert_allclose(box["size_m"], (3, 1, 0), atol=1e-5)
    assert abs(box["yaw_rad"]) == pytest.approx(np.pi / 2, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_have_a_box_that_holds_them(count: int) -> None:
    xyz = np.array([[10.0, 5.0, 1.0], [10.4, 5.3, 1.5], [10.2, 5.1, 0.2]])[:count]
    box = box_of(xyz)
    assert np.isfinite(box["centre_m"]).all()
    assert np.isfinite(box["size_m"]).all()
    assert (np.abs(xyz - box["centre_m"]).max(axis=0) <= np.linalg.norm(box["size_m"]) / 2 + 1e-4).all()
    if count == 1:
        np.testing.assert_allclose(box["centre_m"], xyz[0], atol=1e-5)
        np.testing.assert_array_equal(box["size_m"], 0)
    if count == 2:
        assert box["size_m"][0] == pytest.approx(0.5, abs=0.01)


def test_faulty_points_are_left_out() -> None:
    good = [[4, 0, 0], [6, 0, 0], [6, 1, 1], [4, 1, 1]]
    faulty = [[np.nan, 0, 0], [np.inf, 1, 1], [0, -np.inf, 0], [1e30, 0, 0], [3e38, 3e38, 3e38]]
    expected, found = box_of(good), box_of(np.array(good + faulty))
    assert found == expected
    empty = boxes(np.array(faulty, np.float32), np.ones(5, np.uint16), np.ones(5, np.uint8), np.ones(5, np.float32))
    assert empty.shape == (0,)


def test_no_instance_no_box() -> None:
    for count in (0, 10):
        nothing = np.zeros(count, np.float32)
        found = boxes(np.ones((count, 3), np.float32), nothing.astype(np.uint16), nothing.astype(np.uint8), nothing)
        assert found.shape == (0,)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_each_box_is_that_of_its_points_alone(seed: int, count: int, objects: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 20, (count, 3)).astype(np.float32)
    instance = rng.integers(0, objects + 1, count).astype(np.uint16)
    class_id, confidence = rng.integers(1, 4, count).astype(np.uint8), rng.random(count).astype(np.float32)
    found = boxes(xyz, instance, class_id, confidence)
    np.testing.assert_array_equal(found["instance_id"], np.unique(instance[instance > 0]))
    assert (found["size_m"][:, 0] >= found["size_m"][:, 1]).all()
    assert (np.abs(found["yaw_rad"]) <= np.pi / 2 + 1e-3).all()
    for box in found:
        mine = instance == box["instance_id"]
        (alone,) = boxes(xyz[mine], instance[mine], class_id[mine], confidence[mine])
        assert alone == box
        local = (xyz[mine] - box["centre_m"])[:, :2]
        cosine, sine = np.cos(box["yaw_rad"]), np.sin(box["yaw_rad"])
        along, across = local[:, 0] * cosine + local[:, 1] * sine, local[:, 1] * cosine - local[:, 0] * sine
        assert np.abs(along).max() <= box["size_m"][0] / 2 + 1e-3
        assert np.abs(across).max() <= box["size_m"][1] / 2 + 1e-3


def test_all_ids_at_once() -> None:
    instance = np.arange(1, 1 << 16, dtype=np.uint16)
    xyz = np.random.default_rng(0).normal(0, 30, (len(instance), 3)).astype(np.float32)
    found = boxes(xyz, instance, np.ones(len(instance), np.uint8), np.ones(len(instance), np.float32))
    np.testing.assert_array_equal(found["instance_id"], instance)
    np.testing.assert_allclose(found["centre_m"], xyz, atol=1e-4)


def test_a_sample_is_spread_over_each_object() -> None:
    xyz = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    instance = np.repeat(np.array([5, 2, 9], np.uint16), [900, 95, 5])
    objects = objects_of(xyz, instance)
    np.testing.assert_array_equal(objects.ids, [2, 5, 9])
    chosen, taken = objects.sample(10)
    np.testing.assert_array_equal(taken, [10, 10, 5])
    np.testing.assert_array_equal(objects.at[chosen[10:20]], np.arange(0, 900, 90))
    np.testing.assert_array_equal(instance[objects.at[chosen]], np.repeat([2, 5, 9], [10, 10, 5]))


def test_chosen_objects_come_in_the_order_asked_for() -> None:
    rng = np.random.default_rng(1)
    instance = rng.integers(0, 5, 50).astype(np.uint16)
    objects = objects_of(rng.normal(size=(50, 3)).astype(np.float32), instance)
    some = objects.chosen(np.array([3, 0]))
    np.testing.assert_array_equal(some.ids, [4, 1])
    np.testing.assert_array_equal(some.at, np.concatenate([np.flatnonzero(instance == 4), np.flatnonzero(instance == 1)]))
    np.testing.assert_array_equal(rows_of(np.array([2, 0, 3]), np.array([2, 1, 0])), [2, 3, 4, 0, 1])
