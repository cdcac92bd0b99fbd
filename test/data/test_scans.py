# SPDX-License-Identifier: Apache-2.0
"""Scans on disk: what is written comes back, what is damaged is named, what is real can be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.small_scans import EPOCH_NS, SPEC, STREET, grid_cloud, pose_of, raw_labels, record, writer
from weakseg_ros.data.scan_files import format_stamp, read_raw_labels, read_stamps
from weakseg_ros.data.scan_sets import check, readable
from weakseg_ros.data.scans import ScanFolder, open_scans
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.projection import RangeSpec


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    scans = open_scans(record(tmp_path / "drive"))
    assert (len(scans), scans.name, list(scans.keys)) == (3, "drive", ["000000", "000001", "000002"])
    assert scans.labels == STREET
    assert scans.spec == SPEC
    for i in range(3):
        scan, cloud, raw = scans[i], grid_cloud(i), raw_labels(i)
        np.testing.assert_array_equal(scan.cloud.xyz, cloud.xyz)
        np.testing.assert_array_equal(scan.cloud.intensity, cloud.intensity)
        np.testing.assert_array_equal(scan.cloud.valid, cloud.valid)
        np.testing.assert_array_equal(scan.cloud.ring, cloud.ring)
        assert (scan.cloud.height, scan.cloud.width, scan.cloud.frame_id) == (4, 8, "lidar")
        assert scan.cloud.stamp_ns == EPOCH_NS + i * 100_000_001
        assert scan.cloud.intensity_full_scale == 1.0
        np.testing.assert_array_equal(scan.class_id, STREET.to_class(raw))
        np.testing.assert_array_equal(scan.instance_id, raw >> 16)
        np.testing.assert_allclose(scan.pose, pose_of(i), rtol=1e-10)
    assert scans[-1].key == "000002"
    with pytest.raises(IndexError):
        scans[3]


def test_unordered_clouds_of_changing_size(tmp_path: Path) -> None:
    with writer(tmp_path, RangeSpec()) as out:
        for i, count in enumerate((5, 9)):
            out.write(grid_cloud(i, 1, count), raw_labels(i, count) if i else None)
    scans = ScanFolder(tmp_path)
    assert [len(scan.cloud) for scan in scans] == [5, 9]
    assert (scans[1].cloud.height, scans[1].cloud.width, scans[1].cloud.ring) == (1, 9, None)
    assert (scans[0].class_id, scans[0].instance_id, scans[0].pose) == (None, None, None)
    assert scans[1].class_id is not None


def test_values_that_are_not_finite_become_non_returns(tmp_path: Path) -> None:
    xyz = np.array([[1, 2, 3], [np.nan, 0, 0], [1, np.inf, 0]], np.float32)
    with writer(tmp_path, RangeSpec()) as out:
        out.write(make_cloud(xyz, [1, 2, 3]))
    cloud = ScanFolder(tmp_path)[0].cloud
    assert cloud.valid.tolist() == [True, False, False]
    assert np.isfinite(cloud.xyz).all()


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_stamps_keep_every_nanosecond(stamp_ns: int) -> None:
    seconds, _, fraction = format_stamp(stamp_ns).partition(".")
    assert int(seconds + fraction) == stamp_ns
    assert len(fraction) == 9


def test_times_in_kittis_notation(tmp_path: Path) -> None:
    (tmp_path / "times.txt").write_text("0.000000e+00\n1.036224e-01\n\n2.072\n")
    assert read_stamps(tmp_path / "times.txt") == [0, 103_622_400, 2_072_000_000]
    for wrong in ("soon", "nan", "1e999999999"):
        (tmp_path / "times.txt").write_text(f"0\n{wrong}\n")
        with pytest.raises(DataError, match=r"times.txt:2: .* not a time in seconds"):
            read_stamps(tmp_path / "times.txt")


def test_same_content_same_hash(tmp_path: Path) -> None:
    one, same = record(tmp_path / "a"), record(tmp_path / "b")
    assert open_scans(one).content_hash == open_scans(same).content_hash
    assert open_scans(one).content_hash != open_scans(record(tmp_path / "c", 2)).content_hash


def test_verify_names_what_changed(tmp_path: Path) -> None:
    folder = record(tmp_path / "drive")
    scans = ScanFolder(folder)
    assert scans.verify() == []
    label = folder / "labels" / "000001.label"
    label.write_bytes(bytes(label.stat().st_size))
    (folder / "labels" / "000002.label").unlink()
    (folder / "calib.txt").write_text("Tr: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    problems = "\n".join(scans.verify())
    assert "000001.label: was changed" in problems
    assert "000002.label: is missing" in problems
    assert "calib.txt: is not in the manifest" in problems
    assert len(scans.verify()) == 3


def test_a_manifest_cannot_reach_outside_its_folder(tmp_path: Path) -> None:
    folder = record(tmp_path / "drive")
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("velodyne/000000.bin", "../secret"))
    with pytest.raises(DataError, match="outside its folder"):
        ScanFolder(folder).verify()


def shorten(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:-5])


def write(path: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(content)  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (shorten("velodyne/000001.bin"), "not a multiple of 16 .*; the file is cut off"),
        (write("velodyne/000001.bin", b""), "000001.bin: is empty"),
        (write("velodyne/000001.bin", bytes(64)), "has 4 points, but the manifest says 4 x 8"),
        (shorten("labels/000001.label"), "but its scan has 32 points, so 128 are due"),
        (write("labels/000001.label", b""), "000001.label: has 0 bytes"),
        (
            write("labels/000001.label", b"\x07\x00\x01\x00" * 32),
            r"does not list \(7\); write a map that lists them .* --label-map",
        ),
    ],
)
def test_a_damaged_scan_is_named_and_can_be_skipped(tmp_path: Path, damage: Callable[[Path], None], text: str) -> None:
    damage(record(tmp_path))
    scans = open_scans(tmp_path)
    with pytest.raises(DataError, match=text):
        scans[1]
    problems: list[str] = []
    assert [index for index, _ in readable(scans, problems)] == [0, 2]
    assert problems == check(scans)
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (write("poses.txt", b"1 2 3\n" * 3), DataError, r"poses.txt:1: expected finite numbers, found .1 2 3.; write 12 numbers"),
        (write("poses.txt", b"1 0 0 0 0 1 0 0 0 0 1 0\n"), DataError, "has 1 line for 3 scans"),
        (write("poses.txt", b"5 0 0 0 0 5 0 0 0 0 5 0\n" * 3), DataError, "pose 1 are not a rotation"),
        (write("poses.txt", b"\xff\xfe"), DataError, "is not a text file"),
        (write("times.txt", b"0\n"), DataError, "has 1 line for 3 scans"),
        (write("manifest.yaml", b"version: 9\n"), DataError, "has version 9, but this program reads 1"),
        (write("manifest.yaml", b"a: [\n"), ConfigError, "is not valid YAML"),
        (write("manifest.yaml", b"version: 1\ncolor: 3\n"), ConfigError, "color: unknown key"),
        (lambda folder: (folder / "velodyne/000002.bin").unlink(), DataError, "holds 2 scans, the manifest lists 3"),
        (lambda folder: shutil.rmtree(folder / "velodyne"), DataError, "holds no scans"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], text: str) -> None:
    damage(record(tmp_path))
    with pytest.raises(error, match=text):
        open_scans(tmp_path)


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty folder"])
def test_an_interrupted_recording_leaves_nothing(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "drive"
    if there:
        folder.mkdir()

    def stopped() -> None:
        with writer(folder) as out:
            out.write(grid_cloud(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert sorted(tmp_path.rglob("*")) == [folder] * there
    with writer(folder) as again:
        again.write(grid_cloud(1))
    assert len(open_scans(folder)) == 1
    assert os.listdir(tmp_path) == ["drive"]


def test_a_recording_that_was_cut_short_is_refused_and_may_be_written_again(tmp_path: Path) -> None:
    folder = record(tmp_path / "drive")
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("complete: true", "complete: false"))
    with pytest.raises(DataError, match="was interrupted"):
        open_scans(folder)
    with writer(folder) as again:
        again.write(grid_cloud(1))
    assert len(open_scans(folder)) == 1


def test_the_writer_keeps_what_is_there(tmp_path: Path) -> None:
    folder = record(tmp_path / "drive")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        writer(folder)
    with writer(folder, overwrite=True) as out:
        out.write(grid_cloud(7))
    assert len(open_scans(folder)) == 1
    assert sorted(file.name for file in folder.rglob("*") if file.is_file()) == [
        "000000.bin",
        "manifest.yaml",
        "notes.txt",
        "times.txt",
    ]
    (folder / "manifest.yaml").unlink()
    with pytest.raises(DataError, match="did not write"):
        writer(folder, overwrite=True)
    assert (folder / "velodyne" / "000000.bin").is_file()


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    out = writer(tmp_path)
    with pytest.raises(DataError, match="has no points"):
        out.write(make_cloud(np.zeros((0, 3))))
    with pytest.raises(DataError, match=r"shape \(3,\), the cloud has 32 points"):
        out.write(grid_cloud(0), np.zeros(3, np.uint32))
    with pytest.raises(DataError, match=r"raw ids \[7\] are not in label map 'street'"):
        out.write(grid_cloud(0), np.full(32, 7, np.uint32))
    assert len(out) == 0
    out.write(grid_cloud(0), pose=np.eye(4))
    with pytest.raises(DataError, match="for every scan, or for none"):
        out.write(grid_cloud(1))
    for other in (grid_cloud(1, 2, 8), grid_cloud(1, 1, 32)):
        with pytest.raises(DataError, match="rows by 'grid'"):
            out.write(other, pose=np.eye(4))
    by_ring = writer(tmp_path / "ring", RangeSpec(4, 8, rows="ring"))
    by_ring.write(grid_cloud(0))
    with pytest.raises(DataError, match="rows by 'ring'"):
        by_ring.write(make_cloud(grid_cloud(0).xyz, height=4))


def test_clouds_without_intensity_stay_so(tmp_path: Path) -> None:
    with writer(tmp_path, RangeSpec()) as out:
        out.write(make_cloud(grid_cloud(0).xyz))
    cloud = ScanFolder(tmp_path)[0].cloud
    assert cloud.intensity_field == ""
    assert not cloud.intensity.any()


def test_labels_of_the_other_byte_order_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.label").write_bytes(np.array([40, 50, 0], ">u4").tobytes())
    with pytest.raises(DataError, match="other byte order"):
        read_raw_labels(tmp_path / "a.label", 3)
    np.zeros(3, "<u4").tofile(tmp_path / "a.label")
    assert not read_raw_labels(tmp_path / "a.label", 3).any()
