# SPDX-License-Identifier: Apache-2.0
"""Clouds as a model is to see them: their points turned to x forward, y left, z up, and in metres."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cdr import CdrBuffer
from weakseg_ros.points.cloud import Cloud, decode_cdr
from weakseg_ros.points.input_settings import InputSettings


def read_message(buffer: CdrBuffer, settings: InputSettings) -> Cloud:
    """The cloud of a serialized PointCloud2 as a model is to see it; CloudError as `decode_cdr`."""
    return moved(decode_cdr(buffer, settings.intensity_field), settings)


def moved(cloud: Cloud, settings: InputSettings) -> Cloud:
    """The cloud with its points turned and in metres, the same cloud where nothing is to be done; flags stay."""
    if not settings.moves_points:
        return cloud
    return _multiplied(cloud, rotation(*settings.rotation_rpy_deg) * settings.unit_m)


def as_sent(cloud: Cloud, settings: InputSettings) -> Cloud:
    """A cloud that was `moved`, with its points where the message said that they are, which is where TF expects them."""
    if not settings.moves_points:
        return cloud
    return _multiplied(cloud, rotation(*settings.rotation_rpy_deg).T / settings.unit_m)


def _multiplied(cloud: Cloud, matrix: NDArray[np.float64]) -> Cloud:
    with np.errstate(all="ignore"):  # what is not finite stays so, and has its flag
        return dataclasses.replace(cloud, xyz=cloud.xyz @ matrix.T.astype(np.float32))


def as_asked(cloud: Cloud, settings: InputSettings) -> Cloud:
    """A cloud that was not read from a message, without its intensity where that is not to be fed, and `moved`."""
    if not settings.intensity_field and cloud.intensity_field:
        nothing = np.zeros(len(cloud), np.float32)
        cloud = dataclasses.replace(cloud, intensity=nothing, intensity_field="", intensity_full_scale=0.0)
    return moved(cloud, settings)


def rotation(roll_deg: float, pitch_deg: float, yaw_deg: float) -> NDArray[np.float64]:
    """(3, 3) Rz(yaw) Ry(pitch) Rx(roll), the convention of tf2 and URDF."""
    (cr, cp, cy), (sr, sp, sy) = (fn(np.radians([roll_deg, pitch_deg, yaw_deg])) for fn in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = about_z @ about_y @ about_x
    return turned
