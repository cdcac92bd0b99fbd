# SPDX-License-Identifier: Apache-2.0
"""The running log: budgets, and disks that fill up, vanish or refuse; the caller never waits and nothing is half there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.logged_frames import ALL, LABELS, Start, fill, frame, keep, kept, offer_until, reasons_in, wait
from weakseg_ros.data.frame_log import bytes_per_point, part_path
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.improve.log.context import read_context
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.improve.log.recorder import FrameLog
from weakseg_ros.improve.log.store import FrameWriter, Worth
from weakseg_ros.points.projection import RangeSpec


def test_what_is_offered_is_kept_whole(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "a" / "log", points=5)
    first = frame()
    offer_until(log, lambda: kept(log) >= 3, "three frames")
    log.offer(*first)
    log.close()
    frames = open_frames(log.folder)
    assert len(frames) == kept(log) == log.status().frames
    assert all(len(record.suggestions) == 5 and record.bundle_hash == "hash" for record in frames.frames)
    assert log.offer(*first) == ""
    assert log.status().dropped["closed"] == 1


def test_a_frame_that_was_asked_for_is_kept_whatever_its_score(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log", min_score=1.0)
    assert log.offer(*frame(uncertainty=0.1)) == ""
    log.ask()
    assert log.offer(*frame(uncertainty=0.1)) == "asked"
    assert log.offer(*frame(uncertainty=0.1)) == ""
    log.close()
    assert [record.reason for record in open_frames(log.folder).frames] == ["asked"]


def test_a_burst_waits_for_nobody_and_is_counted(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log")
    offered = 60
    for each in [frame(20_000) for _ in range(offered)]:
        log.offer(*each)
    log.close()
    status = log.status()
    assert sum(status.kept.values()) + sum(status.dropped.values()) == offered
    assert len(open_frames(log.folder)) == sum(status.kept.values()) >= 1


def test_an_empty_cloud_is_no_frame(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log")
    assert log.offer(*frame(0)) == ""
    assert log.status().dropped == {"empty": 1}


def test_a_restart_knows_what_was_kept(start: Start, tmp_path: Path) -> None:
    again = frame()
    log = start(tmp_path / "log")
    log.offer(*again)
    log.close()
    later = start(tmp_path / "log", min_distance=0.01)
    wait(lambda: later.status().frames == 1, "the folder to be read")
    assert later.offer(*again) == ""
    assert later.status().dropped == {"similar": 1}


@pytest.mark.parametrize("when_full", ["replace", "stop"])
def test_a_full_budget(start: Start, tmp_path: Path, when_full: str) -> None:
    log = start(tmp_path / "log", max_frames=4, when_full=when_full)
    for i in range(12):
        uncertainty = 0.1 + 0.05 * i
        wait(lambda u=uncertainty: log.offer(*frame(uncertainty=u)) or log.status().dropped.get("budget"), "a decision")
        wait(lambda: not log._pending, "the disk")
    scores = [record.score for record in open_frames(log.folder).frames]
    assert len(scores) == 4
    assert log.status().frames == 4
    if when_full == "replace":
        assert min(scores) > 0.4, "the worthier ones, which came last"
    else:
        assert max(scores) < 0.4, "the first ones"
        assert log.status().dropped["budget"] >= 1


def test_frames_with_clicks_and_asked_ones_are_never_replaced(start: Start, tmp_path: Path) -> None:
    with FrameWriter(tmp_path, LABELS, RangeSpec(), source="a test") as writer:
        cloud, answer, origin = frame()
        reasons = ("uncertain", "random", "asked", "uncertain")
        keys = [writer.write(cloud, answer, origin, Worth(0.01, reason)).key for reason in reasons]
    (tmp_path / "sparse" / "clicks").mkdir(parents=True)
    (tmp_path / "sparse" / "clicks" / f"{keys[0]}.label").write_bytes(b"")
    log = start(tmp_path, max_frames=4)
    for i, uncertainty in enumerate((0.3, 0.5, 0.7), 1):
        wait(lambda u=uncertainty, i=i: log.offer(*frame(uncertainty=u)) and kept(log) >= i, "a replacement")
    log.close()
    left = {record.key for record in open_frames(tmp_path).frames}
    assert len(left) == 4
    assert set(keys) & left == set(keys[:3])


def test_drawn_frames_neither_fill_the_log_nor_stop_it(start: Start, tmp_path: Path) -> None:
    keys = fill(tmp_path, ["random"] * 6)
    log = start(tmp_path, max_frames=6, random_share=0.34)
    for i in range(30):
        assert keep(log, uncertainty=0.1 + 0.02 * i) != "dropped"
    log.close()
    assert reasons_in(tmp_path)["random"] in (2, 3)
    assert len(open_frames(tmp_path)) == 6
    assert not {record.key for record in open_frames(tmp_path).frames} & set(keys), "the oldest gave way"
    all_drawn = start(tmp_path / "drawn", max_frames=3, random_share=1.0)
    for _ in range(9):
        assert keep(all_drawn) != "dropped"


def test_a_request_that_finds_no_room_waits_for_it(start: Start, tmp_path: Path) -> None:
    keys = fill(tmp_path, ["asked"] * 3)
    log = start(tmp_path, max_frames=3)
    log.ask()
    for _ in range(2):
        assert keep(log) == "dropped"
    assert log.status().full
    for part in ("frames", "velodyne", "predictions", "uncertainty"):
        part_path(tmp_path, part, keys[0]).unlink()
    assert keep(log) == "asked"
    assert not log.status().full
    assert keep(log) == "dropped", "the request was for one"
    log.close()
    assert reasons_in(tmp_path) == {"asked": 3}


def test_worthier_frames_are_no_full_log(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path, max_frames=2)
    for uncertainty in (0.8, 0.8, 0.1):
        keep(log, uncertainty=uncertainty)
    assert log.status().dropped["outdone"] == 1
    assert not log.status().full


def test_a_request_takes_the_place_of_the_last_drawn_frame(start: Start, tmp_path: Path) -> None:
    fill(tmp_path, ["asked", "random"])
    log = start(tmp_path, max_frames=2)
    assert keep(log) == "dropped"
    assert log.status().full
    log.ask()
    assert keep(log) == "asked"
    log.close()
    assert reasons_in(tmp_path) == {"asked": 2}


def test_logs_that_share_a_folder_share_its_budget(start: Start, tmp_path: Path) -> None:
    logs = [start(tmp_path, max_frames=5, when_full="stop") for _ in range(3)]
    for _ in range(5):
        for log in logs:
            keep(log)
    assert len(open_frames(tmp_path)) == 5
    assert {log.status().frames for log in logs} == {5}


def test_the_byte_budget_counts_what_lies_on_the_disk(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log", max_mib=1, when_full="stop")
    offer_until(log, lambda: log.status().dropped.get("budget"), "the budget to be used up", points=4000)
    log.close()
    parts = [path for part in ("velodyne", "predictions", "uncertainty", "frames") for path in (log.folder / part).iterdir()]
    total = sum(path.stat().st_size for path in parts)
    assert 0.5 * (1 << 20) < total <= log.status().bytes <= 1 << 20
    assert bytes_per_point(False) * 4000 * log.status().frames < total


# disks


def test_a_listener_that_fails_takes_no_frame_away(start: Start, tmp_path: Path) -> None:
    words: list[str] = []

    def listener(*_: Any) -> None:
        raise RuntimeError("nobody home")

    log = FrameLog(
        LogSettings(folder=str(tmp_path), **ALL), LABELS, RangeSpec(), say=lambda text, _: words.append(text), on_kept=listener
    )
    log.offer(*frame())
    log.close()
    assert len(open_frames(tmp_path)) == 1
    assert "nobody home" in words[-1]


def test_a_request_has_a_tag_and_the_seconds_around_it(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log", per_minute=0.0, before_s=30.0, after_s=0.2)
    log.remember("/camera", "sensor_msgs/msg/Image", b"before")
    log.ask("near_miss", "a cyclist from the left")
    assert log.offer(*frame()) == "asked"
    log.remember("/camera", "sensor_msgs/msg/Image", b"after")
    wait(lambda: list((tmp_path / "log").glob("context/*.msgs")), "the seconds around the frame")
    (record,) = open_frames(tmp_path / "log").frames
    assert (record.reason, record.tag, record.note) == ("asked", "near_miss", "a cyclist from the left")
    assert [m.data for m in read_context(tmp_path / "log", record.key)] == [b"before", b"after"]
    assert log.status().context_bytes > 0
    assert log.offer(*frame()) == ""


def test_a_frame_that_is_replaced_takes_its_seconds_along(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log", max_frames=1, before_s=1.0)
    for uncertainty in (0.2, 0.9):
        log.remember("/camera", "sensor_msgs/msg/Image", b"x" * 100)
        wait(lambda uncertainty=uncertainty: log.offer(*frame(uncertainty=uncertainty)), "a frame")
        wait(lambda: list((tmp_path / "log").glob("context/*.msgs")), "its seconds")
        wait(lambda: log.status().frames == 1, "one frame")
    log.close()
    (record,) = open_frames(tmp_path / "log").frames
    assert [path.stem for path in (tmp_path / "log").glob("context/*.msgs")] == [record.key]


def test_a_log_without_context_keeps_no_messages(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log")
    log.remember("/camera", "sensor_msgs/msg/Image", b"x")
    assert log.offer(*frame())
    log.close()
    assert not (tmp_path / "log" / "context").exists()
    assert log.status().context_bytes == 0
