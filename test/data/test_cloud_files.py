# SPDX-License-Identifier: Apache-2.0
"""Files of clouds as people have them become scans: every format, every layout of a .bin, and sentences for what is wrong."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import optional
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.cloud_files import cloud_files, read_cloud_file
from weakseg_ros.data.pcd import lzf_decompress
from weakseg_ros.data.scan_files import read_points
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError

N = 400


def street(seed: int = 0) -> np.ndarray:
    """(N, 4) float32 of a flat road and its sides, intensity 0..1."""
    rng = np.random.default_rng(seed)
    xyz = np.stack([rng.uniform(-40, 40, N), rng.uniform(-15, 15, N), rng.choice([-1.7, 0.5], N) + rng.normal(0, 0.1, N)], 1)
    return np.column_stack([xyz, rng.uniform(0, 1, N)]).astype("<f4")


POINTS = street()


def lzf(data: bytes) -> bytes:
    """A small LZF packer: runs of one byte as repetitions, the rest as they are."""
    out, at = bytearray(), 0
    while at < len(data):
        run = 1
        while at + run < len(data) and run < 200 and data[at + run] == data[at]:
            run += 1
        if run < 4:
            part = data[at : at + run]
            out += bytes([len(part) - 1]) + part
        else:
            repeated = run - 1 - 2
            out += bytes([0, data[at]])
            out += bytes([repeated << 5, 0]) if repeated < 7 else bytes([7 << 5, repeated - 7, 0])
        at += run
    return bytes(out)


def pcd_head(kind: str, count: int = N, width: int = N) -> bytes:
    return (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z _ intensity\nSIZE 4 4 4 1 4\nTYPE F F F U F\n"
        f"COUNT 1 1 1 4 1\nWIDTH {width}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA {kind}\n"
    ).encode()


def pcd(path: Path, kind: str) -> None:
    rows = np.zeros(N, [("xyz", "<f4", 3), ("pad", "u1", 4), ("i", "<f4")])
    rows["xyz"], rows["i"] = POINTS[:, :3], POINTS[:, 3]
    if kind == "ascii":
        body = "".join(f"{x!r} {y!r} {z!r} 0 0 0 0 {i!r}\n" for x, y, z, i in POINTS.tolist()).encode()
    elif kind == "binary":
        body = rows.tobytes()
    else:
        plain = b"".join([POINTS[:, axis].tobytes() for axis in range(3)] + [bytes(4 * N), POINTS[:, 3].tobytes()])
        packed = lzf(plain)
        body = struct.pack("<II", len(packed), len(plain)) + packed
    path.write_bytes(pcd_head(kind) + body)


def ply(path: Path, kind: str) -> None:
    order = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
    head = f"ply\nformat {kind} 1.0\ncomment of a scanner\nelement vertex {N}\n" + "".join(
        f"property {t} {n}\n"
        for t, n in (("double", "x"), ("float", "y"), ("float", "z"), ("uchar", "red"), ("float", "intensity"))
    )
    rows = np.zeros(N, [("x", order + "f8"), ("y", order + "f4"), ("z", order + "f4"), ("r", "u1"), ("i", order + "f4")])
    rows["x"], rows["y"], rows["z"], rows["i"] = POINTS.T
    lines = "".join(f"{x!r} {y!r} {z!r} 7 {i!r}\n" for x, y, z, i in POINTS.tolist()).encode()
    faces = b"element face 0\nproperty list uchar int vertex_indices\nend_header\n"
    path.write_bytes(head.encode() + faces + (lines if kind == "ascii" else rows.tobytes()))


def las(path: Path) -> None:
    laspy = optional("laspy")
    file = laspy.create(point_format=3)
    file.header.scales = [1e-4] * 3
    file.x, file.y, file.z = POINTS[:, :3].T.astype(float)
    file.intensity = (POINTS[:, 3] * 60000).astype(np.uint16)
    file.write(path)


def feather(path: Path) -> None:
    pyarrow = optional("pyarrow")
    from pyarrow import feather as file

    names = ("x", "y", "z", "intensity")
    columns = {name: POINTS[:, i].astype(np.float16 if i == 2 else np.float32) for i, name in enumerate(names)}
    file.write_feather(pyarrow.table(columns | {"laser_number": np.arange(N, dtype=np.uint8)}), str(path))


FORMATS: dict[str, Callable[[Path], object]] = {
    "a.bin": lambda path: POINTS.tofile(path),
    "ascii.pcd": lambda path: pcd(path, "ascii"),
    "binary.pcd": lambda path: pcd(path, "binary"),
    "compressed.pcd": lambda path: pcd(path, "binary_compressed"),
    "ascii.ply": lambda path: ply(path, "ascii"),
    "little.ply": lambda path: ply(path, "binary_little_endian"),
    "big.ply": lambda path: ply(path, "binary_big_endian"),
    "a.npy": lambda path: np.save(path, POINTS),
    "a.npz": lambda path: np.savez(path, points=POINTS),
    "named.npz": lambda path: np.savez(path, x=POINTS[:, 0], y=POINTS[:, 1], z=POINTS[:, 2], intensity=POINTS[:, 3]),
    "a.las": las,
    "a.feather": feather,
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_format_becomes_a_scan(tmp_path: Path, name: str) -> None:
    FORMATS[name](tmp_path / name)
    assert weakseg(["import", str(tmp_path / name), "--out", str(tmp_path / "scans")]) == 0
    cloud = open_scans(tmp_path / "scans")[0].cloud
    np.testing.assert_allclose(cloud.xyz, POINTS[:, :3], atol=2e-3)
    scale = 60000 if name == "a.las" else 1
    np.testing.assert_allclose(cloud.intensity, POINTS[:, 3] * scale, atol=scale * 1e-4)


def test_a_folder_becomes_a_recording_in_the_order_of_its_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in (10, 9, 1):
        street(index).tofile(tmp_path / f"{index}.bin")
    np.save(tmp_path / "other.npy", POINTS)
    assert [file.name for file in cloud_files(tmp_path)] == ["1.bin", "9.bin", "10.bin"]
    assert weakseg(["import", str(tmp_path), "--out", str(tmp_path / "scans")]) == 0
    assert "1 .npy" in caplog.text
    scans = open_scans(tmp_path / "scans")
    assert [scan.cloud.stamp_ns for scan in (scans[0], scans[1])] == [0, 100_000_000]
    np.testing.assert_array_equal(scans[2].cloud.xyz, street(10)[:, :3])


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
@pytest.mark.parametrize("columns", [4, 5, 6])
def test_the_columns_of_a_bin_are_recognised(tmp_path: Path, columns: int, kind: str) -> None:
    more = [np.arange(N) % 32, np.linspace(0, 0.1, N)][: columns - 4]
    np.column_stack([POINTS, *more]).astype(kind).tofile(tmp_path / "a.bin")
    cloud = read_cloud_file(tmp_path / "a.bin")
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])
    assert (cloud.ring is None) == (columns == 4)
    np.testing.assert_array_equal(read_points(tmp_path / "a.bin"), POINTS)


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
@pytest.mark.parametrize("points", [N, N - 1])
def test_a_bin_without_intensity_is_not_taken_for_six_columns(tmp_path: Path, points: int, kind: str) -> None:
    file = tmp_path / "a.bin"
    POINTS[:points, :3].astype(kind).tofile(file)
    cloud = read_cloud_file(file)
    np.testing.assert_array_equal(cloud.xyz, POINTS[:points, :3])
    assert cloud.intensity_field == ""
    assert not cloud.intensity.any()
    with pytest.raises(DataError, match="'weakseg import"):
        read_points(file)


@pytest.mark.filterwarnings("error")
def test_a_bin_of_integers_or_of_nothing_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for content, text in (((POINTS * 100).astype("<i2").tobytes(), "choose with --columns"), (b"", "is empty")):
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(DataError, match=text):
            read_cloud_file(tmp_path / "a.bin")


def test_columns_in_capitals_are_known(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **dict(zip(("X", "Y", "Z", "Intensity"), POINTS.T, strict=True)))
    cloud = read_cloud_file(tmp_path / "a.npz")
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])
    np.testing.assert_array_equal(cloud.intensity, POINTS[:, 3])


def test_an_archive_with_two_tables_asks_for_the_points(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", scan=POINTS, map=POINTS)
    with pytest.raises(DataError, match=r"several tables \(scan, map\); name the one with the points 'points'"):
        read_cloud_file(tmp_path / "two.npz")
    np.savez(tmp_path / "one.npz", normals=POINTS[:, :3], scan=POINTS)
    np.testing.assert_array_equal(read_cloud_file(tmp_path / "one.npz").xyz, POINTS[:, :3])


def test_a_bin_that_could_be_anything_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = np.random.default_rng(0).normal(0, 5, (100, 3)).astype("<f4")
    same.tofile(tmp_path / "a.bin")
    assert weakseg(["import", str(tmp_path / "a.bin"), "--out", str(tmp_path / "scans")]) == 2
    said = capsys.readouterr().err
    assert "choose with --columns" in said
    assert "x, y, z, intensity as little-endian float32, 16 bytes a point" in said
    told = ["import", str(tmp_path / "a.bin"), "--out", str(tmp_path / "scans"), "--columns", "x", "y", "z"]
    assert weakseg(told) == 0
    np.testing.assert_array_equal(open_scans(tmp_path / "scans")[0].cloud.xyz, same)
    assert weakseg([*told, "intensity", "ring", "time", "more", "--overwrite"]) == 2
    assert "not whole points of 7 columns" in capsys.readouterr().err


WRONG = {
    "points.pcd": (pcd_head("binary", count=N - 1) + bytes(20 * N), "WIDTH x HEIGHT is 400 and POINTS 399"),
    "short.pcd": (pcd_head("binary") + bytes(100), "its header says 400 points in 8000 bytes, its data have 100"),
    "lines.pcd": (pcd_head("ascii") + b"1 2 3 0 0 0 0 4\n", "its data are 1 point of 8 numbers"),
    "kind.pcd": (pcd_head("zipped") + bytes(8000), "only ascii, binary and binary_compressed can be read"),
    "packed.pcd": (
        pcd_head("binary_compressed") + struct.pack("<II", 4, 8000) + b"\xff\xff\xff\xff",
        "compressed data are damaged",
    ),
    "none.pcd": (b"hello", "is not a PCD file"),
    "none.ply": (b"hello", "is not a PLY file"),
    "short.ply": (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n12",
        "copy the file again",
    ),
    "none.npy": (b"hello", "cannot be read as a NumPy file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_wrong_says_so(tmp_path: Path, name: str) -> None:
    content, text = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_cloud_file(tmp_path / name)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([".pcd", ".ply", ".npy", ".npz", ".bin"]), st.binary(max_size=300), st.booleans())
def test_random_bytes_end_as_data_error_or_points(
    tmp_path_factory: pytest.TempPathFactory, ending: str, blob: bytes, headed: bool
) -> None:
    file = tmp_path_factory.mktemp("random") / f"a{ending}"
    head = {".pcd": pcd_head("binary_compressed"), ".ply": b"ply\nformat ascii 1.0\nelement vertex 3\n"}.get(ending, b"")
    file.write_bytes((head if headed else b"") + blob)
    with contextlib.suppress(DataError):
        assert read_cloud_file(file).xyz.shape[1] == 3


@given(st.binary(max_size=500) | st.lists(st.sampled_from([b"a" * 3, b"b" * 40, b"xyz"]), max_size=20).map(b"".join))
def test_what_lzf_packed_comes_back(data: bytes) -> None:
    assert lzf_decompress(lzf(data), len(data)) == data


def test_real_pcd_files(shared_data: Path) -> None:
    for name, count in (("vlp16", 1000), ("hesai_64", 1000), ("hdl32e", 1000)):
        cloud = read_cloud_file(shared_data / "other_sensors" / f"{name}.pcd")
        assert cloud.valid.sum() > count


def test_a_folder_of_files_is_told_from_scans(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    inner = outer / "drive" / "lidar"
    inner.mkdir(parents=True)
    (tmp_path / "velodyne").mkdir()  # the folder above holds scans, which are not what was named
    (tmp_path / "velodyne" / "0.bin").write_bytes(b"")
    pcd(inner / "0.pcd", "binary")
    with pytest.raises(DataError, match=r"1 \.pcd files were found in .*lidar: 'weakseg import .*lidar --out scans'"):
        open_scans(outer)


@pytest.mark.parametrize("kind", [">f4", ">f8"])
@pytest.mark.parametrize("told", [[], ["--columns", "x", "y", "z", "intensity"]])
def test_a_bin_in_the_other_byte_order_is_read(tmp_path: Path, kind: str, told: list[str]) -> None:
    POINTS.astype(kind).tofile(tmp_path / "a.bin")
    assert weakseg(["import", str(tmp_path / "a.bin"), "--out", str(tmp_path / "scans"), *told]) == 0
    cloud = open_scans(tmp_path / "scans")[0].cloud
    np.testing.assert_array_equal(cloud.xyz, POINTS[:, :3])
    np.testing.assert_array_equal(cloud.intensity, POINTS[:, 3])


def test_doubles_in_a_maps_frame_are_read_where_their_columns_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    shifted = POINTS.astype("<f8") + np.array([4.5e5, 5.4e6, 120, 0])
    shifted.tofile(file)
    np.testing.assert_allclose(read_cloud_file(file, ("x", "y", "z", "intensity")).xyz, shifted[:, :3], rtol=1e-6)


def test_columns_that_give_no_lengths_are_refused_and_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes((POINTS * 100).astype("<i2").tobytes())
    with pytest.raises(DataError, match=r"x, y and z are no lengths as any of float32 and float64 with 4 columns"):
        read_cloud_file(tmp_path / "a.bin", ("x", "y", "z", "intensity"))
    with pytest.raises(DataError, match="'x' is named 2 times"):
        read_cloud_file(tmp_path / "a.bin", ("x", "y", "z", "x"))


def test_advice_on_columns_fits_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(16 * 63))
    with pytest.raises(DataError, match=r"e\.g\. --columns x y z intensity \("):
        read_cloud_file(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(POINTS.tobytes()[:-3])
    with pytest.raises(DataError, match="no whole points in any usual layout: cut off"):
        read_cloud_file(tmp_path / "a.bin")


COLUMNS = dict(zip(("x", "y", "z", "intensity"), POINTS.T, strict=True))
NO_NUMBERS = {
    "different lengths": ({**COLUMNS, "y": POINTS[1:, 1]}, r"different lengths \(x 400, y 399, z 400, intensity 400\)"),
    "text": ({"points": np.array([["1", "2", "3"]] * 9)}, "column 'x' is of type <U1, not one number a point"),
    "complex": ({"points": POINTS.astype(complex)}, "column 'x' is of type complex128"),
    "bool": ({"points": POINTS > 0}, "column 'x' is of type bool"),
    "text as intensity": ({**COLUMNS, "intensity": np.full(N, "high")}, "column 'intensity' is of type <U4"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NO_NUMBERS)
def test_columns_that_are_no_numbers_are_named(tmp_path: Path, name: str) -> None:
    arrays, text = NO_NUMBERS[name]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=text):
        read_cloud_file(tmp_path / "a.npz")


HEADERS = {
    "twins.pcd": (pcd_head("binary").replace(b"x y z _ intensity", b"x y z _ x") + bytes(8000), "names 'x' 2 times, not once"),
    "more.pcd": (pcd_head("binary").replace(b"x y z _ intensity", b"x y z _ intensity ring"), r"header is wrong \(FIELDS x y z"),
    "size.pcd": (pcd_head("binary").replace(b"SIZE 4 4", b"SIZE 4 q"), r"header is wrong \(FIELDS x y z _ intensity, SIZE 4 q 4"),
    "commas.pcd": (pcd_head("ascii", 1, 1) + b"1,0,2,0,3,0,4,0\n", "a point in them, not a comma"),
    "list.ply": (
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty list uchar int near\nend_header\n",
        r"'near' of a vertex is a list\); write plain vertices",
    ),
    "twins.ply": (
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float x\nend_header\n1 2\n",
        "names 'x' 2 times",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_wrong_is_shown_as_it_stands(tmp_path: Path, name: str) -> None:
    content, text = HEADERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_cloud_file(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("d.mcap.gz", "packed: unpack it first"),
        ("d.pcap", "raw packets"),
        ("d.csv", r"numpy\.loadtxt"),
        ("d.e57", "CloudCompare"),
    ],
)
def test_a_file_of_another_kind_comes_with_what_to_do(
    tmp_path: Path, name: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(b"\1\2\3")
    for data in (folder, folder / name):
        assert weakseg(["import", str(data), "--out", str(tmp_path / "scans")]) == 2
        with pytest.raises(DataError, match=what):
            open_scans(data)
        assert what.replace("\\", "") in capsys.readouterr().err


def test_a_bag_further_down_is_named(tmp_path: Path) -> None:
    bag = tmp_path / "outer" / "inner" / "drive"
    bag.mkdir(parents=True)
    (bag / "metadata.yaml").write_text("")
    with pytest.raises(DataError, match=r"outer/inner/drive is a bag, name that"):
        open_scans(tmp_path / "outer")


def test_files_of_carla_are_read_and_told_to_be_left_handed(tmp_path: Path) -> None:
    lidar = tmp_path / "lidar.ply"
    head = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float32 x\nproperty float32 y\nproperty float32 z\n"
    lidar.write_text(f"{head}property float32 I\nend_header\n1 2 3 0.5\n4 5 6 0.25\n")
    cloud = read_cloud_file(lidar)
    assert cloud.intensity.tolist() == [0.5, 0.25]
    assert "whose y axis points to the right; if these do, too, set mirror to y" in cloud.notes[0]
    tagged = tmp_path / "tagged.ply"
    tagged.write_text(
        f"{head}property float32 CosAngle\nproperty uint32 ObjIdx\nproperty uint32 ObjTag\nend_header\n" + "1 2 3 1 0 7\n" * 2
    )
    assert read_cloud_file(tagged).notes == cloud.notes
    assert read_cloud_file(lidar, intensity_field="I").intensity.tolist() == [0.5, 0.25]
