# SPDX-License-Identifier: Apache-2.0
"""Messages of any type from plain values, what is not given being zero or empty; and the values of a cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.points.encode import fields_of

FIELD_NAMES = ("name", "offset", "datatype", "count")
"""of a sensor_msgs/PointField"""

_ZEROS = {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}


def build_message(store: Any, kind: str, values: Mapping[str, Any]) -> Any:
    """A message of the type `kind` of a rosbags type store; mappings among the values become messages, too.

    KeyError for a type that the store does not know, or a value that the type has no field for.
    """
    fields = dict(store.fielddefs[kind][1])
    unknown = values.keys() - fields.keys()
    if unknown:
        raise KeyError(f"{kind} has no field {', '.join(sorted(unknown))}")
    return store.types[kind](**{name: _field(store, field, values.get(name)) for name, field in fields.items()})


def _field(store: Any, field: tuple[Any, Any], value: Any) -> Any:
    node, inner = field
    if node.name == "NAME":
        return build_message(store, inner, value or {})
    if node.name == "BASE":
        return _ZEROS.get(inner[0], 0) if value is None else value
    (part, kind), length = inner
    if part.name == "NAME":
        return [build_message(store, kind, one) for one in (value if value is not None else [{}] * length)]
    if kind[0] == "string":
        return list(value or [""] * length)
    return np.asarray(value if value is not None else np.zeros(length), np.dtype(kind[0]))


def cloud_message(
    store: Any, points: NDArray[np.void], shape: tuple[int, int], stamp_ns: int, frame_id: str, is_dense: bool
) -> Any:
    """A PointCloud2 of (N,) records of any dtype, in `shape` (rows, columns)."""
    values = {
        "header": header_values(stamp_ns, frame_id),
        "height": shape[0],
        "width": shape[1],
        "fields": [dict(zip(FIELD_NAMES, described, strict=True)) for described in fields_of(points.dtype)],
        "point_step": points.dtype.itemsize,
        "row_step": points.dtype.itemsize * shape[1],
        "data": points.view(np.uint8),
        "is_dense": is_dense,
    }
    return build_message(store, POINT_CLOUD, values)


def header_values(stamp_ns: int, frame_id: str) -> dict[str, Any]:
    """The values of a std_msgs/Header."""
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    return {"stamp": {"sec": seconds, "nanosec": nanoseconds}, "frame_id": frame_id}
