# SPDX-License-Identifier: Apache-2.0
"""What masks, boxes and polygons of the labelling page take: what is seen in them, and nothing that is hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from support.street_scene import CAR, PERSON, ROAD, STREET, click, on_car, on_person, open_session
from weakseg_ros.improve.label.filters import Filters
from weakseg_ros.improve.label.lasso import Lasso
from weakseg_ros.improve.label.masks import points_in_rectangle
from weakseg_ros.points.cloud import Cloud


def test_one_click_on_an_object_shows_its_mask(street_folder: Path, cloud: Cloud) -> None:
    session, car = open_session(street_folder), on_car(cloud)
    session.choose_mode("object")
    session.press(CAR)
    click(session, int(car[len(car) // 2]))
    assert session.mask is not None
    inside = np.isin(car, session.mask.points)
    assert inside.mean() > 0.8
    assert inside.sum() > 0.8 * len(session.mask.points)
    assert session.store.count("000000") == 0
    size = len(session.mask.points)
    session.scale(False)
    session.scale(False)
    session.scale(False)
    assert len(session.mask.points) < size
    session.scale(True)
    session.accept()
    assert session.mask is None
    session.press(PERSON)
    click(session, int(on_person(cloud)[5]))
    session.accept()
    class_id, instance = session.store.labelled("000000")
    assert set(instance[class_id == CAR]) == {1}
    assert set(instance[class_id == PERSON]) == {2}
    assert session.store.clicks == 2
    session.choose_mode("erase")
    click(session, int(on_person(cloud)[5]))
    assert not (session.store.labelled("000000")[0] == PERSON).any()


def test_masks_are_for_things_and_can_be_rejected(street_folder: Path, cloud: Cloud) -> None:
    session = open_session(street_folder)
    session.choose_mode("object")
    assert STREET.things[session.chosen]
    click(session, int(on_car(cloud)[0]))
    session.press(ROAD)
    assert "no single objects" in session.message
    session.reject()
    session.accept()
    assert session.store.count("000000") == 0


def test_objects_without_numbers_and_one_object_in_two_parts(street_folder: Path, cloud: Cloud) -> None:
    session, car, person = open_session(street_folder), on_car(cloud), on_person(cloud)
    session.choose_mode("paint")
    session.press(CAR)
    click(session, int(car[3]))
    session.same_object = True
    click(session, int(car[-3]))
    session.same_object, session.instances = False, False
    session.press(PERSON)
    click(session, int(person[3]))
    class_id, instance = session.store.labelled("000000")
    assert set(instance[class_id == CAR]) == {1}
    assert set(instance[class_id == PERSON]) == {0}


def box_around(cloud: Cloud, points: np.ndarray) -> np.ndarray:
    inside = np.zeros(len(cloud), np.bool_)
    inside[points] = True
    return inside


def test_a_box_waits_for_its_class_and_takes_nothing_that_is_hidden(street_folder: Path, cloud: Cloud) -> None:
    state, car = open_session(street_folder), on_car(cloud)
    state.hide_ground()
    ground = np.flatnonzero(state.frame.ground)
    assert len(ground) > 1000
    state.select(lambda _: box_around(cloud, np.concatenate([car, ground])))
    assert state.mask is not None
    assert not np.isin(state.mask.points, ground).any()
    assert state.store.count("000000") == 0
    state.press(CAR)
    assert f"car, {len(state.mask.points)} points" in state.message
    state.accept()
    class_id, instance = state.store.labelled("000000")
    assert set(np.flatnonzero(class_id == CAR)) <= set(car)
    assert set(instance[class_id == CAR]) == {1}
    state.select(lambda xyz: np.zeros(len(xyz), np.bool_))
    assert "no point in it" in state.message


def test_a_polygon_takes_what_is_seen_in_it_and_waits_for_its_class(street_folder: Path, cloud: Cloud) -> None:
    state, car = open_session(street_folder), on_car(cloud)
    state.hide_ground()
    state.choose_mode("lasso")
    middle = cloud.xyz[car].mean(axis=0).astype(np.float64)
    reach = float(np.linalg.norm(cloud.xyz[car] - middle, axis=1).max())
    across = np.cross([0.0, 0.0, 1.0], middle / np.linalg.norm(middle))
    corners = [middle + reach * (x * across + [0.0, 0.0, z]) for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    for corner in corners[:2]:
        assert state.click(np.zeros(3), corner, 0.03) is None
    state.accept()
    assert "needs 3 corners, this one has 2" in state.message
    for corner in corners[2:]:
        state.click(np.zeros(3), corner, 0.03)
    assert (len(state.lasso), state.mask) == (4, None)
    state.click(np.zeros(3), corners[0] + 0.001, 0.03)
    assert state.mask is not None
    assert len(state.lasso) == 0, "a click on the first corner closes it"
    assert set(car) & set(np.flatnonzero(state.shown())) <= set(state.mask.points)
    assert not state.frame.ground[state.mask.points].any(), "hidden points are not in it"
    state.press(CAR)
    state.accept()
    class_id, _ = state.store.labelled("000000")
    assert (class_id[state.shown() & box_around(cloud, car)] == CAR).all()


def test_a_polygon_begins_anew_where_the_view_has_moved_and_ends_with_esc(street_folder: Path) -> None:
    state = open_session(street_folder)
    state.choose_mode("lasso")
    state.click(np.zeros(3), np.array([1.0, 0.0, 0.0]), 0.03)
    state.click(np.array([0.0, 2.0, 0.0]), np.array([1.0, 0.1, 0.0]), 0.03)
    assert len(state.lasso) == 1
    assert "The view has moved" in state.message
    state.reject()
    assert len(state.lasso) == 0
    state.click(np.zeros(3), np.array([1.0, 0.0, 0.0]), 0.03)
    state.choose_mode("mark")
    assert len(state.lasso) == 0


@given(st.integers(0, 10_000), st.integers(3, 9))
@settings(deadline=None, max_examples=60)
def test_the_even_odd_rule_agrees_with_the_winding_of_a_star(seed: int, count: int) -> None:
    """Corners in order of their angle around a middle: a point is inside where it is nearer to that than the edge it looks at."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(-np.pi, np.pi, count))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    assume(gaps.max() < 0.9 * np.pi and gaps.min() > 0.01)
    radii = rng.uniform(0.1, 0.8, count)
    corners = np.stack([np.ones(count), radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    lasso = Lasso()
    for corner in corners:
        lasso = lasso.with_corner(np.zeros(3), corner)
    flat = rng.uniform(-1, 1, (200, 2))
    points = np.concatenate([np.ones((200, 1)), flat], axis=1) * rng.uniform(0.5, 50, (200, 1))
    expected = np.zeros(200, np.bool_)
    for a, b in zip(corners[:, 1:], np.roll(corners[:, 1:], -1, axis=0), strict=True):
        share = np.linalg.solve(np.stack([a, b], axis=1), flat.T)  # inside the triangle of middle and edge
        expected |= (share >= 0).all(axis=0) & (share.sum(axis=0) <= 1)
    np.testing.assert_array_equal(lasso.inside(points), expected)
    assert not lasso.inside(-points).any(), "what lies behind the camera is not in the picture"


def test_hidden_points_are_neither_clicked_nor_painted(street_folder: Path, cloud: Cloud) -> None:
    state, car = open_session(street_folder), on_car(cloud)
    state.choose_mode("paint")
    state.press(CAR)
    state.resize_brush(0.5)
    assert click(state, int(car[3])) is not None
    labelled = np.flatnonzero(state.store.labelled("000000")[0])
    assert len(labelled) > 1
    assert (np.linalg.norm(cloud.xyz[labelled] - cloud.xyz[car[3]], axis=1) <= 0.5).all()
    state.hide_class(CAR)
    assert click(state, int(car[3])) not in labelled
    state.show_everything()
    assert click(state, int(car[3])) in labelled
    state.filters = Filters(low_m=-1.0)
    assert cloud.xyz[state.shown(), 2].min() >= -1.0


def test_an_object_that_is_far_too_large_is_asked_for_twice(street_folder: Path, cloud: Cloud) -> None:
    state = open_session(street_folder)
    state.select(lambda _: cloud.valid)
    state.press(CAR)
    state.accept()
    assert state.warning
    assert "a car is hardly longer than 7 m" in state.message
    assert "% of the scan's points" in state.message
    assert state.store.count("000000") == 0
    state.press(PERSON)  # another mask: the question is put again
    state.accept()
    assert state.store.count("000000") == 0
    state.accept()
    assert state.store.count("000000") == cloud.valid.sum()


def test_a_mask_over_other_labels_is_asked_for_twice(street_folder: Path, cloud: Cloud) -> None:
    state, car = open_session(street_folder), on_car(cloud)
    state.store.add("000000", car[:5], ROAD)
    state.select(lambda _: box_around(cloud, car))
    state.press(CAR)
    state.accept()
    assert "5 of its points are labelled road and would become car" in state.message
    assert (state.store.labelled("000000")[0] == ROAD).sum() == 5
    state.accept()
    assert not (state.store.labelled("000000")[0] == ROAD).any()


def test_a_click_on_a_wrong_part_takes_it_off_and_one_beside_adds(street_folder: Path, cloud: Cloud) -> None:
    state, car = open_session(street_folder), on_car(cloud)
    state.choose_mode("object")
    state.press(CAR)
    nearest, farthest = (int(car[i]) for i in (np.argmin(cloud.xyz[car, 0]), np.argmax(cloud.xyz[car, 0])))
    click(state, nearest)
    assert state.mask is not None
    whole = state.mask.points
    assert farthest in whole
    state._click_object(farthest)
    assert state.mask is not None
    assert farthest not in state.mask.points
    assert nearest in state.mask.points
    assert set(state.mask.points) < set(whole)
    off = next(int(i) for i in whole if i not in state.mask.points)
    state._click_object(off)
    assert off in state.mask.points
    state._click_object(int(on_person(cloud)[3]))  # far from the car: another object
    assert state.mask is not None
    assert state.mask.off == ()


def test_the_rectangle_takes_what_the_camera_sees_in_it() -> None:
    xyz = np.array([[10, 0, 0], [10, 1, 0], [10, -1, 0], [10, 0, 1], [-10, 0, 0]], np.float32)
    right_down_ahead = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], np.float64)  # looks along x, z up
    middle = ((0.48, 0.48), (0.52, 0.52))
    look = np.zeros(3), right_down_ahead, np.radians(60), 2.0
    assert points_in_rectangle(xyz, *look, middle).tolist() == [True, False, False, False, False]
    left = ((0.0, 0.0), (0.49, 1.0))
    assert points_in_rectangle(xyz, *look, left).tolist() == [False, True, False, False, False]
    top = ((0.0, 0.0), (1.0, 0.49))
    assert points_in_rectangle(xyz, *look, top).tolist() == [False, False, False, True, False]
