# SPDX-License-Identifier: Apache-2.0
"""Headers that state the wrong byte order, row step or number of fields: what can only mean one thing is derived."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.cloud_messages import F32, F64, U8, U16, XYZ, XYZI, message, records
from weakseg_ros.points.cloud import decode

UNCONCERNED = {
    "duplicate extra": [("tag", 12, U8), ("tag", 12, U8)],
    "empty name": [("", 12, F32)],
    "datatype 0": [("tag", 12, 0)],
    "datatype 99": [("tag", 12, 99)],
    "count 0": [("tag", 12, U8, 0)],
    "count 4": [("rgba", 12, U8, 4)],
    "over x": [("everything", 0, F32, 4)],
    "beyond the point": [("tag", 4_000_000_000, F64)],
    "ring over z": [("ring", 10, U16)],
    "ring of count 2": [("ring", 12, U16, 2)],
}


@pytest.mark.parametrize("name", UNCONCERNED)
def test_faults_of_fields_that_nobody_reads(name: str) -> None:
    points = records(XYZ, 16, 3)
    cloud = decode(message([*XYZ, *UNCONCERNED[name]], 16, points))
    np.testing.assert_array_equal(cloud.xyz[:, 2], points["z"])
    assert cloud.ring is None


@pytest.mark.parametrize(("height", "width", "row_step"), [(0, 0, 0), (0, 5, 60), (4, 0, 0), (2**32 - 1, 0, 0)])
@pytest.mark.parametrize("fields", [XYZ, []])
def test_empty_cloud_keeps_its_header(height: int, width: int, row_step: int, fields: list[Any]) -> None:
    cloud = decode(message(fields, 12, b"", height=height, width=width, row_step=row_step))
    assert (len(cloud), cloud.height, cloud.width, cloud.frame_id, cloud.stamp_ns) == (0, height, width, "lidar", 7_000_000_008)


@pytest.mark.parametrize("row_step", [0, 1, 35, 37, 2**32 - 1])
def test_wrong_row_step_of_a_single_row_is_derived(row_step: int) -> None:
    points = records(XYZ, 12, 3)
    np.testing.assert_array_equal(decode(message(XYZ, 12, points, row_step=row_step)).xyz[:, 0], points["x"])


@pytest.mark.parametrize("row_step", [0, 3, 35, 36 * 2, 2**32 - 1])
def test_rows_are_packed_where_the_data_are_exactly_the_points(row_step: int) -> None:
    """ROS 2's PointCloud2Modifier wrote the size of all rows as row_step, other drivers 0 or the width."""
    points = records(XYZ, 12, 6)
    cloud = decode(message(XYZ, 12, points, height=2, width=3, row_step=row_step))
    np.testing.assert_array_equal(cloud.xyz, np.stack([points[n] for n in "xyz"], 1))
    assert len(cloud.notes) == 1
    assert f"row_step {row_step} is wrong" in cloud.notes[0]
    assert decode(message(XYZ, 12, points, height=2, width=3, row_step=36)).notes == ()


@pytest.mark.parametrize("count", [0, 3, 6, 16384])
def test_a_field_whose_count_cannot_be_true_is_one_number(count: int) -> None:
    points = records(XYZI, 16, 6)
    fields = [(name, offset, datatype, count) for name, offset, datatype in XYZI]
    cloud = decode(message(fields, 16, points))
    np.testing.assert_array_equal(cloud.intensity, points["intensity"])
    np.testing.assert_array_equal(cloud.xyz[:, 2], points["z"])
    assert len(cloud.notes) == 1
    assert f"'x' {count}" in cloud.notes[0]


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("kind", [F32, F64])
def test_a_byte_order_that_gives_no_lengths_is_not_believed(stated: bool, kind: int) -> None:
    """UnitySensors sends little-endian data under is_bigendian = true."""
    rng = np.random.default_rng(1)
    size = 4 if kind == F32 else 8
    fields = [
        *((name, i * size, kind) for i, name in enumerate("xyz")),
        ("intensity", 3 * size, F32),
        ("ring", 3 * size + 4, U16),
    ]
    step = 3 * size + 6
    points = records(fields, step, 200, "<" if stated else ">")
    for name in "xyz":
        points[name] = rng.uniform(-50, 50, 200)
        points[name][::7] = np.nan
    points["intensity"] = rng.uniform(0, 1, 200)
    lying = decode(message(fields, step, points, height=10, width=20, row_step=20 * step, is_bigendian=stated))
    honest = decode(message(fields, step, points, height=10, width=20, row_step=20 * step, is_bigendian=not stated))
    for name in ("xyz", "intensity", "ring", "flags"):
        np.testing.assert_array_equal(getattr(lying, name), getattr(honest, name))
    assert honest.notes == ()
    assert "only the other byte order gives lengths" in lying.notes[0]


@pytest.mark.parametrize("x", [1e30, -1e38, 1e-40, np.nan, 0.0])
def test_strange_numbers_do_not_change_the_byte_order(x: float) -> None:
    points = records(XYZ, 12, 100)
    for name in "xyz":
        points[name] = x
    cloud = decode(message(XYZ, 12, points))
    np.testing.assert_array_equal(cloud.xyz[:, 0], points["x"])
    assert cloud.notes == ()


@pytest.mark.parametrize("fields", [XYZ, [("x", 0, F64), ("y", 8, F32), ("z", 12, F32)]])
@pytest.mark.parametrize("tail", [0, 5])
def test_padded_rows_and_a_tail(fields: list[Any], tail: int) -> None:
    points = records(fields, 16, 6).reshape(2, 3)
    rows = [points[0].tobytes() + b"\xff" * 9, points[1].tobytes() + b"\xff" * tail]
    cloud = decode(message(fields, 16, b"".join(rows), height=2, width=3, row_step=57))
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(cloud.xyz[:, axis], points[name].ravel())
