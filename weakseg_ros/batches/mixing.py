# SPDX-License-Identifier: Apache-2.0
"""Mixing the scans of a batch as range images: sectors of azimuth, bands of inclination, and pasted objects.

PolarMix (Xiao et al., NeurIPS 2022) swaps a sector between two scans and pastes objects of one, turned several times
about the vertical, into the other. LaserMix (Kong et al., CVPR 2023) interleaves two scans by bands of inclination. In a
range image a sector is a block of columns, a band a block of rows, and a turn a shift of columns.

Raw images are (B, P, H, W) f32: PLANES, and perhaps the number of each pixel's object, 0 = none, and the weight of its
label; all planes are 0 where no point is. Every scan is mixed with the one before it in the batch; a batch of one is left
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from weakseg_ros.deploy.input_spec import PLANES
from weakseg_ros.points.projection import RangeSpec

OBJECT_PLANE, WEIGHT_PLANE = len(PLANES), len(PLANES) + 1
"""of a raw image: the number of each labelled pixel's object, and how much its label counts"""

Images = tuple[Tensor, Tensor]
"""raw images (B, P, H, W) and labels (B, H, W) u8"""


def mix_sectors(geometry: Tensor, labels: Tensor, probability: float, share: float, rng: np.random.Generator) -> Images:
    """Replace a sector of columns, with this probability, by that of the other scan: PolarMix's swap of scenes."""
    taken = sector_pixels(labels.shape, probability, share, rng)
    return from_other(taken, geometry), from_other(taken, labels)


def mix_bands(geometry: Tensor, labels: Tensor, probability: float, counts: Sequence[int], rng: np.random.Generator) -> Images:
    """Take every other band of rows, with this probability, from the other scan, as LaserMix does."""
    taken = band_pixels(labels.shape, probability, counts, rng)
    return from_other(taken, geometry), from_other(taken, labels)


def from_other(taken: Tensor, images: Tensor) -> Tensor:
    """Images (B, ..., H, W) whose pixels are those of the scan before where `taken` (B, H, W) is True; always new memory."""
    extra = images.dim() - taken.dim()
    return torch.where(taken.reshape(len(taken), *(1,) * extra, *taken.shape[1:]), images.roll(1, 0), images)


def sector_pixels(shape: Sequence[int], probability: float, share: float, rng: np.random.Generator) -> Tensor:
    """(B, H, W) bool, the pixels of one sector of columns in each chosen scan; none in a batch of one.

    The sector is `share` of the width (0.5 as PolarMix published), or with 0 anything from an eighth to a half.
    """
    taken, width = torch.zeros(tuple(shape), dtype=torch.bool), shape[-1]
    for scan in taken:
        chosen = rng.random() < probability
        size, start = int(rng.integers(width // 8, width // 2 + 1)), int(rng.integers(width))
        if chosen and len(taken) > 1:
            scan[:, torch.arange(start, start + (round(share * width) or size)) % width] = True
    return taken


def band_pixels(shape: Sequence[int], probability: float, counts: Sequence[int], rng: np.random.Generator) -> Tensor:
    """(B, H, W) bool, the pixels of every other band of rows in each chosen scan; none in a batch of one.

    The image is cut into one of `counts` bands of equally many rows, drawn anew for each scan: bands of equal inclination
    where rows are angles, of equally many lasers where rows are lasers.
    """
    taken, height = torch.zeros(tuple(shape), dtype=torch.bool), shape[-2]
    for scan in taken:
        chosen = rng.random() < probability
        bands, first = int(rng.choice(counts)), int(rng.integers(2))
        if chosen and len(taken) > 1:
            scan[(torch.arange(height) * bands // height) % 2 == first] = True
    return taken


def paste_objects(
    geometry: Tensor,
    labels: Tensor,
    spec: RangeSpec,
    probability: float,
    classes: Sequence[int],
    copies: int,
    rng: np.random.Generator,
) -> Images:
    """Paste the other scan's points of some classes, turned about the vertical, as PolarMix does.

    Each of the copies is turned by a random angle in a part of the circle of its own; in each pixel the nearest point
    stays. Only labelled points can be told to be of a class: with sparse labels only these are pasted. Of an image that
    is no full circle, what is turned out of it is lost. Copies of an object are other objects.
    """
    count, width = len(labels), labels.shape[-1]
    is_object = torch.isin(labels, torch.tensor(list(classes), dtype=labels.dtype))  # (B, H, W)
    beyond = float(geometry[:, OBJECT_PLANE].max()) + 1.0 if geometry.shape[1] > OBJECT_PLANE else 0.0
    mixed_geometry, mixed_labels = geometry.clone(), labels.clone()
    for i in range(count):
        chosen = rng.random() < probability
        turns = (np.arange(copies) + rng.random(copies)) / copies  # 0..1
        if not chosen or count == 1:
            continue
        for copy, share in enumerate(turns, 1):
            columns = round(share * width) if spec.full_circle else round((2 * share - 1) * (width - 1))
            points, ids = geometry[i - 1] * is_object[i - 1], labels[i - 1] * is_object[i - 1]
            points, ids = turn(points, columns, spec), shift_columns(ids, columns, spec.full_circle)
            if beyond:
                points[OBJECT_PLANE] += copy * beyond * (points[OBJECT_PLANE] > 0)
            _paste(mixed_geometry[i], mixed_labels[i], points, ids)
    return mixed_geometry, mixed_labels


def turn(points: Tensor, columns: int, spec: RangeSpec) -> Tensor:
    """A raw image (P, H, W) turned about the vertical by this many columns to the right."""
    angle = -columns * math.radians(spec.fov_left_deg - spec.fov_right_deg) / points.shape[-1]
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = points[0] * cos - points[1] * sin, points[0] * sin + points[1] * cos
    return shift_columns(torch.cat((torch.stack((x, y)), points[2:])), columns, spec.full_circle)


def shift_columns(image: Tensor, columns: int, full_circle: bool) -> Tensor:
    """Columns moved to the right (...,W); those that enter come from the other side of a full circle, else are empty."""
    shifted = torch.roll(image, columns, dims=-1)
    if columns and not full_circle:
        entered = slice(0, columns) if columns > 0 else slice(columns, None)
        shifted[..., entered] = 0
    return shifted


def _paste(geometry: Tensor, labels: Tensor, points: Tensor, ids: Tensor) -> None:
    """Lay points (P, H, W) with class ids (H, W) over an image, in place, wherever they are the nearest."""
    here, there = (planes[:3].square().sum(dim=0) for planes in (geometry, points))
    nearer = (there > 0) & ((here == 0) | (there < here))
    geometry[:, nearer] = points[:, nearer]
    labels[nearer] = ids[nearer]
