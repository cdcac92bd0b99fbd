# SPDX-License-Identifier: Apache-2.0
"""Expressions inside the node: `~/prompt` says which object is meant, `~/referred` has its points, `~/refer` tells the answer."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import String
from std_srvs.srv import Trigger

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.followed_words import FollowedWords, Found
from weakseg_ros.deploy.referring import Referrer
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import WeaksegError, printable, shortened
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.encode import fill_message
from weakseg_ros.ros.model import Model
from weakseg_ros.ros.qos_overrides import overridable

REFERRED_DTYPE = np.dtype(
    {
        "names": ["x", "y", "z", "score", "instance_id"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2"],
        "offsets": [0, 4, 8, 12, 16],
        "itemsize": 20,
    }
)
"""a point of `~/referred`"""
LONGEST = 1000
"""characters of an expression, of which the model reads some words"""
NOTHING_ASKED = "no expression is set; publish one on ~/prompt"


class Prompting:
    """The expression at work, or none. `update` is the worker's, the callbacks are the ROS thread's."""

    def __init__(self, node: Node, model: Model) -> None:
        self._node, self._model = node, model
        self._lock = threading.Lock()
        self._text = self._fault = ""
        self._words: FollowedWords | None = None
        self._refused: Bundle | None = None
        self._last: dict[str, Any] | None = None
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        out, prompts = overridable(node, "~/referred", "publisher"), overridable(node, "~/prompt", "subscription")
        self._referred = node.create_publisher(PointCloud2, "~/referred", reliable, qos_overriding_options=out)
        heard = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._prompts = node.create_subscription(String, "~/prompt", self._on_prompt, heard, qos_overriding_options=prompts)
        self._service = node.create_service(Trigger, "~/refer", self._on_refer)

    @property
    def wants_features(self) -> bool:
        """Whether the next cloud has to be segmented with `settings.refer`."""
        words = self._words
        return words is not None and words.wants_features

    def update(self, cloud: Cloud, seen: Cloud, answer: Segmentation, bundle: Bundle, follow: bool) -> dict[str, float]:
        """Answer the expression in one cloud and publish the points; milliseconds by stage, none where nothing is asked.

        `cloud` is as it was sent, `seen` as the model saw it, and `answer` has ids that stay where `follow` says so.
        """
        words, text = self._words, self._text
        if not text:
            return {}
        begin = time.perf_counter()
        if bundle is self._refused:
            return {}
        if words is None or words.bundle is not bundle or words.follows != follow:
            words = self._open(text, bundle, follow)
        if words is None:
            return {}
        found = words.update(seen, answer)
        with self._lock:
            if self._words is words:
                self._last = _told(text, found, cloud)
        if self._referred.get_subscription_count():
            self._referred.publish(_message(cloud, found))
        return {"refer": (time.perf_counter() - begin) * 1e3}

    def close(self) -> None:
        """Take no more expressions; nobody may call `update` any more."""
        self._node.destroy_subscription(self._prompts)
        self._node.destroy_service(self._service)
        self._node.destroy_publisher(self._referred)

    def _on_prompt(self, message: String) -> None:
        text = shortened(message.data, LONGEST)
        with self._lock:
            self._text, self._words, self._last, self._fault, self._refused = text, None, None, "", None
        if not text:
            self._node.get_logger().info("the prompt is empty, so the search has ended")
            return
        words = self._open(text, self._model.bundle, follow=True)
        if words is not None:
            unknown = f"; not known and left out: {', '.join(words.unknown_words)}" if words.unknown_words else ""
            self._node.get_logger().info(printable(f"looking for '{text}'{unknown}"))

    def _open(self, text: str, bundle: Bundle, follow: bool) -> FollowedWords | None:
        """Encode an expression for a bundle, unless another one came meanwhile; None, said once, where the bundle cannot."""
        try:
            words, fault = FollowedWords(Referrer(bundle), text, follow), ""
        except WeaksegError as error:
            words, fault = None, str(error)
        with self._lock:
            if self._text != text:
                return None
            is_news, self._fault = fault != self._fault, fault
            self._words, self._refused = words, bundle if words is None else None
        if fault and is_news:
            self._node.get_logger().warning(printable(f"the expression is not answered: {fault}"))
        return words

    def _on_refer(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            text, last, fault = self._text, self._last, self._fault
        if not text or fault or last is None:
            response.message = fault or (f"'{text}': no cloud has come since; ask again" if text else NOTHING_ASKED)
            return response
        response.success, response.message = bool(last["points"]), json.dumps(last)
        return response


def _told(text: str, found: Found, cloud: Cloud) -> dict[str, Any]:
    """The answer as `~/refer` says it."""
    points = cloud.xyz[found.mask]
    centre = [round(float(value), 2) for value in points.mean(axis=0)] if len(points) else None
    return {
        "prompt": text,
        "points": len(points),
        "score": round(found.score, 3),
        "instance_id": found.instance_id,
        "centre_m": centre,
        "frame_id": cloud.frame_id,
        "stamp_ns": cloud.stamp_ns,
    }


def _message(cloud: Cloud, found: Found) -> PointCloud2:
    """The points of the answer, where they were sent; an empty cloud where nothing is meant."""
    at: NDArray[np.intp] = np.flatnonzero(found.mask)
    points = np.zeros(len(at), REFERRED_DTYPE)
    points["x"], points["y"], points["z"] = cloud.xyz[at].T
    points["score"], points["instance_id"] = found.score, found.instance_id
    part = dataclasses.replace(
        cloud,
        xyz=cloud.xyz[at],
        intensity=cloud.intensity[at],
        flags=cloud.flags[at],
        ring=None,
        rgb=None,
        height=1,
        width=len(at),
    )
    message = PointCloud2()
    fill_message(message, points, part, PointField)
    return message
