# SPDX-License-Identifier: Apache-2.0
"""Sensors on indoor robots, drawn anew for each floor: spinning LiDARs at knee or waist height, and depth cameras."""

from __future__ import annotations

import dataclasses

import numpy as np

from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.lidar import SensorModel, load_sensor
from weakseg_ros.simulate.rooms.camera import CameraModel
from weakseg_ros.simulate.rooms.palette import Random
from weakseg_ros.simulate.variety import DRAWN

KNOWN_SENSORS = ("vlp16", "vlp16", "os0_32", "os1_64", "hdl64e", "vlp32c")
ANY_INDOOR = RangeSpec(height=64, width=512, fov_up_deg=45.0, fov_down_deg=-45.0, max_range_m=40.0)
"""one range image for all LiDARs that are drawn, and for most spinning ones on indoor robots"""
MOUNT_M = (0.3, 1.2)
_SENSOR_DRAW = 0x15E


def lidar_of(name: str, seed: int, floor: int) -> tuple[SensorModel, float]:
    """A LiDAR by name, or drawn for 'varied', and its mounting height in m, which is drawn in both cases; without a vehicle."""
    rng = np.random.default_rng([seed, floor, _SENSOR_DRAW])
    height = float(rng.uniform(*MOUNT_M))
    base = _draw_lidar(rng) if name == DRAWN else load_sensor(name)
    return dataclasses.replace(base, mount_height_m=height, vehicle_m=(0.0, 0.0, 0.0)), height


def camera_of(camera: CameraModel, seed: int, floor: int) -> tuple[CameraModel, float, float]:
    """The camera with its mounting height in m and how many degrees it looks down, both drawn."""
    rng = np.random.default_rng([seed, floor, _SENSOR_DRAW])
    return camera, float(rng.uniform(*MOUNT_M)), float(rng.uniform(-5.0, 12.0))


def _draw_lidar(rng: Random) -> SensorModel:
    base = load_sensor(str(rng.choice(KNOWN_SENSORS))) if rng.random() < 0.6 else _draw_beams(rng)
    return dataclasses.replace(
        base,
        name=DRAWN,
        columns=int(rng.choice([512, 1024, 1024])),
        intensity_full_scale=1.0,
        range_min_m=float(rng.uniform(0.1, 0.9)),
        range_max_m=40.0,
        range_noise_m=float(rng.uniform(0.004, 0.03)),
        drop_probability=float(rng.uniform(0.0, 0.1)),
        beam_spread=float(rng.uniform(0.02, 0.2)),
        intensity_gain=float(rng.uniform(0.4, 1.6)),
        intensity_falloff=float(rng.choice([0.0, 0.0, 0.5, 1.0])),
        rows="angle",
    )


def _draw_beams(rng: Random) -> SensorModel:
    """Evenly spaced beams between a random top and bottom."""
    beams = int(rng.choice([16, 16, 32, 32, 64]))
    return SensorModel(DRAWN, beams, float(rng.uniform(10.0, 45.0)), float(rng.uniform(-45.0, -10.0)))
