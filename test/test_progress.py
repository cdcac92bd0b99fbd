# SPDX-License-Identifier: Apache-2.0
"""How far a work is: lines in a log file, a bar on a terminal."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import subprocess
import sys
import termios

import numpy as np
import pytest

from weakseg_ros import progress
from weakseg_ros.progress import Progress, duration


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = itertools.count(0.0, 4.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    assert list(Progress(range(5), what="evaluate", unit="scan")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err.splitlines() == [
        "evaluate: 3 of 5 scans after 16 s, about 11 s left",
    ]


@pytest.mark.parametrize(("total", "silent"), [(3, 1), (100, 4), (1000, 19)])
def test_the_first_items_which_wait_for_the_start_promise_no_time(
    total: int, silent: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    list(Progress(range(total), what="simulate", unit="scan"))
    lines = capsys.readouterr().err.splitlines()
    assert [" left" in line for line in lines] == [False] * silent + [True] * (total - silent - 1) + [False]


def test_short_work_and_hidden_work_write_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    list(Progress(range(5), what="evaluate", unit="scan"))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    list(Progress(np.arange(5), what="survey", unit="scan", shown=False))
    assert capsys.readouterr().err == ""


def test_items_without_a_number_and_a_note_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress(what="cluster", unit="bag") as bar:
        bar.note("2 in progress on 1 node")
        bar.update()
    assert capsys.readouterr().err == "cluster: 1 bag after 0 s; 2 in progress on 1 node\n"


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    code = "from weakseg_ros.progress import Progress\nfor _ in Progress(range(7), what='evaluate', unit='scan'): pass"
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # reading ends with an error
        while part := terminal.read(1 << 12):
            shown += part
    assert b"evaluate" in shown
    assert b"7/7" in shown


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (125.0, "2 min 5 s"), (4830.0, "1 h 20 min")])
def test_times_are_told_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
