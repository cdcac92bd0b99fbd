# SPDX-License-Identifier: Apache-2.0
"""ScanRefer (Chen et al., 2020): descriptions of objects in ScanNet's rooms, as expressions about our ScanNet scans.

[{"scene_id": "scene0000_00", "object_id": "39", "object_name": "cabinet", "ann_id": "0", "description": "..."}, ...]
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from weakseg_ros.data.expressions import MOST_BYTES, Expression
from weakseg_ros.errors import DataError
from weakseg_ros.files import read_regular

_NEEDED = ("scene_id", "object_id", "object_name", "description")


def read_scanrefer(path: Path | str) -> list[Expression]:
    """The descriptions of a file; the instance is `object_id` plus 1, as in our ScanNet scans.

    A description is 'unique' where the file names no other object of this name in the scene; the objects of that name are
    confusable. ScanRefer's own split counts ScanNet's objects by NYU40 class, which the file does not hold, so a few differ.
    Raises DataError where the file is none of ScanRefer's.
    """
    path = Path(path)
    try:
        rows = json.loads(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError:
        raise DataError(f"{path}: is not JSON; name one of ScanRefer's files") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: holds no list of descriptions; name one of ScanRefer's files")
    known = [_instance(row, f"{path}: description {number}") for number, row in enumerate(rows)]
    alike: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for row, instance in zip(rows, known, strict=True):
        alike[row["scene_id"], row["object_name"]].add(instance)
    groups = {place: number for number, place in enumerate(dict.fromkeys(_place(row) for row in rows))}
    return [_expression(row, at, alike[row["scene_id"], row["object_name"]], groups) for row, at in zip(rows, known, strict=True)]


def _instance(row: Any, where: str) -> int:
    if not isinstance(row, dict) or any(not isinstance(row.get(name), (str, int)) for name in _NEEDED):
        raise DataError(f"{where}: is incomplete; it needs {', '.join(_NEEDED)}")
    if not str(row["object_id"]).isdecimal():
        raise DataError(f"{where}: its object_id is '{row['object_id']}'; it is a number from 0 up")
    return int(row["object_id"]) + 1


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["scene_id"]), str(row["object_id"])


def _expression(row: dict[str, Any], instance: int, alike: set[int], groups: dict[tuple[str, str], int]) -> Expression:
    case = "unique" if len(alike) == 1 else "multiple"
    confusable = tuple(sorted(alike - {instance}))
    return Expression(row["scene_id"], str(row["description"]), (instance,), case, groups[_place(row)], (), confusable)
