# SPDX-License-Identifier: Apache-2.0
"""Boxes and lasting ids over DDS: what the markers say, that old ones vanish, that odometry is taken, and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from weakseg_ros.deploy.boxes import boxes
from weakseg_ros.points.labelled import unpack_labelled
from weakseg_ros.points.labels import LabelClass, LabelMap

Start = Callable[..., tuple[Any, Any]]
THINGS = LabelMap("things", tuple(LabelClass(i, f"thing {i}", (i * 40, 9, 0), i > 0, (i * 10,)) for i in range(5)))
CORNERS = np.array([[x, y, z] for x in np.arange(5) * 0.4 for y in (0.0, 0.4) for z in np.arange(5) * 0.4 - 1])


@pytest.fixture(scope="module")
def things_bundle(rig: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny model, all of whose classes are countable; it looks at the intensity, so that an object has one class."""
    rule = {"mean": (20.0, 0.0, 0.0), "std": (1e4, 1e4, 1e-2)}
    return rig.make_bundle(tmp_path_factory.mktemp("bundles"), "things", labels=THINGS, **rule)


@pytest.fixture(scope="module")
def live(rig: Any, start: Start, things_bundle: Any) -> tuple[Any, Any, list[Any]]:
    """A node that draws boxes, its client, and the marker arrays that came."""
    from visualization_msgs.msg import MarkerArray

    process, client = start(
        "--bundle", str(things_bundle.folder), "--engine", "onnxruntime", "--odometry-topic", "odom", ROS_PYTHON_CHECK_FIELDS="1"
    )
    arrays: list[Any] = []
    reliable = rig.QoSProfile(depth=50, reliability=rig.ReliabilityPolicy.RELIABLE)
    topic = client.node.create_subscription(MarkerArray, "weakseg/objects", arrays.append, reliable).topic_name
    client.connect()
    client.wait(lambda: client.node.count_publishers(topic), "the boxes' publisher")
    client.wait(lambda: client.answer_to(rig.make_cloud(cluster((10, 0)))) and arrays, "first boxes")
    return process, client, arrays


def cluster(*places: tuple[float, float]) -> np.ndarray:
    """(N, 4) points of small objects that stand at these x, y."""
    xyz = np.concatenate([CORNERS + np.array([x, y, 0.0]) for x, y in places])
    return np.column_stack([xyz, np.full(len(xyz), 0.5)]).astype(np.float32)


def boxes_of(client: Any, arrays: list[Any], message: Any) -> tuple[dict[str, np.ndarray], Any]:
    """The labelled points of a cloud, and the marker array of the same stamp."""
    answer = client.answer_to(message)
    assert answer is not None

    def same_stamp() -> Any:
        return next((array for array in arrays if array.markers[0].header.stamp == message.header.stamp), None)

    return unpack_labelled(answer), client.wait(same_stamp, "the boxes of this cloud")


def test_there_is_one_cube_per_instance_and_old_ones_vanish(rig: Any, live: tuple[Any, Any, list[Any]]) -> None:
    from visualization_msgs.msg import Marker

    _, client, arrays = live
    message = rig.make_cloud(cluster((10, 0), (-12, 6), (5, -9)))
    columns, array = boxes_of(client, arrays, message)
    first, *cubes = array.markers
    assert first.action == Marker.DELETEALL
    assert sorted(cube.id for cube in cubes) == np.unique(columns["instance_id"][columns["instance_id"] > 0]).tolist()
    assert len(cubes) >= 3
    for cube in cubes:
        mine = columns["instance_id"] == cube.id
        class_id = int(np.bincount(columns["class_id"][mine]).argmax())
        assert (cube.type, cube.action, cube.ns) == (Marker.CUBE, Marker.ADD, f"thing {class_id}")
        assert (cube.header.frame_id, cube.header.stamp) == (message.header.frame_id, message.header.stamp)
        assert cube.color.r == pytest.approx(class_id * 40 / 255)
        assert 0 < cube.color.a < 1
        assert cube.lifetime.sec > 0
        turn = cube.pose.orientation
        assert turn.x**2 + turn.y**2 + turn.z**2 + turn.w**2 == pytest.approx(1.0)
        xyz = np.column_stack([columns[axis][mine] for axis in "xyz"])
        middle = (cube.pose.position.x, cube.pose.position.y, cube.pose.position.z)
        reach = np.linalg.norm([cube.scale.x, cube.scale.y, cube.scale.z]) / 2
        assert np.linalg.norm(xyz - middle, axis=1).max() <= reach + 1e-3
        assert min(cube.scale.x, cube.scale.y, cube.scale.z) > 0


