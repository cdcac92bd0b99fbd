# SPDX-License-Identifier: Apache-2.0
"""What the labelling page does, without a browser: picking, colours, suggestions, and what each action leaves on disk."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from support import optional
from weakseg_ros.cli import main
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.clicks import ClickStore, clicked_scans
from weakseg_ros.improve.label.colors import color_points, ramp, views_of
from weakseg_ros.improve.label.filters import Filters
from weakseg_ros.improve.label.frame_source import FrameSource, points_far_apart
from weakseg_ros.improve.label.keys import CLASS_KEYS, COMMANDS, HeldKeys
from weakseg_ros.improve.label.lasso import Lasso
from weakseg_ros.improve.label.masks import points_in_rectangle
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.pick import pick
from weakseg_ros.improve.label.thumbnails import Thumbnails
from weakseg_ros.improve.log.store import FrameWriter, Origin, Suggestion, Worth
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

STREET = LabelMap.load("street")
ROAD, CAR, PERSON = (STREET.id_of(name) for name in ("road", "car", "person"))
SPEC = RangeSpec(height=32, width=360, fov_up_deg=15.0, fov_down_deg=-25.0)
CAR_AT, PERSON_AT = np.array([8.0, 3.0]), np.array([7.0, -4.0])


def scene() -> Cloud:
    """What a LiDAR 1.7 m above a plane sees of it, of a car and of a person."""
    rows, columns = np.meshgrid(np.radians(np.linspace(14, -24, 32)), np.radians(np.linspace(179.5, -179.5, 360)), indexing="ij")
    ray = np.stack([np.cos(rows) * np.cos(columns), np.cos(rows) * np.sin(columns), np.sin(rows)], axis=-1).reshape(-1, 3)
    distance = np.where(ray[:, 2] < -0.03, -1.7 / np.minimum(ray[:, 2], -0.03), 0.0)
    for place, half, top in ((CAR_AT, np.array([1.6, 0.9]), -0.2), (PERSON_AT, np.array([0.25, 0.25]), 0.1)):
        with np.errstate(divide="ignore"):
            low, high = (place - half) / ray[:, :2], (place + half) / ray[:, :2]
        entry, leave = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        height = entry * ray[:, 2]
        hit = (entry > 0) & (entry < leave) & (height > -1.7) & (height < top)
        distance = np.where(hit, entry, distance)
    xyz = (ray * distance[:, None]).astype(np.float32)
    return make_cloud(xyz, np.linspace(0, 1, len(xyz), dtype=np.float32), intensity_full_scale=1.0)


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    return scene()


def on_car(cloud: Cloud) -> np.ndarray:
    return np.flatnonzero((np.abs(cloud.xyz[:, :2] - CAR_AT) < [1.7, 1.0]).all(axis=1) & (cloud.xyz[:, 2] > -1.4))


def on_person(cloud: Cloud) -> np.ndarray:
    return np.flatnonzero((np.abs(cloud.xyz[:, :2] - PERSON_AT) < 0.35).all(axis=1) & (cloud.xyz[:, 2] > -1.4))


@pytest.fixture
def folder(tmp_path: Path, cloud: Cloud) -> Path:
    """Two scans that nobody has looked at."""
    with ScanWriter(tmp_path / "drive", STREET, SPEC, source="test", seed=0, intensity_full_scale=1.0) as out:
        out.write(cloud)
        out.write(cloud)
    return tmp_path / "drive"


def open_session(folder: Path) -> PageState:
    source = FrameSource(folder)
    return PageState(ClickStore(folder, source.labels), source)


def click(session: PageState, point: int) -> int | None:
    """Click a point as it is seen from the sensor."""
    return session.click(np.zeros(3), session.frame.cloud.xyz[point], 0.03)


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


def test_a_key_labels_the_suggested_point_and_shows_the_next(folder: Path) -> None:
    session = open_session(folder)
    first = session.point
    assert first == session.frame.suggestions[0].point
    session.press(ROAD)
    assert session.point == session.frame.suggestions[1].point
    session.skip()
    assert session.point == session.frame.suggestions[2].point
    session.next_suggestion(-1)
    assert session.point == session.frame.suggestions[1].point
    again = open_session(folder)
    assert again.labelled_suggestions() == 1
    assert again.point == session.frame.suggestions[1].point
    assert np.flatnonzero(again.store.labelled("000000")[0]).tolist() == [first]


def test_a_wrong_key_taken_back_loses_no_suggestion(folder: Path) -> None:
    session = open_session(folder)
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


def test_a_skipped_point_that_was_labelled_after_all_is_asked_again_when_taken_back(folder: Path) -> None:
    session = open_session(folder)
    session.skip()
    session.next_suggestion(-1)
    session.press(CAR)
    session.undo()
    for _ in range(1, len(session.frame.suggestions)):
        session.press(ROAD)
    assert session.suggested == 0


def test_a_frame_ends_when_every_suggestion_is_labelled_or_skipped(folder: Path) -> None:
    session = open_session(folder)
    for i in range(len(session.frame.suggestions)):
        assert session.point is not None
        session.press(ROAD) if i % 2 else session.skip()
    assert session.point is None
    assert "End" in session.message
    session.finish()
    assert session.frame.key == "000001"
    assert open_session(folder).frame.key == "000001"
    session.finish()
    assert "All frames are done" in session.message
    assert set(ClickStore(folder).done) == {"000000", "000001"}


def test_a_clicked_point_waits_for_its_key_and_paint_does_not(folder: Path, cloud: Cloud) -> None:
    session, point = open_session(folder), int(on_person(cloud)[3])
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


def test_one_click_on_an_object_shows_its_mask(folder: Path, cloud: Cloud) -> None:
    session, car = open_session(folder), on_car(cloud)
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


def test_masks_are_for_things_and_can_be_rejected(folder: Path, cloud: Cloud) -> None:
    session = open_session(folder)
    session.choose_mode("object")
    assert STREET.things[session.chosen]
    click(session, int(on_car(cloud)[0]))
    session.press(ROAD)
    assert "no single objects" in session.message
    session.reject()
    session.accept()
    assert session.store.count("000000") == 0


def test_objects_without_numbers_and_one_object_in_two_parts(folder: Path, cloud: Cloud) -> None:
    session, car, person = open_session(folder), on_car(cloud), on_person(cloud)
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


def test_undo_goes_to_the_frame_it_happened_in(folder: Path) -> None:
    session = open_session(folder)
    session.undo()
    assert "nothing to take back" in session.message
    session.press(CAR)
    session.turn_page(1)
    session.turn_page(1)
    assert "last frame" in session.message
    session.undo()
    assert (session.frame.key, session.store.count("000000")) == ("000000", 0)
    session.redo()
    assert session.store.count("000000") == 1


def test_a_damaged_frame_is_passed_over_and_named(folder: Path) -> None:
    (folder / "velodyne" / "000000.bin").write_bytes(b"123")
    session = open_session(folder)
    assert session.frame.key == "000001"
    assert session.warning
    assert "000000.bin" in session.message
    (folder / "velodyne" / "000001.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"000000\.bin"):
        open_session(folder)


def write_log(folder: Path, cloud: Cloud) -> FrameWriter:
    """A log of two frames whose model takes everything for a car, and its writer."""
    count = len(cloud)
    answer = Segmentation(
        class_id=np.full(count, CAR, np.uint8),
        instance_id=np.zeros(count, np.uint16),
        confidence=np.ones(count, np.float32),
        uncertainty=np.linspace(0, 1, count, dtype=np.float32),
        flags=cloud.flags,
        class_image=np.zeros((32, 360), np.uint8),
        instance_image=np.zeros((32, 360), np.uint16),
    )
    log = FrameWriter(folder, STREET, SPEC, source="test", intensity_full_scale=1.0)
    for score in (0.2, 0.9):
        point = int(on_car(cloud)[0])
        log.write(cloud, answer, Origin(), Worth(score, "uncertain", (), [Suggestion(point, 0.7, "car or truck", 0.54)]))
    return log


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


def test_the_verb_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["label", str(folder / "nothing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["label", str(folder)]) == 2
    assert "-m pip install 'viser>=" in capsys.readouterr().err


def test_a_busy_port_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optional("viser")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["label", str(folder), "--port", str(port)]) == 2
    assert f"port: {port} is in use" in capsys.readouterr().err


def box_around(cloud: Cloud, points: np.ndarray) -> np.ndarray:
    inside = np.zeros(len(cloud), np.bool_)
    inside[points] = True
    return inside


def test_a_box_waits_for_its_class_and_takes_nothing_that_is_hidden(folder: Path, cloud: Cloud) -> None:
    state, car = open_session(folder), on_car(cloud)
    state.hide_ground()
    ground = np.flatnonzero(state.frame.ground)
    assert len(ground) > 1000
    state.select(box_around(cloud, np.concatenate([car, ground])))
    assert state.mask is not None
    assert not np.isin(state.mask.points, ground).any()
    assert state.store.count("000000") == 0
    state.press(CAR)
    assert f"car, {len(state.mask.points)} points" in state.message
    state.accept()
    class_id, instance = state.store.labelled("000000")
    assert set(np.flatnonzero(class_id == CAR)) <= set(car)
    assert set(instance[class_id == CAR]) == {1}
    state.select(np.zeros(len(cloud), np.bool_))
    assert "no point in it" in state.message


def test_a_polygon_takes_what_is_seen_in_it_and_waits_for_its_class(folder: Path, cloud: Cloud) -> None:
    state, car = open_session(folder), on_car(cloud)
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


def test_a_polygon_begins_anew_where_the_view_has_moved_and_ends_with_esc(folder: Path) -> None:
    state = open_session(folder)
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


def test_hidden_points_are_neither_clicked_nor_painted(folder: Path, cloud: Cloud) -> None:
    state, car = open_session(folder), on_car(cloud)
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


def test_an_object_that_is_far_too_large_is_asked_for_twice(folder: Path, cloud: Cloud) -> None:
    state = open_session(folder)
    state.select(cloud.valid)
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


def test_a_mask_over_other_labels_is_asked_for_twice(folder: Path, cloud: Cloud) -> None:
    state, car = open_session(folder), on_car(cloud)
    state.store.add("000000", car[:5], ROAD)
    state.select(box_around(cloud, car))
    state.press(CAR)
    state.accept()
    assert "5 of its points are labelled road and would become car" in state.message
    assert (state.store.labelled("000000")[0] == ROAD).sum() == 5
    state.accept()
    assert not (state.store.labelled("000000")[0] == ROAD).any()


def test_a_click_on_a_wrong_part_takes_it_off_and_one_beside_adds(folder: Path, cloud: Cloud) -> None:
    state, car = open_session(folder), on_car(cloud)
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


def test_enter_confirms_what_the_model_says(tmp_path: Path, cloud: Cloud) -> None:
    write_log(tmp_path / "log", cloud).close()
    state = open_session(tmp_path / "log")
    assert state.guess == (CAR, 0.54)
    point = state.point
    state.accept()
    assert state.store.labelled(state.frame.key)[0][point] == CAR
    assert state.point != point


def test_without_a_guess_enter_labels_nothing(folder: Path) -> None:
    state = open_session(folder)
    state.accept()
    assert state.store.count("000000") == 0
    assert "no guess" in state.message


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


@pytest.fixture
def drive(tmp_path: Path, cloud: Cloud) -> Path:
    """Three scans of one place from three places, a metre apart, the third one turned by 90 degrees."""
    with ScanWriter(tmp_path / "posed", STREET, SPEC, source="test", seed=0, intensity_full_scale=1.0) as out:
        for number, degrees in ((0, 0), (1, 0), (2, 90)):
            turn = np.radians(degrees)
            pose = np.eye(4)
            pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            pose[0, 3] = number
            back = np.linalg.inv(pose)
            xyz = (cloud.xyz @ back[:3, :3].T + back[:3, 3]).astype(np.float32) * cloud.valid[:, None]
            out.write(make_cloud(xyz, cloud.intensity, intensity_full_scale=1.0), pose=pose)
    return tmp_path / "posed"


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
    assert len(state.scans_around()) == 0
    state.toggle_around()
    around = state.scans_around()
    valid = int(cloud.valid.sum())
    assert len(around) == 2 * valid
    np.testing.assert_allclose(around[:valid], cloud.xyz[cloud.valid], atol=1e-4)
    state.toggle_around()
    assert len(state.scans_around()) == 0


def test_without_poses_nothing_is_carried(folder: Path, cloud: Cloud) -> None:
    state = open_session(folder)
    state.store.add("000001", on_car(cloud), CAR)
    for act in (state.carry_over, state.carry_on, state.toggle_around):
        act()
        assert "does not tell where the sensor was" in state.message
    assert state.store.count("000000") == 0


def test_a_rejected_frame_is_open_again_and_nothing_is_learnt_from_it(folder: Path, cloud: Cloud) -> None:
    state = open_session(folder)
    state.review(True)
    assert "only a frame that is done" in state.message.lower()
    for key in ("000000", "000001"):
        state.store.add(key, on_car(cloud)[:3], CAR)
        state.store.mark_done(key)
    state.review(False)
    assert state.frame.key == "000001"
    assert state.store.done == ("000001",)
    assert list(clicked_scans(folder).keys) == ["000001"]
    state.review(True)
    again = ClickStore(folder)
    assert again.record.reviews == {"000000": "rejected", "000001": "accepted"}
    again.add("000000", on_car(cloud)[3:5], CAR)
    assert again.record.reviews["000000"] == "rejected"
    again.mark_done("000000")
    assert "000000" not in again.record.reviews, "it is new work that nobody has checked"
    assert list(clicked_scans(folder).keys) == ["000000", "000001"]


def test_a_thumbnail_shows_near_things_bright_and_survives_a_damaged_frame(folder: Path, cloud: Cloud) -> None:
    source = FrameSource(folder)
    pictures = Thumbnails()
    assert pictures.known("000000") is None
    picture = pictures.draw(source, "000000")
    assert picture.shape == (40, 360, 3)
    assert pictures.known("000000") is picture
    ahead = picture[:, 175:185].astype(int).sum(axis=2).max(axis=1)
    assert ahead[-1] > ahead[np.flatnonzero(ahead > 72)[0]], "the ground below is nearer than the one at the horizon"
    (folder / "velodyne" / "000001.bin").write_bytes(b"123")
    assert (pictures.draw(source, "000001") == 24).all()
