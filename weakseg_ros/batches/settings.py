# SPDX-License-Identifier: Apache-2.0
"""The settings of augmentation, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """Sets how training scans are augmented; 0 turns an augmentation off.

    Crops for nets on points are only mirrored, turned, tilted and scaled, and their readings are varied. Settings about rows,
    columns, pixels and other scans apply to range images only.
    """

    where: Literal["images", "points", "coarse3d"] = "images"
    """Selects what is augmented: 'images' augments cached range images and is fast, 'points' moves the points and projects them
    again before the image augmentations, and 'coarse3d' uses COARSE3D's own augmentation and ignores the other settings."""
    flip: float = setting(0.5, 0.0, 1.0)
    """Sets the probability of mirroring left and right (0 to 1)."""
    turn: float = setting(0.5, 0.0, 1.0)
    """Sets the largest rotation about the vertical axis, as a share of the image width (0 to 1; 0.5 is any direction of a
    full circle)."""
    tilt_deg: float = setting(2.0, 0.0, 45.0)
    """Sets the largest roll and pitch of the sensor in degrees (0 to 45)."""
    scale: float = setting(0.05, 0.0, 0.5)
    """Sets the largest relative change of all distances (0 to 0.5)."""
    sensor_height_m: float = setting(0.1, 0.0, 5.0, was="lift_m")
    """Sets the largest change of the sensor's height in metres (0 to 5)."""
    shift_m: float = setting(0.0, 0.0, 50.0)
    """Sets the largest forward and sideways shift of the points in metres (0 to 50); it needs `where` 'points', because a shift
    changes which points are occluded."""
    intensity_gain: float = setting(0.1, 0.0, 1.0)
    """Sets the largest relative change of a scan's intensity (0 to 1)."""
    intensity_noise: float = setting(0.0, 0.0, 1.0)
    """Sets the largest standard deviation of the noise added to a scan's intensity, as a share of its full scale (0 to 1)."""
    intensity_drop: float = setting(0.0, 0.0, 1.0)
    """Sets the probability that a scan loses its intensity (0 to 1); a net that was trained this way also works without
    intensity."""
    color_drop: float = setting(0.0, 0.0, 1.0)
    """Sets the probability that a crop loses its colours (0 to 1); it applies to nets on points only."""
    ground_error_m: float = setting(0.0, 0.0, 1.0)
    """Sets the standard deviation in metres of the error added to a scan's ground height (0 to 1); it affects the channel
    'height' only."""
    beam_drop: float = setting(0.0, 0.0, 1.0)
    """Sets the probability that a scan loses half to three quarters of its rows, evenly or at random, like a sensor with fewer
    beams (0 to 1)."""
    drop: float = setting(0.1, 0.0, 0.9)
    """Sets the largest share of pixels that lose their point (0 to 0.9)."""
    mix: float = setting(0.5, 0.0, 1.0)
    """Sets the probability of replacing a sector of columns with the same sector of another scan of the batch, as in PolarMix
    (0 to 1)."""
    mix_share: float = setting(0.0, 0.0, 1.0)
    """Sets the width of the sector that `mix` replaces, as a share of the image width (0 to 1; PolarMix uses 0.5); 0 draws it
    between an eighth and a half."""
    bands: float = setting(0.0, 0.0, 1.0)
    """Sets the probability of taking every other inclination band from another scan of the batch, as in LaserMix (0 to 1)."""
    band_counts: tuple[int, ...] = (3, 4, 5, 6)
    """Lists the possible numbers of inclination bands, each 2 or more; one is drawn each time."""
    paste: float = setting(0.0, 0.0, 1.0)
    """Sets the probability of pasting objects from another scan of the batch, as in PolarMix (0 to 1); only labelled points are
    pasted."""
    paste_classes: tuple[str, ...] = ()
    """Lists the classes of the pasted objects by name, usually the rare ones; an empty list means all thing classes of the
    label map."""
    paste_copies: int = setting(3, 1, 100)
    """Sets how often each object is pasted, each time rotated about the vertical axis by a different angle (1 to 100)."""
    crop_columns: int = setting(0, 0, 16384)
    """Trains on windows of this many columns (1 to 16384); 0 uses the whole width."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.band_counts or min(self.band_counts) < 2:
            raise ConfigError(
                f"band_counts: {list(self.band_counts)} must contain numbers of 2 or more; LaserMix uses 3, 4, 5, 6"
            )


NO_AUGMENTATION = AugmentConfig(
    flip=0.0, turn=0.0, tilt_deg=0.0, scale=0.0, sensor_height_m=0.0, shift_m=0.0, intensity_gain=0.0, drop=0.0, mix=0.0
)