def test_a_cloud_without_objects_clears_the_picture(rig: Any, live: tuple[Any, Any, list[Any]]) -> None:
    _, client, arrays = live
    lonely = np.array([[10.0, 0.0, 0.0, 0.5]], np.float32)
    columns, array = boxes_of(client, arrays, rig.make_cloud(lonely))
    assert not columns["instance_id"].any()
    assert len(array.markers) == 1


def test_ids_stay_while_the_objects_move_and_texts_can_be_had(rig: Any, live: tuple[Any, Any, list[Any]]) -> None:
    from visualization_msgs.msg import Marker

    _, client, arrays = live
    assert client.set(object_texts=True) == ""
    ids = []
    for step in range(6):
        message = rig.make_cloud(cluster((10 + 0.3 * step, 0), (-12, 6)))
        message.header.stamp.sec, message.header.stamp.nanosec = 1_750_000_000, step * 100_000_000
        columns, array = boxes_of(client, arrays, message)
        ids.append(columns["instance_id"])
        texts = [marker for marker in array.markers if marker.type == Marker.TEXT_VIEW_FACING]
        cubes = [marker for marker in array.markers[1:] if marker.type == Marker.CUBE]
        assert len(texts) == len(cubes) >= 2
        assert all(str(text.id) in text.text for text in texts)
    assert client.set(object_texts=False) == ""
    for after in ids:
        np.testing.assert_array_equal(after, ids[0])


def test_without_tracking_ids_begin_at_one(rig: Any, live: tuple[Any, Any, list[Any]]) -> None:
    _, client, arrays = live
    assert client.set(track_instances=False) == ""
    columns, array = boxes_of(client, arrays, rig.make_cloud(cluster((10, 0), (-12, 6))))
    assert client.set(track_instances=True) == ""
    found = np.unique(columns["instance_id"][columns["instance_id"] > 0])
    np.testing.assert_array_equal(found, np.arange(1, len(found) + 1))
    assert sorted(marker.id for marker in array.markers[1:]) == found.tolist()


def told(rig: Any, live: tuple[Any, Any, list[Any]], sentence: str) -> None:
    """Send clouds until the diagnostics say this of the odometry."""
    _, client, _ = live

    def said() -> bool:
        assert client.answer_to(rig.make_cloud(cluster((10, 0))))
        client.spin(0.05)
        return sentence in client.status["odometry"].message

    client.wait(said, sentence)
    assert client.status["odometry"].level == rig.DiagnosticStatus.WARN
    assert "objects are followed without it" in client.status["odometry"].message


def test_odometry_that_nobody_publishes_is_told(rig: Any, live: tuple[Any, Any, list[Any]]) -> None:
    process, client, _ = live
    told(rig, live, f"odometry_topic: {process.namespace}/odom: nobody publishes")
    process.wait_for_text("odom: nobody publishes; objects are followed without it")
    other = client.node.create_publisher(rig.String, "odom", 10)
    told(rig, live, "carries std_msgs/msg/String, not nav_msgs/msg/Odometry")
    client.node.destroy_publisher(other)


def test_odometry_says_that_we_move_and_the_object_stands(rig: Any, live: tuple[Any, Any, list[Any]]) -> None:
    from nav_msgs.msg import Odometry

    _, client, arrays = live
    poses = client.node.create_publisher(Odometry, "odom", 10)
    client.wait(poses.get_subscription_count, "the node's subscription")
    ids = []
    for step in range(5):
        message = rig.make_cloud(cluster((12 - 2.5 * step, 4)))
        message.header.stamp.sec, message.header.stamp.nanosec = 1_800_000_000, step * 100_000_000
        odometry = Odometry(header=message.header)
        odometry.pose.pose.position.x, odometry.pose.pose.orientation.w = 2.5 * step, 1.0
        poses.publish(odometry)
        client.spin(0.1)
        columns, _ = boxes_of(client, arrays, message)
        ids.append(int(np.bincount(columns["instance_id"]).argmax()))
    assert ids == [ids[0]] * 5
    assert ids[0] > 0
    client.wait(lambda: client.status["odometry"].level == rig.DiagnosticStatus.OK, "odometry that is in order")
    told(rig, live, "the nearest pose is of")  # clouds of another year
    assert "s after the cloud; check that it goes on" in client.status["odometry"].message
    client.node.destroy_publisher(poses)


