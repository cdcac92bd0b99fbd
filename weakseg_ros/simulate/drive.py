# SPDX-License-Identifier: Apache-2.0
"""A drive along a street with a LiDAR on the roof: scans with labels, instances and poses, one at a time or in a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import FLAG_NON_RETURN, Cloud
from weakseg_ros.simulate.ground import ALBEDO, RAW_ID, ROUGHNESS_M, cast_ground
from weakseg_ros.simulate.lidar import SensorModel, Shift
from weakseg_ros.simulate.parts import BLOCK, GLASS, WINDOWS, Parts, join
from weakseg_ros.simulate.raycast import Floats, Hits, Rays, cast, face_coordinates, in_pattern, make_rays
from weakseg_ros.simulate.street import DRIVE_HALF_M, Street, build_street, drive_speed
from weakseg_ros.simulate.traffic import EGO_SWAY_S, moving_parts, speed_wave

OUTLIER = 1
START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class SimulateConfig:
    """One drive."""

    seed: int = setting(0, 0)
    """which street, and all that is random on it"""
    scans: int = setting(100, 1)
    """how many scans"""
    stride: int = setting(1, 1, 1000)
    """keep every n-th sweep of the sensor; 5 at 10 Hz is one scan every 0.5 s"""
    sensor: SensorModel = field(default_factory=SensorModel)
    """the sensor model"""
    shift: Shift = field(default_factory=Shift)
    """what differs from a clear day"""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SimulatedScan:
    """One sweep, as if taken in an instant: organised, row 0 the top beam, column 0 at fov_left_deg."""

    cloud: Cloud
    """H x W points in row order; non-returns are the origin"""
    raw_label: NDArray[np.uint32]
    """(N,) SemanticKITTI raw id in the low 16 bits, instance id in the high ones; 0 for non-returns"""
    pose: NDArray[np.float64]
    """(4, 4) sensor to world"""


def simulate(config: SimulateConfig) -> Iterator[SimulatedScan]:
    """Drive along the street of `config.seed`; scan i is the same however many are drawn.

    Raises ConfigError where the street ends before the last scan.
    """
    check_length(config)
    street = build_street(config.seed)
    for index in range(config.scans):
        yield scan_at(street, config, index)


def check_length(config: SimulateConfig) -> None:
    """Raise ConfigError where the drive would leave the street."""
    step_s, speed = config.stride / config.sensor.rate_hz, drive_speed(config.seed)
    if ego_position((config.scans - 1) * step_s, speed) > DRIVE_HALF_M:
        fit = int((2 * DRIVE_HALF_M / speed - EGO_SWAY_S * 0.1) / step_s)
        found = f"scans: {config.scans} with stride {config.stride} lead beyond the end of street {config.seed}"
        raise ConfigError(f"{found}; take at most {fit}, or more streets")


def ego_position(time_s: float, speed_m_s: float) -> float:
    """Place along the street at a time, for a drive of the given mean speed."""
    return -DRIVE_HALF_M + speed_m_s * (time_s + speed_wave(time_s, EGO_SWAY_S))


def ego_pose(time_s: float, street: Street, height_m: float) -> NDArray[np.float64]:
    """(4, 4) sensor to world: in its lane with a slight weave, pitched by the slope and swaying on its springs."""
    weave = 0.25 * np.sin(0.31 * time_s + street.seed) + 0.1 * np.sin(0.83 * time_s)
    x, y, _, heading = street.ground.position(ego_position(time_s, street.speed_m_s), street.ego_lane_m + weave)
    z = float(street.ground.height(np.float64(x), np.float64(y))) + height_m
    yaw = heading + (0.25 * 0.31 * np.cos(0.31 * time_s + street.seed)) / street.speed_m_s
    ahead = np.array([np.cos(yaw), np.sin(yaw)])
    slope = np.array([street.ground.rise_x.slope(x), street.ground.rise_y.slope(y)])
    pitch = -np.arctan(slope @ ahead) + np.radians(0.35) * np.sin(2.9 * time_s)
    roll = np.arctan(slope @ [-ahead[1], ahead[0]]) + np.radians(0.3) * np.sin(2.1 * time_s + 1)
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    )
    pose[:3, 3] = x, y, z
    return pose


def scan_at(street: Street, config: SimulateConfig, index: int) -> SimulatedScan:
    """Scan `index` of the drive, from nothing but the street, the settings and the index."""
    sensor = config.sensor
    rng = np.random.default_rng([street.seed, index * config.stride, 0x1D])
    time_s = index * config.stride / sensor.rate_hz
    pose = ego_pose(time_s, street, sensor.mount_height_m)
    rays = make_rays(pose[:3, :3], sensor.beams_deg, sensor.columns, sensor.fov_left_deg, sensor.fov_right_deg)
    parts = join([street.parts, moving_parts(street.movers, time_s, street.ground)])
    reach = np.hypot(*(parts["position"] - pose[:3, 3]).T[:2]) - np.hypot(*parts["size"].T[:2])
    parts = parts[reach < sensor.range_max_m]
    ground_m, kind, ground_cosine = cast_ground(street.ground, pose[:3, 3], rays, sensor.range_max_m)
    hits = cast(parts, pose[:3, 3], rays, ground_m, rng)
    return _measure(config, parts, pose, rays, hits, kind, ground_cosine, index, rng)


def _measure(
    config: SimulateConfig,
    parts: Parts,
    pose: NDArray[np.float64],
    rays: Rays,
    hits: Hits,
    kind: NDArray[np.uint8],
    ground_cosine: Floats,
    index: int,
    rng: np.random.Generator,
) -> SimulatedScan:
    """What the sensor reports: which rays return, how far and how bright, with the labels of what they met."""
    sensor, shift = config.sensor, config.shift
    solid = hits.part >= 0
    part = np.maximum(hits.part, 0)
    count = len(solid)
    row = parts[part] if len(parts) else np.zeros(count, parts.dtype)
    albedo = np.where(solid, row["albedo"], ALBEDO[kind])
    gloss = np.where(solid, row["gloss"], np.float32(0))
    cosine = np.where(solid, hits.cosine, ground_cosine)
    raw = np.where(solid, row["raw"], RAW_ID[kind]).astype(np.uint32)
    raw |= np.where(solid, row["instance"], 0).astype(np.uint32) << np.uint32(16)
    rough = np.where(solid, np.float32(0), ROUGHNESS_M[kind])

    albedo, distance = _panes(parts, pose, rays, hits, albedo, rng)
    clutter = rng.random(count, np.float32) < shift.clutter
    distance = np.where(clutter, 1 + 8 * rng.random(count, np.float32) ** 2, distance)
    raw, albedo = np.where(clutter, OUTLIER, raw), np.where(clutter, np.float32(0.03), albedo)

    shade = (1 - gloss) * (0.35 + 0.65 * cosine) + gloss * cosine**3
    bright = albedo * shade * rng.lognormal(0, 0.22, count).astype(np.float32)
    measured = distance + rng.standard_normal(count, np.float32) * np.hypot(
        rough, np.hypot(sensor.range_noise_m, shift.extra_noise_m)
    )
    lost = _lost(sensor, shift, albedo * (0.1 + 0.9 * cosine) * (1 - gloss * (1 - cosine)), distance, rng)
    lost |= ~((measured >= sensor.range_min_m) & (measured <= sensor.range_max_m))

    own = (rays.direction.T @ pose[:3, :3].astype(np.float32)) * np.where(lost, 0, measured)[:, None]
    own[lost] = 0
    scale = sensor.intensity_gain * shift.intensity_gain * (10 / np.maximum(distance, 1)) ** sensor.intensity_falloff
    share = np.clip(bright * scale, 0, 0.996) ** shift.intensity_gamma
    intensity = np.where(lost, 0, np.round(share * 255) / 255 * sensor.intensity_full_scale)
    height, width = len(rays.beams_rad), rays.columns
    cloud = Cloud(
        xyz=np.ascontiguousarray(own, np.float32),
        intensity=intensity.astype(np.float32),
        flags=np.where(lost, FLAG_NON_RETURN, 0).astype(np.uint8),
        ring=np.repeat(np.arange(height, dtype=np.uint16), width),
        stamp_ns=START_NS + round(index * config.stride / sensor.rate_hz * 1e9),
        frame_id="lidar",
        height=height,
        width=width,
        intensity_full_scale=sensor.intensity_full_scale,
        intensity_field="intensity",
    )
    return SimulatedScan(cloud, np.where(lost, 0, raw).astype(np.uint32), pose)


def _panes(
    parts: Parts, pose: NDArray[np.float64], rays: Rays, hits: Hits, albedo: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Glass: most rays are lost in it (albedo 0), the others come from a frame set back or from the pane itself."""
    distance = hits.distance.copy()
    met = np.flatnonzero(hits.part >= 0)
    met = met[(parts["surface"][hits.part[met]] >= WINDOWS) & (parts["kind"][hits.part[met]] == BLOCK)]
    part = hits.part[met]
    along, up = face_coordinates(parts, pose[:3, 3], part, rays.direction[:, met] * distance[met])
    glazed = np.where(parts["surface"][part] == GLASS, up > 0.05, in_pattern(parts, part, along, up))
    pane, part = met[glazed], part[glazed]
    through = rng.random(len(pane), np.float32)
    car = parts["surface"][part] == GLASS
    gone = through < np.where(car, 0.45, 0.55)
    albedo = albedo.copy()
    albedo[pane] = np.where(gone, 0, albedo[pane] * 0.4)
    distance[pane] += np.where(car, 0, 0.12 / np.maximum(hits.cosine[pane], 0.2)).astype(np.float32)
    return albedo, distance


def _lost(sensor: SensorModel, shift: Shift, reflected: Floats, distance: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Rays without an answer: too little light comes back, or by chance."""
    far = np.clip(distance, 1, 10 * sensor.range_max_m)
    power = reflected * (sensor.range_max_m / far) ** 2 * np.exp(-2 * shift.attenuation_per_m * far)
    faint = power < 0.2 * rng.lognormal(0, 0.5, len(far)).astype(np.float32)
    chance = 1 - (1 - sensor.drop_probability) * (1 - shift.extra_drop)
    return faint | (rng.random(len(far), np.float32) < chance) | ~np.isfinite(distance)
