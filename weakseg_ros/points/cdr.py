# SPDX-License-Identifier: Apache-2.0
"""A serialized PointCloud2, read where it lies: the header by hand, the data as a view.

The encapsulation is plain CDR (XCDR1), what every ROS 2 middleware sends: two bytes kind (0 = big-endian, 1 = little-
endian), two bytes options, then the members in order, each aligned to its own size. The encapsulation has 4 bytes and no
member is larger, so alignment is that of the buffer.
"""

from __future__ import annotations

import struct

import numpy as np

from weakseg_ros.errors import CloudError
from weakseg_ros.points.layout import MAX_FIELDS, Field, RawCloud

CdrBuffer = bytes | bytearray | memoryview


class _Order:
    """The runs of numbers between the strings of a PointCloud2, in one byte order.

    Each follows a string, so reading past the buffer's end (struct.error) also catches a string that leaves it.
    """

    def __init__(self, order: str) -> None:
        self.stamp_and_length = struct.Struct(order + "iII").unpack_from
        self.height_width_count = struct.Struct(order + "III").unpack_from
        self.length = struct.Struct(order + "I").unpack_from
        self.offset_datatype_count = struct.Struct(order + "IB3xI").unpack_from
        self.endian_steps_length = struct.Struct(order + "B3xIII").unpack_from


SHORTEST = 4
"""bytes of the encapsulation alone"""
_ORDERS = {b"\x00\x00": _Order(">"), b"\x00\x01": _Order("<")}


def read_cdr_header(buffer: CdrBuffer) -> RawCloud:
    """Everything that a serialized sensor_msgs/PointCloud2 says, its data as a view into `buffer`.

    Either byte order of the encapsulation is read; the byte order of the points is the message's own affair.
    Raises CloudError (`bad_cdr`) where the bytes are no PointCloud2 in plain CDR.
    """
    try:
        data = memoryview(buffer).cast("B")
        if len(data) < SHORTEST:
            raise struct.error(f"it has {len(data)} bytes")
        order = _ORDERS.get(bytes(data[:2]))
        if order is None:
            raise struct.error(f"encapsulation kind 0x{bytes(data[:2]).hex()} is not plain CDR")
        return _read_message(data, order)
    except (struct.error, TypeError, ValueError, BufferError) as error:
        found = f"its {len(buffer)} bytes end too early" if "unpack_from" in str(error) else error
        raise CloudError(
            f"PointCloud2: the serialized message is damaged ({found}); check that the topic is a sensor_msgs/PointCloud2",
            "bad_cdr",
        ) from None


def _read_message(data: memoryview, order: _Order) -> RawCloud:
    seconds, nanoseconds, length = order.stamp_and_length(data, 4)
    frame_id, at = _text(data, 16, length)
    height, width, field_count = order.height_width_count(data, at)
    fields, at = _read_fields(data, at + 12, field_count, order)
    is_bigendian, point_step, row_step, length = order.endian_steps_length(data, at)
    start, end = at + 16, at + 16 + length
    if end >= len(data):  # one byte follows the points: is_dense, which is not trusted
        raise struct.error(f"{length} bytes of points at {start} leave the buffer's {len(data)}")
    return RawCloud(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=bool(is_bigendian),
        point_step=point_step,
        row_step=row_step,
        data=np.asarray(data[start:end]),
        stamp_ns=seconds * 1_000_000_000 + nanoseconds,
        frame_id=frame_id,
    )


def _read_fields(data: memoryview, at: int, count: int, order: _Order) -> tuple[tuple[Field, ...], int]:
    if count > MAX_FIELDS:
        raise struct.error(f"{count} fields, at most {MAX_FIELDS}")
    fields = []
    for _ in range(count):
        name, at = _text(data, at + 4, order.length(data, at)[0])
        offset, datatype, elements = order.offset_datatype_count(data, at)
        fields.append(Field(name, offset, datatype, elements))
        at += 12
    return tuple(fields), at


def _text(data: memoryview, start: int, length: int) -> tuple[str, int]:
    """The string of `length` bytes, its final NUL counted, and where the next number lies; some writers send length 0."""
    return str(data[start : start + max(length - 1, 0)], "utf-8", "replace"), (start + length + 3) & ~3
