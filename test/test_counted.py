# SPDX-License-Identifier: Apache-2.0
"""What is counted has its singular: one scan is '1 scan', wherever a sentence counts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.errors import counted

PACKAGE = Path(__file__).resolve().parent.parent / "weakseg_ros"
NOUNS = frozenset(
    "bags classes clicks clouds expressions frames labels messages points recordings rooms scans scenes steps "
    "streets words".split()
)
NO_COUNT = frozenset(
    {
        ("improve/label/advice.py", "labels"),  # what a key does
        ("data/bags.py", "messages"),  # a share of them
        ("simulate/record.py", "words"),  # kinds of them
        ("simulate/rooms/record.py", "clouds"),
        ("points/layout.py", "points"),  # a width that is impossible, whatever it is
        ("measure/metrics.py", "labels"),  # shapes
        ("measure/panoptic.py", "labels"),
        ("benchmark/report.py", "steps"),  # several numbers
        ("demo.py", "frames"),  # these are written out for one
        ("fleet/report.py", "bags"),
    }
)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (counted(1, "scan"), "1 scan"),
        (counted(0, "scan"), "0 scans"),
        (counted(np.int64(1), "class"), "1 class"),
        (counted(2, "class"), "2 classes"),
        (counted(3, "entry"), "3 entries"),
        (counted(2, "day"), "2 days"),
        (counted(1, "vertex", "vertices"), "1 vertex"),
        (counted(1, "frame is", "frames are"), "1 frame is"),
        (counted(2, "frame is", "frames are"), "2 frames are"),
        (counted(1234, "point", spec=","), "1,234 points"),
        (counted(1.0, "minute", spec="g"), "1 minute"),
        (counted(1.0, "minute", spec=".1f"), "1.0 minutes"),
    ],
)
def test_one_is_singular_and_all_else_plural(told: str, expected: str) -> None:
    assert told == expected


def bare_counts(source: str) -> Iterator[str]:
    """The plural nouns right behind a value in the f-strings of a source."""
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for value, text in pairwise(parts):
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                yield from re.findall(r"^ ([a-z]+)", text.value)


def test_a_bare_count_is_found() -> None:
    assert list(bare_counts("f'{len(scans)} scans of {name}'")) == [
        "scans",
    ]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_sentence_puts_a_plural_behind_a_count(file: Path) -> None:
    name = file.relative_to(PACKAGE).as_posix()
    found = [noun for noun in bare_counts(file.read_text()) if noun in NOUNS and (name, noun) not in NO_COUNT]
    assert not found, f"{name}: use errors.counted for {', '.join(found)}"
