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
BACK_NS = NANOSECONDS
"""a pose so much older than the one before it is that of a bag that begins anew; nearer ones were overtaken on their way"""
MESSAGE_TYPE = "nav_msgs/msg/Odometry"


class OdometryTopic:
    """The poses that came lately; the ROS thread feeds it, any thread may ask.

    The poses are those of a body; `extrinsic` (4, 4) leads from the sensor to that body, and without it the sensor's axes
    are taken as parallel to the body's: only what lies between two poses is used.
    """

    def __init__(self, node: Node, topic: str, extrinsic: NDArray[np.float64] | None = None) -> None:
        self._node = node
        self.topic: str = node.resolve_topic_name(topic)
        self.extrinsic = extrinsic
        self.body_frame = ""
        self.received = self.refused = 0
        """messages, and those among them that hold no pose"""
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

    def gap_s(self, stamp_ns: int) -> float:
        """Seconds from the nearest pose to this time, negative where all poses are later; there must have been one."""
        with self._lock:
            stamps = [stamp for stamp, _ in self._poses]
        return min((stamp_ns - stamp for stamp in stamps), key=abs, default=0) / NANOSECONDS

    def why_silent(self) -> str:
        """Why no message has come, as the end of a sentence on the topic."""
        found = self._node.get_publishers_info_by_topic(self.topic)
        others = sorted({info.topic_type for info in found if info.topic_type != MESSAGE_TYPE})
        if others:
            return f"carries {', '.join(others)}, not {MESSAGE_TYPE}"
        return "has a publisher, but no message comes" if found else "nobody publishes"

    def _on_pose(self, message: Odometry) -> None:
        self.received += 1
        stamp = message.header.stamp.sec * NANOSECONDS + message.header.stamp.nanosec
        place, turn = message.pose.pose.position, message.pose.pose.orientation
        pose = np.array([place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w])
        if not np.isfinite(pose).all() or np.linalg.norm(pose[3:]) < 0.5:
            self.refused += 1
            return
        self.body_frame = message.child_frame_id
        with self._lock:
            last = self._poses[-1][0] if self._poses else stamp - 1
            if stamp < last - BACK_NS:
                self._poses.clear()
            elif stamp <= last:
                return
            self._poses.append((stamp, pose))
