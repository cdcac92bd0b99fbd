# SPDX-License-Identifier: Apache-2.0
"""Augmentation: cheap on projected images, or faithful on points before they are projected.

Raw images are (B, 5, H, W) f32: PLANES, all 0 where no point is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg_ros.batches.mixing import OBJECT_PLANE, WEIGHT_PLANE, mix_bands, mix_sectors, paste_objects, shift_columns
from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.deploy.input_spec import COLORS, PLANES
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.projection import RangeSpec

FEW_LABELS = 0.05
"""share of a scan up to which its labels are few, so that each counts"""
INTENSITY_PLANE, HEIGHT_PLANE = PLANES.index("intensity"), PLANES.index("height")
EVERY_NTH_BEAM = (2, 2, 3, 4)
"""a sensor with fewer beams has one of so many"""


def move_points(cloud: Cloud, config: AugmentConfig, rng: np.random.Generator) -> Cloud:
    """The cloud as a sensor elsewhere would have it: mirrored, moved, turned, tilted and scaled, before projection.

    Non-returns stay non-returns.
    """
    mirror, offset, rotation = _coarse3d_motion(rng) if config.where == "coarse3d" else _motion(config, rng)
    moved = (cloud.xyz.astype(np.float64) * (1.0, mirror, 1.0) + offset) @ rotation.T
    moved[~cloud.valid] = 0.0
    fresh = make_cloud(moved, cloud.intensity, cloud.ring, rgb=cloud.rgb, height=cloud.height, width=cloud.width)
    return replace(fresh, intensity_full_scale=cloud.intensity_full_scale)


Motion = tuple[float, NDArray[np.float64], NDArray[np.float64]]
"""-1 to mirror y, else 1; offset (3,) in m; rotation, perhaps scaled, (3, 3)"""


def _motion(config: AugmentConfig, rng: np.random.Generator) -> Motion:
    mirror = -1.0 if rng.random() < config.flip else 1.0
    turn, pitch, roll = rng.uniform(-1.0, 1.0, 3) * (2 * math.pi * config.turn, *[math.radians(config.tilt_deg)] * 2)
    offset = rng.uniform(-1.0, 1.0, 3) * (config.shift_m, config.shift_m, config.sensor_height_m)
    return mirror, offset, _rotation(turn, pitch, roll) * (1.0 + rng.uniform(-config.scale, config.scale))


def _coarse3d_motion(rng: np.random.Generator) -> Motion:
    """COARSE3D (BMVC 2022): each of mirror, three shifts and three angles with probability 1/2."""
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    offset = rng.uniform((-5.0, -3.0, -1.0), (5.0, 3.0, 0.0)) * (rng.random(3) < 0.5)
    turn, pitch, roll = np.radians(rng.uniform(-5.0, 5.0, 3)) * (rng.random(3) < 0.5)
    return mirror, offset, _rotation(turn, pitch, roll)


def moved_crop(planes: dict[str, NDArray[np.float32]], config: AugmentConfig, rng: np.random.Generator) -> None:
    """Mirror, turn, tilt and scale the points of a crop about its middle, in place; planes (P,) by name."""
    if config.where == "coarse3d":
        raise ConfigError("augment.where: 'coarse3d' augments range images only; use images or points with a net on points")
    mirror, offset, rotation = _motion(config, rng)
    xyz = np.stack([planes[axis] for axis in "xyz"], axis=1) * (1.0, mirror, 1.0) @ rotation.T
    planes |= {axis: xyz[:, number].astype(np.float32) for number, axis in enumerate("xyz")}
    planes["height"] = planes["height"] * np.float32(np.linalg.norm(rotation[:, 2])) + np.float32(offset[2])


def varied_intensity(
    planes: dict[str, NDArray[np.float32]], config: AugmentConfig, absent: float, rng: np.random.Generator
) -> None:
    """The intensity of a crop with another gain, with noise, or lost, and the height with an error, in place."""
    values = planes["intensity"] * np.float32(1.0 + rng.uniform(-config.intensity_gain, config.intensity_gain))
    if config.intensity_noise:
        width = rng.uniform(0.0, config.intensity_noise)
        values = np.maximum(values + rng.standard_normal(len(values), np.float32) * np.float32(width), 0.0)
    if config.intensity_drop and rng.random() < config.intensity_drop:
        values = np.full_like(values, absent)
    planes["intensity"] = values
    if config.ground_error_m:
        planes["height"] = planes["height"] + np.float32(rng.normal(0.0, config.ground_error_m))


def colors_lost(planes: dict[str, NDArray[np.float32]], config: AugmentConfig, rng: np.random.Generator) -> None:
    """A crop without its colours, with the probability that the settings give, in place."""
    if config.color_drop and rng.random() < config.color_drop:
        planes |= {name: np.zeros_like(planes[name]) for name in COLORS}


def augment_images(
    geometry: Tensor,
    labels: Tensor,
    spec: RangeSpec,
    config: AugmentConfig,
    rng: np.random.Generator,
    objects: Sequence[int] = (),
    absent: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Vary raw images (B, 5, H, W) and their labels (B, H, W) u8; what the points have had already is left out.

    Turning rolls the columns of a full circle; of a sector, columns that enter are empty. Tilt, scale and sensor height change
    the coordinates only, which is right for small changes. `objects` are the class ids that `paste` pastes; `absent` is
    the intensity of a cloud that has none.
    """
    if config.where == "coarse3d":
        return geometry, labels
    empty = (geometry[:, :3] == 0).all(dim=1)  # (B, H, W)
    if config.where == "images":
        scans = [_vary(g, y, e, spec, config, rng) for g, y, e in zip(geometry, labels, empty, strict=True)]
        geometry, labels = torch.stack([g for g, _ in scans]), torch.stack([y for _, y in scans])
    _vary_readings(geometry, config, absent, rng)
    geometry, labels = mix_sectors(geometry, labels, config.mix, config.mix_share, rng)
    if config.bands:
        geometry, labels = mix_bands(geometry, labels, config.bands, config.band_counts, rng)
    if config.paste:
        geometry, labels = paste_objects(geometry, labels, spec, config.paste, objects, config.paste_copies, rng)
    if config.crop_columns:
        geometry, labels = _crop(geometry, labels, config.crop_columns, rng)
    if config.beam_drop:
        rows = torch.from_numpy(np.stack([_kept_beams(labels.shape[-2], config.beam_drop, rng) for _ in labels]))
        geometry, labels = geometry * rows[:, None, :, None], labels * rows[:, :, None]
    if config.drop:
        lost = rng.random(labels.shape, np.float32) < rng.uniform(0.0, config.drop, (len(labels), 1, 1))
        keep = torch.from_numpy(~lost)
        told = geometry[:, OBJECT_PLANE : OBJECT_PLANE + 1]  # none of them, or a plane of zeros, without objects
        objects_are_told = geometry.shape[1] == WEIGHT_PLANE or bool((told > 0).any())
        if objects_are_told and (labels > 0).float().mean() <= FEW_LABELS:
            keep |= labels > 0  # an object without its click would be taken for background
        geometry, labels = geometry * keep[:, None], labels * keep
    return geometry, labels


