# SPDX-License-Identifier: Apache-2.0
"""Poses as (4, 4) matrices: from ROS's translation and quaternion, at a time between two others, and from six numbers."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import ConfigError


def matrix_of(translation: Sequence[float], quaternion: Sequence[float]) -> NDArray[np.float64]:
    """(4, 4) of x, y, z in m and the quaternion x, y, z, w, which need not be normalised."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    matrix = np.eye(4)
    matrix[:3, 3] = translation
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return matrix


def pose_between(poses: Sequence[tuple[int, NDArray[Any]]], stamp_ns: int, largest_gap_ns: int) -> NDArray[np.float64] | None:
    """(4, 4) at a time, between the poses before and after it; None where none is so near.

    `poses` are stamps in ns, rising, each with x, y, z in m and the quaternion x, y, z, w.
    """
    place = bisect_left(poses, stamp_ns, key=lambda entry: entry[0])
    near = [entry for entry in poses[max(place - 1, 0) : place + 1] if abs(entry[0] - stamp_ns) <= largest_gap_ns]
    if not near:
        return None
    (before_ns, before), (after_ns, after) = near[0], near[-1]
    share = (stamp_ns - before_ns) / (after_ns - before_ns) if after_ns > before_ns else 0.0
    between = before + np.clip(share, 0.0, 1.0) * (_on_the_same_side(before, after) - before)
    return matrix_of(between[:3], between[3:])


def _on_the_same_side(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """`after` with the sign of its quaternion that is nearer to `before`: both mean the same turn."""
    return np.concatenate([after[:3], after[3:] * (1.0 if before[3:] @ after[3:] >= 0 else -1.0)])


def matrix_of_text(text: str, name: str) -> NDArray[np.float64]:
    """(4, 4) of 'x y z roll pitch yaw' in m and rad, about fixed axes in that order as in URDF; ConfigError with `name`."""
    try:
        x, y, z, roll, pitch, yaw = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        x = math.nan
    if not math.isfinite(x):
        raise ConfigError(f"{name}: '{text}' is not six numbers; write 'x y z roll pitch yaw' in metres and radians")
    turn = _about(2, yaw) @ _about(1, pitch) @ _about(0, roll)
    turn[:3, 3] = x, y, z
    return turn


def moved(xyz: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, 3) points through a (4, 4) pose; what is not finite stays not finite."""
    turned: NDArray[np.float32] = (xyz @ matrix[:3, :3].T.astype(np.float32)) + matrix[:3, 3].astype(np.float32)
    return turned


def _about(axis: int, angle_rad: float) -> NDArray[np.float64]:
    one, other = [row for row in range(3) if row != axis]
    sine = math.sin(angle_rad) * (-1.0 if axis == 1 else 1.0)
    matrix = np.eye(4)
    matrix[one, one] = matrix[other, other] = math.cos(angle_rad)
    matrix[other, one], matrix[one, other] = sine, -sine
    return matrix
