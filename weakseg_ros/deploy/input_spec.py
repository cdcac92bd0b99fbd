# SPDX-License-Identifier: Apache-2.0
"""What a network is told of a cloud: the one place where raw channels, their scale and their normalisation are defined.

Raw channels are planes of an image, one value for each pixel's point. `InputSpec.image` makes the network's input of them,
on numpy arrays and on torch tensors alike, so that training, validation, export and the robot share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import CloudError, ConfigError, did_you_mean
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeSpec

PLANES = ("x", "y", "z", "intensity")
"""the raw channels that a frontend takes from a cloud, m and the training data's intensity; all others follow from them"""

CHANNELS: dict[str, Callable[[Mapping[str, Any], ModuleType], Any]] = {
    "range": lambda raw, xp: xp.sqrt(raw["x"] * raw["x"] + raw["y"] * raw["y"] + raw["z"] * raw["z"]),
    "x": lambda raw, xp: raw["x"],
    "y": lambda raw, xp: raw["y"],
    "z": lambda raw, xp: raw["z"],
    "intensity": lambda raw, xp: raw["intensity"],
    "valid": lambda raw, xp: xp.ones_like(raw["x"]),
}
"""what a network can be fed, by name, from the raw planes; `xp` is numpy or torch"""

NOT_NORMALISED = frozenset({"valid"})
"""channels that are passed on as they are, whatever mean and std say"""

MAX_DEVIATIONS = 1e4
WITHOUT_INTENSITY = "weakseg train DATA --channels range x y z valid"
"""how to get a model for clouds that have none"""


@dataclass(frozen=True)
class IntensityRule:
    """How the training data's intensity was scaled."""

    required: bool
    """clouds without intensity are refused"""
    full_scale: float = setting(1.0, 0.0)
    """largest value that the training data could hold: 1 for KITTI, 255 for a Velodyne; 0 = unknown"""

    def __post_init__(self) -> None:
        check_ranges(self)

    def scale_of(self, cloud: Cloud, asked: float = 0.0) -> float:
        """What a cloud's intensity is multiplied by: `asked`, or where that is 0 the ratio of the full scales, or 1."""
        if asked:
            return asked
        return self.full_scale / cloud.intensity_full_scale if cloud.intensity_full_scale and self.full_scale else 1.0

    def check(self, cloud: Cloud, bundle: str) -> None:
        """CloudError where the cloud has no intensity and the network needs it."""
        if self.required and len(cloud) and not cloud.intensity_field:
            raise CloudError(
                f"cloud: has no intensity, which models/{bundle} was trained with; set intensity_field to the "
                f"field that holds it, or '' to feed zeros; where there is none, a model trained without it answers better "
                f"({WITHOUT_INTENSITY})",
                "no_intensity",
            )


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network is told of a cloud; travels in the bundle."""

    representation: Literal["range"] = "range"
    """row of registry.FRONTENDS: what the cloud becomes"""
    geometry: RangeSpec
    """the range image"""
    channels: tuple[str, ...]
    """names of the input's channels, in order"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """per channel, over pixels that hold a point: the input is (raw - mean) / std, and 0 where no point is"""
    intensity: IntensityRule
    clip_deviations: float = setting(MAX_DEVIATIONS, 1.0)
    """intensity farther from the mean, in standard deviations, is cut: one absurd value would become NaN in the network"""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_channels(self.channels)
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != len(self.channels) or not all(map(math.isfinite, values)):
                raise ConfigError(f"{key}: expected {len(self.channels)} finite values, one per channel; found {list(values)}")
        if min(self.std) <= 0:
            raise ConfigError(f"std: {list(self.std)} must be positive")

    def image(self, planes: Mapping[str, Any], mask: Any, xp: ModuleType) -> list[Any]:
        """The network's channels, each of the planes' shape: (raw - mean) / std where `mask` is 1, a point, and 0 where it is 0.

        `planes` are PLANES by name, arrays of one shape (..., H, W); `xp` is the module they belong to, numpy or torch.
        """
        channels = []
        for name, mean, std in zip(self.channels, self.mean, self.std, strict=True):
            values = CHANNELS[name](planes, xp)
            if name in NOT_NORMALISED:
                mean, std = 0.0, 1.0
            values = values - mean  # a new array, so that the raw planes stay as they are
            values /= std
            if name == "intensity":
                values = xp.clip(values, -self.clip_deviations, self.clip_deviations)
            values *= mask
            channels.append(values)
        return channels


def plain_spec(geometry: RangeSpec, channels: Sequence[str], intensity: IntensityRule) -> InputSpec:
    """The spec that passes raw channels on as they are: what statistics are taken from."""
    count = len(channels)
    return InputSpec(
        geometry=geometry,
        channels=tuple(channels),
        mean=(0.0,) * count,
        std=(1.0,) * count,
        intensity=intensity,
        clip_deviations=math.inf,
    )


def check_channels(channels: Sequence[str]) -> None:
    """ConfigError for an unknown channel, none at all, or one named twice."""
    for name in channels:
        if name not in CHANNELS:
            raise ConfigError(f"channels: unknown '{name}'{did_you_mean(name, CHANNELS)}; known: {', '.join(CHANNELS)}")
    if not channels or len(set(channels)) != len(channels):
        raise ConfigError(f"channels: {list(channels)} must name at least one channel, each once")
