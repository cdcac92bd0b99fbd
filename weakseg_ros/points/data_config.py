# SPDX-License-Identifier: Apache-2.0
"""Label maps from the data configs that lidar-bonnetal, SalsaNext, Cylinder3D and the SemanticKITTI API share.

Such a file is a mapping: `labels` (raw id: name), `color_map` (raw id: blue, green, red), `learning_map` (raw id: class),
`learning_map_inv` (class: the raw id that names it), `learning_ignore` (class: true where it is not learnt).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weakseg_ros.errors import ConfigError

NEEDED = ("labels", "learning_map", "learning_map_inv")
UNLABELLED = "unlabelled"
_GREY = (128, 128, 128)
_BLACK = (0, 0, 0)


def is_data_config(content: Any) -> bool:
    """Whether the content of a YAML file is such a config, whole or not."""
    return isinstance(content, Mapping) and any(key in content for key in NEEDED)


def rows_of(content: Mapping[str, Any], where: str, known_things: frozenset[str]) -> list[dict[str, Any]]:
    """The rows of a label map; ConfigError where the config is incomplete. What is ignored becomes part of class 0.

    Which classes are countable is not in such files, unless `things` lists raw ids or names; names in `known_things` are.
    """
    missing = [key for key in NEEDED if not isinstance(content.get(key), Mapping)]
    if missing:
        raise ConfigError(f"{where}: is a data config without the mapping '{missing[0]}'; add it, or write a list of rows")
    learning, inverse = (_numbers(content, name, where) for name in ("learning_map", "learning_map_inv"))
    names, colors = _by_number(content, "labels", where), _by_number(content, "color_map", where)
    ignored = {k for k, ignore in (_by_number(content, "learning_ignore", where) or _of_no_label(learning)).items() if ignore}
    listed = set(content.get("things") or ())
    unnamed = sorted({k for k in learning.values() if k not in ignored and k not in inverse})
    if unnamed:
        raise ConfigError(f"{where}: learning_map_inv names no raw id for class {unnamed[0]}; add it")
    rows = [{"id": 0, "name": UNLABELLED, "color": list(_BLACK), "thing": False, "raw_ids": _raw_of(learning, ignored)}]
    for number in sorted(set(learning.values()) - ignored):
        first = inverse[number]
        name = str(names.get(first, first))
        color = colors.get(first, _GREY)
        if not isinstance(color, (list, tuple)):
            raise ConfigError(f"{where}: color_map of {first} is {str(color)!r}; expected [blue, green, red], each 0..255")
        color = list(reversed(color))
        raw = _raw_of(learning, {number})
        raw = [first, *(each for each in raw if each != first)] if first in raw else raw
        thing = bool({first, name} & listed) if listed else name in known_things
        rows.append({"id": len(rows), "name": name, "color": color, "thing": thing, "raw_ids": raw})
    return rows


def _of_no_label(learning: Mapping[int, int]) -> dict[int, bool]:
    """What a config without `learning_ignore` ignores: the class of raw id 0, which means no label in every file."""
    return {learning[0]: True} if 0 in learning else {}


def _by_number(content: Mapping[str, Any], name: str, where: str) -> dict[int, Any]:
    """A mapping of the config by whole numbers, which some files have in quotes; empty where it is absent."""
    found = content.get(name) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{where}: {name} is no mapping; write one line for each number")
    return {_number(key, name, where): value for key, value in found.items()}


def _numbers(content: Mapping[str, Any], name: str, where: str) -> dict[int, int]:
    return {key: _number(value, f"{name} of {key}", where) for key, value in _by_number(content, name, where).items()}


def _number(value: Any, what: str, where: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ConfigError(f"{where}: {what} holds {str(value)[:40]!r}; expected a whole number")


def _raw_of(learning: Mapping[int, int], classes: set[int]) -> list[int]:
    return sorted(raw for raw, number in learning.items() if number in classes)
