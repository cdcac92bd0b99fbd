# SPDX-License-Identifier: Apache-2.0
"""Several scans of one place that are labelled at once: what each tool takes of which scan, and that one scan stays one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from support.street_scene import CAR, CAR_AT, PERSON, ROAD, click, on_car, on_person, open_session, scene, write_posed
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.points.cloud import Cloud

KEYS = ("000000", "000001", "000002")


@pytest.fixture
def drive(tmp_path: Path, cloud: Cloud) -> Path:
    """Three scans of one place from three places, a metre apart, the third one turned by 90 degrees."""
    return write_posed(tmp_path / "posed", [cloud] * 3, (0.0, 0.0, 90.0))


def together(folder: Path) -> PageState:
    state = open_session(folder)
    state.toggle_together()
    return state


def labels(state: PageState, class_id: int) -> list[int]:
    """How many points of each scan have a class."""
    return [int((state.store.labelled(key)[0] == class_id).sum()) for key in KEYS]


def test_it_is_off_until_it_is_asked_for(drive: Path, street_folder: Path, cloud: Cloud) -> None:
    state = open_session(drive)
    state.toggle_around()
    assert (len(state.scans), state.scans.xyz is state.frame.cloud.xyz) == (1, True)
    state.choose_mode("paint")
    state.press(CAR)
    state.resize_brush(0.5)
    click(state, int(on_car(cloud)[3]))
    assert state.store.clicked == ["000000"]
    assert "scan" not in state.message
    state.toggle_together()
    assert "label 3 scans at once" in state.message
    state.toggle_around()
    assert (state.around, state.together, len(state.scans)) == (False, False, 1)
    state = together(street_folder)
    assert "does not tell where the sensor was" in state.message
    assert not state.together


def test_a_brush_stroke_labels_each_scan_as_if_it_were_open_alone(drive: Path, tmp_path: Path, cloud: Cloud) -> None:
    singly = open_session(Path(shutil.copytree(drive, tmp_path / "singly")))
    state, point = together(drive), int(on_car(cloud)[3])
    for one in (state, singly):
        one.choose_mode("paint")
        one.press(CAR)
        one.resize_brush(0.5)
    click(state, point)
    count = labels(state, CAR)
    assert f"car, {sum(count)} points in 3 scans. Undo: Z" in state.message
    for key in KEYS:
        singly.open(key)
        singly.choose_mode("paint")
        singly._paint(point)  # of the same place: the scans show the same points in the same order
        np.testing.assert_array_equal(state.store.raw_labels(key), singly.store.raw_labels(key))
    for name in ("files", "positions", "points", "points_per_class", "labelled_points", "content_hash"):
        assert getattr(state.store.record, name) == getattr(singly.store.record, name)
    assert (state.store.clicks, singly.store.clicks) == (1, 3), "one click was made here, three there"
    state.undo()
    assert (state.frame.key, state.store.clicked, state.store.clicks) == ("000000", [], 0)
    state.redo()
    assert labels(open_session(drive), CAR) == count


def test_a_click_on_a_point_of_another_scan_labels_from_there(drive: Path, cloud: Cloud) -> None:
    state, person = together(drive), on_person(cloud)
    state.choose_mode("paint")
    state.press(PERSON)
    state._paint(len(cloud) + int(person[4]))
    assert labels(state, PERSON) == [0, 1, 0], "a brush of one point takes that point alone"
    assert state.store.labelled("000001")[0][person[4]] == PERSON
    assert state.scans_around().class_id.tolist().count(PERSON) == 1, "it is drawn in the colour of its class"
    assert "1 point in 1 scan" in state.message


def test_a_box_and_a_lasso_take_all_scans_and_nothing_that_is_hidden(drive: Path, cloud: Cloud) -> None:
    state = together(drive)
    state.hide_ground()
    state.select(lambda xyz: np.linalg.norm(xyz[:, :2] - CAR_AT, axis=1) < 3.0)
    assert state.mask is not None
    state.press(CAR)
    assert "points in 3 scans" in state.message
    state.accept()
    count = labels(state, CAR)
    assert min(count) > 100
    for key in KEYS:
        frame = state.source.frame(key)
        assert not frame.ground[state.store.labelled(key)[0] == CAR].any()
        assert set(state.store.labelled(key)[1][state.store.labelled(key)[0] == CAR]) == {1}
    state.undo()
    state.choose_mode("lasso")
    middle = np.array([*CAR_AT, -0.9])
    across = np.cross([0.0, 0.0, 1.0], middle / np.linalg.norm(middle))
    for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        state.click(np.zeros(3), middle + 2.5 * (x * across + [0.0, 0.0, z]), 0.03)
    state.accept()
    state.press(CAR)
    state.accept()
    assert min(labels(state, CAR)) > 0.9 * min(count)
    assert state.store.clicks == 1


def test_a_click_on_an_object_finds_it_in_each_scan(drive: Path, cloud: Cloud) -> None:
    state, car = together(drive), on_car(cloud)
    state.choose_mode("object")
    state.press(CAR)
    click(state, int(car[len(car) // 2]))
    assert state.mask is not None
    assert "points in 3 scans" in state.message
    assert state.store.clicked == [], "it waits for Enter"
    state.scale(False)
    state.accept()
    for key in KEYS:
        labelled = np.flatnonzero(state.store.labelled(key)[0] == CAR)
        assert np.isin(labelled, car).mean() > 0.8
        assert len(labelled) > 0.5 * len(car)
    assert state.store.clicks == 1
    state.choose_mode("erase")
    click(state, int(car[len(car) // 2]))
    assert labels(state, CAR) == [0, 0, 0]
    assert "labels in 3 scans erased" in state.message
    state.undo()
    assert min(labels(state, CAR)) > 0


def test_an_object_that_is_not_there_in_another_scan_is_left_out_there(tmp_path: Path) -> None:
    clouds = [scene(), scene(car_at=np.array([20.0, -9.0])), scene()]
    state = together(write_posed(tmp_path / "gone", clouds, (0.0, 0.0, 0.0)))
    car = on_car(clouds[0])
    state.choose_mode("object")
    state.press(CAR)
    click(state, int(car[len(car) // 2]))
    assert "points in 2 scans" in state.message
    assert "nothing alike in 1 other scan" in state.message
    state.accept()
    assert [count > 0 for count in labels(state, CAR)] == [True, False, True]


def test_a_mark_names_a_point_of_the_open_scan(drive: Path, cloud: Cloud) -> None:
    state = together(drive)
    state.press(ROAD)
    point = click(state, int(on_person(cloud)[3]))
    state.press(PERSON)
    assert state.store.clicked == ["000000"]
    assert point is not None
    assert state.store.labelled("000000")[0][point] == PERSON


def test_what_is_odd_in_any_scan_is_asked_for_twice(drive: Path, cloud: Cloud) -> None:
    state, car = together(drive), on_car(cloud)
    state.store.add("000001", car[:5], ROAD)
    state.hide_ground()
    state.select(lambda xyz: np.linalg.norm(xyz[:, :2] - CAR_AT, axis=1) < 3.0)
    state.press(CAR)
    state.accept()
    assert "5 of its points are labelled road and would become car" in state.message
    assert labels(state, CAR) == [0, 0, 0]
    state.accept()
    assert min(labels(state, CAR)) > 0


def test_a_damaged_scan_nearby_is_left_out(drive: Path, cloud: Cloud) -> None:
    (drive / "velodyne" / "000001.bin").write_bytes(b"123")
    state = together(drive)
    assert [scan.frame.key for scan in state.scans] == ["000000", "000002"]
    state.choose_mode("paint")
    state.press(CAR)
    state.resize_brush(0.5)
    click(state, int(on_car(cloud)[3]))
    assert ClickStore(drive).clicked == ["000000", "000002"]


def test_another_frame_takes_its_own_neighbours(drive: Path) -> None:
    state = together(drive)
    state.turn_page(1)
    assert (state.together, [scan.frame.key for scan in state.scans]) == (True, ["000001", "000000", "000002"])
    state.choose_mode("object")
    state.press(CAR)
    state.toggle_together()
    assert (len(state.scans), state.mask) == (1, None)
    assert "only this one is labelled" in state.message
