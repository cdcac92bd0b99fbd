# SPDX-License-Identifier: Apache-2.0
"""Where the sensor was when a cloud was taken, from a topic of nav_msgs/Odometry."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from weakseg_ros.points.poses import pose_between
from weakseg_ros.ros.qos_overrides import overridable

NANOSECONDS = 1_000_000_000
KEPT = 400
"""poses that are remembered: two seconds of a fast odometry"""
LARGEST_GAP_NS = 150_000_000
"""a pose farther in time from the cloud than this says nothing of it"""


class OdometryTopic:
    """The poses that came lately; the ROS thread feeds it, any thread may ask.

    The poses are those of a body; `extrinsic` (4, 4) leads from the sensor to that body, and without it the sensor's axes
    are taken as parallel to the body's: only what lies between two poses is used.
    """

    def __init__(self, node: Node, topic: str, extrinsic: NDArray[np.float64] | None = None) -> None:
        self._node = node
        self.extrinsic = extrinsic
        self.body_frame = ""
        self._lock = threading.Lock()
        self._poses: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=KEPT)
        profile = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        options = overridable(node, topic, "subscription")
        self._subscription = node.create_subscription(Odometry, topic, self._on_pose, profile, qos_overriding_options=options)

    def close(self) -> None:
        """Take no more poses."""
        self._node.destroy_subscription(self._subscription)

    def pose_at(self, stamp_ns: int) -> NDArray[np.float64] | None:
        """(4, 4) sensor to odometry frame at a time, between the poses before and after it; None where none is near."""
        with self._lock:
            poses = list(self._poses)
        pose = pose_between(poses, stamp_ns, LARGEST_GAP_NS)
        if pose is None:
            return None
        return pose if self.extrinsic is None else pose @ self.extrinsic

    def _on_pose(self, message: Odometry) -> None:
        stamp = message.header.stamp.sec * NANOSECONDS + message.header.stamp.nanosec
        place, turn = message.pose.pose.position, message.pose.pose.orientation
        pose = np.array([place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w])
        if not np.isfinite(pose).all() or np.linalg.norm(pose[3:]) < 0.5:
            return
        self.body_frame = message.child_frame_id
        with self._lock:
            if self._poses and stamp <= self._poses[-1][0]:  # a bag that begins anew
                self._poses.clear()
            self._poses.append((stamp, pose))
