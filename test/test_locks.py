# SPDX-License-Identifier: Apache-2.0
"""Locks between processes, threads and changes of mind, and on a file system that has none."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from weakseg_ros.errors import WeaksegError
from weakseg_ros.files import append_json_line, read_json_lines
from weakseg_ros.locks import Turns, alone, in_turn
from weakseg_ros.simulate.workers import in_order

HOLDER = (
    "import sys; from pathlib import Path; from weakseg_ros.locks import in_turn\n"
    "with in_turn(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
)


def held(path: Path) -> subprocess.Popen[str]:
    """A process that has the lock until it is ended or its stdin is closed."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_anothers_until_its_process_ends_in_whatever_way(tmp_path: Path) -> None:
    process = held(tmp_path / "a" / "lock")
    with alone(tmp_path / "a" / "lock") as mine:
        assert not mine
    process.kill()
    with in_turn(tmp_path / "a" / "lock"):  # waits for the end
        assert process.wait() == -signal.SIGKILL
        with alone(tmp_path / "a" / "lock") as mine:
            assert not mine, "one thread's lock is no other's"
    with alone(tmp_path / "a" / "lock") as mine:
        assert mine


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written_to_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS without its lock service."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    append_json_line(tmp_path / "lines.jsonl", {"step": 1})
    append_json_line(tmp_path / "lines.jsonl", {"step": 2})
    assert [row["step"] for row in read_json_lines(tmp_path / "lines.jsonl", "step")] == [1, 2]
    with alone(tmp_path / "lock") as mine:
        assert mine
    turns = Turns(tmp_path / "turns")
    with turns.take() as others:
        assert others
    with turns.take() as others:
        assert not others


def _end_hard(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_worker_that_the_system_ends_is_one_sentence() -> None:
    with pytest.raises(WeaksegError, match="one of 2 worker processes was ended, perhaps because memory ran out"):
        list(in_order(_end_hard, ((number,) for number in range(4)), workers=2))
