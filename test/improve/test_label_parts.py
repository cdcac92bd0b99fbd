# SPDX-License-Identifier: Apache-2.0
"""What the labelling page does, without a browser: picking, colours, suggestions, and what each action leaves on disk."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import optional
from support.street_scene import CAR, PERSON, ROAD, click, on_person, open_session, write_log
from weakseg_ros.cli import main
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.colors import ramp
from weakseg_ros.improve.label.frame_source import points_far_apart
from weakseg_ros.improve.label.keys import CLASS_KEYS, COMMANDS, HeldKeys
from weakseg_ros.improve.label.pick import pick
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 400), radius=st.floats(0.005, 0.2))
def test_a_click_on_a_point_in_the_open_finds_it(seed: int, count: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-30, 30, (count, 3)).astype(np.float32)
    wanted, origin = int(rng.integers(count)), rng.uniform(-40, 40, 3)
    ray = xyz[wanted] - origin
    along = (xyz - origin) @ (ray / np.linalg.norm(ray))
    aside = np.linalg.norm(np.cross(xyz - origin, ray / np.linalg.norm(ray)), axis=1)
    in_the_way = (along > 0) & (along < along[wanted]) & (aside <= np.maximum(0.0031 * along, radius * 1.01))
    found = pick(xyz, np.ones(count, np.bool_), origin, ray * rng.uniform(0.1, 10), radius)
    if not in_the_way.any():
        assert found is not None
        assert np.linalg.norm(xyz[found] - xyz[wanted]) < 0.2 + 0.01 * along[wanted]
    else:
        assert found is not None
        assert along[found] <= along[wanted] + 0.4 + 1e-3


def test_a_click_takes_the_surface_in_front_and_nothing_unusable() -> None:
    xyz = np.array([[10, 0, 0], [20, 0, 0], [10, 0.02, 0], [5, 0, 0], [-5, 0, 0]], np.float32)
    usable = np.array([True, True, True, False, True])
    assert pick(xyz, usable, np.zeros(3), np.array([1.0, 0, 0]), 0.03) == 0
    assert pick(xyz, usable, np.zeros(3), np.array([1.0, 0.002, 0]), 0.03) == 2
    assert pick(xyz, usable, np.array([12.0, 0, 0]), np.array([1.0, 0, 0]), 0.03) == 1
    assert pick(xyz, usable, np.zeros(3), np.array([0, 0, 1.0]), 0.03) is None
    assert pick(xyz[:0], usable[:0], np.zeros(3), np.array([0, 0, 1.0]), 0.03) is None


def test_suggestions_of_a_bare_scan_are_spread(cloud: Cloud) -> None:
    points = [suggestion.point for suggestion in points_far_apart(cloud, 20)]
    assert len(set(points)) == 20
    assert cloud.valid[points].all()
    angle = np.sort(np.degrees(np.arctan2(cloud.xyz[points, 1], cloud.xyz[points, 0])))
    assert np.diff(angle).max() < 90
    assert points_far_apart(make_cloud(np.zeros((5, 3), np.float32)), 20) == ()
    assert len(points_far_apart(make_cloud(np.full((1, 3), 5, np.float32)), 20)) == 1


def test_colours() -> None:
    stops = np.array([[0, 0, 0], [100, 200, 50]], np.float32)
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, np.nan], np.float32)
    np.testing.assert_array_equal(ramp(values, stops, 0.0, 1.0)[:, 1], [0, 0, 100, 200, 200, 0])


def test_keys_are_unique_and_leave_the_camera_alone() -> None:
    keys = [(command.modifier, command.key) for command in COMMANDS] + [(None, key) for key in CLASS_KEYS]
    assert len(keys) == len(set(keys))
    assert not {key for _, key in keys} & {*"WASDQE", "arrowup", "arrowdown", "arrowleft", "arrowright"}
    assert len(CLASS_KEYS) >= LabelMap.load("semantickitti").num_classes - 1


def test_a_held_key_counts_once() -> None:
    held = HeldKeys()
    assert [held.is_repeat("a"), held.is_repeat("b"), held.is_repeat("a"), held.is_repeat("a")] == [False, False, True, True]


def test_a_key_labels_the_suggested_point_and_shows_the_next(street_folder: Path) -> None:
    session = open_session(street_folder)
    first = session.point
    assert first == session.frame.suggestions[0].point
    session.press(ROAD)
    assert session.point == session.frame.suggestions[1].point
    session.skip()
    assert session.point == session.frame.suggestions[2].point
    session.next_suggestion(-1)
    assert session.point == session.frame.suggestions[1].point
    again = open_session(street_folder)
    assert again.labelled_suggestions() == 1
    assert again.point == session.frame.suggestions[1].point
    assert np.flatnonzero(again.store.labelled("000000")[0]).tolist() == [first]


def test_a_wrong_key_taken_back_loses_no_suggestion(street_folder: Path) -> None:
    session = open_session(street_folder)
    session.press(CAR)
    session.undo()
    session.next_suggestion(-1)
    assert session.suggested == 0
    session.press(ROAD)
    assert session.suggested == 1, "the point that was left by going back"
    session.press(CAR)
    session.undo()
    session.skip()
    for _ in range(3, len(session.frame.suggestions)):
        session.press(ROAD)
    assert session.suggested == 1, "the point that was taken back comes again, the one passed over with N does not"
    session.press(ROAD)
    assert session.point is None
    session.undo()
    session.next_suggestion(-1)
    assert session.suggested == len(session.frame.suggestions) - 1, "back from the end is the last point"


def test_a_skipped_point_that_was_labelled_after_all_is_asked_again_when_taken_back(street_folder: Path) -> None:
    session = open_session(street_folder)
    session.skip()
    session.next_suggestion(-1)
    session.press(CAR)
    session.undo()
    for _ in range(1, len(session.frame.suggestions)):
        session.press(ROAD)
    assert session.suggested == 0


def test_a_frame_ends_when_every_suggestion_is_labelled_or_skipped(street_folder: Path) -> None:
    session = open_session(street_folder)
    for i in range(len(session.frame.suggestions)):
        assert session.point is not None
        session.press(ROAD) if i % 2 else session.skip()
    assert session.point is None
    assert "End" in session.message
    session.finish()
    assert session.frame.key == "000001"
    assert open_session(street_folder).frame.key == "000001"
    session.finish()
    assert "All frames are done" in session.message
    assert set(ClickStore(street_folder).done) == {"000000", "000001"}


def test_a_clicked_point_waits_for_its_key_and_paint_does_not(street_folder: Path, cloud: Cloud) -> None:
    session, point = open_session(street_folder), int(on_person(cloud)[3])
    assert click(session, point) == point
    assert session.store.count("000000") == 0
    session.press(PERSON)
    assert session.store.labelled("000000")[0][point] == PERSON
    session.choose_mode("paint")
    session.press(ROAD)
    ground = int(np.argmin(np.linalg.norm(cloud.xyz - [6, 0.1, -1.7], axis=1)))
    click(session, ground)
    assert session.store.labelled("000000")[0][ground] == ROAD
    session.choose_mode("erase")
    click(session, ground)
    assert session.store.count("000000") == 1
    session.click(np.zeros(3), np.array([0, 0, 1.0]), 0.03)
    assert "no point here" in session.message


def test_the_verb_says_what_is_wrong(
    street_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["label", str(street_folder / "nothing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["label", str(street_folder)]) == 2
    assert "-m pip install 'viser>=" in capsys.readouterr().err


def test_a_busy_port_is_named(street_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optional("viser")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["label", str(street_folder), "--port", str(port)]) == 2
    assert f"port: {port} is in use" in capsys.readouterr().err


def test_enter_confirms_what_the_model_says(tmp_path: Path, cloud: Cloud) -> None:
    write_log(tmp_path / "log", cloud).close()
    state = open_session(tmp_path / "log")
    assert state.guess == (CAR, 0.54)
    point = state.point
    state.accept()
    assert state.store.labelled(state.frame.key)[0][point] == CAR
    assert state.point != point


def test_without_a_guess_enter_labels_nothing(street_folder: Path) -> None:
    state = open_session(street_folder)
    state.accept()
    assert state.store.count("000000") == 0
    assert "no guess" in state.message
