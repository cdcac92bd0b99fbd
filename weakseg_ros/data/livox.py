# SPDX-License-Identifier: Apache-2.0
"""Livox's CustomMsg, what its ROS drivers publish by default in place of a PointCloud2, as plain columns.

timebase, point_num, lidar_id and 19 bytes a point: offset_time (ns), x, y, z (float32, m), reflectivity, tag, line. ROS 2
aligns each point to four bytes, ROS 1 does not. livox_ros_driver and livox_ros_driver2 share the layout.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import CloudError, counted

CUSTOM_MSGS = ("livox_ros_driver2/msg/CustomMsg", "livox_ros_driver/msg/CustomMsg", "livox_interfaces/msg/CustomMsg")
_POINT: Any = {
    "names": ["offset_time", "x", "y", "z", "reflectivity", "tag", "line"],
    "formats": ["<u4", "<f4", "<f4", "<f4", "u1", "u1", "u1"],
    "offsets": [0, 4, 8, 12, 16, 17, 18],
}
_POINT_BYTES = 19
_ALIGNED_BYTES = 20


def read_custom_msg(data: bytes, is_ros1: bool) -> tuple[int, str, NDArray[np.void]]:
    """(stamp in ns, frame, (N,) points) of a serialized CustomMsg; CloudError (`bad_cdr`) where the bytes are none."""
    try:
        stamp_ns, frame_id, at = _header(data, is_ros1)
        count, at = _count(data, at, is_ros1)
        step = _POINT_BYTES if is_ros1 else _ALIGNED_BYTES
        if at + (count - 1) * step + _POINT_BYTES > len(data) and count:
            raise ValueError(
                f"{counted(count, 'point does', 'points do')} not fit into the message's {counted(len(data), 'byte')}"
            )
    except (struct.error, ValueError) as error:
        raise CloudError(f"CustomMsg: the serialized message is damaged ({error}); check the driver", "bad_cdr") from None
    kind: np.dtype[np.void] = np.dtype(_POINT | {"itemsize": step})
    return stamp_ns, frame_id, np.frombuffer(data[at:].ljust(count * step, b"\0"), kind, count)


def _header(data: bytes, is_ros1: bool) -> tuple[int, str, int]:
    """Stamp, frame and where the next member begins: ROS 1 packs, behind a sequence number; CDR aligns, behind four bytes."""
    if not is_ros1 and data[:2] != b"\x00\x01":
        raise ValueError(f"encapsulation kind 0x{data[:2].hex()} is not plain little-endian CDR")
    seconds, nanoseconds, length = struct.unpack_from("<III", data, 4)
    text = data[16 : 16 + length]
    if len(text) < length:
        raise ValueError("the frame name runs past the end of the message")
    return seconds * 10**9 + nanoseconds, text.rstrip(b"\0").decode("utf-8", "replace"), 16 + length


def _count(data: bytes, at: int, is_ros1: bool) -> tuple[int, int]:
    """The number of points, and where they begin."""
    if is_ros1:
        return int(struct.unpack_from("<QIB3xI", data, at)[3]), at + 20
    at = 4 + (at - 4 + 7) // 8 * 8
    return int(struct.unpack_from("<QIB3xI", data, at)[3]), at + 20
