# SPDX-License-Identifier: Apache-2.0
"""Quality of service: what has another name in another ROS 2 release (Humble to Lyrical), and whether two sides fit."""

from collections.abc import Iterable

from rclpy.duration import Duration
from rclpy.qos import LivelinessPolicy, QoSCompatibility, QoSProfile, qos_check_compatible

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

ENDLESS_NS = (1 << 63) - (1 << 32)
"""a duration that DDS reports as infinite is at least this long"""

__all__ = ["PublisherEventCallbacks", "SubscriptionEventCallbacks", "all_fit"]


def all_fit(publishers: Iterable[QoSProfile], subscriptions: Iterable[QoSProfile]) -> bool:
    """Whether every publisher's profile reaches every subscription's."""
    asked = [_plain(subscription) for subscription in subscriptions]
    return all(
        qos_check_compatible(_plain(publisher), subscription)[0] != QoSCompatibility.ERROR
        for publisher in publishers
        for subscription in asked
    )


def _plain(profile: QoSProfile) -> QoSProfile:
    """As our own profiles have it: what is not set is 0 there, and infinite or automatic in those that DDS reports."""
    unset = profile.liveliness in (LivelinessPolicy.SYSTEM_DEFAULT, LivelinessPolicy.AUTOMATIC)
    return QoSProfile(
        depth=1,
        reliability=profile.reliability,
        durability=profile.durability,
        deadline=_set_duration(profile.deadline),
        liveliness=LivelinessPolicy.SYSTEM_DEFAULT if unset else profile.liveliness,
        liveliness_lease_duration=_set_duration(profile.liveliness_lease_duration),
    )


def _set_duration(duration: Duration) -> Duration:
    return duration if duration.nanoseconds < ENDLESS_NS else Duration()
