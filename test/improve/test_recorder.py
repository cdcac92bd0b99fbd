# SPDX-License-Identifier: Apache-2.0
"""The running log: budgets, and disks that fill up, vanish or refuse; the caller never waits and nothing is half there."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S
from weakseg_ros.data.frame_log import BYTES_PER_POINT, part_path
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.improve.log import recorder as frame_log
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.improve.log.context import read_context
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.improve.log.recorder import FrameLog
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

LABELS = LabelMap.load("semantickitti")
ALL = {"per_minute": 6000.0, "spacing_s": 0.0, "min_distance": 0.0, "random_share": 0.0, "min_free_mib": 0, "points": 3}
_stamps = itertools.count(1)


def frame(count: int = 400, uncertainty: float = 0.5) -> tuple[Cloud, Segmentation, Origin]:
    stamp = next(_stamps)
    rng = np.random.default_rng(stamp)
    cloud = make_cloud(rng.normal(size=(count, 3)) * 10, rng.random(count), stamp_ns=stamp)
    image = np.zeros((1, 1), np.uint8)
    answer = Segmentation(
        class_id=rng.integers(1, 5, count).astype(np.uint8),
        instance_id=np.zeros(count, np.uint16),
        confidence=np.full(count, 1 - uncertainty, np.float32),
        uncertainty=np.full(count, uncertainty, np.float32),
        flags=cloud.flags,
        class_image=image,
        instance_image=image.astype(np.uint16),
    )
    return cloud, answer, Origin("street", "hash")


Start = Callable[..., FrameLog]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Open a log that keeps all it can unless told otherwise; `log.words` has what it said. A short retry saves waiting."""
    monkeypatch.setattr(frame_log, "RETRY_S", 0.05)
    opened: list[FrameLog] = []

    def run(folder: Path, **changes: Any) -> FrameLog:
        words: list[tuple[str, bool]] = []
        settings = LogSettings(folder=str(folder), **{**ALL, **changes})
        log = FrameLog(settings, LABELS, RangeSpec(), say=lambda text, is_fault: words.append((text, is_fault)))
        log.words = words  # type: ignore[attr-defined]
        opened.append(log)
        return log

    yield run
    for log in opened:
        log.close()


def wait(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.01)
    return value


def offer_until(log: FrameLog, condition: Callable[[], Any], what: str, points: int = 400) -> Any:
    """Offer frames until `condition` holds."""

    def step() -> Any:
        log.offer(*frame(points))
        return condition()

    return wait(step, what)


def kept(log: FrameLog) -> int:
    return sum(log.status().kept.values())


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


def fill(folder: Path, reasons: list[str]) -> list[str]:
    """Frames that were kept for these reasons, all of a low score."""
    with FrameWriter(folder, LABELS, RangeSpec(), source="a test") as writer:
        return [writer.write(*frame(), Worth(0.01, reason)).key for reason in reasons]


def keep(log: FrameLog, **changes: float) -> str:
    """Offer frames until one is handed to the disk, and wait for it: the reason it was offered for, or what was in the way."""
    before = sum(log.status().dropped.get(name, 0) for name in ("budget", "outdone"))
    reason = wait(lambda: log.offer(*frame(**changes)), "a decision")
    wait(lambda: not log._pending, "the disk")
    dropped = log.status().dropped
    return "dropped" if sum(dropped.get(name, 0) for name in ("budget", "outdone")) > before else str(reason)


def reasons_in(folder: Path) -> Counter[str]:
    return Counter(record.reason for record in open_frames(folder).frames)


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
    assert BYTES_PER_POINT * 4000 * log.status().frames < total


# disks


