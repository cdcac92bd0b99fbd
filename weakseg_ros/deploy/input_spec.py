# SPDX-License-Identifier: Apache-2.0
"""What a network is told of a cloud: the one place where raw channels, their scale and their normalisation are defined.

Raw channels are planes of an image, one value for each pixel's point; a list of points is an image of one row.
`InputSpec.image` makes the network's input of them, on numpy arrays and on torch tensors alike, so that training,
validation, export and the robot share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from types import ModuleType
from typing import Any

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import CloudError, ConfigError, did_you_mean
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.points.intensity import ABSENT_RANK
from weakseg_ros.points.lift import Lift
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.registry import FRONTENDS

PLANES = ("x", "y", "z", "intensity", "height")
"""the raw channels that a frontend takes from a cloud: m, the training data's intensity or its rank, and m above the ground;
all others follow from them"""
COLORS = ("red", "green", "blue")
"""the raw channels that a frontend for points takes besides: 0 to 1, all 0 where a cloud has no colours"""
Planes = Mapping[str, Any]
"""PLANES by name and "mask", 1 where a point is and else 0; arrays of one shape (..., H, W), of numpy or torch"""


def _range(raw: Planes, xp: ModuleType) -> Any:
    squares = raw["x"] * raw["x"]
    for axis in ("y", "z"):
        squares += raw[axis] * raw[axis]
    return xp.sqrt(squares)


def _step(axis: int, shift: int) -> Callable[[Planes, ModuleType], Any]:
    """How much farther the neighbouring pixel's point is, as tanh of the difference over RELIEF_M; 0 without a neighbour."""

    def relief(raw: Planes, xp: ModuleType) -> Any:
        distance = raw["distance"]
        step, there = xp.roll(distance, shift, axis), _without_edge(raw["mask"], shift, axis, xp)
        step -= distance
        step /= RELIEF_M
        return xp.tanh(step) * there

    return relief


def _bend(raw: Planes, xp: ModuleType) -> Any:
    """How far a point lies off the line between its neighbours in the row, bounded: foliage is rough, a wall is not."""
    distance = raw["distance"]
    there = _without_edge(raw["mask"], 1, -1, xp) * _without_edge(raw["mask"], -1, -1, xp)
    off = xp.abs(xp.roll(distance, 1, -1) + xp.roll(distance, -1, -1) - 2.0 * distance)
    return xp.tanh(off / ROUGH_M) * there


def _without_edge(mask: Any, shift: int, axis: int, xp: ModuleType) -> Any:
    """The neighbours' mask, 0 where the image ends."""
    there = xp.roll(mask, shift, axis)  # a new array
    edge = 0 if shift > 0 else -1
    if axis == -1:
        there[..., edge] = 0
    else:
        there[..., edge, :] = 0
    return there


RELIEF_M, ROUGH_M = 0.4, 0.15
NEAREST_M, LOWEST_M, HIGHEST_M = 0.5, -3.0, 12.0
CHANNELS: dict[str, Callable[[Planes, ModuleType], Any]] = {
    "range": lambda raw, xp: raw["distance"],
    "log_range": lambda raw, xp: xp.log(xp.clip(raw["distance"], NEAREST_M, None)),
    "x": lambda raw, xp: raw["x"],
    "y": lambda raw, xp: raw["y"],
    "z": lambda raw, xp: raw["z"],
    "height": lambda raw, xp: xp.clip(raw["height"], LOWEST_M, HIGHEST_M),
    "intensity": lambda raw, xp: raw["intensity"],
    "red": lambda raw, xp: raw["red"],
    "green": lambda raw, xp: raw["green"],
    "blue": lambda raw, xp: raw["blue"],
    "relief_left": _step(-1, 1),
    "relief_right": _step(-1, -1),
    "relief_above": _step(-2, 1),
    "relief_below": _step(-2, -1),
    "bend": _bend,
    "valid": lambda raw, xp: xp.ones_like(raw["x"]),
}
"""what a network can be fed, by name, from the raw planes, their mask and distance; `xp` is numpy or torch"""

