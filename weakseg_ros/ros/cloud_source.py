# SPDX-License-Identifier: Apache-2.0
"""Where clouds come from: a subscription that suits its publishers, and says so where it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from sensor_msgs.msg import PointCloud2

from weakseg_ros.errors import ConfigError
from weakseg_ros.ros.compatibility import SubscriptionEventCallbacks, all_fit
from weakseg_ros.ros.params import TOPIC, NodeConfig
from weakseg_ros.ros.qos_overrides import overridable, override_of

MESSAGE_TYPE = "sensor_msgs/msg/PointCloud2"
OWN_CLOUDS = ("labels", "uncertain", "referred")
"""what the node publishes of this type: clouds taken from there would go round for ever"""


class CloudSource:
    """The subscription to the clouds, serialized as they came.

    A best-effort subscription hears every publisher but loses clouds that the transport cannot hold; a reliable one
    hears nothing of a best-effort publisher. So `reliability: auto` begins with best effort and asks for reliable
    once every publisher offers it. A value in `qos_overrides` is obeyed instead. Raises ConfigError where the topic is one of the
    node's own.
    """

    def __init__(self, node: Node, config: NodeConfig, on_cloud: Callable[[bytes], None], on_lost: Callable[[int], None]) -> None:
        self._node = node
        self._lossless = config.mode == "replay"
        self._on_cloud = on_cloud
        self._on_lost = on_lost
        self.topic: str = node.resolve_topic_name(TOPIC)
        if self.topic in [node.resolve_topic_name(f"~/{name}") for name in OWN_CLOUDS]:
            raise ConfigError(f"{self.topic}: holds this node's own answers; remap 'points' to the LiDAR's topic (input_topic)")
        self._sequences: dict[bytes, int] = {}
        self.publishers = 0
        self._alone_until_s = time.monotonic()
        self.problem = ""
        override = override_of(node, TOPIC, "subscription", "reliability")
        is_overridden = node.has_parameter(override)
        self._follows_publishers = config.reliability == "auto" and not self._lossless and not is_overridden
        self._remedy = f"change {override}" if is_overridden else _remedy(config)
        wants_reliable = config.reliability == "reliable" or (self._lossless and config.reliability == "auto")
        self.reliability = ReliabilityPolicy.RELIABLE if wants_reliable else ReliabilityPolicy.BEST_EFFORT
        present = [info for info in node.get_publishers_info_by_topic(self.topic) if info.topic_type == MESSAGE_TYPE]
        if self._follows_publishers and present:
            self.reliability = _suitable(present)
        self._subscription = self._subscribe()

    @property
    def seconds_with_publishers(self) -> float:
        """How long there has been someone to hear."""
        return time.monotonic() - self._alone_until_s

    def check_publishers(self) -> None:
        """Look who publishes; subscribe anew where `auto` would now choose otherwise. Call it every now and then."""
        found = self._node.get_publishers_info_by_topic(self.topic)
        fitting = [info for info in found if info.topic_type == MESSAGE_TYPE]
        self.publishers = len(fitting)
        if not fitting:
            self._alone_until_s = time.monotonic()
        if found and not fitting:
            self.problem = f"{self.topic}: carries {found[0].topic_type}, not {MESSAGE_TYPE}; remap 'points' to the LiDAR's topic"
        elif all_fit((info.qos_profile for info in fitting), [self._subscription.qos_profile]):
            self.problem = ""
        if not self._follows_publishers or not fitting:
            return
        suitable = _suitable(fitting)
        if suitable != self.reliability:
            self.close()
            self.reliability, self.problem = suitable, ""
            self._subscription = self._subscribe()
            self._node.get_logger().info(f"{self.topic}: subscribed as {suitable.name.lower()}, as its publishers are")

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self) -> Any:
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_ALL if self._lossless else HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=self.reliability,
            durability=DurabilityPolicy.VOLATILE,
        )
        self._sequences.clear()
        subscription = self._node.create_subscription(
            PointCloud2,
            TOPIC,
            self._on_message,
            profile,
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
            qos_overriding_options=overridable(self._node, TOPIC, "subscription"),
        )
        self.reliability = profile.reliability
        return subscription

    def _on_message(self, serialized: bytes, info: Mapping[str, Any]) -> None:
        """Count what the publisher sent and the middleware did not deliver, where it numbers its messages; pass the cloud on."""
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is not None and (publisher is not None or self.publishers == 1):
            key = publisher["data"] if publisher else b""
            last = self._sequences.get(key, number - 1)
            self._sequences[key] = number
            if number > last + 1:
                self._on_lost(number - last - 1)
        self._on_cloud(serialized)

    def _on_incompatible(self, event: Any) -> None:
        if self._follows_publishers:
            return  # the next look at them subscribes anew
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        self.problem = (
            f"{self.topic}: a publisher offers another {policy} than this node asks for ({self.reliability.name.lower()}), "
            f"so none of its clouds arrives; {self._remedy}, or the publisher's {policy}"
        )
        self._node.get_logger().error(self.problem)


def _remedy(config: NodeConfig) -> str:
    """What to do where the publisher's reliability does not fit; in replay mode `auto` asks for reliable."""
    return f"set the parameter 'reliability' to {'best_effort' if config.mode == 'replay' else 'auto'}"


def _suitable(publishers: Iterable[Any]) -> ReliabilityPolicy:
    """The strongest reliability that hears every one of these publishers."""
    all_reliable = all(info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers)
    return ReliabilityPolicy.RELIABLE if all_reliable else ReliabilityPolicy.BEST_EFFORT
