# SPDX-License-Identifier: Apache-2.0
"""The program where its streams are closed, full or read by nobody, on any width of a terminal, under names that are no text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import PATIENCE_S, optional
from support.small_scans import record
from weakseg_ros.cli import main

FULL = "No space left on device; free some space and run the command again; what was already written is kept"


def through_a_shell(redirection: str, *arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program with its streams as a shell would redirect them; what is not redirected is captured."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "weakseg_ros", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_stops_no_work(closed: str, tmp_path: Path) -> None:
    record(tmp_path / "scans")
    done = through_a_shell(closed, "sparse", str(tmp_path / "scans"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "sparse.yaml").is_file()
    assert through_a_shell(closed, "sparse", "/none").returncode == 2
    assert through_a_shell(closed, "--help").returncode == 0


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else what a library tells stderr is written into it."""
    code = (
        "import os, sys; from weakseg_ros.cli import main; main(['--version']);"
        "number = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); os.write(number, b'%d' % number)"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, str(tmp_path / "file")]
    assert subprocess.run(command).returncode == 0
    assert int((tmp_path / "file").read_bytes()) > 2


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("check", "SCANS")])
def test_a_full_disk_behind_stdout_is_one_sentence(arguments: tuple[str, ...], tmp_path: Path) -> None:
    record(tmp_path / "scans")
    done = through_a_shell("> /dev/full", *(word.replace("SCANS", str(tmp_path / "scans")) for word in arguments))
    verb = " check" if arguments[0] == "check" else ""
    assert (done.returncode, done.stderr) == (2, f"weakseg{verb}: standard output: {FULL}\n")


def test_a_full_disk_behind_stderr_changes_no_exit_code() -> None:
    assert through_a_shell("2> /dev/full", "evaluat").returncode == 2
    assert through_a_shell("2> /dev/full", "sparse", "/none").returncode == 2


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_has_ended_is_no_traceback(stream: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    other = "stderr" if stream == "stdout" else "stdout"
    streams = {stream: writer, other: subprocess.PIPE}
    arguments = ["--help"] if stream == "stdout" else ["evaluat"]
    process = subprocess.Popen([sys.executable, "-m", "weakseg_ros", *arguments], text=True, **streams)  # type: ignore[call-overload]
    os.close(writer)
    said = "".join(filter(None, process.communicate(timeout=PATIENCE_S)))
    assert (process.returncode, said) == (141, "")


@pytest.mark.parametrize("columns", ["1", "2", "0", "-7", "wide", "100000"])
def test_a_manual_ends_at_any_width(columns: str) -> None:
    done = through_a_shell("", "promote", "--help", COLUMNS=columns)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--unjudged" in done.stdout


def test_a_name_that_is_no_text_is_told_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = through_a_shell("", "simulate", "--out", os.fsencode(tmp_path) + b"/\xff")
    told = f"'{tmp_path}/\\udcff': contains bytes that are not UTF-8; rename it, or set LC_ALL=C.UTF-8"
    assert (done.returncode, done.stderr) == (2, f"weakseg simulate: {told}\n")
    scans = record(tmp_path / "scans")
    first = sorted((scans / "velodyne").iterdir())[0]
    first.rename(scans / "velodyne" / os.fsdecode(b"\xff.bin"))
    assert main(["sparse", str(scans), "--out", str(tmp_path / "out")]) == 2
    told = f"{scans}: '\\udcff': contains bytes that are not UTF-8; rename it, or set LC_ALL=C.UTF-8"
    assert capsys.readouterr().err == f"weakseg sparse: {told}\n"
    assert not (tmp_path / "out").exists()


def test_plots_of_other_programs_are_not_ours() -> None:
    """A notebook or a desktop sets how they are shown."""
    optional("matplotlib")
    code = "from weakseg_ros.cli import main; main(['check', '/none']); from matplotlib import image"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "none"})
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
