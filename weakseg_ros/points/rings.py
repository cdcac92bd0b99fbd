# SPDX-License-Identifier: Apache-2.0
"""Does a cloud's ring index say in which row a point lies, or only which of several lasers drew it?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cloud import Cloud

MIN_POINTS = 8
"""points without which a ring says nothing about its spread"""
ROW_SPREAD = 0.6
"""largest spread of a ring's inclinations (10 % to 90 %), as a share of the distance between neighbouring rings.
Measured: 0.25 to 0.42 on VLP-32C and OS1-128; 0.7 to 0.9 where a ring is a band of beams; thousands for Livox's `line`"""


def ring_is_row(cloud: Cloud) -> bool:
    """Whether the rings order the points by inclination as seen from the cloud's origin, each ring a narrow row.

    False without rings, for Livox's `line` and the channels of scanning mirrors, which each sweep all inclinations, and for
    a cloud that was moved out of its sensor's frame.
    """
    if cloud.ring is None:
        return False
    usable = np.flatnonzero(cloud.valid)
    xyz = cloud.xyz[usable].astype(np.float64)
    inclination = np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1])))
    rows = [row for row in _by_ring(cloud.ring[usable], inclination) if len(row) >= MIN_POINTS]
    if len(rows) < 2:
        return False
    low, middle, high = np.array([np.percentile(row, (10, 50, 90)) for row in rows]).T
    return float(np.median(high - low)) <= ROW_SPREAD * float(np.median(np.diff(np.sort(middle))))


def _by_ring(ring: NDArray[np.uint16], values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    order = np.argsort(ring, kind="stable")
    return np.split(values[order], np.flatnonzero(np.diff(ring[order])) + 1)
