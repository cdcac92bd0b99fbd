# SPDX-License-Identifier: Apache-2.0
"""ScanRefer (Chen et al., 2020): descriptions of objects in ScanNet's rooms, as expressions about our ScanNet scans.

[{"scene_id": "scene0000_00", "object_id": "39", "object_name": "cabinet", "ann_id": "0", "description": "..."}, ...]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weakseg_ros.data.expressions import Expression, read_rows
from weakseg_ros.errors import DataError

CLASSES = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36)
"""ids of NYU40 of the classes that ScanRefer's evaluation tells apart"""
_NEEDED = ("scene_id", "object_id", "object_name", "description")


def read_scanrefer(path: Path | str, nyu40_of_category: Mapping[str, int] | None = None) -> list[Expression]:
    """The descriptions of a file; the instance is `object_id` plus 1, as in our ScanNet scans.

    A description is 'unique' where the file describes no other object of its class in the scene, else 'multiple', and the
    others are confusable. With `nyu40_of_category`, from ScanNet's table of categories, classes are those of ScanRefer's own
    evaluation: 17 and all others. Without it they are the objects' names, so that a few cases differ from the published ones.
    Raises DataError where the file is none of ScanRefer's.
    """
    path = Path(path)
    rows = read_rows(path, "name one of ScanRefer's files")
    known = [_instance(row, f"{path}: description {number}") for number, row in enumerate(rows)]
    kinds = [_kind(row, nyu40_of_category) for row in rows]
    first: dict[tuple[str, int], Any] = {}  # an object's class is that of its first description, as in the owners' code
    for row, instance, kind in zip(rows, known, kinds, strict=True):
        first.setdefault((row["scene_id"], instance), kind)
    alike: defaultdict[tuple[str, Any], set[int]] = defaultdict(set)
    for (scene, instance), kind in first.items():
        alike[scene, kind].add(instance)
    groups = {place: number for number, place in enumerate(dict.fromkeys(_place(row) for row in rows))}
    return [_expression(row, at, alike[row["scene_id"], kind], groups) for row, at, kind in zip(rows, known, kinds, strict=True)]


def _kind(row: dict[str, Any], nyu40_of_category: Mapping[str, int] | None) -> Any:
    """What a described object counts as: one of the 17 classes by its id of NYU40, 0 for all others; or its name."""
    if nyu40_of_category is None:
        return row["object_name"]
    number = nyu40_of_category.get(str(row["object_name"]).replace("_", " "), 0)
    return number if number in CLASSES else 0


def _instance(row: Any, where: str) -> int:
    if not isinstance(row, dict) or any(not isinstance(row.get(name), (str, int)) for name in _NEEDED):
        raise DataError(f"{where}: is incomplete; it needs {', '.join(_NEEDED)}")
    if not str(row["object_id"]).isdecimal():
        raise DataError(f"{where}: its object_id is '{row['object_id']}'; expected a number of 0 or more")
    return int(row["object_id"]) + 1


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["scene_id"]), str(row["object_id"])


def _expression(row: dict[str, Any], instance: int, alike: set[int], groups: dict[tuple[str, str], int]) -> Expression:
    case = "unique" if len(alike) == 1 else "multiple"
    confusable = tuple(sorted(alike - {instance}))
    return Expression(row["scene_id"], str(row["description"]), (instance,), case, groups[_place(row)], (), confusable)
