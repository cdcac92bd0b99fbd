# SPDX-License-Identifier: Apache-2.0
"""The finished rows of a benchmark on disk: one JSON line each, written at once, by any number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weakseg_ros.files import append_json_line, read_json_lines

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
        append_json_line(self.path, row)

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
