# SPDX-License-Identifier: Apache-2.0
"""A drive along a street with a LiDAR on the roof: scans with labels, instances and poses, one at a time or in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.simulate.ground import cast_ground
from weakseg_ros.simulate.lidar import SensorModel, Shift
from weakseg_ros.simulate.raycast import cast, make_rays
from weakseg_ros.simulate.returns import Scene, measure
from weakseg_ros.simulate.solids import join
from weakseg_ros.simulate.street import DRIVE_HALF_M, Street, build_street, drive_speed
from weakseg_ros.simulate.traffic import EGO_SWAY_S, moving_parts, speed_wave

START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class SimulateConfig:
    """Sets one simulated drive."""

    seed: int = setting(0, 0)
    """Seeds the street and everything on it (0 or more)."""
    scans: int = setting(100, 1)
    """Sets the number of scans to simulate (1 or more)."""
    stride: int = setting(1, 1, 1000)
    """Keeps only every N-th sweep of the sensor (1 to 1000); 5 at 10 Hz gives one scan every 0.5 s."""
    sensor: SensorModel = field(default_factory=SensorModel)
    """Sets the beams and the noise of the simulated sensor."""
    shift: Shift = field(default_factory=Shift)
    """Sets the domain shift relative to a clear day."""
    varied: bool = False
    """Varies plants, walls, people, kerbs and materials more than on the plain streets."""

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
    street = build_street(config.seed, config.varied)
    for index in range(config.scans):
        yield scan_at(street, config, index)


def check_length(config: SimulateConfig) -> None:
    """Raise ConfigError where the drive would leave the street."""
    step_s, speed = config.stride / config.sensor.rate_hz, drive_speed(config.seed)
    if ego_position((config.scans - 1) * step_s, speed) > DRIVE_HALF_M:
        fit = int((2 * DRIVE_HALF_M / speed - EGO_SWAY_S * 0.1) / step_s)
        found = f"scans: {config.scans} with stride {config.stride} go beyond the end of street {config.seed}"
        raise ConfigError(f"{found}; use at most {fit}, or more streets")


def ego_position(time_s: float, speed_m_s: float) -> float:
    """Place along the street at a time, for a drive of the given mean speed."""
    return -DRIVE_HALF_M + speed_m_s * (time_s + speed_wave(time_s, EGO_SWAY_S))


def ego_pose(time_s: float, street: Street, height_m: float) -> NDArray[np.float64]:
    """(4, 4) sensor to world: in its lane with a slight weave, pitched by the slope and swaying on its springs."""
    weave = 0.25 * np.sin(0.31 * time_s + street.seed) + 0.1 * np.sin(0.83 * time_s)
    x, y, _, heading = street.ground.position(ego_position(time_s, street.speed_m_s), street.ego_lane_m + weave)
    z = float(street.ground.height(x, y)) + height_m
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
    scene = Scene(parts, street.ground.albedo, pose, rays, hits, kind, ground_cosine)
    cloud, raw_label = measure(scene, sensor, config.shift, rng)
    stamp_ns = START_NS + round(time_s * 1e9)
    return SimulatedScan(dataclasses.replace(cloud, stamp_ns=stamp_ns), raw_label, pose)
