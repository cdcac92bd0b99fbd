# SPDX-License-Identifier: Apache-2.0
"""What a sensor reports of the surfaces that its rays met: which return at all, how far, how bright, with which label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cloud import FLAG_NON_RETURN, Cloud
from weakseg_ros.simulate.ground import ALBEDO, RAW_ID, ROUGHNESS_M
from weakseg_ros.simulate.lidar import SensorModel, Shift
from weakseg_ros.simulate.raycast import Floats, Hits, Rays, face_coordinates, in_pattern
from weakseg_ros.simulate.solids import BLOCK, GLASS, WINDOWS, Parts

OUTLIER = 1
FAINTEST = 0.25
"""power that returns in half of the cases; 1 is a white surface at perpendicular incidence at the sensor's full range"""
REFERENCE_M = 10.0
"""distance at which intensity_falloff changes nothing"""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One moment: what is there, and what each of the H * W rays met."""

    parts: Parts
    ground_albedo: Floats
    """of each kind of ground"""
    pose: NDArray[np.float64]
    """(4, 4) sensor to world"""
    rays: Rays
    hits: Hits
    kind: NDArray[np.uint8]
    """kind of the ground below each ray"""
    ground_cosine: Floats

    @staticmethod
    def indoors(parts: Parts, pose: NDArray[np.float64], rays: Rays, hits: Hits) -> Scene:
        """A moment where everything is a part, the floor too."""
        count = len(hits.distance)
        return Scene(parts, ALBEDO, pose, rays, hits, np.zeros(count, np.uint8), np.ones(count, np.float32))


@dataclass(frozen=True)
class Surfaces:
    """What is met by each ray, as light sees it."""

    raw: NDArray[np.uint32]
    distance: Floats
    albedo: Floats
    gloss: Floats
    cosine: Floats
    roughness_m: Floats


def measure(scene: Scene, sensor: SensorModel, shift: Shift, rng: np.random.Generator) -> tuple[Cloud, NDArray[np.uint32]]:
    """The organised cloud of one sweep, N = H * W points in the sensor's frame, and raw id + (instance << 16) of each, (N,).

    Non-returns are the origin, with 0.
    """
    surfaces = _clutter(_panes(scene, _surfaces(scene), rng), shift, rng)
    direction = scene.rays.direction.T @ scene.pose[:3, :3].astype(np.float32)
    noise = np.hypot(surfaces.roughness_m, np.hypot(sensor.range_noise_m, shift.extra_noise_m))
    measured = surfaces.distance + rng.standard_normal(len(direction), np.float32) * noise
    lost = _lost(surfaces, sensor, shift, rng) | _behind_vehicle(sensor, direction)
    lost |= ~((measured >= sensor.range_min_m) & (measured <= sensor.range_max_m))
    xyz = (direction * np.where(lost, 0, measured)[:, None]).astype(np.float32)
    xyz[lost] = 0  # not -0.0
    height, width = len(scene.rays.beams_rad), scene.rays.columns
    cloud = Cloud(
        xyz=xyz,
        intensity=np.where(lost, np.float32(0), _intensity(surfaces, sensor, shift, height, rng)),
        flags=np.where(lost, np.uint8(FLAG_NON_RETURN), np.uint8(0)),
        ring=np.repeat(np.arange(height, dtype=np.uint16), width),
        frame_id="lidar",
        height=height,
        width=width,
        intensity_full_scale=sensor.intensity_full_scale,
        intensity_field="intensity",
    )
    return cloud, np.where(lost, np.uint32(0), surfaces.raw)


def _surfaces(scene: Scene) -> Surfaces:
    parts, part, kind = scene.parts, np.maximum(scene.hits.part, 0), scene.kind
    solid = (scene.hits.part >= 0) if len(parts) else np.zeros(len(part), bool)
    row = parts[["raw", "instance", "albedo", "gloss"]][part[solid]]
    raw = RAW_ID[kind].astype(np.uint32)
    raw[solid] = row["raw"].astype(np.uint32) | row["instance"].astype(np.uint32) << np.uint32(16)
    albedo, roughness, gloss = scene.ground_albedo[kind], ROUGHNESS_M[kind], np.zeros(len(part), np.float32)
    albedo[solid], gloss[solid], roughness[solid] = row["albedo"], row["gloss"], 0
    cosine = np.where(solid, scene.hits.cosine, scene.ground_cosine)
    return Surfaces(raw, scene.hits.distance.copy(), albedo, gloss, cosine, roughness)


def _panes(scene: Scene, surfaces: Surfaces, rng: np.random.Generator) -> Surfaces:
    """Glass, in place: most rays are lost in it (albedo 0), the others come from the pane, set back in a building's wall."""
    parts = scene.parts
    met = np.flatnonzero(scene.hits.part >= 0)
    part = scene.hits.part[met]
    glazed = (parts["surface"][part] >= WINDOWS) & (parts["kind"][part] == BLOCK)
    met, part = met[glazed], part[glazed]
    along, up = face_coordinates(parts, scene.pose[:3, 3], part, scene.rays.direction[:, met] * surfaces.distance[met])
    cabin = parts["surface"][part] == GLASS
    pane = np.where(cabin, up > 0.05, in_pattern(parts, part, along, up))
    met, cabin = met[pane], cabin[pane]
    gone = rng.random(len(met), np.float32) < np.where(cabin, 0.45, 0.55)
    surfaces.albedo[met] *= np.where(gone, np.float32(0), np.float32(0.4))
    surfaces.distance[met] += np.where(cabin, np.float32(0), 0.12 / np.maximum(surfaces.cosine[met], 0.2))
    return surfaces


