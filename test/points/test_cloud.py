# SPDX-License-Identifier: Apache-2.0
"""Every driver's layout, and every malformed cloud that must be survived, as tables over real message types."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from support.cloud_messages import (
    CLOUD,
    F32,
    F64,
    I8,
    I16,
    I32,
    OUSTER,
    STORE,
    TYPES,
    U8,
    U16,
    U32,
    XYZ,
    XYZI,
    XYZIRC,
    message,
    reason,
    records,
)
from weakseg_ros.errors import CloudError
from weakseg_ros.points.cloud import FLAG_NON_FINITE, FLAG_NON_RETURN, Cloud, decode, decode_cdr, flags_of, make_cloud
from weakseg_ros.points.layout import MAX_POINTS

LAYOUTS = {
    # name: (fields, point_step, intensity field, full scale, ring field)
    "velodyne": ([*XYZI, ("ring", 16, U16), ("time", 18, F32)], 22, "intensity", 0, "ring"),
    "ouster original": (
        [*OUSTER, ("range", 32, U32)],
        48,
        "intensity",
        0,
        "ring",
    ),
    "ouster native": (
        [*XYZ, ("t", 16, U32), ("signal", 20, U16), ("ring", 24, U8), ("range", 28, U32)],
        32,
        "signal",
        65535,
        "ring",
    ),
    "ouster reflectivity": ([*XYZ, ("signal", 12, U16), ("reflectivity", 14, U8)], 16, "reflectivity", 255, None),
    "hesai": ([*XYZI, ("ring", 16, U16), ("timestamp", 18, F64)], 26, "intensity", 0, "ring"),
    "livox": ([*XYZI, ("tag", 16, U8), ("line", 17, U8), ("timestamp", 18, F64)], 26, "intensity", 0, "line"),
    "autoware XYZIRC": (
        [*XYZ, ("intensity", 12, U8), ("return_type", 13, U8), ("channel", 14, U16)],
        16,
        "intensity",
        255,
        "channel",
    ),
    "autoware XYZIRCAEDT": (
        [*XYZIRC, ("azimuth", 16, F32), ("elevation", 20, F32), ("distance", 24, F32), ("time_stamp", 28, U32)],
        32,
        "intensity",
        255,
        "channel",
    ),
    "autoware XYZIRADRT": (
        [*XYZI, ("ring", 16, U16), ("azimuth", 18, F32), ("distance", 22, F32), ("return_type", 26, U8), ("time_stamp", 27, F64)],
        35,
        "intensity",
        0,
        "ring",
    ),
    "robosense": ([*XYZI, ("ring", 16, U16), ("timestamp", 24, F64)], 32, "intensity", 0, "ring"),
    "kitti": (XYZI, 16, "intensity", 0, None),
    "kitti i": ([*XYZ, ("i", 12, F32)], 16, "i", 0, None),
    "doubles, reordered": ([("intensity", 0, U16), ("z", 3, F64), ("y", 11, F64), ("x", 19, F64)], 27, "intensity", 65535, None),
    "bare": (XYZ, 12, "", 0, None),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_layout(name: str, order: str) -> None:
    fields, step, intensity, full_scale, ring = LAYOUTS[name]
    points = records(fields, step, 6, order)
    sent = message(fields, step, points, is_bigendian=order == ">", height=2, width=3, row_step=3 * step)
    before = sent.data.tobytes()
    for cloud in (decode(sent), decode_cdr(STORE.serialize_cdr(sent, CLOUD))):
        np.testing.assert_array_equal(cloud.xyz, np.stack([points[n] for n in "xyz"], 1).astype(np.float32))
        np.testing.assert_array_equal(cloud.intensity, points[intensity].astype(np.float32) if intensity else np.zeros(6))
        assert (cloud.intensity_field, cloud.intensity_full_scale) == (intensity, full_scale)
        assert (cloud.ring is None) == (ring is None)
        if ring:
            np.testing.assert_array_equal(cloud.ring, points[ring])
        assert (cloud.height, cloud.width, cloud.stamp_ns, cloud.frame_id) == (2, 3, 7_000_000_008, "lidar")
        assert cloud.xyz.dtype == cloud.intensity.dtype == np.float32
        assert cloud.valid.all()
    assert sent.data.tobytes() == before
    assert sent.is_bigendian == (order == ">")


REFUSED = {
    "no z": (message(XYZ[:2], 8, records(XYZ[:2], 8, 3)), "no_xyz"),
    "no fields": (message([], 12, bytes(36)), "no_xyz"),
    "points that a height of 0 denies": (message(XYZ, 12, bytes(36), height=0, width=3), "absurd_size"),
    "data short by one byte": (message(XYZ, 12, bytes(36), data=np.zeros(35, np.uint8)), "short_data"),
    "no data": (message(XYZ, 12, bytes(36), data=np.zeros(0, np.uint8)), "short_data"),
    "short last row": (message(XYZ, 12, bytes(75), height=2, width=3, row_step=40), "short_data"),
    "rows overlap": (message(XYZ, 12, bytes(73), height=2, width=3, row_step=35), "row_step"),
    "rows without a step": (message(XYZ, 12, bytes(73), height=2, width=3, row_step=0), "row_step"),
    "point_step 0": (message(XYZ, 0, bytes(36), width=3), "point_step"),
    "point_step inside z": (message(XYZ, 11, bytes(33), width=3), "point_step"),
    "intensity beyond the point": (message([*XYZ, ("intensity", 10, F32)], 12, bytes(36)), "point_step"),
    "too many points": (message(XYZ, 12, bytes(36), width=MAX_POINTS + 1), "absurd_size"),
    "size overflows 32 bits": (message(XYZ, 12, bytes(36), height=65536, width=65536, row_step=0), "absurd_size"),
    "size overflows 64 bits": (message(XYZ, 12, bytes(36), height=2**32 - 1, width=2**32 - 1), "absurd_size"),
    "x twice": (message([*XYZ, ("x", 0, F32)], 12, bytes(36)), "bad_layout"),
    "x of datatype 0": (message([("x", 0, 0), *XYZ[1:]], 12, bytes(36)), "bad_layout"),
    "x of datatype 99": (message([("x", 0, 99), *XYZ[1:]], 12, bytes(36)), "bad_layout"),
    "x of count 3 with room": (message([*XYZ[1:], ("x", 12, F32, 3)], 24, bytes(72)), "bad_layout"),
    "x of datatype 99 and count 0": (message([("x", 0, 99, 0), *XYZ[1:]], 12, bytes(36)), "bad_layout"),
    "x over y": (message([("x", 2, F32), *XYZ[1:]], 12, bytes(36)), "bad_layout"),
    "intensity over z": (message([*XYZ, ("intensity", 11, U8)], 12, bytes(36)), "bad_layout"),
    "not a cloud": (TYPES["std_msgs/msg/String"]("hello"), "bad_layout"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    bad, expected = REFUSED[name]
    assert reason(bad) == expected


def test_flags_say_why_a_point_is_unusable() -> None:
    points = records(XYZI, 16, 8)
    points["x"][:3] = np.nan, np.inf, -np.inf
    points["z"][3] = np.nan
    for name in "xyz":
        points[name][4] = 0.0
        points[name][5] = -0.0
    points["x"][6], points["y"][6], points["z"][6] = 0.0, 1e-40, 0.0
    cloud = decode(message(XYZI, 16, points, is_dense=True))
    bad, gone = FLAG_NON_FINITE, FLAG_NON_RETURN
    assert cloud.flags.tolist() == [bad, bad, bad, bad, gone, gone, 0, 0]
    assert cloud.valid.tolist() == [False] * 6 + [True] * 2
    np.testing.assert_array_equal(cloud.xyz[:, 0], points["x"])


@pytest.mark.parametrize("kind", [F32, F64])
@pytest.mark.parametrize("huge", [1e30, -1e38, 3e38, 1e-45, 1e300, -1e308])
def test_extreme_numbers_raise_no_warning(kind: int, huge: float) -> None:
    size = 4 if kind == F32 else 8
    fields = [("x", 0, kind), ("y", size, kind), ("z", 2 * size, kind), ("intensity", 3 * size, kind)]
    with np.errstate(over="ignore"):
        points = records(fields, 4 * size, 4)
        for name in ("x", "y", "z", "intensity"):
            points[name] = huge
        expected = np.float32(huge)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cloud = decode(message(fields, 4 * size, points))
    np.testing.assert_array_equal(cloud.xyz, np.full((4, 3), expected))
    assert (cloud.flags == (0 if np.isfinite(expected) else FLAG_NON_FINITE)).all()
    assert np.isfinite(cloud.intensity).all()


def test_all_points_nan() -> None:
    points = records(XYZI, 16, 1000)
    points["x"] = points["y"] = points["z"] = np.nan
    assert (decode(message(XYZI, 16, points)).flags == FLAG_NON_FINITE).all()


def test_intensity_that_is_not_finite_becomes_zero() -> None:
    points = records(XYZI, 16, 4)
    points["intensity"] = 5, np.nan, np.inf, -7
    cloud = decode(message(XYZI, 16, points))
    assert cloud.intensity.tolist() == [5, 0, 0, -7]
    assert cloud.valid.all(), "the position is usable"


def test_intensity_field_by_choice() -> None:
    fields = [*XYZI, ("reflectivity", 16, U16)]
    sent = message(fields, 18, records(fields, 18, 3))
    assert decode(sent).intensity_field == "intensity"
    chosen = decode(sent, "reflectivity")
    assert (chosen.intensity_field, chosen.intensity_full_scale, chosen.intensity.tolist()) == ("reflectivity", 65535, [5, 6, 7])
    none = decode(sent, "")
    assert (none.intensity_field, none.intensity.tolist()) == ("", [0, 0, 0])
    assert decode(sent, "x").intensity.tolist() == [1, 2, 3], "a field may serve twice"


def test_missing_intensity_field_names_what_is_there() -> None:
    fields = [*XYZ, ("reflectivity", 12, F32), ("ring", 16, U16)]
    with pytest.raises(CloudError, match=r"no field 'reflect' \(has x, y, z, reflectivity, ring\)") as caught:
        decode(message(fields, 18, records(fields, 18, 3)), "reflect")
    assert caught.value.reason == "no_intensity"
    assert "did you mean 'reflectivity'?" in str(caught.value)
    assert "set intensity_field" in str(caught.value)


def test_ring_of_any_integer_type() -> None:
    for kind in (I8, U8, I16, U16, I32, U32):
        fields = [*XYZ, ("ring", 12, kind)]
        cloud = decode(message(fields, 16, records(fields, 16, 5)))
        assert cloud.ring is not None
        assert cloud.ring.dtype == np.uint16
        assert cloud.ring.tolist() == [4, 5, 6, 7, 8]
    points = records([*XYZ, ("ring", 12, I32)], 16, 3)
    points["ring"] = -1, 70000, 3
    assert decode(message([*XYZ, ("ring", 12, I32)], 16, points)).ring.tolist() == [0, 65535, 3]


def test_layout_may_change_between_frames() -> None:
    for name in ("velodyne", "autoware XYZIRC", "velodyne", "doubles, reordered", "bare"):
        fields, step, intensity, _, _ = LAYOUTS[name]
        cloud = decode(message(fields, step, records(fields, step, 3)))
        assert cloud.intensity_field == intensity


def test_packed_points_are_views_that_cannot_alter_the_message() -> None:
    sent = message(XYZI, 16, records(XYZI, 16, 4))
    sent.data = sent.data.copy()
    assert sent.data.flags.writeable
    cloud = decode(sent)
    assert np.shares_memory(cloud.xyz, sent.data)
    assert np.shares_memory(cloud.intensity, sent.data)
    for column in (cloud.xyz, cloud.intensity):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1.0


def test_arrays_are_aligned_whatever_the_layout() -> None:
    fields = [("x", 1, F32), ("y", 5, F32), ("z", 9, F32)]
    assert decode(message(fields, 16, records(fields, 16, 4))).xyz.flags.aligned


def test_one_point_and_odd_frames() -> None:
    for frame in ("", "/velodyne", "später"):
        cloud = decode(message(XYZ, 12, records(XYZ, 12, 1), frame_id=frame))
        assert (len(cloud), cloud.frame_id) == (1, frame)


def test_make_cloud_computes_flags_and_shape() -> None:
    cloud = make_cloud([[1, 2, 3], [0, 0, 0], [np.nan, 0, 0], [1, 1, 1]], [1, np.nan, 3, 4], [0, 0, 1, 1], height=2, stamp_ns=5)
    assert (cloud.height, cloud.width, cloud.stamp_ns) == (2, 2, 5)
    assert cloud.flags.tolist() == [0, FLAG_NON_RETURN, FLAG_NON_FINITE, 0]
    assert cloud.intensity.tolist() == [1, 0, 3, 4]
    assert make_cloud(np.zeros((0, 3))).valid.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"xyz": np.zeros((3, 2), np.float32)}, r"Cloud.xyz: expected shape \(3, 3\) .* found \(3, 2\)"),
        ({"width": 4}, r"expected shape \(4, 3\)"),
        ({"intensity": np.zeros(2, np.float32)}, r"Cloud.intensity: expected shape \(3,\), found \(2,\)"),
        ({"ring": np.zeros((3, 1), np.uint16)}, "Cloud.ring"),
    ],
)
def test_a_wrong_shape_fails_where_the_cloud_is_made(changes: dict[str, Any], text: str) -> None:
    xyz = np.ones((3, 3), np.float32)
    values = {"xyz": xyz, "intensity": np.zeros(3, np.float32), "flags": flags_of(xyz), "width": 3}
    with pytest.raises(ValueError, match=text):
        Cloud(**(values | changes))


def test_names_in_capitals_are_read_where_there_are_no_others() -> None:
    capitals = [("X", 0, F32), ("Y", 4, F32), ("Z", 8, F32), ("Intensity", 12, F32)]
    points = records(XYZI, 16, 4)
    cloud = decode(message(capitals, 16, points))
    np.testing.assert_array_equal(cloud.xyz, np.stack([points[n] for n in "xyz"], 1))
    np.testing.assert_array_equal(cloud.intensity, points["intensity"])
    for one in (3, 0):  # a single name in capitals
        mixed = [field if number != one else capitals[number] for number, field in enumerate(XYZI)]
        assert decode(message(mixed, 16, points)).intensity[1] == points["intensity"][1]
    wrong = decode(message([*XYZ, ("Intensity", 12, F32, 0)], 16, points))
    np.testing.assert_array_equal(wrong.intensity, points["intensity"])
    assert "count of fields is wrong" in wrong.notes[0]
    both = [*XYZI, ("X", 16, F32), ("Y", 20, F32), ("Z", 24, F32)]
    points = records(both, 28, 4)
    np.testing.assert_array_equal(decode(message(both, 28, points)).xyz, np.stack([points[n] for n in "xyz"], 1))


@pytest.mark.parametrize("name", ["remission", "reflectance", "Reflectivity"])
def test_other_names_of_the_intensity_are_known(name: str) -> None:
    points = records(XYZI, 16, 4)
    cloud = decode(message([*XYZ, (name, 12, F32)], 16, points))
    assert cloud.intensity_field == name
    np.testing.assert_array_equal(cloud.intensity, points["intensity"])


def test_a_ring_of_floats_is_a_ring() -> None:
    points = records([*XYZ, ("ring", 12, F32)], 16, 4)
    points["ring"] = 0, 1, np.nan, 63
    ring = decode(message([*XYZ, ("ring", 12, F32)], 16, points)).ring
    assert ring is not None
    assert ring.tolist() == [0, 1, 0, 63]
    assert decode(message([*XYZ, ("line", 12, F32)], 16, points)).ring is None
