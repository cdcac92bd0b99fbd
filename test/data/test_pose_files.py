# SPDX-License-Identifier: Apache-2.0
"""Poses beside scans: KITTI's matrices, TUM's stamps and quaternions and their variants, found by time, number or line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.data.pose_files import read_poses
from weakseg_ros.data.side_files import poses_by_scan, poses_of, stamps_of
from weakseg_ros.errors import DataError

START_S = 1_700_000_000
COUNT = 5
KEYS = [f"{number:06d}" for number in range(COUNT)]


def yaw(number: int) -> float:
    return 0.3 * number


def pose(number: int) -> np.ndarray:
    """Two metres forward and a turn to the left for each number."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw(number)), -np.sin(yaw(number))], [np.sin(yaw(number)), np.cos(yaw(number))]]
    matrix[:3, 3] = 2.0 * number, 0.5, -1.0
    return matrix


def matrix_row(number: int, rows: int = 3) -> str:
    return " ".join(f"{value:.9f}" for value in pose(number)[:rows].ravel())


def quaternion_row(number: int) -> str:
    return f"{2.0 * number} 0.5 -1.0 0 0 {np.sin(yaw(number) / 2):.9f} {np.cos(yaw(number) / 2):.9f}"


FORMS: dict[str, Callable[[int], str]] = {
    "KITTI": matrix_row,
    "four rows": lambda number: matrix_row(number, 4),
    "KITTI-360": lambda number: f"{number} {matrix_row(number)}",
    "numbered, four rows": lambda number: f"{number} {matrix_row(number, 4)}",
    "TUM": lambda number: f"{START_S}.{number}00000000 {quaternion_row(number)}",
    "TUM with commas": lambda number: f"{START_S}.{number},{quaternion_row(number).replace(' ', ', ')}",
    "quaternions": quaternion_row,
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_poses(tmp_path: Path, form: str) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("\ufeff# time x y z and more\n\n" + "".join(f"{FORMS[form](number)}\n" for number in range(COUNT)))
    np.testing.assert_allclose(read_poses(path).poses, [pose(number) for number in range(COUNT)], atol=1e-7)
    stamps = [START_S * 10**9 + number * 10**8 for number in range(COUNT)]
    np.testing.assert_allclose(poses_by_scan(path, KEYS, stamps), [pose(number) for number in range(COUNT)], atol=1e-7)


def test_poses_with_times_belong_to_the_scans_of_these_times(tmp_path: Path) -> None:
    rows = [f"{START_S + 4 * number // 10}.{4 * number % 10} {quaternion_row(number)}\n" for number in range(20)]
    (tmp_path / "poses.txt").write_text("".join(rows))
    (tmp_path / "times.txt").write_text(f"{START_S + 2}.9\n{START_S + 4}.8\n")
    stamps = stamps_of(tmp_path, KEYS[:2], listed=True)
    found = poses_of(tmp_path, KEYS[:2], stamps, listed=True)
    assert found is not None
    np.testing.assert_allclose(found[0][:3, 3], (14.5, 0.5, -1.0))
    np.testing.assert_allclose(found[1], pose(12), atol=1e-7)


def test_times_in_the_names_of_scans_are_times(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text("".join(f"{START_S + number} {quaternion_row(number)}\n" for number in range(20)))
    keys = [f"{START_S + 3}.000000", f"{START_S + 9}.000000"]
    found = poses_of(tmp_path, keys, stamps_of(tmp_path, keys, listed=True), listed=True)
    assert found is not None
    np.testing.assert_allclose(found, [pose(3), pose(9)], atol=1e-7)


def test_one_line_a_scan_counts_where_scans_have_no_times_or_those_of_another_clock(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("".join(f"{0.05 * number:.2f} {quaternion_row(number)}\n" for number in range(COUNT)))
    expected = [pose(number) for number in range(COUNT)]
    without = stamps_of(tmp_path, KEYS, listed=True)
    np.testing.assert_allclose(poses_by_scan(path, KEYS, without), expected, atol=1e-7)
    np.testing.assert_allclose(poses_by_scan(path, KEYS, [10**18 + number for number in range(COUNT)]), expected, atol=1e-7)


def test_numbered_lines_belong_to_the_scans_of_these_numbers(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("".join(f"{number} {matrix_row(number)}\n" for number in (4, 0, 2)))
    np.testing.assert_allclose(poses_by_scan(path, ["000002", "000004"], [0, 1]), [pose(2), pose(4)], atol=1e-7)
    with pytest.raises(DataError, match=r"has no line for scan 000001 \(1 of 2 lack one\)"):
        poses_by_scan(path, ["000001", "000004"], [0, 1])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# nothing but a comment\n", "has 0 lines for 5 scans"),
        (f"{START_S} 0 0 0 0 0 0 3\n", r"last four numbers of pose 1 are not a quaternion of length 1 \(length 3\)"),
        (f"2 {quaternion_row(0)}\n1 {quaternion_row(1)}\n", "do not rise from line to line"),
        (f"1 {quaternion_row(0)}\n1 {quaternion_row(1)}\n", "do not rise from line to line"),
        (f"{START_S}000000000000 {quaternion_row(0)}\n", "is not a time in seconds"),
        (f"1 {quaternion_row(0)}\n{quaternion_row(1)}\n", "poses.txt:2: expected 8 finite numbers as in the first line, found"),
        (f"1 {quaternion_row(0)} 5\n", r"poses.txt:1: expected finite numbers, found .* write 12 numbers \(KITTI"),
        ("1 0 0 0 0 1 0 0 0 0 one 0\n", "poses.txt:1: expected 12 finite numbers"),
        ("1 0 0 0 0 -1 0 0 0 0 1 0\n", "pose 1 mirrors space, so it is left-handed; negate y in poses and scans"),
        (f"0.5 {matrix_row(0)}\n", "its first column must hold the number of each scan once"),
        (f"1 {quaternion_row(0)}\n9 {quaternion_row(1)}\n", "has 2 poses from 1.0* to 9.0* s, 5 scans from 0.0* to 0.40* s"),
    ],
)
def test_what_is_no_file_of_poses_is_told_with_what_is(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "poses.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        poses_by_scan(path, KEYS, stamps_of(tmp_path, KEYS, listed=True))
