# SPDX-License-Identifier: Apache-2.0
"""How clouds are taken in before a model sees them: one class of settings, for every verb and for the node's `input.*`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Sets what a cloud's message does not say about its intensity, axes and unit."""

    intensity_field: str = "auto"
    """Names the field of the cloud that holds the intensity; 'auto' tries the usual names, and '' feeds zeros to the model."""
    intensity_scale: float = setting(0.0, 0.0, 1e6)
    """Sets the factor from the cloud's intensity to that of the model's training data (0 to 1000000); 0 derives it from the
    field's datatype."""
    mirror: Literal["none", "x", "y", "z"] = "none"
    """Selects the axis that is mirrored first: y for left-handed clouds as CARLA and Unreal Engine give them, whose y points to
    the right."""
    rotation_rpy_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Sets the roll, pitch and yaw in degrees that rotate the cloud's axes to x forward, y left, z up, as in a static
    transform: 180 0 0 for a sensor mounted upside down, -90 0 -90 for a camera's optical frame."""
    unit_m: float = setting(1.0, 1e-9, 1e6)
    """Sets the length of the cloud's unit in metres (1e-9 to 1000000): 0.001 for a cloud in millimetres."""
    translation_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Sets the translation in x, y and z in metres that is added after the rotation, as in a static transform: 0 0 -1.7 for a
    cloud whose origin lies on the ground below a sensor at 1.7 m."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not all(map(math.isfinite, self.rotation_rpy_deg)):
            raise ConfigError(f"rotation_rpy_deg: {list(self.rotation_rpy_deg)} must be three finite angles")
        if not all(map(math.isfinite, self.translation_m)):
            raise ConfigError(f"translation_m: {list(self.translation_m)} must be three finite lengths")

    @property
    def moves_points(self) -> bool:
        """Whether points are anywhere else than the cloud says."""
        return any(self.rotation_rpy_deg) or any(self.translation_m) or self.unit_m != 1.0 or self.mirror != "none"
