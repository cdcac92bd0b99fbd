# SPDX-License-Identifier: Apache-2.0
"""Clouds of random layout, packed number by number with `struct`, and bytes that nobody sane would send."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from weakseg_ros.errors import CloudError
from weakseg_ros.points.cdr import read_cdr_header
from weakseg_ros.points.cloud import Cloud, decode, decode_cdr
from weakseg_ros.points.labelled import unpack_labelled

STORE = get_typestore(Stores.ROS2_JAZZY)
CLOUD = "sensor_msgs/msg/PointCloud2"
CODES = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 8: "d"}
quick = settings(deadline=None, max_examples=60)


@dataclass(frozen=True)
class Layout:
    """A layout drawn at random, and the numbers to send in it."""

    fields: tuple[tuple[str, int, int], ...]
    """name, offset, datatype"""
    point_step: int
    row_padding: int
    order: str
    height: int
    width: int
    columns: dict[str, list[float]]
    """the numbers of each field, exact in its datatype and in float32"""

    def pack(self) -> bytes:
        """The message's data, every unused byte 0xAA."""
        row_step = self.width * self.point_step + self.row_padding
        data = bytearray(b"\xaa" * (self.height * row_step))
        for name, offset, datatype in self.fields:
            for i, value in enumerate(self.columns[name]):
                row, col = divmod(i, self.width)
                number = value if datatype >= 7 else int(value)
                struct.pack_into(self.order + CODES[datatype], data, row * row_step + col * self.point_step + offset, number)
        return bytes(data)

    def message(self) -> Any:
        """The rosbags message."""
        types = STORE.types
        stamp = types["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
        return types[CLOUD](
            header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="lidar"),
            height=self.height,
            width=self.width,
            fields=[types["sensor_msgs/msg/PointField"](*field, 1) for field in self.fields],
            is_bigendian=self.order == ">",
            point_step=self.point_step,
            row_step=self.width * self.point_step + self.row_padding,
            data=np.frombuffer(self.pack(), np.uint8),
            is_dense=False,
        )


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Fields in any order with any gaps; x, y, z always, intensity, ring and up to three others sometimes."""
    names = draw(st.permutations(["x", "y", "z", *draw(st.sets(st.sampled_from(["intensity", "ring", "a", "b", "c"])))]))
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    fields, offset, columns = [], 0, {}
    for name in names:
        datatype = draw(st.integers(1, 6) if name == "ring" else st.sampled_from([7, 8]) if name in "xyz" else st.integers(1, 8))
        offset += draw(st.integers(0, 5))
        fields.append((name, offset, datatype))
        offset += struct.calcsize(CODES[datatype])
        numbers = st.floats(width=32) if datatype >= 7 else st.integers(0, 127)
        columns[name] = draw(st.lists(numbers, min_size=height * width, max_size=height * width))
    return Layout(
        fields=tuple(draw(st.permutations(fields))),
        point_step=offset + draw(st.integers(0, 9)),
        row_padding=draw(st.integers(0, 13)),
        order=draw(st.sampled_from("<>")),
        height=height,
        width=width,
        columns=columns,
    )


def assert_same(one: Cloud, other: Cloud) -> None:
    for name in ("xyz", "intensity", "flags"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.ring is None) == (other.ring is None)
    if one.ring is not None:
        np.testing.assert_array_equal(one.ring, other.ring)
    for name in ("stamp_ns", "frame_id", "height", "width", "intensity_full_scale", "intensity_field"):
        assert getattr(one, name) == getattr(other, name)


@quick
@given(layouts())
def test_any_layout_gives_the_numbers_that_were_packed(layout: Layout) -> None:
    message = layout.message()
    before = message.data.tobytes()
    cloud = decode(message)
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(cloud.xyz[:, axis], np.array(layout.columns[name], np.float32))
    finite = np.isfinite(cloud.xyz).all(axis=1)
    origin = (cloud.xyz == 0).all(axis=1)
    np.testing.assert_array_equal(cloud.flags, np.where(finite, np.where(origin, 2, 0), 1))
    if "intensity" in layout.columns:
        sent = np.array(layout.columns["intensity"], np.float32)
        np.testing.assert_array_equal(cloud.intensity, np.where(np.isfinite(sent), sent, 0))
    else:
        assert not cloud.intensity.any()
    if "ring" in layout.columns:
        assert cloud.ring is not None
        assert cloud.ring.tolist() == layout.columns["ring"]
    else:
        assert cloud.ring is None
    assert message.data.tobytes() == before


@quick
@given(layouts())
def test_byte_order_padding_and_container_do_not_matter(layout: Layout) -> None:
    cloud = decode(layout.message())
    twin = replace(layout, order="<" if layout.order == ">" else ">", row_padding=0)
    assert_same(cloud, decode(twin.message()))
    for little_endian in (True, False):
        assert_same(cloud, decode_cdr(STORE.serialize_cdr(layout.message(), CLOUD, little_endian=little_endian)))


@quick
@given(layouts(), st.data())
def test_serialized_bytes_cut_anywhere_are_refused(layout: Layout, data: st.DataObject) -> None:
    blob = bytes(STORE.serialize_cdr(layout.message(), CLOUD))
    cut = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(CloudError) as caught:
        decode_cdr(blob[:cut])
    assert caught.value.reason == "bad_cdr"


@settings(deadline=None, max_examples=200)
@given(layouts(), st.data())
def test_altered_bytes_end_as_a_cloud_or_a_cloud_error(layout: Layout, data: st.DataObject) -> None:
    blob = bytearray(STORE.serialize_cdr(layout.message(), CLOUD))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at : at + 4] = data.draw(st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80", b"\x01\0\0\0", b""]))
    survive(bytes(blob))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_random_bytes_end_as_a_cloud_error(blob: bytes) -> None:
    survive(blob)
    survive(b"\x00\x01\x00\x00" + blob)
    survive(b"\x00\x00\x00\x00" + blob)


def survive(blob: bytes) -> None:
    """Any exception other than CloudError gets through."""
    for read in (decode_cdr, unpack_labelled, read_cdr_header):
        with suppress(CloudError):
            read(blob)


numbers = st.integers(0, 2**32 - 1) | st.integers(0, 40)


@quick
@given(st.tuples(numbers, numbers, numbers, numbers), st.tuples(numbers, st.integers(0, 255), numbers))
def test_impossible_headers_end_as_a_cloud_or_a_cloud_error(sizes: tuple[int, ...], field: tuple[int, ...]) -> None:
    message = Layout((("x", 0, 7), ("y", 4, 7), ("z", 8, 7)), 12, 0, "<", 2, 3, {name: [1.0] * 6 for name in "xyz"}).message()
    message.height, message.width, message.point_step, message.row_step = sizes
    message.fields[0].offset, message.fields[0].datatype, message.fields[0].count = field
    try:
        cloud = decode(message)
    except CloudError:
        return
    assert len(cloud) == sizes[0] * sizes[1]


def test_a_real_message_survives_damage_at_every_header_byte(shared_data: Path) -> None:
    blob = (shared_data / "pointcloud2_cdr" / "dds_message.bin").read_bytes()
    for at in range(200):
        for value in (0, 255):
            altered = bytearray(blob)
            altered[at] = value
            survive(bytes(altered))
