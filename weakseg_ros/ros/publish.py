# SPDX-License-Identifier: Apache-2.0
"""What the node says to the graph: the labelled cloud, its masks, and which classes the numbers mean."""

from __future__ import annotations

import array
import copy
import json
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header, String
from visualization_msgs.msg import MarkerArray

from weakseg_ros.deploy.boxes import boxes
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.encode import fill_message
from weakseg_ros.points.labelled import pack_labelled
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.ros.compatibility import PublisherEventCallbacks, all_fit
from weakseg_ros.ros.objects import detections, markers
from weakseg_ros.ros.qos_overrides import POLICIES, overridable, override_of
from weakseg_ros.ros.transforms import Transforms

try:
    import vision_msgs.msg as vision_messages
except ImportError:  # not among the PyPI wheels; ~/classes and ~/objects say the same
    vision_messages = None

NANOSECONDS = 1_000_000_000
TWIN = "a node of the same name"
TWIN_AFTER_S = 40.0
"""longer than DDS lists a process that was killed"""


class Outputs:
    """The node's publishers. `send` may be called from the worker's thread.

    `reliable` makes the frame topics reliable; `lossless` also keeps all of them, for replay. With `target_frame`, points and
    boxes go out in that frame.
    """

    def __init__(self, node: Node, lossless: bool, reliable: bool = False, target_frame: str = "") -> None:
        self._node = node
        self._target_frame = target_frame
        self._transforms = Transforms(node, "target_frame") if target_frame else None
        self._problems: dict[str, str] = {}
        self._twin_since_s: float | None = None
        frames = QoSProfile(
            history=HistoryPolicy.KEEP_ALL if lossless else HistoryPolicy.KEEP_LAST,
            depth=5,
            reliability=ReliabilityPolicy.RELIABLE if lossless or reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.VOLATILE,
        )
        latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._labels = self._publisher(PointCloud2, "~/labels", frames)
        self._class_mask = self._publisher(Image, "~/class_mask", frames)
        self._instance_mask = self._publisher(Image, "~/instance_mask", frames)
        objects = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._objects = self._publisher(MarkerArray, "~/objects", objects)
        self._detections: Any = None
        if vision_messages:
            self._detections = self._publisher(vision_messages.Detection3DArray, "~/detections", objects)
        self._classes = self._publisher(String, "~/classes", latched)
        self._label_info = self._publisher(vision_messages.LabelInfo, "~/label_info", latched) if vision_messages else None

    @property
    def problem(self) -> str:
        """A sentence on a subscriber that gets nothing, or on a node that publishes the same; empty = neither."""
        return next(iter(self._problems.values()), "")

    def check_peers(self) -> None:
        """Look for another node that publishes the same, and forget the problem of a subscriber that has gone.

        Call it every now and then.
        """
        self._look_for_twin()
        for publisher in self._all():
            if publisher.topic_name in self._problems:
                found = self._node.get_subscriptions_info_by_topic(publisher.topic_name)
                if all_fit([publisher.qos_profile], (info.qos_profile for info in found)):
                    del self._problems[publisher.topic_name]

    def _look_for_twin(self) -> None:
        """A process that was left over, or started twice, mixes its answers with ours."""
        topic = self._labels.topic_name
        now_s = time.monotonic()
        if self._node.count_publishers(topic) < 2:
            self._twin_since_s = None
            self._problems.pop(TWIN, None)
            return
        self._twin_since_s = now_s if self._twin_since_s is None else self._twin_since_s
        if now_s - self._twin_since_s >= TWIN_AFTER_S and TWIN not in self._problems:
            self._problems[TWIN] = (
                f"{topic}: another process publishes it, too, so subscribers get the answers of both; end it, or give one "
                "of them another name or namespace"
            )
            self._node.get_logger().error(self._problems[TWIN])

    def announce(self, bundle: Bundle) -> None:
        """Say on latched topics which classes the numbers mean, and which model is at work."""
        rows = [{key: row[key] for key in ("id", "name", "color", "thing")} for row in bundle.labels.to_rows()]
        content = {"bundle": bundle.name, "hash": bundle.content_hash, "labels": bundle.labels.name, "classes": rows}
        self._classes.publish(String(data=json.dumps(content)))
        if self._label_info:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            classes = [vision_messages.VisionClass(class_id=row["id"], class_name=row["name"]) for row in rows]
            self._label_info.publish(vision_messages.LabelInfo(header=header, class_map=classes))

    def send(self, cloud: Cloud, answer: Segmentation, labels: LabelMap, with_rgb: bool, texts: bool) -> None:
        """Publish what someone listens to, under the cloud's own stamp and frame.

        `with_rgb` adds the field rgb to the labelled cloud, `texts` adds words to the boxes. Raises CloudError `no_transform`
        where TF cannot bring the cloud into the target frame; the masks, which are the sensor's view, go out all the same.
        """
        header = _header(cloud)
        if self._class_mask.get_subscription_count():
            self._class_mask.publish(_image(header, answer.class_image, "8UC1"))
        if self._instance_mask.get_subscription_count():
            self._instance_mask.publish(_image(header, answer.instance_image, "16UC1"))
        listeners = [publisher for publisher in (self._labels, self._objects, self._detections) if publisher is not None]
        if not any(publisher.get_subscription_count() for publisher in listeners):
            return
        if self._transforms is not None and cloud.frame_id != self._target_frame:
            cloud = self._transforms.moved_to(self._target_frame, cloud)
            header = _header(cloud)
        if self._labels.get_subscription_count():
            rgb = labels.colors[answer.class_id] if with_rgb else None
            points = pack_labelled(
                cloud, answer.class_id, answer.instance_id, answer.confidence, answer.uncertainty, answer.flags, rgb
            )
            message = PointCloud2(header=header)
            fill_message(message, points, cloud, PointField)
            self._labels.publish(message)
        self._send_objects(cloud, answer, header, labels, texts)

    def _send_objects(self, cloud: Cloud, answer: Segmentation, header: Header, labels: LabelMap, texts: bool) -> None:
        offered = (self._objects, self._detections)
        wanted = [publisher for publisher in offered if publisher is not None and publisher.get_subscription_count()]
        if not wanted:
            return
        found = boxes(cloud.xyz, answer.instance_id, answer.class_id, answer.confidence)
        if self._objects in wanted:
            self._objects.publish(markers(found, labels, header, texts))
        if self._detections in wanted:
            self._detections.publish(detections(found, header, vision_messages))

    def close(self) -> None:
        """Remove the publishers; no thread may call `send` any more."""
        for publisher in self._all():
            self._node.destroy_publisher(publisher)
        if self._transforms is not None:
            self._transforms.close()

    def _all(self) -> list[Any]:
        everything = [self._labels, self._class_mask, self._instance_mask, self._classes, self._label_info]
        everything += [self._objects, self._detections]
        return [publisher for publisher in everything if publisher is not None]

    def _publisher(self, kind: Any, topic: str, profile: QoSProfile) -> Any:
        def on_incompatible(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
            name = self._node.resolve_topic_name(topic)
            ours = f", or ours with {override_of(self._node, topic, 'publisher', policy)}" if policy in POLICIES else ""
            self._problems[name] = (
                f"{name}: a subscriber asks for another {policy} than is offered, and gets nothing; change its {policy}{ours}"
            )
            self._node.get_logger().error(self._problems[name])

        return self._node.create_publisher(
            kind,
            topic,
            copy.copy(profile),  # an override changes it, and others share it
            event_callbacks=PublisherEventCallbacks(incompatible_qos=on_incompatible),
            qos_overriding_options=overridable(self._node, topic, "publisher"),
        )


def _header(cloud: Cloud) -> Header:
    header = Header(frame_id=cloud.frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(cloud.stamp_ns, NANOSECONDS)
    return header


def _image(header: Header, pixels: NDArray[Any], encoding: str) -> Image:
    little_endian = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    data = array.array("B")  # the one container that rclpy takes over without looking at each byte
    data.frombytes(little_endian.data.cast("B"))
    height, width = pixels.shape
    return Image(
        header=header, height=height, width=width, encoding=encoding, is_bigendian=0, step=width * pixels.itemsize, data=data
    )
