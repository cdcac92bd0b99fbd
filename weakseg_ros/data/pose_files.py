# SPDX-License-Identifier: Apache-2.0
"""Poses of the LiDAR in a text file, one a line: KITTI's matrices, TUM's stamps and quaternions, and their usual variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_files import LARGEST_STAMP_NS, read_lines
from weakseg_ros.errors import DataError
from weakseg_ros.points.poses import matrix_of, pose_between

ROTATION_ERROR = 0.02
"""of a rotation times its transpose, and of a quaternion's length; poses are written with few digits"""
LARGEST_GAP_NS = 500_000_000
"""a pose farther in time from the scan than this says nothing of it"""
WHAT_IS_READ = (
    "12 numbers (KITTI: the upper three rows of a 4 x 4 matrix), 16 (all four rows), either of them after the scan's number, "
    "7 (x y z qx qy qz qw) or 8 (TUM: the time in s before these)"
)
_LIDAR_TO_CAMERA = ("Tr", "Tr_velo_to_cam", "Tr_velo_cam")
"""what KITTI calls it in the data of its odometry, object and tracking benchmarks"""
_MATRICES, _NUMBERED, _QUATERNIONS, _STAMPED = (12, 16), (13, 17), 7, 8


@dataclass(frozen=True)
class PoseFile:
    """The poses of a file, and what tells which scan each of them belongs to."""

    poses: NDArray[np.float64]
    """(L, 4, 4) of the LiDAR, m"""
    stamps_ns: tuple[int, ...] | None = None
    """of each pose, rising, where the file has them"""
    places: NDArray[np.float64] | None = None
    """(L, 7) x, y, z and quaternion x, y, z, w of each pose, where the file has stamps"""
    numbers: tuple[int, ...] | None = None
    """the scan of each pose, where the file says it"""

    def at(self, stamps_ns: Sequence[int]) -> NDArray[np.float64] | None:
        """(S, 4, 4) at these times; None where one is farther than half a second from every pose, or the poses have no times."""
        if self.stamps_ns is None or self.places is None:
            return None
        entries = list(zip(self.stamps_ns, self.places, strict=True))
        poses = [pose_between(entries, stamp_ns, LARGEST_GAP_NS) for stamp_ns in stamps_ns]
        return None if any(pose is None for pose in poses) else np.array(poses)


def read_poses(path: Path) -> PoseFile:
    """The poses of a text file of one of the forms in WHAT_IS_READ, which need not be named.

    KITTI writes the poses of its camera: with a `calib.txt` beside it, pose = Tr^-1 P Tr; without, and in every file of
    quaternions, pose = P. Raises DataError with the line that is none of these.
    """
    lines = read_lines(path)
    rows = [line.replace(",", " ").split() for line in lines]
    if not rows:
        return PoseFile(np.zeros((0, 4, 4)))
    width = len(rows[0])
    values = np.array([_numbers(row, width, f"{path}:{number}") for number, row in enumerate(rows, 1)]).reshape(len(rows), -1)
    if width in (_QUATERNIONS, _STAMPED):
        return _of_quaternions(values[:, -7:], [row[0] for row in rows] if width == _STAMPED else None, path)
    numbers = None
    if width in _NUMBERED:
        numbers = tuple(map(int, values[:, 0]))
        if (values[:, 0] != numbers).any() or len(set(numbers)) < len(numbers):
            raise DataError(f"{path}: its first column must hold the number of each scan once; write {WHAT_IS_READ}")
        values = values[:, 1:]
    return PoseFile(_of_matrices(values, path), numbers=numbers)


def _of_matrices(values: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    poses[:, :3] = values[:, :12].reshape(-1, 3, 4)
    turns = poses[:, :3, :3]
    skewed = np.flatnonzero(np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > ROTATION_ERROR)
    if len(skewed):
        raise DataError(
            f"{path}: the first three columns of pose {skewed[0] + 1} are not a rotation; write the upper three rows of each "
            "4 x 4 pose in one line, or remove the file"
        )
    mirrored = np.flatnonzero(np.linalg.det(turns) < 0)
    if len(mirrored):
        raise DataError(f"{path}: pose {mirrored[0] + 1} mirrors space, so it is left-handed; negate y in poses and scans")
    to_camera = _read_calibration(path.with_name("calib.txt"))
    return np.linalg.inv(to_camera) @ poses @ to_camera


def _of_quaternions(places: NDArray[np.float64], times: Sequence[str] | None, path: Path) -> PoseFile:
    lengths = np.linalg.norm(places[:, 3:], axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1.0) > ROTATION_ERROR)
    if len(wrong):
        raise DataError(
            f"{path}: the last four numbers of pose {wrong[0] + 1} are not a quaternion of length 1 "
            f"(length {lengths[wrong[0]]:.3g}); write x y z qx qy qz qw"
        )
    poses = np.array([matrix_of(place[:3], place[3:]) for place in places]).reshape(-1, 4, 4)
    if times is None:
        return PoseFile(poses)
    stamps_ns = tuple(int(Decimal(time) * 10**9) for time in times)
    if any(abs(stamp_ns) > LARGEST_STAMP_NS for stamp_ns in stamps_ns):
        raise DataError(
            f"{path}: its first column is not a time in seconds ({times[0]} ...); write seconds since 1970, as the scans have"
        )
    rising = all(before < after for before, after in pairwise(stamps_ns))
    if not rising:
        raise DataError(f"{path}: its times, the first column, do not rise from line to line; sort the lines, each time once")
    return PoseFile(poses, stamps_ns, places)


def format_pose(pose: NDArray[np.float64]) -> str:
    """The upper three rows of a 4 x 4 pose, as one line."""
    return " ".join(f"{value:.12g}" for value in pose[:3].ravel())


def _read_calibration(path: Path) -> NDArray[np.float64]:
    """(4, 4) from the LiDAR's axes to the camera's; the identity without a file. DataError where the file does not say it."""
    transform = np.eye(4)
    if not path.is_file():
        return transform
    for line in read_lines(path):
        name, _, numbers = (part.strip() for part in line.partition(":"))
        if name in _LIDAR_TO_CAMERA:
            transform[:3] = np.array(_numbers(numbers.split(), 12, f"{path}: {name}")).reshape(3, 4)
            return transform
    raise DataError(
        f"{path}: has no line 'Tr:', from the LiDAR to the camera, of which KITTI writes the poses beside it; take KITTI's file "
        "that has it, or remove this one where the poses are the LiDAR's own"
    )


def _numbers(words: Sequence[str], width: int, where: str) -> list[float]:
    """So many finite numbers; DataError, also where no file of poses has lines of that length."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    is_known = width in (*_MATRICES, *_NUMBERED, _QUATERNIONS, _STAMPED)
    if len(numbers) != width or not is_known or not np.isfinite(numbers).all():
        expected = f"{width} finite numbers as in the first line" if is_known else "finite numbers"
        found = " ".join(words)[:40]
        raise DataError(f"{where}: expected {expected}, found '{found}'; write {WHAT_IS_READ}, or remove the file")
    return numbers
