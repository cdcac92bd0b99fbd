# SPDX-License-Identifier: Apache-2.0
"""YAML as plain values, read strictly: nothing that a file may mean in two ways, and nothing that takes hours or all memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from weakseg_ros.errors import ConfigError
from weakseg_ros.files import read_regular

_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""the safe loader in C where PyYAML was built with it: the manifest of 20000 scans takes 0.2 s instead of 3"""
LONGEST_NUMBER = 100
"""characters; YAML 1.1 reads '1:1:1:1' as a number to base 60, and a long one takes hours"""
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError, OverflowError)
"""what PyYAML raises where a file is no YAML, or a tag's value does not suit the tag"""
MOST_YAML_BYTES = 1 << 28


class _Loader(_SAFE_LOADER):  # type: ignore[misc]
    """The safe loader, which refuses numbers that no setting needs, and a key that stands twice in one mapping."""

    def construct_yaml_int(self, node: Any) -> Any:
        """An integer of at most LONGEST_NUMBER characters that YAML 1.1 and 1.2 read alike."""
        return _of_one_meaning(node, super().construct_yaml_int(_short(node)))

    def construct_yaml_float(self, node: Any) -> Any:
        """A number of at most LONGEST_NUMBER characters that YAML 1.1 and 1.2 read alike."""
        return _of_one_meaning(node, super().construct_yaml_float(_short(node)))

    def construct_yaml_str(self, node: Any) -> Any:
        """A text, in which no null character stands: paths are made of it."""
        value = super().construct_yaml_str(node)
        if "\0" in value:
            raise ValueError(f"line {node.start_mark.line + 1}: a null character, which no name may contain")
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping; which of two values of one key is meant, nobody knows."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: '{key.value}' is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _of_one_meaning(node: Any, value: Any) -> Any:
    """The value, if both versions of YAML read it so: 010 is 8 in 1.1 and 10 in 1.2, 1:30 is 90 in the one, text in the other."""
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    other = "text" if ":" in text else int(text) if re.fullmatch(r"[-+]?0[0-7_]+", text) else value
    if other == value:
        return value
    meant = f"'{text}' is {value} in YAML 1.1 and {other} in 1.2"
    raise ValueError(f"line {node.start_mark.line + 1}: {meant}; write the number that is meant, or put it in quotes")


def _short(node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode) and len(node.value) > LONGEST_NUMBER:
        where = f"line {node.start_mark.line + 1}"
        raise ValueError(f"{where}: a number of {len(node.value)} characters, at most {LONGEST_NUMBER} are read")
    return node


for _tag, _construct in (
    ("int", _Loader.construct_yaml_int),
    ("float", _Loader.construct_yaml_float),
    ("str", _Loader.construct_yaml_str),
):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)


def read_yaml(path: Path, most_bytes: int = MOST_YAML_BYTES) -> Any:
    """The content of a YAML file; ConfigError where it is missing, no regular file, too large, or cannot be parsed."""
    try:
        return parse_yaml(read_regular(path, most_bytes).decode("utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not valid YAML (byte 0x{error.object[error.start]:02x} at {error.start} is not UTF-8); save it as UTF-8"
        ) from None


def parse_yaml(text: str, where: str) -> Any:
    """What a text of YAML holds; ConfigError, which begins with `where`, for one that cannot be parsed.

    Aliases (`*name`) are refused: a few lines of them can stand for more values than any memory holds.
    """
    try:
        if "*" in text:
            _refuse_aliases(text)
        return yaml.load(text, Loader=_Loader)
    except _YAML_FAULTS as error:
        raise ConfigError(f"{where}: is not valid YAML ({_place_in(text, error)}{_first_line(error)})") from None


def _refuse_aliases(text: str) -> None:
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
            raise ValueError(f"{line}the alias '*{event.anchor}' is not followed, write its value out")


def _place_in(text: str, error: BaseException) -> str:
    """The line that a parser complains of, with the usual cause, as the beginning of a sentence; nothing where it names none."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ""
    lines = text.splitlines()[max(0, mark.line - 1) : mark.line + 1]
    tab = "; a tab is there, indent with spaces" if any("\t" in line for line in lines) else ""
    return f"line {mark.line + 1}{tab}: "


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
