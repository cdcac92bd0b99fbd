# SPDX-License-Identifier: Apache-2.0
"""Range images: points to pixels, pixels back to points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError


@dataclass(frozen=True)
class RangeSpec:
    """Geometry of a range image: what a network must know about the sensor."""

    height: int = setting(64, 1, 4096)
    """rows of the image"""
    width: int = setting(2048, 1, 16384)
    """columns of the image"""
    fov_up_deg: float = setting(3.0, -90.0, 90.0)
    """inclination of the upper edge, signed, above the horizon positive"""
    fov_down_deg: float = setting(-25.0, -90.0, 90.0)
    """inclination of the lower edge, signed"""
    fov_left_deg: float = setting(180.0, -180.0, 180.0)
    """azimuth of the left edge, signed, left of +x positive"""
    fov_right_deg: float = setting(-180.0, -180.0, 180.0)
    """azimuth of the right edge, signed"""
    min_range_m: float = setting(0.0, 0.0)
    """nearer points get no pixel"""
    max_range_m: float = setting(1000.0, 0.0)
    """farther points get no pixel"""
    rows: Literal["angle", "ring", "grid"] = "angle"
    """row of a point: by its inclination, by its laser index, or the organised cloud's own row and column"""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.fov_up_deg <= self.fov_down_deg:
            raise ConfigError(f"fov_up_deg: {self.fov_up_deg} must lie above fov_down_deg {self.fov_down_deg}")
        if self.fov_left_deg <= self.fov_right_deg:
            raise ConfigError(f"fov_left_deg: {self.fov_left_deg} must lie left of (above) fov_right_deg {self.fov_right_deg}")
        if self.max_range_m <= self.min_range_m:
            raise ConfigError(f"max_range_m: {self.max_range_m} must exceed min_range_m {self.min_range_m}")


@dataclass(frozen=True)
class RangeView:
    """Which point owns which pixel; -1 = none."""

    pixel_of_point: NDArray[np.int32]
    """(N,) flat pixel index row * W + col of every point that falls into the image, owner or not"""
    point_of_pixel: NDArray[np.int32]
    """(H, W) index of the nearest point in the pixel"""
    range_of_point: NDArray[np.float32]
    """(N,) distance from the sensor in m; NaN for unusable points"""
