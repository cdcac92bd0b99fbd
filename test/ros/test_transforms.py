# SPDX-License-Identifier: Apache-2.0
"""Coordinate frames through TF when time begins anew, with a stand-in for tf2_ros, which has no wheel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from weakseg_ros.errors import CloudError
from weakseg_ros.points.cloud import make_cloud

SECOND = 10**9
KEPT_NS = 10 * SECOND
"""how far back tf2 remembers; it refuses what is older than that"""


class TransformException(Exception):
    pass


class Buffer:
    """Of one transform that is published with each time, what tf2's Buffer keeps of it."""

    def __init__(self) -> None:
        self.times: list[int] = []

    def publish(self, stamp_ns: int) -> None:
        if not self.times or stamp_ns >= max(self.times) - KEPT_NS:
            self.times.append(stamp_ns)

    def clear(self) -> None:
        self.times.clear()

    def lookup_transform(self, target: str, source: str, time: Any, timeout: Any) -> Any:
        if not self.times or not min(self.times) <= (time.nanoseconds or max(self.times)) <= max(self.times):
            raise TransformException("Lookup would require extrapolation")
        shift, turn = (
            SimpleNamespace(x=-1.0 if source == "rear" else 1.0, y=0.0, z=0.0),
            SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0),
        )
        return SimpleNamespace(transform=SimpleNamespace(translation=shift, rotation=turn))


@pytest.fixture
def node(rig: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A node for which tf2_ros is the stand-in."""
    listener = lambda buffer, node: SimpleNamespace(unregister=lambda: None)  # noqa: E731
    module = SimpleNamespace(TransformException=TransformException, Buffer=Buffer, TransformListener=listener)
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    opened = rig.rclpy.create_node("listener", namespace="/transforms_test")
    yield opened
    opened.destroy_node()


@pytest.fixture
def transforms(node: Any) -> Any:
    from weakseg_ros.ros.transforms import Transforms

    return Transforms(node, "target_frame")


def known(transforms: Any, stamp_ns: int, published: bool = True) -> bool:
    """Whether a cloud of this time is brought into the other frame, where TF publishes with it."""
    if published:
        transforms._buffer.publish(stamp_ns)
    try:
        moved = transforms.moved_to("base", make_cloud(np.ones((1, 3)), stamp_ns=stamp_ns, frame_id="lidar"))
    except CloudError as error:
        if error.reason != "no_transform":
            raise
        return False
    np.testing.assert_allclose(moved.xyz, [[2, 1, 1]])
    return True


def test_a_bag_that_begins_anew_is_answered_again(transforms: Any) -> None:
    assert all(known(transforms, (1000 + step) * SECOND) for step in range(60))
    again = [known(transforms, (1000 + step) * SECOND) for step in range(60)]
    assert again.count(False) <= 2, "two clouds in a row tell that the time has gone back"
    assert all(again[2:])


def test_a_second_sensor_with_an_earlier_clock_does_not_forget_the_transforms_of_the_first(transforms: Any) -> None:
    for step in range(20):
        assert known(transforms, (1000 + step) * SECOND)
        assert not known(transforms, (900 + step) * SECOND, published=False)


def test_a_time_before_1970_has_no_transform(transforms: Any) -> None:
    assert known(transforms, SECOND)
    assert not known(transforms, -5 * SECOND, published=False)


def test_a_cloud_without_points_needs_no_transform(transforms: Any) -> None:
    moved = transforms.moved_to("base", make_cloud(np.zeros((0, 3)), stamp_ns=5, frame_id="lidar"))
    assert (len(moved), moved.frame_id) == (0, "base")


def test_each_sensor_has_its_own_way_to_the_body(node: Any) -> None:
    """A driver may change its frame_id, and two sensors may share a topic."""
    from nav_msgs.msg import Odometry

    from weakseg_ros.ros.following import Following
    from weakseg_ros.ros.params import NodeConfig

    following = Following(node, NodeConfig(odometry_topic="odom", odometry_extrinsic="tf"))
    following._transforms._buffer.publish(SECOND)
    message = Odometry()
    message.header.stamp.sec, message.pose.pose.orientation.w = 5, 1.0
    clouds = {frame: make_cloud(np.ones((1, 3)), stamp_ns=5 * SECOND, frame_id=frame) for frame in ("lidar", "rear")}
    for what, why in ((None, "nobody publishes"), (message, "names no child_frame_id that TF could know")):
        if what is not None:
            following._odometry._on_pose(what)
        assert [following._pose(clouds["lidar"]) for _ in range(10)] == [None] * 10
        assert why in following.status().message
    message.header.stamp.nanosec, message.child_frame_id = 1, "body"
    following._odometry._on_pose(message)
    for frame, x in (("lidar", 1.0), ("rear", -1.0), ("lidar", 1.0)):
        assert following._pose(clouds[frame])[0, 3] == x
    assert following.status().message == "ok"
    following.close()
