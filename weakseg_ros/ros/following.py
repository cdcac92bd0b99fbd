# SPDX-License-Identifier: Apache-2.0
"""Instance ids that stay, inside the node: the tracker at work, and the odometry where there is a topic for it."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.tracking import Tracker
from weakseg_ros.errors import CloudError, ConfigError, printable
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.poses import matrix_of_text
from weakseg_ros.ros.diagnostics import Throttle
from weakseg_ros.ros.params import NodeConfig
from weakseg_ros.ros.transforms import Transforms


class Following:
    """Keeps the ids of one node's objects; `update` is the worker's. ConfigError where odometry cannot be had."""

    def __init__(self, node: Node, config: NodeConfig) -> None:
        self._node = node
        self._throttle = Throttle()
        self._tracker: Tracker | None = None
        self._odometry = None
        self._transforms: Transforms | None = None
        if config.odometry_topic:
            try:
                from weakseg_ros.ros.odometry import OdometryTopic
            except ImportError as error:
                raise ConfigError(
                    f"odometry_topic: nav_msgs cannot be imported ({error}); install it (pip install ros-nav-msgs, or apt), or "
                    "leave odometry_topic empty"
                ) from None
            text = config.odometry_extrinsic
            self._transforms = Transforms(node, "odometry_extrinsic") if text == "tf" else None
            extrinsic = matrix_of_text(text, "odometry_extrinsic") if text not in ("", "tf") else None
            self._odometry = OdometryTopic(node, config.odometry_topic, extrinsic)

    def update(self, answer: Segmentation, cloud: Cloud, labels: LabelMap, config: NodeConfig) -> Segmentation:
        """The answer with ids that stay, where the settings say so; changes of settings and label map take effect at once."""
        if not config.track_instances:
            self._tracker = None
            return answer
        begin = time.perf_counter()
        if self._tracker is None or self._tracker.labels.classes != labels.classes:
            self._tracker = Tracker(labels)
        self._tracker.settings = config.track
        pose = self._pose(cloud)
        followed = self._tracker.update(answer, cloud, pose)
        timings_ms = {**answer.timings_ms, "track": (time.perf_counter() - begin) * 1e3}
        return dataclasses.replace(followed, timings_ms=timings_ms)

    def _pose(self, cloud: Cloud) -> NDArray[np.float64] | None:
        """(4, 4) sensor to odometry frame at the cloud's time; None where there is none, or no way from sensor to body yet."""
        if self._odometry is None:
            return None
        if self._transforms is not None and self._odometry.extrinsic is None:
            try:
                self._odometry.extrinsic = self._transforms.lookup(self._odometry.body_frame, cloud.frame_id, 0)
            except CloudError as error:
                if self._throttle.passes("extrinsic"):
                    self._node.get_logger().warning(printable(error))
                return None
        return self._odometry.pose_at(cloud.stamp_ns)

    def close(self) -> None:
        """End the subscription; nobody may call `update` any more."""
        if self._odometry is not None:
            self._odometry.close()
        if self._transforms is not None:
            self._transforms.close()
