# SPDX-License-Identifier: Apache-2.0
"""PointCloud2 messages of any layout, of real message types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from weakseg_ros.errors import CloudError
from weakseg_ros.points.cloud import decode

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
CLOUD = "sensor_msgs/msg/PointCloud2"
I8, U8, I16, U16, I32, U32, F32, F64 = range(1, 9)
FORMATS = {I8: "i1", U8: "u1", I16: "i2", U16: "u2", I32: "i4", U32: "u4", F32: "f4", F64: "f8"}
XYZ = [("x", 0, F32), ("y", 4, F32), ("z", 8, F32)]
XYZI = [*XYZ, ("intensity", 12, F32)]
XYZIRC = [*XYZ, ("intensity", 12, U8), ("return_type", 13, U8), ("channel", 14, U16)]
OUSTER = [*XYZ, ("intensity", 16, F32), ("t", 20, U32), ("reflectivity", 24, U16), ("ring", 26, U16), ("ambient", 28, U16)]


def records(fields: list[tuple[str, int, int]], step: int, count: int, order: str = "<") -> np.ndarray:
    """(count,) records with a different number in every field; coordinates are never 0."""
    dtype = np.dtype(
        {
            "names": [name for name, _, _ in fields],
            "formats": [order + FORMATS[kind] for _, _, kind in fields],
            "offsets": [offset for _, offset, _ in fields],
            "itemsize": step,
        }
    )
    points = np.zeros(count, dtype)
    for number, (name, _, _) in enumerate(fields, 1):
        points[name] = np.arange(count) % 50 + number
    return points


def message(fields: list[tuple[Any, ...]], step: int, content: np.ndarray | bytes, **changes: Any) -> Any:
    """A PointCloud2 of one row; a field is (name, offset, datatype[, count]); `changes` replace header values."""
    blob = np.frombuffer(content if isinstance(content, bytes) else content.tobytes(), np.uint8)
    count = len(blob) // step if step else 0
    header = TYPES["std_msgs/msg/Header"](
        TYPES["builtin_interfaces/msg/Time"](sec=7, nanosec=8), changes.pop("frame_id", "lidar")
    )
    described = [TYPES["sensor_msgs/msg/PointField"](f[0], f[1], f[2], f[3] if len(f) > 3 else 1) for f in fields]
    values = {
        "header": header,
        "height": 1,
        "width": count,
        "fields": described,
        "is_bigendian": False,
        "point_step": step,
        "row_step": count * step,
        "data": blob,
        "is_dense": True,
    }
    return TYPES[CLOUD](**(values | changes))


def reason(bad: Any, intensity_field: str = "auto") -> str:
    with pytest.raises(CloudError) as caught:
        decode(bad, intensity_field)
    assert str(caught.value).startswith("PointCloud2: ")
    assert ";" in str(caught.value), "says what to do"
    return caught.value.reason
