# SPDX-License-Identifier: Apache-2.0
"""Where a PointCloud2 keeps its numbers: fields by name, any datatype, offset, padding and byte order.

A message is first reduced to a `RawCloud` (what it says, nothing copied), then checked once against what its data
can hold, and its fields are looked up; the result is cached by the layout and read anew for every message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import CloudError, did_you_mean
from weakseg_ros.points.rgb import names_of_color

MAX_POINTS = 1 << 25
"""more than 33 million points in one sweep is a damaged header, not a LiDAR"""
MAX_FIELDS = 256

INTENSITY_NAMES = ("intensity", "i", "reflectivity", "signal", "remission", "reflectance")
RING_NAMES = ("ring", "channel", "line")
KNOWN_NAMES = frozenset(("x", "y", "z", *INTENSITY_NAMES, *RING_NAMES))

NUMPY_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""numpy's name of each PointField datatype"""
DATATYPES = {name: number for number, name in NUMPY_TYPES.items()}


class Field(NamedTuple):
    """One PointField as the message states it."""

    name: str
    offset: int
    datatype: int
    elements: int


@dataclass(frozen=True)
class RawCloud:
    """What a PointCloud2 says about itself, and a view of its bytes; nothing is checked yet."""

    height: int
    width: int
    fields: tuple[Field, ...]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: NDArray[np.uint8]
    """(bytes,) view of the message's data, not a copy"""
    stamp_ns: int
    frame_id: str


class Column(NamedTuple):
    """A field that is read: where it lies in a point, and as what."""

    name: str
    offset: int
    dtype: np.dtype[Any]

    @property
    def end(self) -> int:
        """First byte after the field."""
        return self.offset + self.dtype.itemsize

    @property
    def full_scale(self) -> float:
        """Largest value of an integer datatype; 0 for floats, whose scale the message does not say."""
        return float(np.iinfo(self.dtype).max) if self.dtype.kind in "iu" else 0.0

    def overlaps(self, other: Column) -> bool:
        """Whether the two share a byte."""
        return self.offset < other.end and other.offset < self.end


@dataclass(frozen=True)
class FieldLayout:
    """The columns of a layout that a Cloud is made of; intensity, ring and colour may be absent."""

    xyz: tuple[Column, Column, Column]
    intensity: Column | None
    ring: Column | None
    color: tuple[Column, ...] = ()
    """one packed field of 4 bytes, or red, green and blue"""
    notes: tuple[str, ...] = ()
    """what had to be assumed, one sentence each"""

    @property
    def packed_xyz(self) -> bool:
        """Whether x, y, z are three neighbouring float32 in this machine's byte order."""
        start = self.xyz[0].offset
        return all(c.dtype == np.float32 and c.dtype.isnative and c.offset == start + 4 * i for i, c in enumerate(self.xyz))


def raw_of_message(message: Any) -> RawCloud:
    """The RawCloud of a PointCloud2 object of rclpy or rosbags; its data is viewed, never altered.

    Raises CloudError (`bad_layout`) where an attribute is missing or of an impossible type.
    """
    try:
        stamp = message.header.stamp
        return RawCloud(
            height=int(message.height),
            width=int(message.width),
            fields=tuple([Field(str(f.name), int(f.offset), int(f.datatype), int(f.count)) for f in message.fields]),
            is_bigendian=bool(message.is_bigendian),
            point_step=int(message.point_step),
            row_step=int(message.row_step),
            data=_bytes_view(message.data),
            stamp_ns=int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec),
            frame_id=str(message.header.frame_id),
        )
    except (AttributeError, TypeError, ValueError, BufferError) as error:
        found = type(message).__name__
        raise CloudError(
            f"PointCloud2: {found} cannot be read as such ({error}); pass a sensor_msgs/PointCloud2", "bad_layout"
        ) from None


def _bytes_view(data: Any) -> NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)


