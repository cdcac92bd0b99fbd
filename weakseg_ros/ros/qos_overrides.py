# SPDX-License-Identifier: Apache-2.0
"""Parameters `qos_overrides.*` that speak of no topic of the node: ROS takes them without a word, and nothing changes."""

from __future__ import annotations

from rclpy.node import Node

from weakseg_ros.errors import did_you_mean

PREFIX = "qos_overrides."


def unheard_overrides(node: Node) -> list[str]:
    """A sentence for each override that no publisher or subscription of the node reads; ask once all of them are there."""
    heard = [f"{publisher.topic_name}.publisher" for publisher in node.publishers]
    heard += [f"{subscription.topic_name}.subscription" for subscription in node.subscriptions]
    given = [f"{PREFIX}{name}" for name in node.get_parameters_by_prefix(PREFIX.rstrip("."))]
    unheard = [name for name in given if _end_of(name) not in heard]
    return [f"{name}: has no effect, because the node {_what_it_has(name, heard)}" for name in sorted(unheard)]


def _end_of(name: str) -> str:
    """The topic and its publisher or subscription, in 'qos_overrides./topic.subscription_id.policy'."""
    topic, _, entity = name.removeprefix(PREFIX).rpartition(".")[0].rpartition(".")
    return f"{topic}.{entity.partition('_')[0]}"


def _what_it_has(name: str, heard: list[str]) -> str:
    topic = _end_of(name).rpartition(".")[0]
    other = next((one for one in heard if one.rpartition(".")[0] == topic), "")
    if other:
        does = "publishes" if other.endswith(".publisher") else "subscribes to"
        return f"only {does} {topic}; write {PREFIX}{other}.{name.rpartition('.')[2]}"
    full_name = "; write the full name, after namespace and remapping, as 'ros2 node info' lists it"
    return f"has no such topic{did_you_mean(_end_of(name), heard) or full_name}"
