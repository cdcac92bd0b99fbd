# SPDX-License-Identifier: Apache-2.0
"""Instance ids that stay, inside the node: the tracker at work, and the odometry where there is a topic for it."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.tracking import Tracker
from weakseg_ros.errors import CloudError, ConfigError, printable
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.poses import matrix_of_text
from weakseg_ros.ros.diagnostics import Status, Throttle
from weakseg_ros.ros.params import NodeConfig
from weakseg_ros.ros.transforms import Transforms

if TYPE_CHECKING:
    from weakseg_ros.ros.odometry import OdometryTopic

SOME_CLOUDS = 10
"""in a row without a pose: at the start odometry may come later, and one lost message is no fault"""
WARNING_PERIOD_S = 60.0


class Following:
    """Keeps the ids of one node's objects; `update` is the worker's. ConfigError where odometry cannot be had."""

    def __init__(self, node: Node, config: NodeConfig) -> None:
        self._node = node
        self._throttle = Throttle(WARNING_PERIOD_S)
        self._tracker: Tracker | None = None
        self._odometry = None
        self._transforms: Transforms | None = None
        self._frames = ("", "")
        self._without_pose, self._fault = 0, ""
        if config.odometry_extrinsic and not config.odometry_topic:
            node.get_logger().warning("odometry_extrinsic: has no effect, because odometry_topic is empty")
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

    def status(self) -> Status | None:
        """The line of /diagnostics on odometry, None where none is wanted; what stays wrong is said in the log as well."""
        odometry, fault = self._odometry, self._fault
        if odometry is None:
            return None
        status = Status("odometry", values={"topic": odometry.topic, "received": odometry.received, "refused": odometry.refused})
        status.values["clouds_without_pose"] = self._without_pose
        if self._without_pose >= SOME_CLOUDS and fault:
            status.worsen(DiagnosticStatus.WARN, f"{fault}; objects are followed without it")
            if self._throttle.passes(fault.partition(":")[0]):
                self._node.get_logger().warning(printable(status.message))
        return status

    def _pose(self, cloud: Cloud) -> NDArray[np.float64] | None:
        """(4, 4) sensor to odometry frame at the cloud's time; None where there is none, or no way from sensor to body yet."""
        if self._odometry is None:
            return None
        try:
            pose = self._pose_of(cloud, self._odometry)
        except CloudError as error:
            pose, self._fault = None, str(error)
        self._without_pose = 0 if pose is not None else self._without_pose + 1
        return pose

    def _pose_of(self, cloud: Cloud, odometry: OdometryTopic) -> NDArray[np.float64] | None:
        """As `_pose`; CloudError on why there is none."""
        if odometry.received == odometry.refused:
            why = "its poses are not numbers, or no rotations" if odometry.refused else odometry.why_silent()
            raise CloudError(f"odometry_topic: {odometry.topic}: {why}", "no_pose")
        if self._transforms is not None and self._frames != (odometry.body_frame, cloud.frame_id):
            if not odometry.body_frame:
                raise CloudError(
                    f"odometry_extrinsic: {odometry.topic} names no child_frame_id that TF could know; write six numbers",
                    "no_pose",
                )
            odometry.extrinsic = self._transforms.lookup(odometry.body_frame, cloud.frame_id, 0)
            self._frames = (odometry.body_frame, cloud.frame_id)
        pose = odometry.pose_at(cloud.stamp_ns)
        if pose is None:
            gap_s = odometry.gap_s(cloud.stamp_ns)
            when = f"{abs(gap_s):.1f} s {'before' if gap_s > 0 else 'after'}"
            raise CloudError(
                f"odometry_topic: {odometry.topic}: the nearest pose is of {when} the cloud; check that it goes on, and "
                "that both have their stamps from one clock",
                "no_pose",
            )
        return pose

    def close(self) -> None:
        """End the subscription; nobody may call `update` any more."""
        if self._odometry is not None:
            self._odometry.close()
        if self._transforms is not None:
            self._transforms.close()
