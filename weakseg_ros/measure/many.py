# SPDX-License-Identifier: Apache-2.0
"""One evaluation over many bags: each in a folder of its own, resumed where it was left, added up in one report."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import DataError, WeaksegError
from weakseg_ros.files import make_folder, write_json
from weakseg_ros.measure.evaluation import SUMMARY_FILE
from weakseg_ros.measure.merge import merge

MANIFEST = "bags.json"
Row = dict[str, Any]


def evaluate_many(config: Any, bags: Sequence[Path], evaluate: Callable[[Any], object]) -> tuple[Path, dict[str, Any]]:
    """Evaluate each of `bags` with the settings of `config` into `config.out`/NAME, then merge them into `config.out`.

    A bag that was evaluated whole with this bundle and these settings is not evaluated again. `config.out`/bags.json holds a
    row for each bag; one that cannot be read at all has its sentence there, and makes the whole result partial. Raises
    DataError where none can be read.
    """
    make_folder(config.out)
    bundle_hash = Bundle.load(config.bundle).content_hash
    asked = {"bundle": bundle_hash, "settings": str(dataclasses.replace(config, out=Path(), data=Path()))}
    before = {row["bag"]: row for row in _rows_before(config.out / MANIFEST) if row.get("asked") == asked}
    rows: list[Row] = []
    for bag, name in zip(bags, _names(bags), strict=True):
        row = before.get(str(bag), {})
        if not row.get("complete") or not (config.out / name / SUMMARY_FILE).is_file():
            row = _evaluated(config, bag, name, evaluate)
        rows.append({**row, "asked": asked})
        write_json(config.out / MANIFEST, rows)
        print(_line(row), file=sys.stderr)
    done = [config.out / row["name"] for row in rows if "problem" not in row]
    if not done:
        raise DataError(f"{config.data}: none of the {len(bags)} bags could be evaluated; {rows[0]['problem']}")
    problems = [row["problem"] for row in rows if "problem" in row]
    return merge(done, config.out, [_line(row) for row in rows], problems)


def _evaluated(config: Any, bag: Path, name: str, evaluate: Callable[[Any], object]) -> Row:
    row: Row = {"bag": str(bag), "name": name, "complete": False}
    try:
        evaluate(dataclasses.replace(config, data=bag, out=config.out / name))
    except WeaksegError as error:
        return {**row, "problem": str(error)}
    summary = json.loads((config.out / name / SUMMARY_FILE).read_text(encoding="utf-8"))
    figures = {key: summary[key] for key in ("scans", "points", "miou_present", "accuracy", "partial_reason") if key in summary}
    return {**row, "complete": not summary["partial"], "domain": summary["domain"], **figures}


def _line(row: Row) -> str:
    if "problem" in row:
        return f"{row['name']}: not evaluated: {row['problem']}"
    measured = f", mIoU {row['miou_present']:.3f}" if "miou_present" in row else ""
    partial = f", partial: {row['partial_reason']}" if row.get("partial_reason") else ""
    sensor = f"; {row['domain'][0]}" if row.get("domain") else ""
    return f"{row['name']}: {row['scans']} scans{measured}{partial}{sensor}"


def _names(bags: Sequence[Path]) -> list[str]:
    """A name for each bag that no other has."""
    names = [bag.name if bag.is_dir() else bag.name.split(".")[0] for bag in bags]
    return [name if names.count(name) == 1 else f"{index + 1}_{name}" for index, name in enumerate(names)]


def _rows_before(path: Path) -> list[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [row for row in content if isinstance(row, dict) and "bag" in row] if isinstance(content, list) else []
