# SPDX-License-Identifier: Apache-2.0
"""Verbs that are ended at any moment, or refused by the disk: started again they do their work, and nothing is left over."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import PATIENCE_S, files_of_at_most, optional
from weakseg_ros.cli import main
from weakseg_ros.errors import DataError, refusal_of
from weakseg_ros.files import content_of, put_in_place, scratch_folder, staged, sweep, write_atomic
from weakseg_ros.half_written import is_ours

SENSOR = "name: tiny\nbeams: 8\ncolumns: 64\nmount_height_m: 1.6\n"
HALF_WRITTEN = re.compile(r"\.\d+(-\d+)?\.(tmp|new|old)\b")
SMALL = ("--net-width", "16", "--batch-size", "1", "--accelerator", "cpu", "--precision", "32-true", "--hold-out", "0.4")


def sweep_bench(root: Path, out: Path, *arguments: str) -> dict[str, dict[str, object]]:
    """The short form of the bench; its figures by verb."""
    optional("rosbags")
    command = [sys.executable, str(root / "bench" / "kill_sweep.py"), *arguments, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, dict[str, object]] = json.loads(out.read_text())
    return found


def test_verbs_that_are_killed_are_started_again_to_the_same_result(root: Path, tmp_path: Path) -> None:
    found = sweep_bench(root, tmp_path / "kill.json", "--verbs", "sparse", "import", "promote", "rollback", "--most", "4")
    assert all(row["tried"] for row in found.values())
    assert len(found) == 12


def test_a_full_disk_is_a_sentence_and_damages_nothing(root: Path, tmp_path: Path) -> None:
    found = sweep_bench(
        root, tmp_path / "full.json", "--full", "changes", "sizes", "--verbs", "sparse", "import", "promote", "--most", "5"
    )
    assert all(row["tried"] for row in found.values())


@pytest.fixture
def sensor(tmp_path: Path) -> list[str]:
    (tmp_path / "tiny.yaml").write_text(SENSOR)
    return ["--sensor", str(tmp_path / "tiny.yaml"), "--workers", "1"]


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGKILL,),
        (signal.SIGTERM,),
        (signal.SIGHUP,),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
    ],
    ids=lambda numbers: "-".join(number.name for number in numbers),
)
def test_simulate_ends_with_its_workers(tmp_path: Path, signals: tuple[signal.Signals, ...], sensor: list[str]) -> None:
    """The signals go to all of them, as those of a terminal do, and a second one may come while it clears up."""
    arguments = ["simulate", *sensor[:2], "--scans", "400", "--out", "out", "--bag", "bag", "--workers", "2"]
    command = [sys.executable, "-m", "weakseg_ros", *arguments]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=with_usual_signals
    )

    def members() -> int:
        stats = [stat_of(folder) for folder in Path("/proc").glob("[0-9]*")]
        return sum(int(group) == process.pid and state != "Z" for state, _, group, *_ in stats)

    deadline = time.monotonic() + PATIENCE_S
    while members() < 4:  # the program, the keeper of its semaphores and two workers, which may still load
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in signals:
        os.killpg(process.pid, number)
        time.sleep(0.05)
    said = process.communicate(timeout=PATIENCE_S)[1]
    late = {-number for number in signals}  # what comes when Python itself ends, ends it
    assert process.returncode in late | {128 + number for number in signals}, said
    while members():
        assert time.monotonic() < deadline, "a worker goes on without its parent"
        time.sleep(0.1)
    if signal.SIGKILL not in signals:
        words = {"interrupted" if number == signal.SIGINT else "terminated" for number in signals}
        assert said in {f"weakseg simulate: {word}\n" for word in words}  # of two that wait together, Python takes SIGINT first
        assert sorted(os.listdir(tmp_path)) == ["tiny.yaml"]


def stat_of(process: Path) -> list[str]:
    """State, parent, group and more of a process; those of none where it has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z", "0", "0"]


