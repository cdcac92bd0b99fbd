# SPDX-License-Identifier: Apache-2.0
"""The poses that a bag's odometry gives to its clouds, for labels that travel from one scan to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.bags import read_odometry
from weakseg_ros.data.pose_files import LARGEST_GAP_NS
from weakseg_ros.errors import DataError
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.poses import matrix_of_text, pose_between
from weakseg_ros.points.reading import rotation


class BagOdometry:
    """Where the sensor was at any time of a bag, from its topic of nav_msgs/Odometry.

    `extrinsic` is the pose of the LiDAR in the body whose motion the topic tells, as 'x y z roll pitch yaw' in metres and
    radians; empty takes its axes as parallel to the body's. What `settings` turn or shift is turned back. Raises DataError
    where the bag has no such topic, or no pose in it.
    """

    def __init__(self, bag: Path, topic: str, extrinsic: str, settings: InputSettings) -> None:
        self._poses = sorted(read_odometry(bag, topic), key=lambda entry: entry[0])
        if not self._poses:
            raise DataError(f"{bag}: topic '{topic}' holds no usable pose; leave --odometry out")
        asked = np.eye(4)
        asked[:3, :3], asked[:3, 3] = rotation(*settings.rotation_rpy_deg), settings.translation_m
        body = matrix_of_text(extrinsic, "odometry_extrinsic") if extrinsic else np.eye(4)
        self._sensor = body @ np.linalg.inv(asked)

    def pose_at(self, stamp_ns: int) -> NDArray[np.float64] | None:
        """(4, 4) sensor to odometry frame, m; None where no pose is within half a second."""
        pose = pose_between(self._poses, stamp_ns, LARGEST_GAP_NS)
        return None if pose is None else pose @ self._sensor
