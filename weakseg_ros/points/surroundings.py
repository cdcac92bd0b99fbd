# SPDX-License-Identifier: Apache-2.0
"""Is a sensor in a room or outdoors? Its ranges say: walls end them within a few metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROOM_M = 11.0
"""nineteen of twenty returns are nearer than this in rooms, and not outdoors. Measured: at most 9.0 m on 48 scans in simulated
buildings, 8.1 and 6.1 m on a VLP-16 and a Hesai 64 in offices; at least 24.6 m on 36 scans in simulated streets, 14.8 m on an
HDL-32E, 33 m and more on HDL-64E, OS1-128 and VLP-32C outdoors"""
RATIO = 2.0
"""surroundings differ where this range is that many times larger or smaller than in the training data"""
SHARE = 0.95


def reach_m(xyz: NDArray[np.floating]) -> float:
    """The range that 95 % of (N, 3) usable points are nearer than, in m; N > 0."""
    return float(np.quantile(np.linalg.norm(xyz, axis=1), SHARE))


def difference(reach: float, trained: float) -> str:
    """A sentence where clouds of that reach are from a room and the training data was not, or the reverse; else an empty text."""
    found = f"95% of the points are nearer than {reach:.0f} m, and {trained:.0f} m in the training data"
    if reach < ROOM_M and reach * RATIO < trained:
        return f"{found}: this looks indoors, and the model was trained outdoors; use models/rooms, or train on such clouds"
    if trained < ROOM_M <= reach and trained * RATIO < reach:
        return f"{found}: this looks outdoors, and the model was trained in rooms; use models/street, or train on such clouds"
    return ""
