# SPDX-License-Identifier: Apache-2.0
"""Is a cloud one turn of one sensor? Parts of a turn, and clouds of several sensors or sweeps, are named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.sanity import MIN_POINTS, Finding

SECTORS = 72
ORIGINS_M = (0.0, 1.0, 1.8, 2.6)
"""heights above a cloud's origin that its sensor may have been at"""
HIDDEN_M, HIDDEN_FACTOR, HIDDEN_SHARE = 2.0, 1.3, 0.12
"""how much nearer a point is that hides another one, and the share of hidden points that one sensor does not have. Measured:
at most 0.08 on HDL-64E, OS1-128, VLP-32C, HDL-32E, VLP-16 and Hesai 64"""


def merged(xyz: NDArray[np.floating]) -> Finding | None:
    """A cloud of several sensors or sweeps, from (N, 3) usable points: the more, the better.

    From one origin each direction shows one surface; where many points hide behind others, they were seen from elsewhere. A
    cloud in the vehicle's frame is looked at from where its sensor may have been.
    """
    points = xyz.astype(np.float64)
    if len(points) < MIN_POINTS:
        return None
    share = 1.0
    for height_m in ORIGINS_M:
        share = min(share, hidden_share(points - [0.0, 0.0, height_m]))
        if share < HIDDEN_SHARE:
            return None
    text = f"{share:.0%} of the points are occluded from any viewpoint, so the cloud combines several sensors or sweeps"
    return Finding("merged", text, "use the topic of one sensor in its own frame, one sweep at a time")


def hidden_share(xyz: NDArray[np.float64]) -> float:
    """Share of the points that another one, clearly nearer to the origin, stands in front of, in steps of one degree."""
    distance = np.linalg.norm(xyz, axis=1)
    azimuth = np.degrees(np.arctan2(xyz[:, 1], xyz[:, 0]))
    inclination = np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1])))
    direction = np.floor(azimuth).astype(np.int64) * 256 + np.floor(inclination).astype(np.int64)
    order = np.lexsort((distance, direction))
    first = np.append(True, np.diff(direction[order]) != 0)
    nearest = distance[order][first][np.cumsum(first) - 1]
    hidden = distance[order] > np.maximum(nearest * HIDDEN_FACTOR, nearest + HIDDEN_M)
    return float(hidden.mean())


def sectors(xyz: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(SECTORS,) which parts of the azimuth hold points."""
    azimuth = np.arctan2(xyz[:, 1], xyz[:, 0])
    filled = np.bincount(((azimuth / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS, minlength=SECTORS)
    seen: NDArray[np.bool_] = filled > max(1, len(xyz) // (SECTORS * 20))
    return seen


def segments(covered: Sequence[NDArray[np.bool_]]) -> Finding | None:
    """Clouds that are each a part of a turn, from the `sectors` of some in a row."""
    filled = [one for one in covered if one.any()]
    if len(filled) < 3:
        return None
    each, together = float(np.mean([one.mean() for one in filled])), float(np.any(filled, axis=0).mean())
    if each > 0.4 or together < max(2 * each, 0.5):
        return None
    text = f"each cloud covers about {360 * each:.0f} deg, and all together {360 * together:.0f}: parts of one revolution?"
    return Finding("segments", text, "use the driver's topic with full revolutions, or let the driver merge them")