def with_usual_signals() -> None:
    """As a terminal starts a program; what runs in the background of a shell may ignore some."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def test_a_training_without_a_checkpoint_is_none(tmp_path: Path, sensor: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    optional("torch")
    scans, run = tmp_path / "scans", tmp_path / "run"
    assert main(["simulate", "--scans", "4", "--out", str(scans), *sensor]) == 0
    train = ["train", str(scans), "--out", str(run), "--steps", "2", "--warmup-steps", "1", *SMALL]
    assert main([*train, "--net-width", "8"]) == 2
    assert not run.exists(), "a refused setting occupies no folder"
    run.mkdir()
    for name in ("environment.json", "config.yaml", ".statistics.yaml.4194304-0.tmp"):
        (run / name).write_text("a training was ended here")
    assert main(train) == 0
    assert not any(is_ours(entry.name) for entry in run.iterdir())
    assert main(train) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert main([*train, "--resume"]) == 0
    other = tmp_path / "other"
    other.mkdir()
    assert main([*train, "--out", str(other), "--resume"]) == 0, "what has no checkpoint yet begins"
    (other / "notes.txt").write_text("mine")
    (other / "last" / "position.json").unlink()
    assert main([*train, "--out", str(other)]) == 2
    assert (other / "notes.txt").is_file()


@pytest.mark.parametrize("name", [".manifest.yaml.4194304.tmp", ".sparse.yaml.4194304-3.tmp", ".out.4194304.new"])
def test_what_a_dead_process_left_does_not_count_and_goes(tmp_path: Path, name: str, sensor: list[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("half")
    assert content_of(out) == []
    assert main(["simulate", "--scans", "1", "--out", str(out), *sensor]) == 0
    assert not any(is_ours(entry.name) for entry in out.rglob("*"))


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    with staged(tmp_path / "out") as fresh:
        sweep(tmp_path / "out")
        assert fresh.is_dir()
        (fresh / "a").write_text("new")
        put_in_place(fresh, tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    write_atomic(tmp_path / "out" / "b", "x")
    with staged(tmp_path / "out") as fresh:
        (fresh / "c").write_text("newer")
        put_in_place(fresh, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["c"]


def through_a_file(fresh: Path) -> None:
    write_atomic(fresh / "label", b"x" * 5000)


def in_the_folder(fresh: Path) -> None:
    (fresh / "label").write_bytes(b"x" * 5000)


def into_a_folder_that_is_not_there(fresh: Path) -> None:
    (fresh / "labels" / "label").write_bytes(b"x")


def with_a_sentence(fresh: Path) -> None:
    raise DataError(f"{fresh / 'out' / 'label'}: cannot be written; free some space")


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (through_a_file, "out/label: File too large"),
        (in_the_folder, "out: File too large"),
        (into_a_folder_that_is_not_there, "out/labels/label: No such file or directory"),
        (with_a_sentence, "out/label: cannot be written; free some space"),
    ],
)
def test_an_error_names_what_was_asked_for_and_not_where_it_is_prepared(
    tmp_path: Path, write: Callable[[Path], None], told: str
) -> None:
    with files_of_at_most(1000), pytest.raises((OSError, DataError)) as refused, staged(tmp_path / "out") as fresh:
        write(fresh)
    said = refusal_of(refused.value) if isinstance(refused.value, OSError) else str(refused.value)
    assert said == f"{tmp_path}/{told}"


def test_a_full_disk_names_the_scans_and_the_bag_that_were_asked_for(
    tmp_path: Path, sensor: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--out", "--bag"):
        with files_of_at_most(1000):
            assert main(["simulate", "--scans", "1", option, str(tmp_path / "new"), *sensor]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"weakseg simulate: {tmp_path / 'new'}"), said
        assert not HALF_WRITTEN.search(said)
        assert os.listdir(tmp_path) == ["tiny.yaml"]


def test_large_files_that_a_dead_process_left_in_the_temporary_folder_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unpacked or fetched bag may be as large as the disk."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / ".weakseg_unpacked.k3j2x1.4194304-0.new"
    left.mkdir()
    (left / "drive.mcap").write_text("unpacked")
    (tmp_path / ".weakseg_bag.k3j2x1.4194304-0.new").mkdir()
    with scratch_folder("weakseg_unpacked") as folder, scratch_folder("weakseg_unpacked") as other:
        assert folder != other
        assert not left.exists()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(os.listdir(tmp_path)) == 3
    assert os.listdir(tmp_path) == [".weakseg_bag.k3j2x1.4194304-0.new"]


def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    """What a kill between two renames leaves, where the file system cannot exchange names."""
    aside = tmp_path / ".model.4194304-0.old"
    aside.mkdir()
    (aside / "weights").write_text("good")
    sweep(tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text() == "good"
    assert os.listdir(tmp_path) == ["model"]
