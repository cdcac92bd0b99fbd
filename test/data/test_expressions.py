# SPDX-License-Identifier: Apache-2.0
"""Files of expressions: what is written comes back, recordings keep apart, and what is damaged is named by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from weakseg_ros.data.expressions import Expression, expression_lines, mirrored, read_expressions
from weakseg_ros.errors import DataError

ROWS = (
    Expression("000000", "the café’s car on the left", (7,), "multiple", 0, context=(3,), confusable=(9, 12)),
    Expression("000000", "the car to the left", (7,), "multiple", 0),
    Expression("000001", "the bus", (), "none", 1),
)


def recording(folder: Path, rows: tuple[Expression, ...] = ROWS) -> Path:
    (folder / "velodyne").mkdir(parents=True)
    (folder / "expressions.jsonl").write_text("\n".join(expression_lines(rows)))
    return folder


def test_a_file_and_its_recording_read_back(tmp_path):
    folder = recording(tmp_path / "drive")
    assert read_expressions(folder) == list(ROWS) == read_expressions(folder / "expressions.jsonl")


def test_recordings_keep_their_scans_and_their_groups_apart(tmp_path):
    recording(tmp_path / "a"), recording(tmp_path / "b")
    (tmp_path / "c" / "velodyne").mkdir(parents=True)
    rows = read_expressions(tmp_path)
    assert [row.scan for row in rows] == [f"{name}/{row.scan}" for name in "ab" for row in ROWS]
    assert [row.group for row in rows] == [0, 0, 1, 2, 2, 3]


def test_a_folder_without_expressions_says_how_to_get_some(tmp_path):
    (tmp_path / "velodyne").mkdir()
    with pytest.raises(DataError, match="weakseg simulate --expressions"):
        read_expressions(tmp_path)


GOOD = '{"scan": "0", "text": "the car", "targets": [1], "case": "unique", "group": 0}\n'


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[1]",
        '{"scan": "0", "text": "the car"}',
        GOOD.replace("[1]", '"12"'),
        GOOD.replace("[1]", "[1.5]"),
        GOOD.replace("[1]", "[]"),
        GOOD.replace("unique", "several"),
        GOOD.replace('"group": 0', '"group": "x"'),
    ],
)
def test_a_line_that_is_no_expression_is_named(tmp_path, line):
    file = tmp_path / "some.jsonl"
    file.write_text(GOOD + line)
    with pytest.raises(DataError, match=r"some\.jsonl: line 2"):
        read_expressions(file)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("the car on the left", "the car on the right"),
        ("Turn RIGHT after the lefthand van, the leftmost one", "Turn LEFT after the righthand van, the rightmost one"),
        ("stop right behind the car on my right in the shade", "stop right behind the car on my left in the shade"),
        ("park right here, to the right of it", "park right here, to the left of it"),
        ("stop on the right behind the bus", "stop on the left behind the bus"),
        ("a bright car that was leftover", "a bright car that was leftover"),
        ("Right turn at the truck", "Left turn at the truck"),
    ],
)
def test_a_mirrored_expression_swaps_sides_and_nothing_else(text, other):
    assert mirrored(text) == other
    assert mirrored(other) == text
