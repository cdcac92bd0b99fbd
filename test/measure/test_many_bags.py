# SPDX-License-Identifier: Apache-2.0
"""A folder of bags, or a glob, is one evaluation with a row for each bag; what was done is not done again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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


def test_many_bags_are_one_evaluation_that_is_resumed(
    drives: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert (out / "drive_2" / "summary.json").stat().st_mtime_ns > made, "other settings are another evaluation"


def test_many_bags_become_a_folder_of_recordings(drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(drives / "drive_11")
    arguments = ["import", str(drives / "drive_*"), "--out", str(tmp_path / "scans")]
    assert weakseg(arguments) == 0
    assert len(open_scans(tmp_path / "scans")) == 2 * SCANS
    capsys.readouterr()
    assert weakseg(arguments) == 0
    assert "2 bags, 2 of them imported before" in capsys.readouterr().out


def test_one_bag_is_not_many(recording: Path, drives: Path) -> None:
    assert bags_in(recording / "bag") == []
    assert [bag.name for bag in bags_in(drives / "drive_[12]*")] == ["drive_2", "drive_10", "drive_11"]
    with pytest.raises(DataError, match="no bag has such a name"):
        bags_in(drives / "x*")


def test_doctor_select_and_predict_go_through_all_bags(
    drives: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(drives / "drive_11")
    bundle = ["--bundle", str(known_bundle.folder)]
    weakseg(["doctor", "--data", str(drives), *bundle])
    said = capsys.readouterr().out
    assert all(f"sensor            {name}: " in said for name in ("drive_2", "drive_10"))
    assert weakseg(["select", str(drives), *bundle, "--frames", "4", "--out", str(tmp_path / "log")]) == 0
    said = capsys.readouterr().out
    assert "drive_2: 2 frames" in said
    assert "drive_10: 2 frames" in said
    assert weakseg(["predict", str(drives), *bundle, "--out", str(tmp_path / "out")]) == 0
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.label"))
    assert files == sorted(f"{name}/predictions/{i:06d}.label" for name in ("drive_2", "drive_10") for i in range(SCANS))