def check_size(raw: RawCloud) -> tuple[int, int]:
    """(count, row step) of the points in `raw`, once the header is known to fit the data.

    A row step that is wrong is repaired where it says nothing (a single row) and where the data hold exactly the points,
    so that the rows are packed: ROS 2's own PointCloud2Modifier wrote the size of all rows for years. Bytes beyond the last
    point are ignored. An empty cloud passes whatever else it says,
    unless its data hold the points that a height or width of 0 denies.
    Raises CloudError: `absurd_size`, `point_step`, `row_step` or `short_data`.
    """
    height, width, step = raw.height, raw.width, raw.point_step
    count = height * width
    if height < 0 or width < 0 or count > MAX_POINTS:
        raise CloudError(
            f"PointCloud2: {height} x {width} points is impossible (at most {MAX_POINTS}); the header is damaged, "
            "check the driver",
            "absurd_size",
        )
    if count == 0:
        denied = max(height, width)
        if 0 < step * denied <= len(raw.data):
            raise CloudError(
                f"PointCloud2: says {height} x {width} points, but data has {len(raw.data)} bytes, enough for {denied}; "
                "the driver must set height to 1 for a cloud without rows",
                "absurd_size",
            )
        return 0, 0
    if step <= 0:
        raise CloudError(f"PointCloud2: point_step is {step}; it must cover a point's fields, check the driver", "point_step")
    row_bytes = width * step
    row_step = row_bytes if height == 1 or len(raw.data) == height * row_bytes else raw.row_step
    if row_step < row_bytes:
        raise CloudError(
            f"PointCloud2: row_step {row_step} is less than width {width} x point_step {step} in {height} rows; check the driver",
            "row_step",
        )
    needed = (height - 1) * row_step + row_bytes
    if len(raw.data) < needed:
        raise CloudError(
            f"PointCloud2: data has {len(raw.data)} bytes, {height} x {width} points of {step} need {needed}; check the driver",
            "short_data",
        )
    return count, row_step


def note_on_rows(raw: RawCloud, row_step: int) -> tuple[str, ...]:
    """A sentence where the message states another row step than `check_size` found, or nothing."""
    if raw.height <= 1 or row_step == raw.row_step:
        return ()
    return (
        f"PointCloud2: row_step {raw.row_step} is wrong, the data hold {raw.height} packed rows of {row_step} bytes; "
        "they are read that way",
    )


@lru_cache(maxsize=64)
def find_layout(fields: tuple[Field, ...], point_step: int, is_bigendian: bool, intensity_field: str) -> FieldLayout:
    """Look up the fields that a Cloud needs; a fault in any other field is of no concern.

    `intensity_field` is a name, `auto` for the first of INTENSITY_NAMES that is there (none is fine), or empty for no
    intensity. The ring is the first usable integer field of RING_NAMES, or `ring` of any type; an unusable one counts as
    absent, and so does a colour (see `rgb.names_of_color`).
    Raises CloudError: `no_xyz`, `no_intensity` (the named field is missing), `point_step` or `bad_layout`.
    """
    by_name = _by_name(fields)
    if missing := [name for name in "xyz" if name not in by_name]:
        absent = " or ".join(map(repr, missing))
        raise CloudError(f"PointCloud2: no field {absent} (has {_names(fields)}); choose a topic with x, y and z", "no_xyz")
    name = _intensity_name(by_name, fields, intensity_field)
    notes = _mend_counts(by_name, ["x", "y", "z", *filter(None, [name])], fields, point_step)
    x, y, z = (_column(by_name[name], point_step, is_bigendian) for name in "xyz")
    intensity = _column(by_name[name], point_step, is_bigendian) if name else None
    needed = [x, y, z] if intensity is None else [x, y, z, intensity]
    for i, first in enumerate(needed):
        for second in needed[i + 1 :]:
            if first.overlaps(second) and first.name != second.name:
                raise CloudError(
                    f"PointCloud2: fields '{first.name}' and '{second.name}' overlap; check the driver", "bad_layout"
                )
    ring = _ring_column(by_name, point_step, is_bigendian, needed)
    return FieldLayout((x, y, z), intensity, ring, _color_columns(by_name, point_step, is_bigendian, needed), notes)


def _by_name(fields: Sequence[Field]) -> dict[str, list[Field]]:
    """The fields of each name; those in capitals, as some drivers and converters write them, where there are no others."""
    by_name: dict[str, list[Field]] = {}
    for field in fields:
        by_name.setdefault(field.name, []).append(field)
    for name, named in list(by_name.items()):
        if name.lower() in KNOWN_NAMES:
            by_name.setdefault(name.lower(), named)
    return by_name


