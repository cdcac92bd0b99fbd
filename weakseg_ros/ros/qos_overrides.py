# SPDX-License-Identifier: Apache-2.0
"""Parameters `qos_overrides./topic.publisher.depth` and the like: which of them are obeyed, and a sentence on the others.

rclpy's own way declares such a parameter for every topic and keeps its first value for good, so that a node that is configured
anew with other settings would go on with those of its first configuration. Here only those count that were given.
"""

from __future__ import annotations

from typing import Any, Literal

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSPolicyKind, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from weakseg_ros.errors import ConfigError, did_you_mean

PREFIX = "qos_overrides."
POLICIES = {
    "history": (QoSPolicyKind.HISTORY, HistoryPolicy),
    "depth": (QoSPolicyKind.DEPTH, None),
    "reliability": (QoSPolicyKind.RELIABILITY, ReliabilityPolicy),
}
"""what may be overridden, and the words that it takes; a depth is a number"""
OF_ROS = ("/rosout", "/parameter_events", "/clock", "/tf", "/tf_static")
"""topics that other libraries make, with a quality of their own"""


def overridable(node: Node, topic: str, entity: Literal["publisher", "subscription"]) -> QoSOverridingOptions:
    """For a new publisher or subscription: its policies that the node was started with other values for."""
    name = override_of(node, topic, entity, "")
    given = [policy for policy in POLICIES if node.has_parameter(name + policy) and not _fault(node, name + policy)]
    return QoSOverridingOptions([POLICIES[policy][0] for policy in given])


def override_of(node: Node, topic: str, entity: str, policy: str) -> str:
    """The name of the parameter that overrides a policy."""
    return f"{PREFIX}{node.resolve_topic_name(topic)}.{entity}.{policy}"


def check_overrides(node: Node) -> None:
    """ConfigError for overrides with values that mean nothing."""
    faults = [fault for name in _given(node) if (fault := _fault(node, name))]
    if faults:
        raise ConfigError("; ".join(faults))


def unheard_overrides(node: Node) -> list[str]:
    """A sentence for each override that no publisher or subscription of the node reads; ask once all of them are there."""
    heard = [f"{publisher.topic_name}.publisher" for publisher in node.publishers if publisher.topic_name not in OF_ROS]
    heard += [f"{heard_one.topic_name}.subscription" for heard_one in node.subscriptions if heard_one.topic_name not in OF_ROS]
    unheard = [name for name in _given(node) if _end_of(name)[0] not in heard or _end_of(name)[1] not in POLICIES]
    return [f"{name}: has no effect, because the node {_what_it_has(name, heard)}" for name in unheard]


def _given(node: Node) -> list[str]:
    return sorted(f"{PREFIX}{name}" for name in node.get_parameters_by_prefix(PREFIX.rstrip(".")))


def _fault(node: Node, name: str) -> str:
    """A sentence on an override's value that its policy cannot have, or nothing."""
    value: Any = node.get_parameter(name).value
    kind = POLICIES.get(_end_of(name)[1], (None, None))
    if kind[0] == QoSPolicyKind.DEPTH:
        return "" if type(value) is int and value > 0 else f"{name}: expected a whole number above 0, found {value!r}"
    words = [word.lower() for word in kind[1].__members__ if word != "UNKNOWN"] if kind[1] else []
    if not words or str(value).lower() in words:
        return ""
    return f"{name}: unknown value {value!r}{did_you_mean(str(value), words) or '; known: ' + ', '.join(words)}"


def _end_of(name: str) -> tuple[str, str]:
    """The topic with its publisher or subscription, and the policy, in 'qos_overrides./topic.subscription.policy'."""
    entity, _, policy = name.removeprefix(PREFIX).rpartition(".")
    return entity, policy


def _what_it_has(name: str, heard: list[str]) -> str:
    entity, policy = _end_of(name)
    if entity in heard:
        return f"lets {', '.join(POLICIES)} be overridden, and nothing else"
    topic = entity.rpartition(".")[0]
    other = next((one for one in heard if one.rpartition(".")[0] == topic), "")
    if other:
        does = "publishes" if other.endswith(".publisher") else "subscribes to"
        return f"only {does} {topic}; write {PREFIX}{other}.{policy}"
    full_name = "; write the full name, after namespace and remapping, as 'ros2 node info' lists it"
    return f"has no such topic{did_you_mean(entity, heard) or full_name}"
