# SPDX-License-Identifier: Apache-2.0
"""The settings of augmentation, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """How much training scans are varied. Every switch at 0 is off."""

    where: Literal["images", "points", "coarse3d"] = "images"
    """images: vary cached range images, fast; points: move the points and project them anew, then the same; coarse3d:
    exactly what COARSE3D does to the points, whatever the settings below say"""
    flip: float = setting(0.5, 0.0, 1.0)
    """probability to mirror left and right"""
    turn: float = setting(0.5, 0.0, 1.0)
    """largest turn about the vertical, as a share of the image's width (0.5 = any direction of a full circle)"""
    tilt_deg: float = setting(2.0, 0.0, 45.0)
    """largest roll and pitch of the sensor"""
    scale: float = setting(0.05, 0.0, 0.5)
    """largest relative change of all distances"""
    lift_m: float = setting(0.1, 0.0, 5.0)
    """largest change of the sensor's height"""
    shift_m: float = setting(0.0, 0.0, 50.0)
    """largest sideways and forward move of the points (COARSE3D: 5 m; changes what hides what, so points only)"""
    intensity_gain: float = setting(0.1, 0.0, 1.0)
    """largest relative change of a scan's intensity"""
    drop: float = setting(0.1, 0.0, 0.9)
    """largest share of pixels that lose their point"""
    mix: float = setting(0.5, 0.0, 1.0)
    """probability to replace a sector of columns by that of another scan of the batch, as PolarMix swaps sectors"""
    mix_share: float = setting(0.0, 0.0, 1.0)
    """width of that sector as a share of the image's (PolarMix: 0.5); 0: anything from an eighth to a half"""
    bands: float = setting(0.0, 0.0, 1.0)
    """probability to take every other band of inclination from another scan of the batch, as LaserMix does"""
    band_counts: tuple[int, ...] = (3, 4, 5, 6)
    """into how many bands: one of these, drawn anew each time"""
    paste: float = setting(0.0, 0.0, 1.0)
    """probability to paste objects of another scan of the batch, as PolarMix does; labelled points only"""
    paste_classes: tuple[str, ...] = ()
    """classes of these objects by name, the rare ones; none: all things of the label map"""
    paste_copies: int = setting(3, 1, 100)
    """how often they are pasted, each time turned about the vertical by another angle"""
    crop_columns: int = setting(0, 0, 16384)
    """train on windows of this many columns, 0 = the whole width"""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.band_counts or min(self.band_counts) < 2:
            raise ConfigError(f"band_counts: {list(self.band_counts)} must hold numbers from 2 up; LaserMix takes 3, 4, 5, 6")


NO_AUGMENTATION = AugmentConfig(
    flip=0.0, turn=0.0, tilt_deg=0.0, scale=0.0, lift_m=0.0, shift_m=0.0, intensity_gain=0.0, drop=0.0, mix=0.0
)
