# SPDX-License-Identifier: Apache-2.0
"""The running log on disks that fill up, refuse or vanish: a sentence, and nothing is half there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from support.logged_frames import Start, fill, frame, kept, offer_until, wait
from weakseg_ros.data.frame_log import part_path
from weakseg_ros.improve.log.frame_folder import open_frames


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
    assert any("resumes" in text for text, _ in log.words)
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
