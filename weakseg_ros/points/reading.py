# SPDX-License-Identifier: Apache-2.0
"""Clouds as a model is to see them: their points mirrored and turned to x forward, y left, z up, and in metres."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cdr import CdrBuffer
from weakseg_ros.points.cloud import Cloud, decode_cdr
from weakseg_ros.points.input_settings import InputSettings

Settings = TypeVar("Settings", bound=InputSettings)


def read_message(buffer: CdrBuffer, settings: InputSettings) -> Cloud:
    """The cloud of a serialized PointCloud2 as a model is to see it; CloudError as `decode_cdr`."""
    return moved(decode_cdr(buffer, settings.intensity_field), settings)


def moved(cloud: Cloud, settings: InputSettings) -> Cloud:
    """The cloud with its points turned and in metres, the same cloud where nothing is to be done; flags stay."""
    if not settings.moves_points:
        return cloud
    matrix = rotation(*settings.rotation_rpy_deg) @ _mirror(settings) * settings.unit_m
    return _transformed(cloud, matrix, np.array(settings.translation_m))


def as_sent(cloud: Cloud, settings: InputSettings) -> Cloud:
    """A cloud that was `moved`, with its points where the message said that they are, which is where TF expects them."""
    if not settings.moves_points:
        return cloud
    inverse = _mirror(settings) @ rotation(*settings.rotation_rpy_deg).T / settings.unit_m
    return _transformed(cloud, inverse, -inverse @ np.array(settings.translation_m))


def _mirror(settings: InputSettings) -> NDArray[np.float64]:
    """(3, 3) the reflection that makes a left-handed cloud right-handed, or the identity."""
    return np.diag([-1.0 if axis == settings.mirror else 1.0 for axis in "xyz"])


def _transformed(cloud: Cloud, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Cloud:
    with np.errstate(all="ignore"):  # what is not finite stays so, and has its flag
        xyz = cloud.xyz @ matrix.T.astype(np.float32)
        if shift.any():  # a non-return stays at the origin, by which others know it
            xyz = np.where(cloud.valid[:, None], xyz + shift.astype(np.float32), xyz)
    return dataclasses.replace(cloud, xyz=xyz)


def as_asked(cloud: Cloud, settings: InputSettings) -> Cloud:
    """A cloud that was not read from a message, without its intensity where that is not to be fed, and `moved`."""
    if not settings.intensity_field and cloud.intensity_field:
        nothing = np.zeros(len(cloud), np.float32)
        cloud = dataclasses.replace(cloud, intensity=nothing, intensity_field="", intensity_full_scale=0.0)
    return moved(cloud, settings)


def followed_by(settings: Settings, matrix: NDArray[np.float64]) -> Settings:
    """Settings that move points as `settings` do and then by a rigid transform (4, 4)."""
    turn = matrix[:3, :3] @ rotation(*settings.rotation_rpy_deg)
    shift = matrix[:3, :3] @ np.array(settings.translation_m) + matrix[:3, 3]
    x, y, z = map(float, shift)
    return dataclasses.replace(settings, rotation_rpy_deg=angles_of(turn), translation_m=(x, y, z))


def angles_of(turn: NDArray[np.float64]) -> tuple[float, float, float]:
    """Roll, pitch and yaw in degrees of a rotation (3, 3); where the pitch is 90 deg, the roll is 0."""
    pitch = math.atan2(-turn[2, 0], math.hypot(turn[0, 0], turn[1, 0]))
    if math.cos(pitch) < 1e-6:
        return 0.0, math.degrees(pitch), math.degrees(math.atan2(-turn[0, 1], turn[1, 1]))
    roll, yaw = math.atan2(turn[2, 1], turn[2, 2]), math.atan2(turn[1, 0], turn[0, 0])
    return math.degrees(roll), math.degrees(pitch), math.degrees(yaw)


def rotation(roll_deg: float, pitch_deg: float, yaw_deg: float) -> NDArray[np.float64]:
    """(3, 3) Rz(yaw) Ry(pitch) Rx(roll), the convention of tf2 and URDF."""
    (cr, cp, cy), (sr, sp, sy) = (fn(np.radians([roll_deg, pitch_deg, yaw_deg])) for fn in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = about_z @ about_y @ about_x
    return turned