def _vary(
    geometry: Tensor, labels: Tensor, empty: Tensor, spec: RangeSpec, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One scan (5, H, W) mirrored, turned, tilted, scaled and seen from another height."""
    width = labels.shape[-1]
    mirrored = rng.random() < config.flip
    columns = int(rng.integers(-round(config.turn * width), round(config.turn * width) + 1))
    pitch, roll = rng.uniform(-1.0, 1.0, 2) * math.radians(config.tilt_deg)
    scale = 1.0 + rng.uniform(-config.scale, config.scale)
    higher_m = rng.uniform(-config.sensor_height_m, config.sensor_height_m)
    column_rad = math.radians(spec.fov_left_deg - spec.fov_right_deg) / width
    matrix = _rotation(-columns * column_rad, pitch, roll) * scale
    if mirrored:  # columns run from left to right, so the mirror image is read backwards
        geometry, labels, empty = geometry.flip(-1), labels.flip(-1), empty.flip(-1)
        matrix = matrix @ np.diag([1.0, -1.0, 1.0])
    xyz = (torch.from_numpy(matrix.astype(np.float32)) @ geometry[:3].reshape(3, -1)).reshape(3, *labels.shape)
    xyz[2] += higher_m
    rest = geometry[3:].clone()
    rest[HEIGHT_PLANE - 3] *= scale
    moved = torch.cat((xyz, rest))
    moved.masked_fill_(empty, 0.0)
    return shift_columns(moved, columns, spec.full_circle), shift_columns(labels, columns, spec.full_circle)


def _vary_readings(geometry: Tensor, config: AugmentConfig, absent: float, rng: np.random.Generator) -> None:
    """Intensity and ground height of raw images (B, 5, H, W) as another sensor or a worse estimate would have them, in place."""
    count = len(geometry)
    intensity, there = geometry[:, INTENSITY_PLANE], (geometry[:, :3] != 0).any(dim=1)
    gain = 1.0 + rng.uniform(-config.intensity_gain, config.intensity_gain, count)
    intensity *= torch.from_numpy(gain.astype(np.float32))[:, None, None]
    if config.intensity_noise:
        width = rng.uniform(0.0, config.intensity_noise, (count, 1, 1))
        noise = torch.from_numpy((rng.standard_normal(intensity.shape, np.float32) * width).astype(np.float32))
        intensity.copy_((intensity + noise).clamp_min(0.0) * there)
    if config.intensity_drop:
        for scan in np.flatnonzero(rng.random(count) < config.intensity_drop).tolist():
            intensity[scan] = absent * there[scan]
    if config.ground_error_m:
        error = torch.from_numpy(rng.normal(0.0, config.ground_error_m, count).astype(np.float32))
        geometry[:, HEIGHT_PLANE] += error[:, None, None] * there


def _kept_beams(height: int, probability: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(H,) the rows that a scan keeps: with this probability one of two to four, evenly spaced or at random; else all."""
    if rng.random() >= probability:
        return np.ones(height, bool)
    nth = int(rng.choice(EVERY_NTH_BEAM))
    if rng.random() < 0.5:
        return np.asarray(np.arange(height) % nth == rng.integers(nth))
    return np.asarray(rng.random(height) < 1.0 / nth)


def _crop(geometry: Tensor, labels: Tensor, columns: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same window for the whole batch; it may run over the seam, where the image goes on."""
    width = labels.shape[-1]
    if columns >= width:
        return geometry, labels
    window = (torch.arange(columns) + int(rng.integers(width))) % width
    return geometry[..., window], labels[..., window]


def _rotation(turn: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Rotation about z, then y, then x (rad), (3, 3)."""
    (ct, cp, cr), (st, sp, sr) = np.cos([turn, pitch, roll]), np.sin([turn, pitch, roll])
    about_z = np.array([[ct, -st, 0], [st, ct, 0], [0, 0, 1]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    rotation: NDArray[np.float64] = about_x @ about_y @ about_z
    return rotation
