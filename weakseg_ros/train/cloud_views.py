# SPDX-License-Identifier: Apache-2.0
"""Clouds without labels as a bundle's frontend shows them to its network: whole, moved, or cropped for a training step.

Clouds are moved before they are encoded, so that whatever channels a network is fed, they are those of a moved cloud.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg_ros.batches.augment import move_points
from weakseg_ros.batches.batches import Batch
from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.deploy.bundle import BundleInfo
from weakseg_ros.deploy.frontends import FrontendSettings, make_frontend
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeView

_MOVES = AugmentConfig(where="points", turn=0.5, tilt_deg=2.0, scale=0.05, sensor_height_m=0.1)
_IN_A_SECTOR = 0.02
"""share of a turn by which a sensor that sees no full circle is turned"""


@dataclass(frozen=True)
class CloudImage:
    """One cloud as a network sees it."""

    image: NDArray[np.float32]
    """(C, H, W)"""
    xyz: NDArray[np.float32]
    """(3, H, W) m, 0 where no point is"""
    pixels: RangeView

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) where a point is"""
        return self.pixels.point_of_pixel >= 0


class CloudViews:
    """The user's clouds through the bundle's own frontend, told of clouds as `spec` says."""

    def __init__(self, info: BundleInfo, spec: InputSpec, clouds: Sequence[Cloud], intensity_scale: float = 0.0) -> None:
        self.clouds = clouds
        self._frontend: Any = make_frontend(spec, info.labels)
        self._frontend.settings = FrontendSettings(intensity_scale=intensity_scale, allow_no_intensity=True)
        self._geometry = spec.geometry
        turn = _MOVES.turn if spec.geometry.full_circle else _IN_A_SECTOR
        self._moves = dataclasses.replace(_MOVES, turn=turn)

    def whole(self, cloud: Cloud) -> CloudImage:
        """The cloud as it is."""
        inputs, view = self._frontend.encode(cloud)
        owner = view.pixels.point_of_pixel
        xyz = np.where((owner >= 0)[..., None], cloud.xyz[owner], np.float32(0)).transpose(2, 0, 1)
        return CloudImage(inputs["image"][0], np.ascontiguousarray(xyz, np.float32), view.pixels)

    def moved(self, cloud: Cloud, rng: np.random.Generator) -> CloudImage:
        """The cloud mirrored, turned, tilted, scaled and lifted; as it is where the image is the sensor's own grid."""
        if self._geometry.rows == "grid":
            return self.whole(cloud)
        moved = move_points(cloud, self._moves, rng)
        return self.whole(dataclasses.replace(moved, intensity_field=cloud.intensity_field, frame_id=cloud.frame_id))

    def batch(self, count: int, columns: int, rng: np.random.Generator) -> Batch:
        """`count` crops of half as many moved clouds, one of each cloud after the other, without a label."""
        half = (count + 1) // 2
        chosen = rng.choice(len(self.clouds), half, replace=half > len(self.clouds))
        images = [self.moved(self.clouds[i], rng) for i in chosen]
        crops = [_cropped(images[i % half], columns, rng) for i in range(count)]
        image, xyz, mask = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        return Batch(image, torch.zeros(mask.shape, dtype=torch.int64), mask, xyz)


def _cropped(seen: CloudImage, columns: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Image, places and mask of a window that may run over the seam."""
    width = seen.mask.shape[-1]
    size = min(columns or width, width)
    window = (np.arange(size) + rng.integers(width)) % width
    return seen.image[..., window], seen.xyz[..., window], seen.mask[..., window]


def tensor_of(seen: CloudImage) -> Tensor:
    """(1, C, H, W), what a network is fed."""
    return torch.from_numpy(seen.image)[None]
