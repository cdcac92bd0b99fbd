# SPDX-License-Identifier: Apache-2.0
"""One verb over several bags: which they are, and a row for each in a manifest, so that a second start does only the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weakseg_ros.data.bag_files import bags_in
from weakseg_ros.errors import DataError, WeaksegError, complain
from weakseg_ros.files import write_json

MANIFEST = "bags.json"
Row = dict[str, Any]
"""what became of a bag: bag, name, complete, what the verb counted, and `problem` where it could not be read"""


def bags_of(first: Path, more: Sequence[Path] = ()) -> list[Path]:
    """The bags that the paths of a command line name, each once: bags, folders of bags and globs; none for a single bag."""
    if not more:
        return bags_in(first)
    every = [bag for path in (first, *more) for bag in bags_in(path) or [path]]
    return list({path.absolute(): path for path in every}.values())


def each_bag(
    bags: Sequence[Path],
    out: Path | None,
    asked: Mapping[str, Any],
    work: Callable[[Path, str], Row],
    line: Callable[[Row], str],
    is_there: Callable[[str], bool] = lambda name: True,
) -> list[Row]:
    """Call `work(bag, name)` for each bag, where `name` is like that of no other; returns the rows in order.

    `out`/bags.json holds the rows, and a bag whose row is complete, was `asked` for in the same way and `is_there` is not done
    again. A bag that cannot be read gets a row with its sentence, and the others go on. `line` is printed to stderr for each
    row. Raises DataError where none can be read.
    """
    before = {row["bag"]: row for row in _rows_before(out / MANIFEST) if row.get("asked") == asked} if out else {}
    rows: list[Row] = []
    for bag, name in zip(bags, names_of(bags), strict=True):
        row, when = before.get(str(bag), {}), ", done before"
        if not row.get("complete") or row.get("name") != name or not is_there(name):
            row, when = _tried(work, bag, name), ""
        rows.append({**row, "asked": dict(asked)})
        if out is not None and out.is_dir():  # the first bag that can be read makes it
            write_json(out / MANIFEST, rows)
        complain(f"{name}: {row['problem']}" if "problem" in row else f"{name}: {line(row)}{when}")
    if all("problem" in row for row in rows):
        raise DataError(f"none of the {len(bags)} bags could be read; {rows[0]['problem']}")
    return rows


def _tried(work: Callable[[Path, str], Row], bag: Path, name: str) -> Row:
    row: Row = {"bag": str(bag), "name": name, "complete": False}
    try:
        return row | work(bag, name)
    except WeaksegError as error:
        return row | {"problem": str(error)}


def are_whole(rows: Sequence[Row]) -> bool:
    """Whether every bag was read to its end."""
    return all(row["complete"] for row in rows)


def names_of(bags: Sequence[Path]) -> list[str]:
    """A name for each bag that no other has: that of its folder or file, with its number in front where two share it."""
    names = [bag.name if bag.is_dir() else bag.name.split(".")[0] for bag in bags]
    return [name if names.count(name) == 1 else f"{index + 1}_{name}" for index, name in enumerate(names)]


def _rows_before(path: Path) -> list[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [row for row in content if isinstance(row, dict) and "bag" in row] if isinstance(content, list) else []
