# SPDX-License-Identifier: Apache-2.0
"""A serialized PointCloud2, read where it lies: the header by hand, the data as a view.

The encapsulation is plain CDR (XCDR1), what every ROS 2 middleware sends: two bytes kind (0 = big-endian, 1 = little-
endian), two bytes options, then the members in order, each aligned to its own size counted from there.
"""

from __future__ import annotations

import struct

import numpy as np

from weakseg_ros.errors import CloudError
from weakseg_ros.points.layout import MAX_FIELDS, Field, RawCloud

CdrBuffer = bytes | bytearray | memoryview


class _Reader:
    """A position in the buffer; reading past the end raises struct.error."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data = data
        self.pos = 4
        self._u32 = struct.Struct(order + "I").unpack_from
        self._u8_u32 = struct.Struct(order + "B3xI").unpack_from

    def u32(self) -> int:
        """Next aligned unsigned 32-bit number; the encapsulation is 4 bytes, so alignment is that of the buffer."""
        pos = (self.pos + 3) & ~3
        self.pos = pos + 4
        value: int = self._u32(self.data, pos)[0]
        return value

    def u8_u32(self) -> tuple[int, int]:
        """Next byte, and the number after it; the byte lies on a multiple of 4 in all of the message's structures."""
        pos = self.pos
        self.pos = pos + 8
        pair: tuple[int, int] = self._u8_u32(self.data, pos)
        return pair

    def take(self, count: int) -> memoryview:
        """Next `count` bytes."""
        start, self.pos = self.pos, self.pos + count
        if self.pos > len(self.data):
            raise struct.error(f"{count} bytes at {start} end beyond the buffer's {len(self.data)}")
        return self.data[start : self.pos]

    def text(self) -> str:
        """Next string: its length with the final NUL, its bytes. Some writers send length 0 for an empty one."""
        raw = bytes(self.take(self.u32()))
        return (raw[:-1] if raw.endswith(b"\0") else raw).decode("utf-8", "replace")


def read_cdr_header(buffer: CdrBuffer) -> RawCloud:
    """Everything that a serialized sensor_msgs/PointCloud2 says, its data as a view into `buffer`.

    Either byte order of the encapsulation is read; the byte order of the points is the message's own affair.
    Raises CloudError (`bad_cdr`) where the bytes are no PointCloud2 in plain CDR.
    """
    try:
        data = memoryview(buffer).cast("B")
        kind, _ = struct.unpack_from(">HH", data)
        if kind not in (0, 1):
            raise struct.error(f"encapsulation kind {kind} is not plain CDR")
        return _read_message(_Reader(data, "<" if kind else ">"), "<" if kind else ">")
    except (struct.error, TypeError, ValueError, BufferError) as error:
        raise CloudError(
            f"PointCloud2: the serialized message is damaged ({error}); check that the topic is a sensor_msgs/PointCloud2",
            "bad_cdr",
        ) from None


def _read_message(reader: _Reader, order: str) -> RawCloud:
    seconds, nanoseconds = struct.unpack_from(order + "iI", reader.data, reader.pos)
    reader.pos += 8
    frame_id = reader.text()
    height, width, field_count = reader.u32(), reader.u32(), reader.u32()
    if field_count > MAX_FIELDS:
        raise struct.error(f"{field_count} fields, at most {MAX_FIELDS}")
    fields = tuple([_read_field(reader) for _ in range(field_count)])
    is_bigendian, point_step = reader.u8_u32()
    row_step = reader.u32()
    data = reader.take(reader.u32())
    reader.take(1)  # is_dense: present, not trusted
    return RawCloud(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=bool(is_bigendian),
        point_step=point_step,
        row_step=row_step,
        data=np.asarray(data),
        stamp_ns=seconds * 1_000_000_000 + nanoseconds,
        frame_id=frame_id,
    )


def _read_field(reader: _Reader) -> Field:
    name = reader.text()
    offset = reader.u32()
    datatype, count = reader.u8_u32()
    return Field(name, offset, datatype, count)