OF_ONE_REPRESENTATION = {
    "range": ("relief_left", "relief_right", "relief_above", "relief_below", "bend"),
    "points": COLORS,
}
"""channels that ask for neighbouring pixels, or for colours, and so belong to one kind of input"""

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
    ranks: bool = False
    """the network is fed each point's rank in its own cloud, 0 to 1, which no driver's scale, gain or gamma changes; a cloud
    without intensity has the rank ABSENT_RANK everywhere"""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def absent(self) -> float:
        """What the network is fed for the intensity of a cloud that has none."""
        return ABSENT_RANK if self.ranks else 0.0

    def scale_of(self, cloud: Cloud, asked: float = 0.0) -> float:
        """What a cloud's intensity is multiplied by: `asked`, or where that is 0 the ratio of the full scales, or 1.

        Ranks need no scale: with them it is 1.
        """
        if self.ranks:
            return 1.0
        if asked:
            return asked
        return self.full_scale / cloud.intensity_full_scale if cloud.intensity_full_scale and self.full_scale else 1.0

    def check(self, cloud: Cloud, bundle: str) -> None:
        """CloudError where the cloud has no intensity and the network needs it."""
        if self.required and len(cloud) and not cloud.intensity_field:
            raise CloudError(
                f"cloud: has no intensity, which model '{bundle}' was trained with; set intensity_field to the "
                f"field that holds it, or '' to feed zeros; if there is none, a model trained without intensity is better "
                f"({WITHOUT_INTENSITY})",
                "no_intensity",
            )


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network is told of a cloud; travels in the bundle."""

    representation: str = "range"
    """row of registry.FRONTENDS: what the cloud becomes"""
    geometry: RangeSpec
    """the range image; a network on points sees none, and pictures of its answers are drawn in it"""
    points: PointsSpec | None = None
    """the points of a network on points"""
    channels: tuple[str, ...]
    """names of the input's channels, in order"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """per channel, over pixels that hold a point: the input is (raw - mean) / std, and 0 where no point is"""
    intensity: IntensityRule
    level: bool = False
    """clouds that are tilted, or whose origin is far from a usual mounting height, are put upright first, see points.ground; and
    the image is widened for clouds that span more than it, see projection.widened"""
    lift: Lift = "pixel"
    """how points get their class from the network's image where the user does not say"""
    clip_deviations: float = setting(MAX_DEVIATIONS, 1.0)
    """intensity farther from the mean, in standard deviations, is cut: one absurd value would become NaN in the network"""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_representation(self.representation)
        if (self.representation == "points") != (self.points is not None):
            raise ConfigError(f"points: is {self.points} for representation '{self.representation}'; export the model again")
        check_channels(self.channels, self.representation)
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != len(self.channels) or not all(map(math.isfinite, values)):
                raise ConfigError(f"{key}: expected {len(self.channels)} finite values, one per channel; found {list(values)}")
        if min(self.std) <= 0:
            raise ConfigError(f"std: {list(self.std)} must be positive")

    @property
    def image_sizes(self) -> dict[str, int]:
        """The sides of the network's input that are settled: rows and columns of an image; a list of points has one row."""
        return {"H": 1} if self.points else {"H": self.geometry.height, "W": self.geometry.width}

    def __str__(self) -> str:
        if self.points:
            spec = self.points
            return f"points of a {spec.grid_m:g} m grid, up to {spec.points} at once, {spec.neighbours} neighbours each"
        image = self.geometry
        return f"a range image of {image.height} x {image.width}, inclination {image.fov_down_deg:g} to {image.fov_up_deg:g} deg"

    @property
    def needs_ground(self) -> bool:
        """Whether the cloud's ground has to be found."""
        return self.level or "height" in self.channels

    def image(self, planes: Planes, mask: Any, xp: ModuleType, out: Sequence[Any] | None = None) -> list[Any]:
        """The network's channels, each of the planes' shape: (raw - mean) / std where `mask` is 1, a point, and 0 where it is 0.

        `planes` are PLANES by name, arrays of one shape (..., H, W); `xp` is the module they belong to, numpy or torch. With
        `out`, an array for each channel, they are written there, which spares a copy; a plane may be the array of its own
        channel, and is lost then.
        """
        made, planes = {}, {**planes, "mask": mask, "distance": _range(planes, xp)}  # which most channels ask for
        rows = zip(self.channels, self.mean, self.std, out or repeat(None), strict=False)
        planes_last = sorted(rows, key=lambda row: row[0] in PLANES)  # until then, they are as they came
        for name, mean, std, array in planes_last:
            values, into = CHANNELS[name](planes, xp), {} if array is None else {"out": array}
            if name in NOT_NORMALISED:
                made[name] = xp.multiply(values, mask, **into)
                continue
            values = xp.subtract(values, mean, **into)  # not in place, as the raw planes are to stay as they are
            values /= std
            if name == "intensity":
                values = xp.clip(values, -self.clip_deviations, self.clip_deviations, **into)
            values *= mask
            made[name] = values
        return [made[name] for name in self.channels]


def plain_spec(
    geometry: RangeSpec,
    channels: Sequence[str],
    intensity: IntensityRule,
    level: bool = False,
    points: PointsSpec | None = None,
) -> InputSpec:
    """The spec that passes raw channels on as they are: what statistics are taken from."""
    count = len(channels)
    return InputSpec(
        representation=representation_of(points),
        geometry=geometry,
        points=points,
        channels=tuple(channels),
        mean=(0.0,) * count,
        std=(1.0,) * count,
        intensity=intensity,
        level=level,
        clip_deviations=math.inf,
    )


def representation_of(points: PointsSpec | None) -> str:
    """The row of registry.FRONTENDS for a network on these points, or on range images where there are none."""
    return "range" if points is None else "points"


def check_representation(name: str) -> None:
    """ConfigError for a representation that no frontend makes."""
    if name not in FRONTENDS:
        raise ConfigError(f"representation: unknown '{name}'{did_you_mean(name, FRONTENDS)}; known: {', '.join(FRONTENDS)}")


def check_channels(channels: Sequence[str], representation: str = "range") -> None:
    """ConfigError for an unknown channel, none at all, one named twice, or one that the representation has not."""
    for name in channels:
        if name not in CHANNELS:
            raise ConfigError(f"channels: unknown '{name}'{did_you_mean(name, CHANNELS)}; known: {', '.join(CHANNELS)}")
        for owner, own in OF_ONE_REPRESENTATION.items():
            if name in own and owner != representation:
                raise ConfigError(
                    f"channels: '{name}' needs a net on {_KINDS.get(owner, owner)}; leave it out, or use another net"
                )
    if not channels or len(set(channels)) != len(channels):
        raise ConfigError(f"channels: {list(channels)} must name at least one channel, each once")


_KINDS = {"range": "range images", "points": "points"}
