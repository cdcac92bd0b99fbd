# SPDX-License-Identifier: Apache-2.0
"""A polygon that is drawn in the picture of a camera, corner by corner, and the points that lie in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FEWEST_CORNERS = 3
STILL_M, STILL_SHARE = 0.01, 0.001
"""a camera that has moved less, in m and as a share of its way to the scan, has stayed where it was"""
CLOSES_DEG = 1.2
"""a corner so near to the first one closes the polygon"""
WIDEST_DEG = 80.0
"""corners and points farther from the middle of the polygon than this are not in its picture"""


@dataclass(frozen=True, eq=False)
class Lasso:
    """The corners so far, as rays from where the camera stands."""

    origin: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """(3,) where the camera stands, m"""
    rays: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    """(C, 3) unit vectors to the corners"""

    def __len__(self) -> int:
        return len(self.rays)

    def fits(self, origin: NDArray[np.floating]) -> bool:
        """Whether a camera at `origin` (3,) sees the corners where they were drawn; true of a polygon without corners."""
        apart = float(np.linalg.norm(self.origin - origin))
        return not len(self) or apart <= max(STILL_M, STILL_SHARE * float(np.linalg.norm(self.origin)))

    def is_closed_by(self, ray: NDArray[np.floating]) -> bool:
        """Whether a click along `ray` (3,) is meant for the first corner again."""
        return len(self) >= FEWEST_CORNERS and bool(_unit(ray) @ self.rays[0] >= np.cos(np.radians(CLOSES_DEG)))

    def with_corner(self, origin: NDArray[np.floating], ray: NDArray[np.floating]) -> Lasso:
        """The polygon with one more corner; it begins anew where the camera has moved."""
        if not len(self) or not self.fits(origin):
            return Lasso(np.array(origin, np.float64), _unit(ray)[None])
        return Lasso(self.origin, np.concatenate([self.rays, _unit(ray)[None]]))

    def outline(self, away_m: float) -> NDArray[np.float32]:
        """(C, 2, 3) lines from each corner to the next, and from the last to the first, as far in front of the camera, m."""
        corners = self.origin + away_m * self.rays
        return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1).astype(np.float32)

    def inside(self, xyz: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N,) which points (N, 3) the camera sees in the polygon, by the even-odd rule; none with fewer than three corners."""
        if len(self) < FEWEST_CORNERS:
            return np.zeros(len(xyz), np.bool_)
        middle = _unit(self.rays.mean(axis=0))
        across = _unit(np.cross(middle, np.eye(3)[int(np.argmin(np.abs(middle)))]))
        axes = np.stack([across, np.cross(middle, across), middle])
        corners, _ = _flat(self.rays @ axes.T)
        points, ahead = _flat((np.asarray(xyz, np.float64) - self.origin) @ axes.T)
        return ahead & _even_odd(points, corners)


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = np.asarray(vector, np.float64)
    return np.asarray(wide / np.linalg.norm(wide))


def _flat(seen: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """((N, 2) places in the picture, (N,) whether they are ahead) of vectors whose third axis is the middle of the view."""
    away = np.linalg.norm(seen, axis=1)
    ahead = seen[:, 2] > np.cos(np.radians(WIDEST_DEG)) * away
    return seen[:, :2] / np.where(ahead, seen[:, 2], 1.0)[:, None], ahead


def _even_odd(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether a line from each point (N, 2) to the right crosses an odd number of the polygon's (C, 2) edges."""
    inside = np.zeros(len(points), np.bool_)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside
