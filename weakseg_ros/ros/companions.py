# SPDX-License-Identifier: Apache-2.0
"""Further topics that are kept beside the frames of the log: subscribed to as they come up, whatever their type."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from weakseg_ros.improve.log.recorder import FrameLog

DEPTH = 20


class Companions:
    """Feeds a log the messages of its `context_topics` as they were sent; the ROS thread calls."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log: FrameLog | None = None
        self._subscriptions: dict[str, Any] = {}
        self._refused: set[str] = set()
        self.missing: list[str] = []
        """topics that nobody publishes, or whose type is not known here"""

    def follow(self, log: FrameLog | None) -> None:
        """Subscribe to what a log wants and is published by now; end the rest. Called again and again."""
        wanted = _topics(self._node, log)
        for topic in self._subscriptions.keys() - wanted:
            self._node.destroy_subscription(self._subscriptions.pop(topic))
        self._log = log
        missing = wanted - self._subscriptions.keys() - self._refused
        if missing:
            known = dict(self._node.get_topic_names_and_types())
            for topic in missing & known.keys():
                self._subscribe(topic, known[topic][0])
        self.missing = sorted(wanted - self._subscriptions.keys())

    def _subscribe(self, topic: str, kind: str) -> None:
        package, _, name = kind.partition("/msg/")
        try:
            message_type = getattr(importlib.import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError) as error:
            self._refused.add(topic)
            self._node.get_logger().warning(
                f"log.context_topics: {topic} has the type {kind}, which cannot be imported here ({error}); "
                "install its package, or leave the topic out"
            )
            return

        def came(data: bytes) -> None:
            if self._log is not None:
                self._log.remember(topic, kind, bytes(data))

        profile = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions[topic] = self._node.create_subscription(message_type, topic, came, profile, raw=True)


def _topics(node: Node, log: FrameLog | None) -> set[str]:
    if log is None or not (log.settings.before_s or log.settings.after_s):
        return set()
    return {node.resolve_topic_name(name) for name in log.settings.context_names}
