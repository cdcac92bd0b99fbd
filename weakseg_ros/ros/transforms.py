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
BACK_NS = 1_000_000_000
"""a time so much earlier than the one before it is that of a bag that begins anew"""
TRIES_BACK = 2
"""clouds in a row that must be so early: of two sensors with clocks of their own, one is answered in between"""


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
        self._logger = node.get_logger()
        self._known_ns = self._tries_back = 0

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """(4, 4) from `source` to `target` at a time, 0 = the latest; CloudError `no_transform` where TF has none."""
        patience = Duration(seconds=PATIENCE_S if stamp_ns else 0.0)
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns), patience)
        except (self._failure, ValueError) as error:  # rclpy knows no time before 1970
            self._look_back(stamp_ns)
            raise CloudError(
                f"{self._asked_by}: TF has no transform from '{source}' to '{target}' at the cloud's time ({error}); check that "
                f"both frames are published, or set {self._asked_by} to ''",
                "no_transform",
            ) from None
        self._known_ns, self._tries_back = stamp_ns, 0
        shift, turn = found.transform.translation, found.transform.rotation
        return matrix_of((shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))

    def moved_to(self, target: str, cloud: Cloud) -> Cloud:
        """The cloud in another frame; one without points needs no TF."""
        if not len(cloud):
            return dataclasses.replace(cloud, frame_id=target)
        matrix = self.lookup(target, cloud.frame_id, cloud.stamp_ns)
        return dataclasses.replace(cloud, xyz=moved(cloud.xyz, matrix), frame_id=target)

    def _look_back(self, stamp_ns: int) -> None:
        """Forget all transforms where a bag begins anew: TF refuses those from before what it knows, and tf2's Buffer of Python
        does not notice."""
        self._tries_back = self._tries_back + 1 if 0 < stamp_ns < self._known_ns - BACK_NS else 0
        if self._tries_back >= TRIES_BACK:
            self._known_ns = self._tries_back = 0
            self._buffer.clear()
            self._logger.info("the time of the clouds has gone back, so the transforms of TF are forgotten")

    def close(self) -> None:
        """Take no more transforms."""
        self._listener.unregister()