@dataclass
class Hypothesis:
    class_id: str = ""
    score: float = 0.0


@dataclass
class Result:
    hypothesis: Hypothesis = field(default_factory=Hypothesis)
    pose: SimpleNamespace = field(default_factory=SimpleNamespace)


@dataclass
class Array:
    header: Any
    detections: list[Any] = field(default_factory=list)


def test_detections_say_the_same_as_the_boxes(rig: Any) -> None:
    """vision_msgs has no wheel, so its messages are stood for by their published fields."""
    from std_msgs.msg import Header

    from weakseg_ros.ros.objects import detections

    messages = SimpleNamespace(
        Detection3DArray=Array, ObjectHypothesisWithPose=Result, BoundingBox3D=SimpleNamespace, Detection3D=SimpleNamespace
    )
    points = cluster((10, 0), (-12, 6))
    instance_id = np.repeat(np.array([7, 300], np.uint16), len(CORNERS))
    confidence = np.full(len(points), 0.25, np.float32)
    found = boxes(points[:, :3], instance_id, (instance_id % 5).astype(np.uint8), confidence)
    header = Header(frame_id="lidar")
    array = detections(found, header, messages)
    assert array.header == header
    assert [detection.id for detection in array.detections] == ["7", "300"]
    for detection, box in zip(array.detections, found, strict=True):
        (result,) = detection.results
        assert (result.hypothesis.class_id, result.hypothesis.score) == (str(box["class_id"]), 0.25)
        assert detection.bbox.center.position.x == pytest.approx(float(box["centre_m"][0]))
        assert detection.bbox.size.x == pytest.approx(float(box["size_m"][0]))
        assert result.pose.pose == detection.bbox.center


def test_a_pose_between_two_is_between_them(rig: Any) -> None:
    from nav_msgs.msg import Odometry

    from weakseg_ros.ros.odometry import OdometryTopic

    node = rig.rclpy.create_node("listener", namespace="/odometry_test")
    topic = OdometryTopic(node, "odom")
    assert topic.pose_at(0) is None
    for stamp, x, half in ((0, 0.0, 0.0), (100_000_000, 2.0, 0.1)):
        message = Odometry()
        message.header.stamp.nanosec = stamp
        message.pose.pose.position.x = x
        # the second quaternion has the other sign, which means the same turn
        sign = -1.0 if stamp else 1.0
        message.pose.pose.orientation.z, message.pose.pose.orientation.w = sign * np.sin(half), sign * np.cos(half)
        topic._on_pose(message)
    pose = topic.pose_at(50_000_000)
    assert pose is not None
    np.testing.assert_allclose(pose[:3, 3], (1.0, 0, 0))
    assert np.arctan2(pose[1, 0], pose[0, 0]) == pytest.approx(0.1, abs=1e-3)
    assert topic.pose_at(200_000_000) is not None
    assert topic.pose_at(400_000_000) is None
    overtaken, again = Odometry(), Odometry()  # neither ends what is known
    overtaken.header.stamp.nanosec, again.header.stamp.nanosec = 50_000_000, 100_000_000
    overtaken.pose.pose.orientation.w = again.pose.pose.orientation.w = 1.0
    for message in (overtaken, again):
        topic._on_pose(message)
    np.testing.assert_allclose(topic.pose_at(50_000_000)[:3, 3], (1.0, 0, 0))
    assert topic.gap_s(400_000_000) == pytest.approx(0.3)
    broken = Odometry()
    broken.header.stamp.sec = 5
    broken.pose.pose.orientation.w = 0.0
    topic._on_pose(broken)
    assert topic.pose_at(5_000_000_000) is None
    assert (topic.received, topic.refused) == (5, 1)
    for seconds in (9, 2):
        message = Odometry()
        message.header.stamp.sec, message.pose.pose.orientation.w = seconds, 1.0
        topic._on_pose(message)
    assert topic.pose_at(9_000_000_000) is None, "a bag that begins anew"
    assert topic.pose_at(2_000_000_000) is not None
    topic.close()
    node.destroy_node()


def test_odometry_settings_are_checked(rig: Any, live: tuple[Any, Any, list[Any]], tmp_path: Path) -> None:
    _, client, _ = live
    assert "can be changed only while the node is unconfigured" in client.set(odometry_topic="other")
    assert "max_age_s" in client.set(**{"track.max_age_s": -1.0})
    assert client.set(**{"track.max_age_s": 3.0}) == ""
