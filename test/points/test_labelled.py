# SPDX-License-Identifier: Apache-2.0
"""The labelled cloud: the layout that ros_node promises, and every point answered in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rosbags.typesys import Stores, get_typestore

from support import optional
from weakseg_ros.errors import CloudError
from weakseg_ros.points.cloud import Cloud, decode, make_cloud
from weakseg_ros.points.encode import fill_message
from weakseg_ros.points.labelled import (
    LABELLED_DTYPE,
    LABELLED_FIELDS,
    LABELLED_RGB_DTYPE,
    pack_labelled,
    pack_rgb,
    unpack_labelled,
)

STORE = get_typestore(Stores.ROS2_HUMBLE)
CLOUD = "sensor_msgs/msg/PointCloud2"
POINT_FIELD = STORE.types["sensor_msgs/msg/PointField"]


def empty_message() -> Any:
    types = STORE.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "")
    return types[CLOUD](header, 0, 0, [], False, 0, 0, np.zeros(0, np.uint8), False)


def send(points: np.ndarray, cloud: Cloud) -> Any:
    """The message as a subscriber gets it: filled, serialized, read by another program."""
    message = empty_message()
    fill_message(message, points, cloud, POINT_FIELD)
    message.data = np.frombuffer(message.data, np.uint8)
    return STORE.deserialize_cdr(STORE.serialize_cdr(message, CLOUD), CLOUD)


def labels_of(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "class_id": rng.integers(0, 255, count, np.uint8),
        "instance_id": rng.integers(0, 65535, count, np.uint16),
        "confidence": rng.random(count, np.float32),
        "uncertainty": rng.random(count, np.float32),
        "flags": rng.integers(0, 7, count, np.uint8),
    }


def test_layout_on_the_wire() -> None:
    assert [tuple(field) for field in LABELLED_FIELDS] == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
        ("class_id", 12, 2, 1),
        ("flags", 13, 2, 1),
        ("instance_id", 14, 4, 1),
        ("confidence", 16, 7, 1),
        ("uncertainty", 20, 7, 1),
    ]
    assert (LABELLED_DTYPE.itemsize, LABELLED_RGB_DTYPE.itemsize, LABELLED_RGB_DTYPE.fields["rgb"][1]) == (24, 28, 24)


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(3)), elements=st.floats(width=32)), st.booleans())
def test_every_point_comes_back_in_its_place(xyz: np.ndarray, with_rgb: bool) -> None:
    cloud = make_cloud(xyz, stamp_ns=12_000_000_034, frame_id="base")
    labels = labels_of(len(xyz))
    rgb = np.random.default_rng(1).integers(0, 255, (len(xyz), 3), np.uint8) if with_rgb else None
    message = send(pack_labelled(cloud, **labels, rgb=rgb), cloud)
    columns = unpack_labelled(message)
    for name, sent in labels.items():
        np.testing.assert_array_equal(columns[name], sent)
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(columns[name], xyz[:, axis])
    assert ("rgb" in columns) == with_rgb
    if rgb is not None:
        np.testing.assert_array_equal(columns["rgb"].view(np.uint32), pack_rgb(rgb).view(np.uint32))
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (12, 34, "base")


@pytest.mark.parametrize(("height", "width"), [(3, 4), (1, 12), (0, 7), (5, 0)])
def test_shape_is_that_of_the_input(height: int, width: int) -> None:
    count = height * width
    cloud = make_cloud(np.ones((count, 3)), height=height, width=width)
    message = send(pack_labelled(cloud, **labels_of(count)), cloud)
    assert (message.height, message.width, message.row_step, len(message.data)) == (height, width, 24 * width, 24 * count)
    assert len(unpack_labelled(message)["class_id"]) == count
    assert len(decode(message)) == count


def test_colour_bits_are_those_that_rviz_reads() -> None:
    bits = pack_rgb(np.array([[255, 0, 0], [1, 2, 3]], np.uint8)).view(np.uint32)
    assert [hex(value) for value in bits] == ["0xff0000", "0x10203"]


@pytest.mark.parametrize("name", ["class_id", "instance_id", "confidence", "uncertainty", "flags"])
def test_labels_of_another_length_are_refused(name: str) -> None:
    cloud = make_cloud(np.ones((4, 3)))
    labels = labels_of(4) | {name: np.zeros(3)}
    with pytest.raises(ValueError, match=rf"expected {name} of shape \(4,\), found \(3,\)"):
        pack_labelled(cloud, **labels)
    with pytest.raises(ValueError, match=r"expected rgb of shape \(4, 3\)"):
        pack_labelled(cloud, **labels_of(4), rgb=np.zeros((4, 4), np.uint8))


def test_another_cloud_is_no_labelled_cloud() -> None:
    cloud = make_cloud(np.ones((4, 3)))
    message = send(pack_labelled(cloud, **labels_of(4)), cloud)
    message.fields[3] = replace(message.fields[3], name="label")
    with pytest.raises(CloudError, match=r"is not a labelled cloud \(has x, y, z, label, flags") as caught:
        unpack_labelled(message)
    assert caught.value.reason == "bad_layout"


def test_cut_labelled_cloud_is_refused() -> None:
    cloud = make_cloud(np.ones((4, 3)))
    message = send(pack_labelled(cloud, **labels_of(4)), cloud)
    message.data = message.data[:-1]
    with pytest.raises(CloudError) as caught:
        unpack_labelled(message)
    assert caught.value.reason == "short_data"


def test_rclpy_message_and_its_serialized_bytes() -> None:
    messages = optional("sensor_msgs.msg")
    serialization = optional("rclpy.serialization")
    cloud = make_cloud(np.ones((6, 3)), height=2, stamp_ns=5, frame_id="lidar")
    labels = labels_of(6)
    message = messages.PointCloud2()
    fill_message(message, pack_labelled(cloud, **labels), cloud, messages.PointField)
    for received in (message, serialization.serialize_message(message)):
        np.testing.assert_array_equal(unpack_labelled(received)["instance_id"], labels["instance_id"])
