# SPDX-License-Identifier: Apache-2.0
"""Colours of a cloud: packed or in fields, from messages and files, kept in what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import optional
from weakseg_ros.data.cloud_files import read_cloud_file
from weakseg_ros.points.cloud import Cloud, decode, make_cloud
from weakseg_ros.points.encode import fields_of, pack_cloud
from weakseg_ros.points.rgb import from_channels, pack, unpack

rosbags = optional("rosbags")
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE).types
RGB = np.array([[255, 0, 1], [2, 128, 254], [0, 0, 0], [9, 8, 7]], np.uint8)
XYZ = np.arange(12, dtype=np.float32).reshape(4, 3) + 1


def message(points: np.ndarray, big: bool = False) -> Any:
    field = TYPES["sensor_msgs/msg/PointField"]
    header = TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](1, 2), "camera")
    dtype = points.dtype.newbyteorder("<")
    return TYPES["sensor_msgs/msg/PointCloud2"](
        header=header,
        height=2,
        width=2,
        fields=[field(f.name, f.offset, f.datatype, f.elements) for f in fields_of(dtype)],
        is_bigendian=big,
        point_step=points.dtype.itemsize,
        row_step=2 * points.dtype.itemsize,
        data=points.view(np.uint8).reshape(-1),
        is_dense=True,
    )


def records(names: list[str], formats: list[str], order: str = "<") -> np.ndarray:
    offsets = [0, 4, 8, *[16 + 4 * i for i in range(len(names))]]
    formats = [order + kind if len(kind) == 2 else kind for kind in ["f4", "f4", "f4", *formats]]
    dtype = np.dtype({"names": ["x", "y", "z", *names], "formats": formats, "offsets": offsets, "itemsize": 32})
    points = np.zeros(4, dtype)
    points["x"], points["y"], points["z"] = XYZ.T
    return points


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("name", "kind"), [("rgb", "f4"), ("rgb", "u4"), ("rgba", "u4"), ("rgba", "i4")])
def test_packed_colours_of_any_datatype_and_byte_order(name: str, kind: str, order: str) -> None:
    points = records([name], [kind], order)
    packed = 0xFF000000 | (RGB.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    points[name] = packed.astype(np.uint32).astype(order + "u4").view(order + kind)
    cloud = decode(message(points, order == ">"))
    np.testing.assert_array_equal(cloud.rgb, RGB)
    np.testing.assert_array_equal(cloud.xyz, XYZ)


@pytest.mark.parametrize(("kind", "factor"), [("u1", 1), ("u2", 1), ("u2", 257), ("f4", 1), ("f4", 1 / 255)])
def test_separate_fields(kind: str, factor: float) -> None:
    points = records(["r", "g", "b"], [kind] * 3)
    for axis, name in enumerate("rgb"):
        points[name] = RGB[:, axis].astype(np.float64) * factor
    np.testing.assert_array_equal(decode(message(points)).rgb, RGB)


def test_a_colour_that_is_none_is_no_fault() -> None:
    wide = records(["rgb"], ["f8"])
    over = records(["rgb"], ["u4"])
    table = {"names": ["x", "y", "z", "rgb"], "formats": ["<f4"] * 3 + ["<u4"], "offsets": [0, 4, 8, 8], "itemsize": 32}
    over = over.view(np.uint8).view(np.dtype(table))
    for points in (wide, over, records(["r", "g"], ["u1", "u1"])):
        assert decode(message(points)).rgb is None


def test_packing_is_undone_by_unpacking() -> None:
    every = np.random.default_rng(0).integers(0, 256, (1000, 3), dtype=np.uint8)
    np.testing.assert_array_equal(unpack(pack(every)), every)


def test_colours_that_are_not_finite_are_black() -> None:
    odd = np.array([np.nan, np.inf, -1.0, 0.5])
    np.testing.assert_array_equal(from_channels(odd, odd, odd)[:, 0], [0, 0, 0, 128])


def test_a_cloud_goes_out_with_its_colours() -> None:
    cloud = make_cloud(XYZ, rgb=RGB, height=2, width=2)
    back: Cloud = decode(message(pack_cloud(cloud)))
    np.testing.assert_array_equal(back.rgb, RGB)
    assert "rgb" not in (pack_cloud(make_cloud(XYZ)).dtype.names or ())


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Cloud.rgb: expected uint8 of shape \(4, 3\)"):
        make_cloud(XYZ, rgb=RGB[:3])


def ply(path: Path) -> None:
    head = "".join(f"property float {a}\n" for a in "xyz") + "".join(f"property uchar {c}\n" for c in ("red", "green", "blue"))
    rows = np.zeros(4, [(a, "<f4") for a in "xyz"] + [(c, "u1") for c in "rgb"])
    for axis, (place, color) in enumerate(zip("xyz", "rgb", strict=True)):
        rows[place], rows[color] = XYZ[:, axis], RGB[:, axis]
    path.write_bytes(f"ply\nformat binary_little_endian 1.0\nelement vertex 4\n{head}end_header\n".encode() + rows.tobytes())


def pcd(path: Path) -> None:
    rows = np.column_stack([XYZ, pack(RGB)]).astype("<f4")
    head = "VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 4\nHEIGHT 1\nPOINTS 4\nDATA binary\n"
    path.write_bytes(head.encode() + rows.tobytes())


def npz(path: Path) -> None:
    np.savez(path, points=XYZ, rgb=RGB)


def las(path: Path) -> None:
    laspy = optional("laspy")
    file = laspy.create(point_format=7, file_version="1.4")
    file.x, file.y, file.z = XYZ.T
    file.red, file.green, file.blue = RGB.T.astype(np.uint16) * 257
    file.write(path)


@pytest.mark.parametrize(("ending", "write"), [(".ply", ply), (".pcd", pcd), (".npz", npz), (".las", las)])
def test_files_keep_their_colours(ending: str, write: Any, tmp_path: Path) -> None:
    path = tmp_path / f"cloud{ending}"
    write(path)
    np.testing.assert_array_equal(read_cloud_file(path).rgb, RGB)
