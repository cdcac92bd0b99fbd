# SPDX-License-Identifier: Apache-2.0
"""Labels that are carried to other scans: what has moved is left out, what stands is not, and recordings are kept apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.street_scene import CAR, CAR_AT, PERSON, ROAD, SPEC, on_car, on_person, open_session, scene, write_posed
from weakseg_ros.improve.label.moved_objects import Sight, objects_of
from weakseg_ros.points.cloud import Cloud


@pytest.fixture
def passing(tmp_path: Path, cloud: Cloud) -> Path:
    """Three scans of a person who stands, and of a car that has driven on by a metre and a half in each."""
    clouds = [scene(car_at=CAR_AT + np.array([1.5 * number, 0.0])) for number in range(3)]
    return write_posed(tmp_path / "passing", clouds, (0.0, 0.0, 0.0))


def test_an_object_that_has_moved_is_left_out_and_told(passing: Path, cloud: Cloud) -> None:
    state, car, person = open_session(passing), on_car(cloud), on_person(cloud)
    state.store.add("000000", car, CAR, 1)
    state.store.add("000000", person, PERSON, 2)
    state.carry_on()
    assert "1 object has moved and was left out." in state.message
    for key in ("000001", "000002"):
        class_id, instance = state.store.labelled(key)
        assert not (class_id == CAR).any()
        assert set(instance[class_id == PERSON]) == {2}
        assert (class_id[person] == PERSON).mean() > 0.8
    state.toggle_around()
    assert set(state.scans_around().class_id.tolist()) == {0, PERSON}


def test_where_all_labels_are_of_what_has_moved_nothing_is_copied_and_that_is_told(passing: Path, cloud: Cloud) -> None:
    state = open_session(passing)
    state.store.add("000000", on_car(cloud)[:1], CAR)
    state.open("000002")
    state.carry_over()
    assert "No labels are copied" in state.message
    assert "1 object has moved and was left out." in state.message
    assert state.store.count("000002") == 0


def test_no_objects_label_goes_to_the_ground_beneath_it(tmp_path: Path) -> None:
    """A car with its wheels labelled rolls on by 20 cm: the ground beneath and behind it is not a car."""
    clouds = [scene(), scene(car_at=CAR_AT + np.array([0.2, 0.0]))]
    state = open_session(write_posed(tmp_path / "slow", clouds, (0.0, 0.0)))
    first, second = (state.source.frame(key) for key in ("000000", "000001"))
    whole = np.flatnonzero((np.abs(first.cloud.xyz[:, :2] - CAR_AT) < [1.7, 1.0]).all(axis=1) & first.cloud.valid)
    state.store.add("000000", whole, CAR)
    state.store.add("000000", np.flatnonzero(first.ground & ~np.isin(np.arange(len(first.ground)), whole)), ROAD)
    state.carry_on()
    class_id = state.store.labelled("000001")[0]
    assert (class_id == CAR).any()
    assert not (class_id[second.ground] == CAR).any()
    assert (class_id == ROAD).any()


def test_what_hides_an_objects_place_does_not_speak_against_it() -> None:
    here, behind, before = (np.array([[distance, 0.0, 0.0]], np.float32) for distance in (10.0, 14.0, 5.0))
    number = np.zeros(1, np.int64)
    assert not Sight(here, SPEC).moved(here, number).any()
    assert Sight(behind, SPEC).moved(here, number).all()
    assert not Sight(before, SPEC).moved(here, number).any()
    assert not Sight(-here, SPEC).moved(here, number).any(), "where no ray goes nothing is known"
    assert not Sight(np.zeros((0, 3), np.float32), SPEC).moved(here, number).any()
    assert len(Sight(here, SPEC).moved(here[:0], number[:0])) == 0


def test_objects_are_told_apart_by_number_class_and_gaps() -> None:
    xyz = np.array([[0, 0, 0], [0.3, 0, 0], [5, 0, 0], [0.2, 0, 0], [9, 9, 0], [0, 0.1, 0]], np.float32)
    class_id = np.array([CAR, CAR, CAR, PERSON, CAR, CAR], np.uint8)
    instance = np.array([0, 0, 0, 0, 7, 7], np.uint16)
    number = objects_of(xyz, class_id, instance)
    assert sorted(np.unique(number)) == [0, 1, 2, 3]
    assert number[0] == number[1]
    assert number[4] == number[5]
    assert len({*number[[0, 2, 3, 4]]}) == 4


def test_nothing_goes_from_one_recording_to_another(tmp_path: Path, cloud: Cloud) -> None:
    """Both begin at the origin of a frame of their own: their poses say nothing of each other."""
    for name in ("train", "val"):
        write_posed(tmp_path / "drives" / name, [cloud, cloud], (0.0, 0.0))
    state = open_session(tmp_path / "drives")
    last, other = "train/000001", "val/000000"
    assert list(state.source.neighbours(last, 1)) == []
    assert list(state.source.neighbours(other, -1)) == []
    assert list(state.source.neighbours(other, 1)) == ["val/000001"]
    state.open(last)
    state.store.add(last, on_person(cloud), PERSON)
    state.carry_on()
    state.toggle_together()
    assert [scan.frame.key for scan in state.scans] == [last, "train/000000"]
    assert state.store.clicked == [last]