def _clutter(surfaces: Surfaces, shift: Shift, rng: np.random.Generator) -> Surfaces:
    """Drops or flakes in front of the sensor, in place."""
    if shift.clutter:
        met = np.flatnonzero(rng.random(len(surfaces.raw), np.float32) < shift.clutter)
        near = 1 + 8 * rng.random(len(met), np.float32) ** 2
        met, near = met[near < surfaces.distance[met]], near[near < surfaces.distance[met]]
        surfaces.distance[met], surfaces.raw[met], surfaces.albedo[met] = near, OUTLIER, 0.03
        surfaces.cosine[met], surfaces.gloss[met] = 1, 0
    return surfaces


def _lost(surfaces: Surfaces, sensor: SensorModel, shift: Shift, rng: np.random.Generator) -> Mask:
    """Rays without an answer: too little light comes back, a dark gloss mirrors it away, or by chance."""
    albedo, gloss, cosine = surfaces.albedo, surfaces.gloss, surfaces.cosine
    count = len(albedo)
    met = np.isfinite(surfaces.distance)
    far = np.where(met, np.maximum(surfaces.distance, 1), sensor.range_max_m)
    reflected = albedo * (0.1 + 0.9 * cosine) * (1 - gloss * (1 - cosine))
    power = reflected * (sensor.range_max_m / far) ** 2 * np.exp(-2 * shift.attenuation_per_m * far)
    faint = power < FAINTEST * np.exp(0.5 * rng.standard_normal(count, np.float32))
    mirrored = rng.random(count, np.float32) < gloss * (1 - np.sqrt(cosine)) * np.clip(1.4 - 2 * albedo, 0.2, 1)
    chance = 1 - (1 - sensor.drop_probability) * (1 - shift.extra_drop)
    lost: Mask = ~met | faint | mirrored | (rng.random(count, np.float32) < chance)
    return lost


def _behind_vehicle(sensor: SensorModel, direction: Floats) -> Mask:
    """Rays that end on the vehicle that carries the sensor; `direction` (N, 3) in the sensor's frame."""
    length, width, height = sensor.vehicle_m
    drop = sensor.mount_height_m - height
    if not length or drop <= 0:
        return np.zeros(len(direction), bool)
    reach = drop / np.maximum(-direction[:, 2], 1e-3)
    hidden: Mask = (np.abs(direction[:, 0]) * reach < length / 2) & (np.abs(direction[:, 1]) * reach < width / 2)
    return hidden


def _intensity(surfaces: Surfaces, sensor: SensorModel, shift: Shift, beams: int, rng: np.random.Generator) -> Floats:
    """Brightness by material, incidence, distance and beam, in 256 steps of the sensor's full scale."""
    gloss, cosine = surfaces.gloss, surfaces.cosine
    count = len(cosine)
    bright = surfaces.albedo * ((1 - gloss) * (0.35 + 0.65 * cosine) + gloss * cosine**3)
    bright *= np.exp(0.22 * rng.standard_normal(count, np.float32))
    bright *= (REFERENCE_M / np.clip(surfaces.distance, 1, sensor.range_max_m)) ** sensor.intensity_falloff
    # A beam's own brightness belongs to the device, so it does not depend on the drive's seed.
    own = np.random.default_rng(beams).normal(1, sensor.beam_spread, beams).astype(np.float32)
    bright *= np.repeat(own, count // beams) * np.float32(sensor.intensity_gain * shift.intensity_gain)
    share = np.clip(bright, 0, 0.996) ** shift.intensity_gamma
    return np.asarray(np.round(share * 255) / 255 * sensor.intensity_full_scale, np.float32)
