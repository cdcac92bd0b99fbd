# SPDX-License-Identifier: Apache-2.0
"""One LiDAR sweep in memory, and how a PointCloud2 of any layout becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FLAG_NON_FINITE = 1
FLAG_NON_RETURN = 2
FLAG_OUT_OF_RANGE = 4


@dataclass(frozen=True)
class Cloud:
    """N points in the order of the message they came from.

    Points are in the sensor's frame, x forward, y left, z up, in metres. `flags` says per point why it cannot be
    segmented: 1 non-finite, 2 non-return (the origin); 0 is a usable point.
    """

    xyz: NDArray[np.float32]
    """(N, 3) m; positions of unusable points are kept as they came"""
    intensity: NDArray[np.float32]
    """(N,) return strength in the driver's own units; zeros where the cloud has none"""
    flags: NDArray[np.uint8]
    """(N,) 0, or FLAG_NON_FINITE, or FLAG_NON_RETURN"""
    ring: NDArray[np.uint16] | None = None
    """(N,) laser index, where the driver gives it"""
    stamp_ns: int = 0
    frame_id: str = ""
    height: int = 1
    width: int = 0
    intensity_full_scale: float = 0.0
    """largest value of the intensity's datatype: 255 or 65535 for integers, 0 = unknown (floats)"""
    intensity_field: str = ""
    """name of the field that the intensity was read from; empty where the cloud has none"""

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """(N,) True for points that can be segmented."""
        return self.flags == 0

    def __len__(self) -> int:
        return len(self.xyz)
