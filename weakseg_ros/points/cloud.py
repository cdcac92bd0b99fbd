# SPDX-License-Identifier: Apache-2.0
"""One LiDAR sweep in memory, and how a PointCloud2 of any layout becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from weakseg_ros.points.cdr import CdrBuffer
from weakseg_ros.points.cdr import read_cdr_header as read_cdr_header
from weakseg_ros.points.layout import (
    Column,
    FieldLayout,
    RawCloud,
    check_size,
    find_layout,
    note_on_rows,
    raw_of_message,
    strided,
)
from weakseg_ros.points.rgb import colors_of

FLAG_NON_FINITE = 1
FLAG_NON_RETURN = 2
FLAG_OUT_OF_RANGE = 4

LENGTHS = (1e-4, 1e7)
"""The largest coordinate of a point is of this size in any unit of length; bytes in the wrong order seldom are."""
ORDER_SAMPLE = 64
"""points that the byte order is judged by"""
ORDER_EVIDENCE = 8
"""different points that must speak for the other order; the same number all over may be a length in both"""

PACKED_STEP = 16
"""Points of at most this many bytes are viewed in place. Wider ones are gathered into columns once: every later
stage would otherwise drag the unread fields through the cache again."""


@dataclass(frozen=True)
class Cloud:
    """N points in the order of the message they came from.

    Points are in the sensor's frame, x forward, y left, z up, in metres. `flags` says per point why it cannot be
    segmented: 1 non-finite, 2 non-return (the origin); 0 is a usable point. Arrays may be read-only views of the
    message, and `xyz` may have any strides. A wrong shape raises ValueError.
    """

    xyz: NDArray[np.float32]
    """(N, 3) m; positions of unusable points are kept as they came"""
    intensity: NDArray[np.float32]
    """(N,) return strength in the driver's own units, finite; zeros where the cloud has none"""
    flags: NDArray[np.uint8]
    """(N,) 0, or FLAG_NON_FINITE, or FLAG_NON_RETURN"""
    ring: NDArray[np.uint16] | None = None
    """(N,) laser index, where the driver gives it"""
    rgb: NDArray[np.uint8] | None = None
    """(N, 3) red, green, blue, where the cloud has colours"""
    stamp_ns: int = 0
    frame_id: str = ""
    height: int = 1
    width: int = 0
    intensity_full_scale: float = 0.0
    """largest value of the intensity's datatype: 255 or 65535 for integers, 0 = unknown (floats)"""
    intensity_field: str = ""
    """name of the field that the intensity was read from; empty where the cloud has none"""
    notes: tuple[str, ...] = ()
    """what its message states wrongly and how it was read, one sentence each; empty for a sound message"""

    def __post_init__(self) -> None:
        count = self.height * self.width
        if self.xyz.shape != (count, 3):
            raise ValueError(f"Cloud.xyz: expected shape ({count}, 3) for {self.height} x {self.width}, found {self.xyz.shape}")
        for name in ("intensity", "flags", "ring"):
            column = getattr(self, name)
            if column is not None and column.shape != (count,):
                raise ValueError(f"Cloud.{name}: expected shape ({count},), found {column.shape}")
        if self.rgb is not None and (self.rgb.shape != (count, 3) or self.rgb.dtype != np.uint8):
            raise ValueError(f"Cloud.rgb: expected uint8 of shape ({count}, 3), found {self.rgb.dtype} of {self.rgb.shape}")

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """(N,) True for points that can be segmented."""
        usable: NDArray[np.bool_] = self.flags == 0
        return usable

    @cached_property
    def columns(self) -> NDArray[np.float32]:
        """(3, N) x, y and z, contiguous, which makes arithmetic on them two to six times faster."""
        return np.ascontiguousarray(self.xyz.T)

    def __len__(self) -> int:
        return len(self.xyz)


def decode(message: Any, intensity_field: str = "auto") -> Cloud:
    """The points of a PointCloud2 object, of rclpy or rosbags alike; the message is not changed.

    Fields are found by name and may have any datatype, offset and byte order; rows may be padded; `is_dense` is not
    trusted, nor is `is_bigendian` where only the other byte order gives lengths. `intensity_field` names the return
    strength, `auto` takes the first of `layout.INTENSITY_NAMES`, an empty name feeds zeros. What had to be
    assumed stands in `notes`. See `layout.check_size` and `layout.find_layout` for what is refused. Raises CloudError.
    """
    return decode_raw(raw_of_message(message), intensity_field)


