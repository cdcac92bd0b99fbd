# SPDX-License-Identifier: Apache-2.0
"""Expressions that name an object of a scan, and the instances that answer them: `expressions.jsonl` beside the scans."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weakseg_ros.data.scan_files import EXPRESSIONS
from weakseg_ros.data.scans import recordings
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import read_regular
from weakseg_ros.reads import parse_json

CASES = ("unique", "multiple", "none")
MOST_BYTES = 1 << 30
_SIDES = re.compile(
    r"(?P<before>\b(?:the|my|your|our|its|their|his|her|far|front|back|rear|top|bottom|turn|keep|to|on) )?"
    r"\b(?P<side>left|right)(?P<end>most|wards?|handed|hand|side|y|s)?\b"
    r"(?P<adverb>(?= (?:now|away|here|there|behind|before|after|next|beside|near|by|at|in|into|up|ahead|past|across)\b))?",
    re.IGNORECASE,
)
"""left and right as sides; "right behind it" and "right now" are none, "on the right behind it" is one"""


@dataclass(frozen=True)
class Expression:
    """One English expression about one scan, with its answer. Its instance ids are those of the scan's label file."""

    scan: str
    """key of the scan in its data set, '000012' or 'street_0004/000012'"""
    text: str
    targets: tuple[int, ...]
    """instance ids whose points are the answer; empty where nothing in the scan matches"""
    case: str
    """as in ScanRefer: 'unique' (the only object of its class in the scan), 'multiple', or 'none' (nothing matches)"""
    group: int
    """number shared by paraphrases: expressions that say the same of the same objects; unique within a data set"""
    context: tuple[int, ...] = ()
    """instance ids of the other objects that the expression names, such as the truck of "the car behind the truck" """
    confusable: tuple[int, ...] = ()
    """instance ids that are of the class that the expression names, but not the answer"""
    held_out: bool = False
    """True where a word or a phrase is one that the words for training do not have"""

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise DataError(f"{self.scan}: an expression's case is '{self.case}'; expected one of {', '.join(CASES)}")
        if (self.case == "none") != (not self.targets):
            raise DataError(f"{self.scan}: '{self.text}' is of case '{self.case}' and has {counted(len(self.targets), 'target')}")
        for name in ("targets", "context", "confusable"):
            object.__setattr__(self, name, tuple(int(instance) for instance in getattr(self, name)))


_NAMES = tuple(field.name for field in dataclasses.fields(Expression))
_NEEDED = {field.name for field in dataclasses.fields(Expression) if field.default is dataclasses.MISSING}


def read_expressions(place: Path | str) -> list[Expression]:
    """The expressions of a file, of a recording, or of a folder of recordings, whose scans' keys then begin with their names.

    Raises DataError where there are none, and for a line that is not an expression.
    """
    place = Path(place)
    if not place.is_dir():
        return _read_file(place)
    if (place / EXPRESSIONS).is_file():
        return _read_file(place / EXPRESSIONS)
    found = [(name, folder / EXPRESSIONS) for name, folder in recordings(place) if (folder / EXPRESSIONS).is_file()]
    if not found:
        advice = "'weakseg simulate --expressions 20' writes some beside its scans"
        raise DataError(f"{place}: holds no {EXPRESSIONS}, neither in itself nor in its recordings; {advice}")
    rows: list[Expression] = []
    for name, file in found:
        first = 1 + max((row.group for row in rows), default=-1)
        rows += [dataclasses.replace(row, scan=f"{name}/{row.scan}", group=first + row.group) for row in _read_file(file)]
    return rows


def read_rows(path: Path, advice: str, under: str = "") -> list[Any]:
    """The list that a JSON file of another data set's expressions is, or has `under` a name.

    Raises DataError, with `advice` on what to do, where there is no such list or nothing in it.
    """
    try:
        content = parse_json(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError:
        raise DataError(f"{path}: is not JSON; {advice}") from None
    if under:
        content = content.get(under) if isinstance(content, dict) else None
    if not isinstance(content, list) or not content:
        what = f"list '{under}'" if under else "list of descriptions"
        raise DataError(f"{path}: has no {what}; {advice}")
    return content


def expression_lines(expressions: Iterable[Expression]) -> list[str]:
    """The lines of a file of expressions, without line breaks."""
    return [json.dumps(dataclasses.asdict(expression), ensure_ascii=False) for expression in expressions]


def mirrored(text: str) -> str:
    """The expression for the mirrored scan (y becomes -y): every left becomes right and the reverse, in the same letter case."""
    return _SIDES.sub(_other_side, text)


def _other_side(found: re.Match[str]) -> str:
    side = found["side"]
    if side.lower() == "right" and found["adverb"] is not None and not found["before"] and not found["end"]:
        return found[0]
    other = "right" if side.lower() == "left" else "left"
    other = other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other
    return f"{found['before'] or ''}{other}{found['end'] or ''}"


def _read_file(path: Path) -> list[Expression]:
    try:
        lines = read_regular(path, MOST_BYTES).decode("utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; name a file of expressions, one JSON object a line") from None
    return [_expression(line, f"{path}: line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _expression(line: str, where: str) -> Expression:
    try:
        row: Any = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not set(row) >= _NEEDED or type(row["group"]) is not int:
        needed = ", ".join(sorted(_NEEDED))
        raise DataError(f"{where}: is not an expression; each line is a JSON object with {needed}")
    for name in ("targets", "context", "confusable"):
        if not isinstance(row.get(name, []), list) or not all(type(instance) is int for instance in row.get(name, [])):
            raise DataError(f"{where}: '{name}' holds {row[name]!r}; write a list of instance ids")
    try:
        return Expression(**{name: row[name] for name in _NAMES if name in row})
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