def _mend_counts(by_name: dict[str, list[Field]], needed: list[str], fields: Sequence[Field], point_step: int) -> tuple[str, ...]:
    """Let each needed field whose count cannot be true count one number; returns what to say of that."""
    wrong = [f for name in needed for f in by_name[name] if f.elements != 1 and _count_is_impossible(f, fields, point_step)]
    for name in needed:
        by_name[name] = [f._replace(elements=1) if f in wrong else f for f in by_name[name]]
    if not wrong:
        return ()
    listed = ", ".join(f"'{field.name}' {field.elements}" for field in wrong)
    return (f"PointCloud2: the count of fields is wrong ({listed}, point_step {point_step}); each is read as one number",)


def _count_is_impossible(field: Field, fields: Sequence[Field], point_step: int) -> bool:
    """Whether a field's numbers are none, leave the point, or run into the next field."""
    if field.datatype not in NUMPY_TYPES:
        return False
    end = field.offset + field.elements * np.dtype(NUMPY_TYPES[field.datatype]).itemsize
    return field.elements == 0 or end > point_step or any(field.offset < other.offset < end for other in fields)


def _intensity_name(by_name: dict[str, list[Field]], fields: Sequence[Field], wanted: str) -> str:
    if wanted == "auto":
        return next((name for name in INTENSITY_NAMES if name in by_name), "")
    if wanted and wanted not in by_name:
        hint = did_you_mean(wanted, by_name)
        raise CloudError(
            f"PointCloud2: no field '{wanted}' (has {_names(fields)}){hint}; "
            "set intensity_field to one of them, to 'auto', or to '' to feed zeros",
            "no_intensity",
        )
    return wanted


def _ring_column(by_name: dict[str, list[Field]], point_step: int, is_bigendian: bool, needed: list[Column]) -> Column | None:
    for name in RING_NAMES:
        try:
            column = _column(by_name.get(name, []), point_step, is_bigendian)
        except CloudError:
            continue
        if (column.dtype.kind in "iu" or name == "ring") and not any(column.overlaps(other) for other in needed):
            return column
    return None


def _color_columns(
    by_name: dict[str, list[Field]], point_step: int, is_bigendian: bool, needed: list[Column]
) -> tuple[Column, ...]:
    try:
        columns = tuple(_column(by_name[name], point_step, is_bigendian) for name in names_of_color(by_name))
    except CloudError:
        return ()
    broken = any(column.overlaps(other) for column in columns for other in needed)
    unpacked = len(columns) == 1 and columns[0].dtype.itemsize != 4
    return () if broken or unpacked else columns


def _column(fields: list[Field], point_step: int, is_bigendian: bool) -> Column:
    if len(fields) != 1:
        name = fields[0].name if fields else ""
        raise CloudError(f"PointCloud2: field '{name}' occurs {len(fields)} times, not once; check the driver", "bad_layout")
    field = fields[0]
    if field.datatype not in NUMPY_TYPES or field.elements != 1:
        raise CloudError(
            f"PointCloud2: field '{field.name}' has datatype {field.datatype} and count {field.elements}; "
            "expected one number of datatype 1 to 8, check the driver",
            "bad_layout",
        )
    column = Column(field.name, field.offset, np.dtype((">" if is_bigendian else "<") + NUMPY_TYPES[field.datatype]))
    if field.offset < 0 or column.end > point_step:
        raise CloudError(
            f"PointCloud2: field '{field.name}' ends at byte {column.end}, beyond point_step {point_step}; check the driver",
            "point_step",
        )
    return column


def _names(fields: Sequence[Field]) -> str:
    return ", ".join(repr(f.name) if not f.name.isidentifier() else f.name for f in fields[:32]) or "no fields"


def strided(raw: RawCloud, column: Column, row_step: int) -> NDArray[Any]:
    """(H, W) view of one field in the message's bytes, in its own datatype and byte order."""
    strides = (row_step, raw.point_step)
    view: NDArray[Any] = np.ndarray((raw.height, raw.width), column.dtype, raw.data, column.offset, strides)
    return view
