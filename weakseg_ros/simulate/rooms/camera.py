# SPDX-License-Identifier: Apache-2.0
"""A depth camera: which rays it has, how its depth errs, where it sees nothing, and the colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.points.cloud import FLAG_NON_RETURN, Cloud
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.raycast import Floats, Hits
from weakseg_ros.simulate.rooms.palette import Random
from weakseg_ros.simulate.rooms.pinhole import PinholeRays
from weakseg_ros.simulate.solids import GLASS, Parts

NOT_MEASURED_AT_EDGES = 0.7
"""share of the pixels beside a step in depth that a camera with two eyes leaves out"""
EDGE_SHARE, OBLIQUE = 0.08, 0.12
"""a step in depth, as a share of it; the cosine of incidence below which half of the pixels are left out"""


@dataclass(frozen=True)
class CameraModel:
    """Sets a depth camera whose colours are registered to its organised cloud."""

    width: int = setting(320, 16, 1920)
    """Sets the number of columns of the depth image (16 to 1920)."""
    height: int = setting(240, 12, 1200)
    """Sets the number of rows of the depth image (12 to 1200)."""
    fov_deg: float = setting(70.0, 20.0, 120.0)
    """Sets the horizontal field of view in degrees (20 to 120)."""
    range_min_m: float = setting(0.3, 0.05, 2.0)
    """Sets the range in metres below which surfaces are not measured (0.05 to 2)."""
    range_max_m: float = setting(6.0, 1.0, 20.0)
    """Sets the range in metres above which surfaces are not measured (1 to 20)."""
    noise_at_1m: float = setting(0.002, 0.0, 0.1)
    """Sets the standard deviation of the depth at one metre, in metres (0 to 0.1); it grows with the square of the depth."""
    step_at_1m: float = setting(0.001, 0.0, 0.1)
    """Sets the depth resolution at one metre, in metres (0 to 0.1); the step grows with the square of the depth."""
    drop_probability: float = setting(0.01, 0.0, 1.0)
    """Sets the fraction of the pixels that are lost at random (0 to 1)."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def range_spec(self) -> RangeSpec:
        """A range image as large as the depth image, over its field of view."""
        half_x = np.radians(self.fov_deg / 2)
        half_y = np.arctan(np.tan(half_x) * self.height / self.width)
        left, up = float(np.degrees(half_x)) + 0.5, float(np.degrees(half_y)) + 0.5
        return RangeSpec(
            height=self.height,
            width=self.width,
            fov_up_deg=up,
            fov_down_deg=-up,
            fov_left_deg=left,
            fov_right_deg=-left,
            max_range_m=self.range_max_m * 1.2,
        )


def photograph(
    parts: Parts, pose: NDArray[np.float64], rays: PinholeRays, hits: Hits, camera: CameraModel, rng: Random
) -> tuple[Cloud, NDArray[np.uint32]]:
    """The organised cloud of one picture, N = H * W points with colours, and raw id + (instance << 16) of each, (N,).

    What is not measured is the origin, with label 0, and has its colour all the same.
    """
    met, part = hits.part >= 0, np.maximum(hits.part, 0)
    own = rays.direction.T @ pose[:3, :3].astype(np.float32)
    depth = np.where(met, hits.distance, 0) * own[:, 0]
    measured = _with_noise(depth, camera, rng)
    lost = ~met | _not_measured(parts[part], hits, depth, camera, rng)
    lost |= ~((measured >= camera.range_min_m) & (measured <= camera.range_max_m))
    xyz = own * np.where(lost, 0, measured / np.maximum(own[:, 0], 1e-3)).astype(np.float32)[:, None]
    xyz[lost] = 0
    raw = parts["raw"][part].astype(np.uint32) | parts["instance"][part].astype(np.uint32) << np.uint32(16)
    points = (rays.direction * np.where(met, hits.distance, 0)).T + pose[:3, 3]
    cloud = Cloud(
        xyz=xyz.astype(np.float32),
        intensity=np.zeros(len(xyz), np.float32),
        flags=np.where(lost, np.uint8(FLAG_NON_RETURN), np.uint8(0)),
        rgb=colors(parts, hits, points, rng),
        frame_id="camera_link",
        height=rays.rows,
        width=rays.columns,
    )
    return cloud, np.where(lost, np.uint32(0), raw)


def colors(parts: Parts, hits: Hits, points: NDArray[np.floating], rng: Random) -> NDArray[np.uint8]:
    """(N, 3) what a camera sees: paint, tiles, light that falls with incidence, and noise; black where nothing is.

    `points` (N, 3) are the places that were met, in the world.
    """
    part = np.maximum(hits.part, 0)
    paint = parts["rgb"][part].astype(np.float32)
    tile = parts["pattern"][part, 0] * (parts["surface"][part] != GLASS)
    period = np.where(tile > 0, tile, 1)
    on_joint = ((points[:, :2] / period[:, None]) % 1 < 0.05).any(axis=1) & (tile > 0)
    checker = (np.floor(points[:, :2] / period[:, None]).sum(axis=1) % 2) * (tile > 0)
    light = (0.72 + 0.28 * hits.cosine) * (1 - 0.25 * on_joint) * (1 - 0.05 * checker)
    # bright below lamps, dim in corners: slow waves over the building
    light = light * (0.9 + 0.1 * np.sin(points[:, 0] * 1.9) * np.sin(points[:, 1] * 2.3))
    noisy = paint * light[:, None] * rng.uniform(0.75, 1.1) + rng.normal(0, 4, paint.shape)
    noisy[hits.part < 0] = 0
    seen: NDArray[np.uint8] = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    return seen


def _with_noise(depth: Floats, camera: CameraModel, rng: Random) -> Floats:
    """Depth as disparity measures it: noise and steps grow with its square."""
    noisy = depth + rng.standard_normal(len(depth), np.float32) * camera.noise_at_1m * depth**2
    if not camera.step_at_1m:
        return np.asarray(noisy, np.float32)
    inverse = np.round(1 / np.maximum(noisy, 0.01) / camera.step_at_1m)
    return np.asarray(1 / np.maximum(inverse, 1) / camera.step_at_1m, np.float32)


def _not_measured(part: Parts, hits: Hits, depth: Floats, camera: CameraModel, rng: Random) -> NDArray[np.bool_]:
    """Glass, dark gloss, oblique surfaces, the shadow beside an edge, and chance."""
    chance = rng.random((3, len(depth)), np.float32)
    glass = (part["surface"] == GLASS) & (chance[0] < 0.75)
    shiny = chance[0] < part["gloss"] * (1 - hits.cosine) * np.clip(1.2 - 2 * part["albedo"], 0.1, 1)
    oblique = chance[1] < 0.5 * np.exp(-hits.cosine / OBLIQUE)
    image = depth.reshape(camera.height, camera.width)
    step = np.abs(np.diff(image, axis=1, prepend=image[:, :1])) > EDGE_SHARE * np.maximum(image, 0.2)
    edge = (step | np.roll(step, -1, axis=1)).ravel() & (chance[2] < NOT_MEASURED_AT_EDGES)
    lost: NDArray[np.bool_] = glass | shiny | oblique | edge | (rng.random(len(depth), np.float32) < camera.drop_probability)
    return lost
