# SPDX-License-Identifier: Apache-2.0
"""The finished rows of a benchmark on disk: one JSON line each, written at once, by any number of processes."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weakseg_ros.files import read_json_lines

ROWS = "rows.jsonl"
Wanted = Mapping[str, tuple[Any, Any]]
"""by key, what `asked_for` gives for the row that is asked for"""


@dataclass(frozen=True)
class RowFile:
    """`rows.jsonl` in the folder of a table."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / ROWS

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line and wait until the disk has it; a line that a crash cut short stays apart from it."""
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = end > 0 and file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(dict(row)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Every whole line, oldest first."""
        return read_json_lines(self.path, "key")

    def latest(self, wanted: Wanted | None = None) -> dict[str, dict[str, Any]]:
        """By key, the last row; an error only where the same settings on the same data never finished.

        With `wanted`, only rows of these settings on these data.
        """
        rows: dict[str, dict[str, Any]] = {}
        for row in self.read():
            if wanted is not None and asked_for(row) != wanted.get(row["key"]):
                continue
            before = rows.get(row["key"])
            if before is None or "error" not in row or "error" in before or asked_for(row) != asked_for(before):
                rows[row["key"]] = row
        return rows

    def finished(self, key: str, settings_hash: str, data_hash: str) -> bool:
        """True where this row was trained to its end, with these settings on these data."""
        wanted = (key, settings_hash, data_hash)
        return any("error" not in row and (row["key"], row["settings"], row["data_hash"]) == wanted for row in self.read())


def asked_for(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """The hashes of settings and data that a row was trained with."""
    return row.get("settings"), row.get("data_hash")


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """True inside where no other process holds the lock file `path`; it is free again when this process ends, however."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock file `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
