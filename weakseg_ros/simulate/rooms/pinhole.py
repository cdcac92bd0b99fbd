# SPDX-License-Identifier: Apache-2.0
"""The rays of a pinhole camera, for the same ray casting as those of a LiDAR. The camera's frame is x forward, y left, z up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.raycast import Floats, Windows
from weakseg_ros.simulate.solids import Parts

NEAR_M = 0.05
"""what lies nearer to the camera's plane is cut off before it is projected"""
CORNERS = np.array(list(product((-1, 1), (-1, 1), (0, 1))))
EDGES = [(a, b) for a in range(8) for b in range(a) if np.abs(CORNERS[a] - CORNERS[b]).astype(bool).sum() == 1]


@dataclass(frozen=True)
class PinholeRays:
    """One ray through the middle of each pixel, row by row from the top left."""

    rotation: NDArray[np.float64]
    """(3, 3) camera to world"""
    rows: int
    columns: int
    focal_px: float
    direction: Floats
    """(3, H * W) unit vectors along the world's axes"""

    @property
    def circle(self) -> int:
        """No column follows the last one."""
        return self.columns + 1

    def windows(self, parts: Parts, origin: NDArray[np.float64]) -> Windows:
        """Rows and columns that can see each part, from the corners of its bounding box; nearest part first."""
        corners = _corners(parts, origin) @ self.rotation  # (P, 8, 3)
        u, v, seen = self._pixels(corners)
        left = np.floor(u.min(axis=1)).clip(0, self.columns).astype(np.int32)
        right = (np.ceil(u.max(axis=1)) + 1).clip(0, self.columns).astype(np.int32)
        top = np.floor(v.min(axis=1)).clip(0, self.rows).astype(np.int32)
        bottom = (np.ceil(v.max(axis=1)) + 1).clip(0, self.rows).astype(np.int32)
        near = corners[..., 0].min(axis=1).clip(0)
        found = np.flatnonzero(seen & (right > left) & (bottom > top))
        order = found[np.argsort(near[found], kind="stable")]
        every = Windows(np.arange(len(parts), dtype=np.int32), near.astype(np.float32), top, bottom - top, left, right - left)
        return every.take(order)

    def _pixels(self, corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """(P, 20) columns and rows of corners before the camera and of where edges pass into that half; (P,) is there any?"""
        ends = np.array(EDGES)
        a, b = corners[:, ends[:, 0]], corners[:, ends[:, 1]]
        way = np.where(np.abs(b[..., 0] - a[..., 0]) < 1e-9, 1e-9, b[..., 0] - a[..., 0])
        share = (NEAR_M - a[..., 0]) / way
        cut = a + share.clip(0, 1)[..., None] * (b - a)
        points = np.concatenate([corners, cut], axis=1)
        crosses = (a[..., 0] < NEAR_M) != (b[..., 0] < NEAR_M)
        ahead = np.concatenate([corners[..., 0] >= NEAR_M, crosses], axis=1)
        depth = np.where(ahead, points[..., 0], 1.0).clip(NEAR_M / 2)
        any_ahead = np.asarray(ahead.any(axis=1))
        first = np.argmax(ahead, axis=1)[:, None]  # stands in for those behind
        u = self.columns / 2 - self.focal_px * points[..., 1] / depth - 0.5
        v = self.rows / 2 - self.focal_px * points[..., 2] / depth - 0.5
        u = np.where(ahead, u, np.take_along_axis(u, first, axis=1))
        v = np.where(ahead, v, np.take_along_axis(v, first, axis=1))
        return u, v, any_ahead


def pinhole_rays(rotation: NDArray[np.float64], rows: int, columns: int, fov_deg: float) -> PinholeRays:
    """Rays of a camera whose horizontal field of view is `fov_deg`, with square pixels and the axis in the middle."""
    focal = columns / 2 / np.tan(np.radians(fov_deg) / 2)
    y = -(np.arange(columns) + 0.5 - columns / 2) / focal
    z = -(np.arange(rows) + 0.5 - rows / 2) / focal
    own = np.stack([np.ones((rows, columns)), np.broadcast_to(y, (rows, columns)), np.broadcast_to(z[:, None], (rows, columns))])
    own = (own / np.linalg.norm(own, axis=0)).reshape(3, -1)
    return PinholeRays(rotation, rows, columns, float(focal), (rotation @ own).astype(np.float32))


def _corners(parts: Parts, origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 8, 3) corners of the parts' boxes, relative to the origin along the world's axes."""
    size = parts["size"].astype(np.float64)
    own = CORNERS * size[:, None]
    cos, sin = np.cos(parts["yaw"])[:, None], np.sin(parts["yaw"])[:, None]
    turned = np.stack([cos * own[..., 0] - sin * own[..., 1], sin * own[..., 0] + cos * own[..., 1], own[..., 2]], axis=-1)
    corners: NDArray[np.float64] = turned + (parts["position"] - origin)[:, None]
    return corners
