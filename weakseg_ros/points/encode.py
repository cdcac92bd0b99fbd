# SPDX-License-Identifier: Apache-2.0
"""Arrays into a PointCloud2: a structured array is the message's data, its dtype is the message's fields."""

from __future__ import annotations

import array
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import counted
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.layout import DATATYPES, Field
from weakseg_ros.points.rgb import pack

CLOUD_DTYPE = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2"],
        "offsets": [0, 4, 8, 12, 16],
        "itemsize": 20,
    }
)
"""the layout in which clouds of this package go out: every field aligned"""
COLORED_DTYPE = np.dtype(
    {
        "names": [*(CLOUD_DTYPE.names or ()), "rgb"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 20],
        "itemsize": 24,
    }
)
"""the same with a packed colour"""


@lru_cache(maxsize=16)
def fields_of(dtype: np.dtype[Any]) -> tuple[Field, ...]:
    """The PointFields that describe a structured little-endian `dtype`, one number each."""
    places: Mapping[str, tuple[Any, ...]] = dtype.fields or {}
    return tuple([Field(name, place[1], DATATYPES[place[0].str[1:]], 1) for name, place in places.items()])


def pack_cloud(cloud: Cloud) -> NDArray[np.void]:
    """The cloud as (N,) records of CLOUD_DTYPE, or COLORED_DTYPE where it has colours; the ring is 0 where it has none."""
    points = np.zeros(len(cloud), CLOUD_DTYPE if cloud.rgb is None else COLORED_DTYPE)
    points["x"], points["y"], points["z"] = cloud.xyz[:, 0], cloud.xyz[:, 1], cloud.xyz[:, 2]
    points["intensity"] = cloud.intensity
    if cloud.ring is not None:
        points["ring"] = cloud.ring
    if cloud.rgb is not None:
        points["rgb"] = pack(cloud.rgb)
    return points


def fill_message(message: Any, points: NDArray[np.void], cloud: Cloud, field_type: Any) -> None:
    """Set an rclpy PointCloud2 `message` to `points`, with stamp, frame, height and width of `cloud`.

    `points` are (N,) records such as `pack_labelled` or `pack_cloud` makes; `field_type` is the PointField class.
    The bytes go through `array.array`, the one type that rclpy takes without touching every byte. Raises ValueError
    where the records are not as many as the cloud's points.
    """
    if points.shape != (len(cloud),):
        raise ValueError(f"fill_message: expected {counted(len(cloud), 'point')}, found shape {points.shape}")
    seconds, nanoseconds = divmod(int(cloud.stamp_ns), 1_000_000_000)
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    message.header.frame_id = cloud.frame_id
    message.height, message.width = int(cloud.height), int(cloud.width)
    message.fields = [
        field_type(name=field.name, offset=field.offset, datatype=field.datatype, count=field.elements)
        for field in fields_of(points.dtype)
    ]
    message.is_bigendian = False
    message.point_step = points.dtype.itemsize
    message.row_step = points.dtype.itemsize * int(cloud.width)
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(points).view(np.uint8).data)
    message.data = data
    message.is_dense = not cloud.flags.any()
