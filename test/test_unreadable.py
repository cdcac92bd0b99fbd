# SPDX-License-Identifier: Apache-2.0
"""Folders and files that the user may not read cost themselves alone, and are named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support import PATIENCE_S
from support.recorded_bags import write

DROPPED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
"""what takes from root the right to read everything"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a verb as a user who may not read what is closed, in a folder of its own."""
    before: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and setpriv (util-linux), which takes that away, is not there")
        before = DROPPED

    def started(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*before, sys.executable, "-m", "weakseg_ros", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)

    return started


@pytest.fixture
def closed() -> Iterator[Callable[[Path], Path]]:
    """Takes all rights from a path, and gives them back afterwards so that it can be removed."""
    paths: list[Path] = []

    def close(path: Path) -> Path:
        path.chmod(0)
        paths.append(path)
        return path

    yield close
    for path in paths:
        path.chmod(0o700)


def test_a_bag_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path, run: Run, closed: Callable[[Path], Path]) -> None:
    (tmp_path / "drives").mkdir()
    for name in ("a", "b", "c"):
        write(tmp_path / "drives" / name)
    bag = closed(tmp_path / "drives" / "b")
    for named in ("drives", "drives/*"):
        done = run("import", named, "--out", "scans", "--overwrite")
        assert done.returncode == 1
        assert f"b: {bag.relative_to(tmp_path)}/metadata.yaml: Permission denied; check its permissions" in done.stderr
        assert "3 bags in scans, 2 of them complete" in done.stdout
    assert len(list((tmp_path / "scans" / "c" / "velodyne").iterdir())) == 3


@pytest.mark.parametrize("name", ["velodyne/000001.bin", "labels/000001.label"])
def test_a_scan_that_cannot_be_read_is_left_out(
    tmp_path: Path, run: Run, closed: Callable[[Path], Path], root: Path, name: str
) -> None:
    rng = np.random.default_rng(0)
    for folder in ("velodyne", "labels"):
        (tmp_path / "scans" / folder).mkdir(parents=True)
    for number in range(3):
        rng.uniform(-20, 20, (500, 4)).astype("<f4").tofile(tmp_path / "scans" / "velodyne" / f"{number:06d}.bin")
        np.zeros(500, "<u4").tofile(tmp_path / "scans" / "labels" / f"{number:06d}.label")
    closed(tmp_path / "scans" / name)
    bundle = str(root / "models" / "street")
    done = run("evaluate", "scans", "--bundle", bundle, "--engine", "onnxruntime", "--out", "report")
    assert done.returncode == 1
    assert f"partial result: scans/{name}: cannot be read (Permission denied)" in done.stderr
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize("verb", ["import", "predict", "check"])
def test_a_folder_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, run: Run, closed: Callable[[Path], Path], verb: str
) -> None:
    (tmp_path / "scans" / "velodyne").mkdir(parents=True)
    closed(tmp_path / "scans")
    done = run(verb, "scans")
    assert done.returncode == 2
    assert "Permission denied; check its permissions" in done.stderr
    assert "Traceback" not in done.stderr