def decode_cdr(buffer: CdrBuffer, intensity_field: str = "auto") -> Cloud:
    """The points of a serialized sensor_msgs/PointCloud2, as a raw subscription or a bag gives it; as `decode`."""
    return decode_raw(read_cdr_header(buffer), intensity_field)


def decode_raw(raw: RawCloud, intensity_field: str = "auto") -> Cloud:
    """The points of a message whose header is read already; as `decode`."""
    count, row_step = check_size(raw)
    if count == 0:
        return _cloud(raw, np.zeros((0, 3), np.float32), np.zeros(0, np.float32), None, None, None)
    layout, order_notes = _believed_layout(raw, row_step, intensity_field)
    notes = note_on_rows(raw, row_step) + layout.notes + order_notes
    xyz = _read_xyz(raw, layout, row_step)
    ring = None if layout.ring is None else _read_ring(raw, layout.ring, row_step)
    rgb = colors_of([strided(raw, column, row_step).reshape(-1) for column in layout.color])
    if layout.intensity is None:
        return _cloud(raw, xyz, np.zeros(count, np.float32), ring, rgb, None, notes)
    intensity = _finite(_read_column(raw, layout.intensity, row_step, np.dtype(np.float32)))
    return _cloud(raw, xyz, intensity, ring, rgb, layout.intensity, notes)


def make_cloud(
    xyz: ArrayLike,
    intensity: ArrayLike | None = None,
    ring: ArrayLike | None = None,
    *,
    rgb: ArrayLike | None = None,
    stamp_ns: int = 0,
    frame_id: str = "",
    height: int = 1,
    width: int | None = None,
    intensity_full_scale: float = 0.0,
) -> Cloud:
    """A cloud from arrays: `xyz` (N, 3) in m, `intensity` and `ring` (N,), `rgb` (N, 3) uint8; the flags are computed.

    Without a `width` the points fill `height` rows. Raises ValueError where the shapes do not fit.
    """
    points = np.asarray(xyz, np.float32)
    count = len(points)
    return Cloud(
        xyz=points,
        intensity=np.zeros(count, np.float32) if intensity is None else _finite(np.asarray(intensity, np.float32)),
        flags=flags_of(points),
        ring=None if ring is None else np.asarray(ring, np.uint16),
        rgb=None if rgb is None else np.asarray(rgb, np.uint8),
        stamp_ns=stamp_ns,
        frame_id=frame_id,
        height=height,
        width=count // max(height, 1) if width is None else width,
        intensity_full_scale=intensity_full_scale,
        intensity_field="" if intensity is None else "intensity",
    )


def flags_of(xyz: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N,) FLAG_NON_FINITE where a coordinate of `xyz` (N, 3) is NaN or infinite, FLAG_NON_RETURN at the origin, else 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(xyz[:, 0])
        size += np.abs(xyz[:, 1])
        size += np.abs(xyz[:, 2])
    flags: NDArray[np.uint8] = (size == 0).view(np.uint8) * np.uint8(FLAG_NON_RETURN)
    suspects = np.flatnonzero(~np.isfinite(size))
    if len(suspects):  # the sum of three huge finite numbers overflows too: look at each
        x, y, z = (xyz[suspects, axis] for axis in range(3))
        flags[suspects] = ~(np.isfinite(x) & np.isfinite(y) & np.isfinite(z)) * np.uint8(FLAG_NON_FINITE)
    return flags


def _cloud(
    raw: RawCloud,
    xyz: NDArray[np.float32],
    intensity: NDArray[np.float32],
    ring: NDArray[np.uint16] | None,
    rgb: NDArray[np.uint8] | None,
    source: Column | None,
    notes: tuple[str, ...] = (),
) -> Cloud:
    return Cloud(
        xyz=xyz,
        intensity=intensity,
        flags=flags_of(xyz),
        ring=ring,
        rgb=rgb,
        stamp_ns=raw.stamp_ns,
        frame_id=raw.frame_id,
        height=raw.height,
        width=raw.width,
        intensity_full_scale=source.full_scale if source else 0.0,
        intensity_field=source.name if source else "",
        notes=notes,
    )