def test_a_full_disk_pauses_the_log_and_space_resumes_it(start: Start, small_disk: Path) -> None:
    log = start(small_disk / "log")
    offer_until(log, lambda: log.status().fault, "the disk to be full", points=30_000)
    assert "No space left" in log.status().fault
    full = len(open_frames(log.folder))
    assert full >= 1
    for _ in range(20):
        log.offer(*frame(30_000))
        time.sleep(0.005)
    wait(lambda: not log._pending, "the attempt at hand")
    parts = {path.stem for part in ("velodyne", "predictions", "uncertainty") for path in (log.folder / part).iterdir()}
    frames = open_frames(log.folder)
    assert len(frames) == full
    assert not frames.problems
    assert parts == {record.key for record in frames.frames}, "no half frame is left"
    assert [is_fault for _, is_fault in log.words].count(True) == 1, "said once"
    for record in frames.frames[:2]:
        part_path(log.folder, "frames", record.key).unlink()
        part_path(log.folder, "velodyne", record.key).unlink()
    before = kept(log)
    offer_until(log, lambda: kept(log) > before, "the log to go on", points=30_000)  # the next frame may find the disk full again
    assert any("goes on" in text for text, _ in log.words)
    log.close()
    assert len(open_frames(log.folder)) >= full - 1


def test_the_free_space_that_must_stay_is_left_alone(start: Start, small_disk: Path) -> None:
    log = start(small_disk / "log", min_free_mib=3)
    offer_until(log, lambda: log.status().fault, "the limit", points=10_000)
    assert "3 MiB must stay free" in log.status().fault
    log.close()
    assert shutil.disk_usage(small_disk).free >= 3 << 20
    assert len(open_frames(log.folder)) >= 1


def test_a_read_only_disk_is_one_clear_sentence(start: Start, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    log = start(small_disk / "log")
    wait(lambda: log.status().fault, "the fault")
    assert "Read-only file system" in log.status().fault
    assert str(small_disk) in log.status().fault
    assert log.offer(*frame()) in ("", "uncertain", "novel")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    offer_until(log, lambda: kept(log) and not log.status().fault, "the log to go on")


def test_a_fault_ends_with_the_disk_although_the_log_is_full(start: Start, tmp_path: Path) -> None:
    fill(tmp_path / "log", ["asked"] * 2)
    (tmp_path / "log").rename(tmp_path / "away")
    (tmp_path / "log").write_text("in the way")
    log = start(tmp_path / "log", max_frames=2)
    wait(lambda: log.status().fault, "the fault")
    (tmp_path / "log").unlink()
    (tmp_path / "away").rename(tmp_path / "log")
    offer_until(log, lambda: log.status().dropped.get("budget"), "a look at the mended folder")
    wait(lambda: not log._pending, "the disk")
    assert log.status().fault == ""
    assert log.status().full


def test_a_deleted_folder_is_made_again(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log")
    for _ in range(3):
        offer_until(log, lambda: any(log.folder.glob("frames/[0-9]*.yaml")), "a frame")
        wait(lambda: not log._pending, "the disk")
        shutil.rmtree(log.folder)
    offer_until(log, lambda: any(log.folder.glob("frames/[0-9]*.yaml")), "a frame in the new folder")
    log.close()
    assert not open_frames(log.folder).problems


def test_a_folder_deleted_in_the_middle_of_a_frame(start: Start, tmp_path: Path) -> None:
    log = start(tmp_path / "log")
    stop = time.monotonic() + 1.5
    while time.monotonic() < stop:
        log.offer(*frame(5000))
        shutil.rmtree(log.folder, ignore_errors=True)
    offer_until(log, lambda: any(log.folder.glob("frames/[0-9]*.yaml")), "a frame")
    log.close()
    assert not open_frames(log.folder).problems
    assert not log.status().dropped.get("internal")


def test_a_path_that_cannot_be_and_foreign_folders_are_said_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "log", tmp_path / "thesis"):
        log = start(folder)
        wait(lambda log=log: log.status().fault, "the fault")
        for _ in range(20):
            log.offer(*frame())
            time.sleep(0.01)
        log.close()
        assert str(tmp_path) in log.status().fault
        assert len([text for text, is_fault in log.words if is_fault]) == 1
    assert os.listdir(tmp_path / "thesis") == ["chapter"]


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
