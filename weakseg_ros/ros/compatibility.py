# SPDX-License-Identifier: Apache-2.0
"""Quality of service: what has another name in another ROS 2 release (Humble to Lyrical), and whether two sides fit."""

from collections.abc import Iterable

from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = ["PublisherEventCallbacks", "SubscriptionEventCallbacks", "all_fit"]


def all_fit(publishers: Iterable[QoSProfile], subscriptions: Iterable[QoSProfile]) -> bool:
    """Whether every publisher's profile reaches every subscription's."""
    subscriptions = list(subscriptions)
    return all(
        qos_check_compatible(publisher, subscription)[0] != QoSCompatibility.ERROR
        for publisher in publishers
        for subscription in subscriptions
    )