def _believed_layout(raw: RawCloud, row_step: int, intensity_field: str) -> tuple[FieldLayout, tuple[str, ...]]:
    """The layout in the byte order that the message states, or in the other one where only that gives lengths.

    UnitySensors set is_bigendian over little-endian data for years, which RViz and PCL never look at.
    """
    stated = find_layout(raw.fields, raw.point_step, raw.is_bigendian, intensity_field)
    if any(column.dtype.kind != "f" for column in stated.xyz):
        return stated, ()
    with np.errstate(all="ignore"):
        sample = _sample_xyz(raw, stated, row_step)
        if _are_lengths(sample).mean() >= 0.5:
            return stated, ()
        swapped = [axis.byteswap() for axis in sample]
        telling = np.isfinite(_size(sample)) & np.isfinite(_size(swapped)) & (_size(sample) > 0)
        ours, theirs = _are_lengths(sample)[telling], _are_lengths(swapped)[telling]
    if len(np.unique(sample[0][telling])) < ORDER_EVIDENCE or ours.mean() > 0.5 or theirs.mean() < 0.9:
        return stated, ()
    note = f"PointCloud2: is_bigendian is {raw.is_bigendian}, but only the other byte order gives lengths; it is read so"
    return find_layout(raw.fields, raw.point_step, not raw.is_bigendian, intensity_field), (note,)


def _sample_xyz(raw: RawCloud, layout: FieldLayout, row_step: int) -> list[NDArray[Any]]:
    """x, y and z of some points, in native byte order: what their bytes say."""
    rows = max(1, raw.height // 8)
    columns = max(1, raw.height * raw.width // (rows * ORDER_SAMPLE) or 1)
    axes = [strided(raw, column, row_step)[::rows, ::columns].ravel() for column in layout.xyz]
    return [axis.astype(axis.dtype.newbyteorder("=")) for axis in axes]


def _size(axes: list[NDArray[Any]]) -> NDArray[Any]:
    """The largest coordinate of each point: a single one may be as small as it likes; NaN where one is."""
    largest: NDArray[Any] = np.maximum.reduce([np.abs(axis) for axis in axes])
    return largest


def _are_lengths(axes: list[NDArray[Any]]) -> NDArray[np.bool_]:
    size = _size(axes)
    sound: NDArray[np.bool_] = (size >= LENGTHS[0]) & (size <= LENGTHS[1])
    return sound


def _read_xyz(raw: RawCloud, layout: FieldLayout, row_step: int) -> NDArray[np.float32]:
    count = raw.height * raw.width
    if layout.packed_xyz and _rows_join(raw, row_step):
        view: NDArray[np.float32] = np.ndarray((count, 3), np.float32, raw.data, layout.xyz[0].offset, (raw.point_step, 4))
        if view.flags.aligned:
            return _read_only(view)
    columns: NDArray[np.float32] = np.empty((3, count), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a double beyond float32 becomes infinite, which is flagged
        for axis, column in enumerate(layout.xyz):
            columns[axis].reshape(raw.height, raw.width)[...] = strided(raw, column, row_step)
    return columns.T


def _read_column(raw: RawCloud, column: Column, row_step: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """(N,) one field as `dtype`: a read-only view where the points are packed and the field is one already."""
    field = strided(raw, column, row_step)
    if column.dtype == dtype and field.flags.aligned and _rows_join(raw, row_step):
        return _read_only(np.ndarray((raw.height * raw.width,), dtype, raw.data, column.offset, (raw.point_step,)))
    values = np.empty((raw.height, raw.width), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(values, field, casting="unsafe")
    return values.reshape(-1)


def _read_ring(raw: RawCloud, column: Column, row_step: int) -> NDArray[np.uint16]:
    if column.dtype.itemsize <= 2 and column.dtype.kind == "u":
        return _read_column(raw, column, row_step, np.dtype(np.uint16))
    values = _read_column(raw, column, row_step, np.dtype(np.int64))
    rings: NDArray[np.uint16] = np.clip(values, 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return rings


def _rows_join(raw: RawCloud, row_step: int) -> bool:
    """Whether all points lie one packed step apart, so that a view of them costs no more than a copy."""
    return raw.point_step <= PACKED_STEP and (raw.height == 1 or row_step == raw.width * raw.point_step)


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` with zeros for NaN and infinities; the same array where there are none."""
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(np.add.reduce(values))
    return np.where(np.isfinite(values), values, np.float32(0)) if suspicious else values


def _read_only(view: NDArray[Any]) -> NDArray[Any]:
    view.flags.writeable = False
    return view
