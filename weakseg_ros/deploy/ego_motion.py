# SPDX-License-Identifier: Apache-2.0
"""Where the sensor has gone: by odometry where it is given, else by the objects that it sees, most of which stand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.association import Outlines, displacement

FASTEST_M_S = 100.0
"""nothing on the ground moves faster; odometry that does has jumped, and is left aside"""
GAIN = 0.5
"""share of a correction in the speed that is expected next"""
OUTLIER_M = 0.2
"""objects that disagree by more have little say: they move on their own, or are seen from another side"""
SOFT_M, SOFT_RAD = 3.0, 0.1
"""corrections beyond this need more than one object to be believed"""
ROUNDS = 4


class EgoMotion:
    """The sensor's pose in a frame of its own, which begins where the sensor was first."""

    def __init__(self) -> None:
        self.pose: NDArray[np.float64] = np.eye(4)
        """(4, 4) sensor to frame"""
        self._rate: NDArray[np.float64] = np.zeros(3)  # m/s ahead and to the left, rad/s
        self._odometry: NDArray[np.float64] | None = None
        self._steps = 0

    def advance(self, elapsed_s: float, odometry: NDArray[np.float64] | None) -> bool:
        """Move on by `elapsed_s`: as the odometry (4, 4) has moved, else as before; False where `settle` may improve it.

        Only what lies between two odometry poses counts, so that odometry may come late, and cease.
        """
        step = self._step(odometry)
        exact = step is not None and float(np.linalg.norm(step[:2, 3])) <= FASTEST_M_S * elapsed_s
        if step is not None and exact:
            self._rate = _motion(step) / elapsed_s
        else:
            step = _planar(*(self._rate * elapsed_s))
        self.pose = self.pose @ step
        return exact

    def _step(self, odometry: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """(4, 4) how the odometry has moved since the scan before; None where either is missing or no pose."""
        before = self._odometry
        self._odometry = odometry if odometry is not None and _is_pose(odometry) else None
        return np.linalg.inv(before) @ self._odometry if before is not None and self._odometry is not None else None

    def settle(self, expected: Outlines, found: Outlines, elapsed_s: float) -> None:
        """Correct the pose so that the `found` objects lie where the same ones were `expected`, pair by pair."""
        off = -displacement(expected, found)
        ahead, left, turn = _robust_fit(found.middle - self.pose[:2, 3], off)
        corrected = _planar(ahead, left, 0.0) @ _about(self.pose, turn)
        gain = GAIN if self._steps else 1.0
        change = _motion(np.linalg.inv(self.pose) @ corrected)
        self._rate = np.clip(self._rate + gain * change / elapsed_s, -FASTEST_M_S, FASTEST_M_S)
        self._steps += 1
        self.pose = corrected


def _robust_fit(arm: NDArray[np.float64], off: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) the shift in m and turn in rad that moves places `arm` (M, 2) around the sensor by `off` (M, 2)."""
    count = len(arm)
    rows = np.zeros((2 * count, 3))
    rows[:count, 0] = rows[count:, 1] = 1.0
    rows[:count, 2], rows[count:, 2] = -arm[:, 1], arm[:, 0]
    target = np.concatenate([off[:, 0], off[:, 1]])
    soft = np.diag([OUTLIER_M / SOFT_M, OUTLIER_M / SOFT_M, OUTLIER_M / SOFT_RAD]) ** 2
    fit = np.median(off, axis=0)
    fit = np.array([fit[0], fit[1], 0.0])
    for _ in range(ROUNDS):
        miss = (rows @ fit - target).reshape(2, count)
        weight = np.tile(1.0 / (1.0 + (miss**2).sum(axis=0) / OUTLIER_M**2), 2)
        fit = np.linalg.solve(rows.T @ (weight[:, None] * rows) + soft, rows.T @ (weight * target))
    return fit


def _motion(step: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) m ahead, m to the left, and turn in rad of a move (4, 4)."""
    return np.array([step[0, 3], step[1, 3], np.arctan2(step[1, 0], step[0, 0])])


def _is_pose(matrix: NDArray[np.float64]) -> bool:
    """Whether this moves bodies without deforming them."""
    return bool(np.isfinite(matrix).all()) and abs(float(np.linalg.det(matrix[:3, :3])) - 1.0) < 0.01


def _planar(ahead: float, left: float, turn: float) -> NDArray[np.float64]:
    """(4, 4) a move on the ground."""
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    pose[:2, 3] = ahead, left
    return pose


def _about(pose: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    """`pose` turned on the spot, in its frame."""
    turned: NDArray[np.float64] = _planar(0.0, 0.0, turn) @ pose
    turned[:3, 3] = pose[:3, 3]
    return turned
