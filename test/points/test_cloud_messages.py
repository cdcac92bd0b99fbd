# SPDX-License-Identifier: Apache-2.0
"""The codec beside its witnesses: rclpy's serialization, sensor_msgs_py, and a cloud as it came over the wire."""

from __future__ import annotations

import array
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros.errors import CloudError
from weakseg_ros.points.cdr import read_cdr_header
from weakseg_ros.points.cloud import Cloud, decode, decode_cdr, make_cloud
from weakseg_ros.points.encode import fill_message, pack_cloud


@pytest.fixture
def cloud() -> Cloud:
    """40 organised points with rings, a NaN and a non-return."""
    rng = np.random.default_rng(1)
    xyz = rng.normal(size=(40, 3))
    xyz[3] = np.nan
    xyz[4] = 0
    return make_cloud(xyz, rng.random(40), np.repeat(np.arange(4), 10), height=4, stamp_ns=3_000_000_007, frame_id="os_lidar")


@pytest.fixture
def ros_message(cloud: Cloud) -> object:
    """The cloud as an rclpy message; skipped where no ROS is installed."""
    messages = optional("sensor_msgs.msg")
    message = messages.PointCloud2()
    fill_message(message, pack_cloud(cloud), cloud, messages.PointField)
    return message


def assert_same(one: Cloud, other: Cloud) -> None:
    for name in ("xyz", "intensity", "flags", "ring"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.stamp_ns, one.frame_id, one.height, one.width) == (other.stamp_ns, other.frame_id, other.height, other.width)


def test_rclpy_message_there_and_back(ros_message: object, cloud: Cloud) -> None:
    assert isinstance(ros_message.data, array.array)
    assert ros_message.is_dense is False
    assert_same(decode(ros_message), cloud)


def test_serialized_by_rclpy(ros_message: object, cloud: Cloud) -> None:
    serialization = optional("rclpy.serialization")
    assert_same(decode_cdr(serialization.serialize_message(ros_message)), cloud)


def test_sensor_msgs_py_reads_the_same(ros_message: object) -> None:
    oracle = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with an apt install of ROS only")
    points = oracle.read_points(ros_message, skip_nans=False)
    ours = decode(ros_message)
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(points[name].ravel(), ours.xyz[:, axis])
    np.testing.assert_array_equal(points["intensity"].ravel(), ours.intensity)
    np.testing.assert_array_equal(points["ring"].ravel(), ours.ring)


def test_fill_message_refuses_points_of_another_cloud(ros_message: object, cloud: Cloud) -> None:
    with pytest.raises(ValueError, match=r"expected 40 points, found shape \(39,\)"):
        fill_message(ros_message, pack_cloud(cloud)[:39], cloud, object)


def test_rclpy_checks_no_field_in_vain(cloud: Cloud) -> None:
    """With ROS_PYTHON_CHECK_FIELDS=1 rclpy refuses numpy's integers, which data sets on disk give as stamps."""
    optional("sensor_msgs.msg")
    script = (
        "import numpy as np, sensor_msgs.msg as m\n"
        "from weakseg_ros.points.cloud import make_cloud\n"
        "from weakseg_ros.points.encode import fill_message, pack_cloud\n"
        "cloud = make_cloud(np.ones((6, 3)), stamp_ns=np.int64(5_000_000_006), height=np.int64(2))\n"
        "message = m.PointCloud2()\n"
        "fill_message(message, pack_cloud(cloud), cloud, m.PointField)\n"
        "print(message.header.stamp.sec, message.header.stamp.nanosec, message.height, message.width)\n"
    )
    environment = {**os.environ, "ROS_PYTHON_CHECK_FIELDS": "1"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (ended.stdout.strip(), ended.returncode) == ("5 6 2 3", 0), ended.stderr


def test_stamp_before_1970_keeps_its_nanoseconds(ros_message: object, cloud: Cloud) -> None:
    ros_message.header.stamp.sec, ros_message.header.stamp.nanosec = -2, 999_999_999
    assert decode(ros_message).stamp_ns == -1_000_000_001


def test_the_wire(shared_data: Path) -> None:
    blob = (shared_data / "pointcloud2_cdr" / "dds_message.bin").read_bytes()
    raw = read_cdr_header(blob)
    assert (raw.point_step, raw.height, raw.width, raw.is_bigendian) == (26, 1, 64000, False)
    assert [(f.name, f.offset) for f in raw.fields][-2:] == [("ring", 16), ("timestamp", 18)]
    assert np.shares_memory(raw.data, np.frombuffer(blob, np.uint8)), "the data are viewed, not copied"
    cloud = decode_cdr(blob)
    assert (len(cloud), int(cloud.valid.sum()), cloud.frame_id) == (64000, 59422, "lidar_link")
    assert cloud.ring is not None
    np.testing.assert_array_equal(np.bincount(cloud.ring), np.full(32, 2000))
    start = blob.index(struct.pack("<II", 26, 26 * 64000)) + 12
    for i in (0, 1, 777, 63999):
        x, y, z, intensity, ring = struct.unpack_from("<ffffH", blob, start + 26 * i)
        np.testing.assert_array_equal(cloud.xyz[i], np.array([x, y, z], np.float32))
        assert (cloud.intensity[i], cloud.ring[i]) == (intensity, ring)


def test_the_wire_reads_as_rosbags_and_rclpy_read_it(shared_data: Path) -> None:
    typesys = optional("rosbags.typesys")
    blob = (shared_data / "pointcloud2_cdr" / "dds_message.bin").read_bytes()
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    ours = decode_cdr(blob)
    assert_same(decode(store.deserialize_cdr(blob, "sensor_msgs/msg/PointCloud2")), ours)
    serialization = optional("rclpy.serialization")
    messages = optional("sensor_msgs.msg")
    assert_same(decode(serialization.deserialize_message(blob, messages.PointCloud2)), ours)


@pytest.mark.parametrize("kind", [b"\x00\x02", b"\x00\x03", b"\x00\x07", b"\x01\x00", b"\xff\xff"])
def test_other_encapsulations_are_named(kind: bytes) -> None:
    with pytest.raises(CloudError, match="is not plain CDR") as caught:
        decode_cdr(kind + bytes(100))
    assert caught.value.reason == "bad_cdr"


def test_strings_of_length_zero_and_odd_bytes() -> None:
    header = struct.pack("<HHiI", 0x0100, 0, 1, 2)
    tail = struct.pack("<IIIBxxxIII", 0, 0, 0, 0, 0, 0, 0) + b"\x01"
    assert decode_cdr(header + struct.pack("<I", 0) + tail).frame_id == ""
    assert decode_cdr(header + struct.pack("<I", 4) + b"a\xffb\0" + tail).frame_id == "a\ufffdb"


def test_a_list_of_millions_of_fields_is_refused_at_once() -> None:
    header = struct.pack("<HHiII", 0x0100, 0, 1, 2, 0)
    with pytest.raises(CloudError, match="fields, at most"):
        decode_cdr(header + struct.pack("<III", 1, 1, 4_000_000) + bytes(48_000_000))
