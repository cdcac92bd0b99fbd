# SPDX-License-Identifier: Apache-2.0
"""The labelled cloud: the node's answer, one point for every point of the input, in its order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import CloudError
from weakseg_ros.points.cdr import read_cdr_header
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.encode import fields_of
from weakseg_ros.points.layout import RawCloud, check_size, raw_of_message

_NAMES = ("x", "y", "z", "class_id", "flags", "instance_id", "confidence", "uncertainty", "rgb")
_FORMATS = ("<f4", "<f4", "<f4", "u1", "u1", "<u2", "<f4", "<f4", "<f4")
_OFFSETS = (0, 4, 8, 12, 13, 14, 16, 20, 24)


def _dtype(count: int, itemsize: int) -> np.dtype[Any]:
    return np.dtype({"names": _NAMES[:count], "formats": _FORMATS[:count], "offsets": _OFFSETS[:count], "itemsize": itemsize})


LABELLED_DTYPE = _dtype(8, 24)
"""x, y, z, class_id, flags, instance_id, confidence, uncertainty; every field aligned, 24 bytes a point"""
LABELLED_RGB_DTYPE = _dtype(9, 28)
"""the same with the class colour as RViz and PCL read it: 0x00RRGGBB in the bits of a float32"""
LABELLED_FIELDS = fields_of(LABELLED_DTYPE)


def pack_labelled(
    cloud: Cloud,
    class_id: NDArray[np.uint8],
    instance_id: NDArray[np.uint16],
    confidence: NDArray[np.float32],
    uncertainty: NDArray[np.float32],
    flags: NDArray[np.uint8],
    rgb: NDArray[np.uint8] | None = None,
) -> NDArray[np.void]:
    """The cloud's points with their labels, (N,) records of LABELLED_DTYPE, or of LABELLED_RGB_DTYPE with `rgb` (N, 3).

    Every point is there, in order, at the position it came with, NaN included. All labels are (N,); raises ValueError
    where one is not.
    """
    count = len(cloud)
    points = np.empty(count, LABELLED_DTYPE if rgb is None else LABELLED_RGB_DTYPE)
    points["x"], points["y"], points["z"] = cloud.xyz[:, 0], cloud.xyz[:, 1], cloud.xyz[:, 2]
    labels: dict[str, NDArray[Any]] = {
        "class_id": class_id,
        "flags": flags,
        "instance_id": instance_id,
        "confidence": confidence,
        "uncertainty": uncertainty,
    }
    for name, column in labels.items():
        if column.shape != (count,):
            raise ValueError(f"pack_labelled: expected {name} of shape ({count},), found {column.shape}")
        points[name] = column
    if rgb is not None:
        if rgb.shape != (count, 3):
            raise ValueError(f"pack_labelled: expected rgb of shape ({count}, 3), found {rgb.shape}")
        points["rgb"] = pack_rgb(rgb)
    return points


def pack_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours (N, 3) as the (N,) float32 whose bits are 0x00RRGGBB."""
    wide = rgb.astype(np.uint32)
    return (wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2]).view(np.float32)


def unpack_labelled(message: Any) -> dict[str, NDArray[Any]]:
    """The columns of a labelled cloud by field name, (N,) each; `message` is an object or serialized bytes.

    Read-only views of the message. Raises CloudError (`bad_layout`) where it is not a labelled cloud, and as
    `layout.check_size` does.
    """
    raw = read_cdr_header(message) if isinstance(message, (bytes, bytearray, memoryview)) else raw_of_message(message)
    dtype = _labelled_dtype_of(raw)
    count, row_step = check_size(raw)
    if count == 0:
        points = np.empty(0, dtype)
    else:
        points = np.ndarray((raw.height, raw.width), dtype, raw.data, 0, (row_step, raw.point_step)).reshape(-1)
    points.flags.writeable = False
    return {name: points[name] for name in dtype.names or ()}


def _labelled_dtype_of(raw: RawCloud) -> np.dtype[Any]:
    for dtype in (LABELLED_DTYPE, LABELLED_RGB_DTYPE):
        if raw.fields == fields_of(dtype) and raw.point_step == dtype.itemsize and not raw.is_bigendian:
            return dtype
    found = ", ".join(field.name for field in raw.fields[:32]) or "no fields"
    expected = ", ".join(field.name for field in LABELLED_FIELDS)
    raise CloudError(
        f"PointCloud2: is not a labelled cloud (has {found}, point_step {raw.point_step}); expected {expected}, "
        f"point_step {LABELLED_DTYPE.itemsize}: read the node's ~/labels topic",
        "bad_layout",
    )
