# SPDX-License-Identifier: Apache-2.0
"""The labelling page and its frames: logs whose frames are replaced, labels carried to other scans, reviews, thumbnails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.street_scene import CAR, PERSON, STREET, click, on_car, open_session, write_log, write_posed
from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.carry import REACH_M
from weakseg_ros.improve.label.clicks import ClickStore, clicked_scans
from weakseg_ros.improve.label.colors import color_points, views_of
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.thumbnails import Thumbnails
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap


def test_undo_goes_to_the_frame_it_happened_in(street_folder: Path) -> None:
    session = open_session(street_folder)
    session.undo()
    assert "nothing to undo" in session.message
    session.press(CAR)
    session.turn_page(1)
    session.turn_page(1)
    assert "last frame" in session.message
    session.undo()
    assert (session.frame.key, session.store.count("000000")) == ("000000", 0)
    session.redo()
    assert session.store.count("000000") == 1


def test_a_damaged_frame_is_passed_over_and_named(street_folder: Path) -> None:
    (street_folder / "velodyne" / "000000.bin").write_bytes(b"123")
    session = open_session(street_folder)
    assert session.frame.key == "000001"
    assert session.warning
    assert "000000.bin" in session.message
    (street_folder / "velodyne" / "000001.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"000000\.bin"):
        open_session(street_folder)


def test_a_click_on_a_frame_that_the_log_has_replaced_is_refused_and_the_next_one_opens(tmp_path: Path, cloud: Cloud) -> None:
    with write_log(tmp_path / "log", cloud) as log:
        session = open_session(tmp_path / "log")
        key = session.frame.key
        session.press(PERSON)
        session.undo()
        session.next_suggestion()
        log.remove(key)  # as the node does for a worthier one
        with pytest.raises(DataError, match=f"'{key}' was replaced in the log"):
            session.press(PERSON)
        with pytest.raises(DataError, match=f"'{key}' was replaced in the log"):
            session.redo()
        assert session.store.redo() is None
        assert session.store.clicked == []
        assert not (session.store.path / f"{key}.label").exists()
        session.refresh()
        assert session.source.worth(key) == ""
        session.turn_page(1)
        assert session.frame.key != key
        session.press(PERSON)
        assert session.store.clicked == [session.frame.key]


def test_a_frame_log_comes_by_worth_with_the_models_view(tmp_path: Path, cloud: Cloud) -> None:
    count = len(cloud)
    write_log(tmp_path / "log", cloud).close()
    session = open_session(tmp_path / "log")
    assert session.source.worth(session.frame.key) == "priority 0.90 (uncertain)"
    assert session.point == int(on_car(cloud)[0])
    assert views_of(session.frame) == ("intensity", "height", "prediction", "uncertainty", "labels")
    np.testing.assert_array_equal(color_points(session.frame, "prediction", STREET)[0], STREET.colors[CAR])
    for view in views_of(session.frame):
        assert color_points(session.frame, view, STREET).shape == (count, 3)
    session.press(PERSON)
    assert session.store.labelled(session.frame.key)[0][int(on_car(cloud)[0])] == PERSON
    assert {path.name for path in (tmp_path / "log").iterdir()} >= {"sparse", "frames"}

    session.choose_mode("object")
    session.chosen = PERSON
    click(session, int(on_car(cloud)[5]))
    assert session.mask is not None
    assert session.mask.class_id == CAR  # as the model says
    session.press(PERSON)
    assert session.mask.class_id == PERSON
    session.reject()
    click(session, int(on_car(cloud)[5]))
    assert session.mask.class_id == PERSON  # a person's word stands


def test_raw_scans_take_a_label_map(tmp_path: Path, cloud: Cloud) -> None:
    (tmp_path / "velodyne").mkdir()
    np.concatenate([cloud.xyz, cloud.intensity[:, None]], axis=1).astype("<f4").tofile(tmp_path / "velodyne" / "a.bin")
    source = FrameSource(tmp_path, LabelMap.load("vlp32"))
    session = PageState(ClickStore(tmp_path, source.labels), source)
    session.press(2)
    raw = np.fromfile(tmp_path / "sparse" / "clicks" / "a.label", "<u4")
    assert raw.max() == LabelMap.load("vlp32").classes[2].raw_ids[0]


@pytest.fixture
def drive(tmp_path: Path, cloud: Cloud) -> Path:
    """Three scans of one place from three places, a metre apart, the third one turned by 90 degrees."""
    return write_posed(tmp_path / "posed", [cloud] * 3, (0.0, 0.0, 90.0))


def test_labels_are_carried_to_other_scans_of_the_same_place(drive: Path, cloud: Cloud) -> None:
    state, car = open_session(drive), on_car(cloud)
    state.carry_over()
    assert "no frame within" in state.message
    state.store.add("000000", car, CAR, 7, clicks=1)
    state.open("000002")
    own = int(car[0])
    state.store.add("000002", [own], PERSON)
    state.carry_over()
    assert "labelled as in frame 000000" in state.message
    class_id, instance = state.store.labelled("000002")
    assert class_id[own] == PERSON, "what a person labelled stays"
    assert (class_id[car[1:]] == CAR).all()
    assert set(instance[class_id == CAR]) == {7}
    assert state.store.clicks == 2
    state.undo()
    assert np.flatnonzero(state.store.labelled("000002")[0]).tolist() == [own]
    state.open("000000")
    state.carry_on()
    assert "of the next 2 frames" in state.message
    assert (state.store.labelled("000001")[0][car] == CAR).all()


def test_the_scans_around_are_drawn_where_this_one_sees_the_same_things(drive: Path, cloud: Cloud) -> None:
    state = open_session(drive)
    assert len(state.scans_around().xyz) == 0
    state.toggle_around()
    around = state.scans_around().xyz
    valid = int(cloud.valid.sum())
    assert len(around) == 2 * valid
    np.testing.assert_allclose(around[:valid], cloud.xyz[cloud.valid], atol=1e-4)
    state.toggle_around()
    assert len(state.scans_around().xyz) == 0


def test_a_click_shows_what_else_it_labels(drive: Path, cloud: Cloud) -> None:
    state, car = open_session(drive), on_car(cloud)
    state.toggle_around()
    assert not state.scans_around().class_id.any()
    state.store.add(state.frame.key, [int(car[0])], CAR)
    reached = state.scans_around()
    assert set(reached.class_id.tolist()) == {0, CAR}
    near = np.linalg.norm(reached.xyz - cloud.xyz[car[0]], axis=1) <= REACH_M - 1e-3
    assert (reached.class_id[near] == CAR).all()
    assert np.count_nonzero(reached.class_id) >= np.count_nonzero(near) > 1
    assert state.store.count("000001") == 0, "it is shown, not labelled"
    state.undo()
    assert not state.scans_around().class_id.any()


def test_without_poses_nothing_is_carried(street_folder: Path, cloud: Cloud) -> None:
    state = open_session(street_folder)
    state.store.add("000001", on_car(cloud), CAR)
    for act in (state.carry_over, state.carry_on, state.toggle_around):
        act()
        assert "does not tell where the sensor was" in state.message
    assert state.store.count("000000") == 0


def test_a_rejected_frame_is_open_again_and_nothing_is_learnt_from_it(street_folder: Path, cloud: Cloud) -> None:
    state = open_session(street_folder)
    state.review(True)
    assert "only a finished frame" in state.message.lower()
    for key in ("000000", "000001"):
        state.store.add(key, on_car(cloud)[:3], CAR)
        state.store.mark_done(key)
    state.review(False)
    assert state.frame.key == "000001"
    assert state.store.done == ("000001",)
    assert list(clicked_scans(street_folder).keys) == ["000001"]
    state.review(True)
    again = ClickStore(street_folder)
    assert again.record.reviews == {"000000": "rejected", "000001": "accepted"}
    again.add("000000", on_car(cloud)[3:5], CAR)
    assert again.record.reviews["000000"] == "rejected"
    again.mark_done("000000")
    assert "000000" not in again.record.reviews, "it is new work that nobody has checked"
    assert list(clicked_scans(street_folder).keys) == ["000000", "000001"]


def test_a_thumbnail_shows_near_things_bright_and_survives_a_damaged_frame(street_folder: Path, cloud: Cloud) -> None:
    source = FrameSource(street_folder)
    pictures = Thumbnails()
    assert pictures.known("000000") is None
    picture = pictures.draw(source, "000000")
    assert picture.shape == (40, 360, 3)
    assert pictures.known("000000") is picture
    ahead = picture[:, 175:185].astype(int).sum(axis=2).max(axis=1)
    assert ahead[-1] > ahead[np.flatnonzero(ahead > 72)[0]], "the ground below is nearer than the one at the horizon"
    (street_folder / "velodyne" / "000001.bin").write_bytes(b"123")
    assert (pictures.draw(source, "000001") == 24).all()
