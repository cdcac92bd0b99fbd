# SPDX-License-Identifier: Apache-2.0
"""Batches: which scans a step sees, and how they become tensors.

Everything random is a function of (seed, step, process): a resumed run draws what the uninterrupted one would have
drawn, and no generator's state needs saving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg_ros.errors import ConfigError
from weakseg_ros.learn.augment import AugmentConfig, augment_images, move_points
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import NOT_NORMALISED, RangeSpec, RangeView, channel_image, project
from weakseg_ros.points.scan_sets import Scan, ScanSet

GEOMETRY = ("x", "y", "z", "intensity")
"""Channels of a raw image; every channel a net can be fed follows from these four."""

LabelsOf = Callable[[Scan], "NDArray[np.uint8] | None"]
"""The (N,) class ids to train on, 0 = none; None where a scan has no labels at all"""

_SAME_SURFACE_M, _SAME_SURFACE_SHARE = 0.1, 0.02


@dataclass(frozen=True)
class Batch:
    """What a method's losses see of B scans."""

    image: Tensor
    """(B, C, H, W) f32, normalised, 0 where no point is"""
    labels: Tensor
    """(B, H, W) i64 class id, 0 = none"""
    mask: Tensor
    """(B, H, W) bool, True where a point is"""
    xyz: Tensor | None = None
    """(B, 3, H, W) f32 m, where the point of each pixel is, 0 where none is; for methods that measure distances"""


@dataclass(frozen=True)
class InputRule:
    """How raw images become a net's input: the channels, and their statistics over pixels that hold a point."""

    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def batch(self, geometry: Tensor, labels: Tensor) -> Batch:
        """Normalise (B, 4, H, W) raw images; range is computed here, after all augmentation."""
        values = named_channels(geometry)
        mask = values["valid"] > 0
        planes = []
        for name, mean, std in zip(self.channels, self.mean, self.std, strict=True):
            planes.append(values[name] if name in NOT_NORMALISED else (values[name] - mean) / std * mask)
        return Batch(torch.stack(planes, dim=1), labels.long() * mask, mask, geometry[:, :3])  # image (B, C, H, W)


def named_channels(geometry: Tensor) -> dict[str, Tensor]:
    """Every channel of (B, 4, H, W) raw images by name, (B, H, W) each."""
    x, y, z, intensity = geometry.unbind(dim=1)
    distance = torch.sqrt(x * x + y * y + z * z)
    return {"range": distance, "x": x, "y": y, "z": z, "intensity": intensity, "valid": (distance > 0).float()}


def label_image(class_id: NDArray[np.uint8], view: RangeView) -> NDArray[np.uint8]:
    """(N,) labels -> (H, W): the class of each pixel's nearest point, or of a labelled point just behind it.

    A click on a point that a neighbour hides by less than 0.1 m + 2 % lies on the same surface and labels the pixel;
    without this, many of a few clicks would be lost where several points share a pixel.
    """
    owner = view.point_of_pixel.ravel()
    image = np.where(owner >= 0, class_id[np.maximum(owner, 0)], 0).astype(np.uint8)  # (H * W,)
    labelled = np.flatnonzero((class_id > 0) & (view.pixel_of_point >= 0))
    pixel, distance = view.pixel_of_point[labelled], view.range_of_point[labelled]
    nearest = view.range_of_point[owner[pixel]]
    behind = (image[pixel] == 0) & (distance <= nearest * (1 + _SAME_SURFACE_SHARE) + _SAME_SURFACE_M)
    farthest_first = labelled[behind][np.argsort(-distance[behind], kind="stable")]
    image[view.pixel_of_point[farthest_first]] = class_id[farthest_first]
    return image.reshape(view.point_of_pixel.shape)


class ScanImages:
    """The training scans as raw images, augmented; kept in memory up to `cache_gib`, the rest is read again each time.

    Projected images are kept, or the points where the augmentation moves points. Raises ConfigError where points are to
    be moved on a sensor's own grid.
    """

    def __init__(
        self,
        scans: ScanSet,
        labels_of: LabelsOf,
        spec: RangeSpec,
        augment: AugmentConfig,
        cache_gib: float = 4.0,
    ) -> None:
        if augment.where != "images" and spec.rows == "grid":
            raise ConfigError(
                "augment.where: moved points cannot be projected back onto the sensor's own grid; set it to 'images'"
            )
        self.scans, self.labels_of, self.spec, self.augment = scans, labels_of, spec, augment
        self._kept: dict[int, tuple[Any, NDArray[np.uint8]]] = {}
        self._bytes_left = cache_gib * 2**30

    def __len__(self) -> int:
        return len(self.scans)

    def points(self, i: int) -> tuple[Cloud, NDArray[np.uint8]]:
        """The i-th training scan's cloud and labels (N,), read from disk."""
        scan = self.scans[i]
        labels = self.labels_of(scan)
        return scan.cloud, np.zeros(len(scan.cloud), np.uint8) if labels is None else labels

    def draw(self, numbers: Iterable[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Augmented raw images (B, 4, H, W) f32 and labels (B, H, W) u8 of the scans with these numbers."""
        pairs = [self._one(i, rng) for i in numbers]
        geometry = torch.from_numpy(np.stack([g for g, _ in pairs]))
        labels = torch.from_numpy(np.stack([y for _, y in pairs]))
        return augment_images(geometry, labels, self.spec, self.augment, rng)

    def _one(self, i: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        if self.augment.where == "images":
            image, labels = self._keep(i, lambda: raw_image(*self.points(i), self.spec), lambda image: image.nbytes)
            return image, labels
        cloud, labels = self._keep(i, lambda: self.points(i), lambda cloud: cloud.xyz.nbytes + cloud.intensity.nbytes)
        return raw_image(move_points(cloud, self.augment, rng), labels, self.spec)

    def _keep(
        self, i: int, make: Callable[[], tuple[Any, NDArray[np.uint8]]], size_of: Callable[[Any], int]
    ) -> tuple[Any, NDArray[np.uint8]]:
        if i in self._kept:
            return self._kept[i]
        value, labels = make()
        size = labels.nbytes + size_of(value)
        if size <= self._bytes_left:
            self._bytes_left -= size
            self._kept[i] = value, labels
        return value, labels


def raw_image(cloud: Cloud, labels: NDArray[np.uint8], spec: RangeSpec) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Project a cloud: (4, H, W) f32 geometry and (H, W) u8 labels."""
    view = project(cloud, spec)
    return channel_image(cloud, view, GEOMETRY), label_image(labels, view)


def scans_of_step(step: int, count: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
    """Which of `count` scans process `rank` of `world` trains on in a step: `batch_size` indices.

    All processes together run through one shuffled order after the other, so every scan is seen equally often.
    """
    first = (step * world + rank) * batch_size
    places = range(first, first + batch_size)
    orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(count) for epoch in {n // count for n in places}}
    return [int(orders[n // count][n % count]) for n in places]


def step_generator(step: int, rank: int, seed: int) -> np.random.Generator:
    """The generator of all augmentation in one step of one process."""
    return np.random.default_rng([seed, 1, step, rank])
