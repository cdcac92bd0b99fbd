# SPDX-License-Identifier: Apache-2.0
"""Instance ids that stay, inside the node: the tracker at work, and the odometry where there is a topic for it."""

from __future__ import annotations

import dataclasses
import time

from rclpy.node import Node

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.tracking import Tracker
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.ros.params import NodeConfig


class Following:
    """Keeps the ids of one node's objects; `update` is the worker's. ConfigError where odometry cannot be had."""

    def __init__(self, node: Node, config: NodeConfig) -> None:
        self._tracker: Tracker | None = None
        self._odometry = None
        if config.odometry_topic:
            try:
                from weakseg_ros.ros.odometry import OdometryTopic
            except ImportError as error:
                raise ConfigError(
                    f"odometry_topic: nav_msgs cannot be imported ({error}); install it (pip install ros-nav-msgs, or apt), or "
                    "leave odometry_topic empty"
                ) from None
            self._odometry = OdometryTopic(node, config.odometry_topic)

    def update(self, answer: Segmentation, cloud: Cloud, labels: LabelMap, config: NodeConfig) -> Segmentation:
        """The answer with ids that stay, where the settings say so; changes of settings and label map take effect at once."""
        if not config.track_instances:
            self._tracker = None
            return answer
        begin = time.perf_counter()
        if self._tracker is None or self._tracker.labels.classes != labels.classes:
            self._tracker = Tracker(labels)
        self._tracker.settings = config.track
        pose = self._odometry.pose_at(cloud.stamp_ns) if self._odometry is not None else None
        followed = self._tracker.update(answer, cloud, pose)
        timings_ms = {**answer.timings_ms, "track": (time.perf_counter() - begin) * 1e3}
        return dataclasses.replace(followed, timings_ms=timings_ms)

    def close(self) -> None:
        """End the subscription; nobody may call `update` any more."""
        if self._odometry is not None:
            self._odometry.close()
