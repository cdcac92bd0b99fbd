# SPDX-License-Identifier: Apache-2.0
"""A folder of bags, or a glob, is one evaluation with a row for each bag; what was done is not done again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_files import bags_in
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import DataError

SCANS = 6


@pytest.fixture
def drives(recording: Path, tmp_path: Path) -> Path:
    """Three bags, of which the third cannot be read."""
    for name in ("drive_10", "drive_2"):
        shutil.copytree(recording / "bag", tmp_path / "drives" / name)
    (tmp_path / "drives" / "drive_11").mkdir()
    (tmp_path / "drives" / "drive_11" / "a.mcap").write_bytes(b"no bag")
    return tmp_path / "drives"


def test_many_bags_are_one_evaluation_that_is_resumed(drives: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "report"
    arguments = ["evaluate", str(drives), "--bundle", str(known_bundle.folder), "--out", str(out)]
    assert weakseg(arguments) == 1, "one bag cannot be read"
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["scans"], summary["partial"]) == (2 * SCANS, True)
    rows = json.loads((out / "bags.json").read_text())
    assert [(row["name"], row.get("scans"), "problem" in row) for row in rows] == [
        ("drive_2", SCANS, False),
        ("drive_10", SCANS, False),
        ("drive_11", None, True),
    ]
    page = (out / "report.html").read_text()
    assert "drive_2: 6 scans" in page
    assert "drive_11: not evaluated" in page
    made = (out / "drive_2" / "summary.json").stat().st_mtime_ns
    shutil.rmtree(drives / "drive_11")
    assert weakseg(arguments) == 0
    assert (out / "drive_2" / "summary.json").stat().st_mtime_ns == made, "it is not evaluated again"
    assert weakseg([*arguments, "--lift", "knn"]) == 0
    again = (out / "drive_2" / "summary.json").stat().st_mtime_ns
    assert again > made, "other settings are another evaluation"
    (file,) = (drives / "drive_2").glob("*.mcap")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
    shutil.rmtree(drives / "drive_10")
    bags = [str(drives / "drive_2"), str(drives / "drive_10")]
    assert weakseg(["evaluate", *bags, *arguments[2:], "--lift", "knn"]) == 0, "what is gone was done before"
    assert (out / "drive_2" / "summary.json").stat().st_mtime_ns > again, "a bag that was recorded again is another one"


def test_many_bags_become_a_folder_of_recordings(drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(drives / "drive_11")
    arguments = ["import", str(drives / "drive_*"), "--out", str(tmp_path / "scans")]
    assert weakseg(arguments) == 0
    assert len(open_scans(tmp_path / "scans")) == 2 * SCANS
    capsys.readouterr()
    assert weakseg(arguments) == 0
    assert "drive_10: 6 scans, done before" in capsys.readouterr().err


def test_one_bag_is_not_many(recording: Path, drives: Path) -> None:
    assert bags_in(recording / "bag") == []
    assert [bag.name for bag in bags_in(drives / "drive_[12]*")] == ["drive_2", "drive_10", "drive_11"]
    with pytest.raises(DataError, match="no bag matches this name"):
        bags_in(drives / "x*")


@pytest.mark.usefixtures("known_machine")
def test_doctor_select_and_predict_go_through_all_bags(
    drives: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(drives / "drive_11")
    bundle = ["--bundle", str(known_bundle.folder)]
    weakseg(["doctor", "--data", str(drives), *bundle])
    said = capsys.readouterr().out
    assert all(f"sensor            {name}: " in said for name in ("drive_2", "drive_10"))
    assert weakseg(["select", str(drives), *bundle, "--frames", "4", "--out", str(tmp_path / "log")]) == 0
    said = capsys.readouterr().err
    assert "drive_2: 2 frames" in said
    assert "drive_10: 2 frames" in said
    assert weakseg(["predict", str(drives), *bundle, "--out", str(tmp_path / "out")]) == 0
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.label"))
    assert files == sorted(f"{name}/predictions/{i:06d}.label" for name in ("drive_2", "drive_10") for i in range(SCANS))


@pytest.fixture
def two(recording: Path, tmp_path: Path) -> list[str]:
    """Two bags in two places, under one name."""
    for place in ("monday", "tuesday"):
        shutil.copytree(recording / "bag", tmp_path / place / "drive")
    return [str(tmp_path / place / "drive") for place in ("monday", "tuesday")]


@pytest.mark.parametrize(
    ("verb", "arguments", "row"),
    [
        ("evaluate", [], {"scans": SCANS}),
        ("predict", [], {"scans": SCANS}),
        ("select", ["--frames", "4"], {"frames": 2}),
        ("import", [], {"scans": SCANS}),
    ],
)
def test_every_verb_takes_several_bags_with_a_row_each_and_goes_on(
    two: list[str], known_bundle: Bundle, tmp_path: Path, verb: str, arguments: list[str], row: dict[str, int]
) -> None:
    bad = tmp_path / "bad.mcap"
    bad.write_bytes(b"no bag")
    bundle = [] if verb == "import" else ["--bundle", str(known_bundle.folder)]
    command = [verb, str(bad), *two, *bundle, *arguments, "--out", str(tmp_path / "out")]
    assert weakseg(command) == 1, "one bag cannot be read, the others can"
    rows = json.loads((tmp_path / "out" / "bags.json").read_text())
    assert [one["name"] for one in rows] == ["bad", "2_drive", "3_drive"]
    assert "bad.mcap" in rows[0]["problem"]
    assert all(row.items() <= one.items() for one in rows[1:])
    before = _files(tmp_path / "out")
    (tmp_path / "out" / ".bags.json.4194304-0.tmp").write_text("a run was killed here")
    assert weakseg(command) == 1
    assert _files(tmp_path / "out") == before, "what is done is not done again, and what was half-written goes"
    assert weakseg([verb, str(bad), str(bad.parent / "none"), *bundle, *arguments, "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def _files(folder: Path) -> dict[str, int]:
    """When each file was written, but the manifest and what is merged from the rows."""
    merged = ("bags.json", "summary.json", "report.html")
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name not in merged}


@pytest.mark.usefixtures("known_machine")
def test_doctor_takes_several_bags_and_goes_on_behind_a_bad_one(
    two: list[str], known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mcap").write_bytes(b"no bag")
    arguments = ["--data", str(tmp_path / "bad.mcap"), *two, "--bundle", str(known_bundle.folder)]
    assert weakseg(["doctor", *arguments]) == 1
    said = capsys.readouterr().out
    assert "fault  sensor            bad: " in said
    assert "3_drive: " in said
    (tmp_path / "doctor.yaml").write_text(f"data: {two[0]}\nbundle: {known_bundle.folder}\n")
    weakseg(["doctor", "--config", str(tmp_path / "doctor.yaml")])
    assert "sensor" in capsys.readouterr().out


def test_select_says_what_the_log_holds_already(
    recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["select", str(recording / "bag"), "--bundle", str(known_bundle.folder), "--out", str(tmp_path / "log")]
    assert weakseg([*command, "--frames", "4"]) == 0
    assert "already" not in capsys.readouterr().out
    assert weakseg([*command, "--frames", "4"]) == 0
    assert "4 scans are in" in capsys.readouterr().out
    assert weakseg([*command, "--frames", "4"]) == 0
    assert f"all 6 scans that can be read are in {tmp_path / 'log'} already; label them, or name another --out" in (
        capsys.readouterr().out
    )


def test_select_keeps_what_it_could_read_of_a_damaged_bag(
    recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(recording / "bag", tmp_path / "bag")
    metadata = tmp_path / "bag" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(f"message_count: {SCANS}", f"message_count: {SCANS + 3}"))
    command = ["select", str(tmp_path / "bag"), "--bundle", str(known_bundle.folder), "--out", str(tmp_path / "log")]
    assert weakseg(command) == 1
    said = capsys.readouterr()
    assert "6 of 9 messages of '/top' could be read" in said.err
    assert "next: weakseg label" in said.out


def test_select_looks_at_its_folder_before_the_work(
    recording: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "mine.txt").write_text("x")
    command = ["select", "/nowhere", "--bundle", str(known_bundle.folder), "--out", str(tmp_path / "log")]
    assert weakseg(command) == 2
    assert "is not empty and is not a frame log" in capsys.readouterr().err


def test_predict_says_that_clouds_hold_no_point(known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.points.cloud import make_cloud

    with CloudBagWriter(tmp_path / "bag", "/points") as bag:
        for stamp in range(2):
            bag.write(make_cloud(np.zeros((0, 3)), np.zeros(0), stamp_ns=stamp + 1, frame_id="lidar"))
    command = ["predict", str(tmp_path / "bag"), "--bundle", str(known_bundle.folder), "--out", str(tmp_path / "out")]
    assert weakseg(command) == 1
    assert "2 of 2 scans contain no points; check the topic and the driver" in capsys.readouterr().err
    assert weakseg(["select", *command[1:-1], str(tmp_path / "log")]) == 2
    assert "no scan can be selected: 2 scans contain no points; check the topic and the driver" in capsys.readouterr().err
