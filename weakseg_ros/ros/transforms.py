# SPDX-License-Identifier: Apache-2.0
"""Coordinate frames through TF: tf2_ros is imported only where a setting asks for a frame."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from weakseg_ros.errors import CloudError, ConfigError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.poses import matrix_of, moved

PATIENCE_S = 0.1
"""how long a transform for a cloud's own time may come after the cloud"""


class Transforms:
    """What TF knows. Made on the ROS thread; `lookup` and `moved_to` are the worker's."""

    def __init__(self, node: Node, asked_by: str) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise ConfigError(
                f"{asked_by}: tf2_ros cannot be imported ({error}); install it (sudo apt install ros-$ROS_DISTRO-tf2-ros-py), "
                f"or leave {asked_by} empty"
            ) from None
        self._asked_by = asked_by
        self._failure: type[Exception] = tf2_ros.TransformException
        self._buffer: Any = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """(4, 4) from `source` to `target` at a time, 0 = the latest; CloudError `no_transform` where TF has none."""
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns), Duration(seconds=PATIENCE_S))
        except self._failure as error:
            raise CloudError(
                f"{self._asked_by}: TF has no transform from '{source}' to '{target}' at the cloud's time ({error}); check that "
                f"both frames are published, or set {self._asked_by} to ''",
                "no_transform",
            ) from None
        shift, turn = found.transform.translation, found.transform.rotation
        return matrix_of((shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))

    def moved_to(self, target: str, cloud: Cloud) -> Cloud:
        """The cloud in another frame."""
        matrix = self.lookup(target, cloud.frame_id, cloud.stamp_ns)
        return dataclasses.replace(cloud, xyz=moved(cloud.xyz, matrix), frame_id=target)

    def close(self) -> None:
        """Take no more transforms."""
        self._listener.unregister()
