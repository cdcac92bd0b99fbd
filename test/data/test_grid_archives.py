# SPDX-License-Identifier: Apache-2.0
"""Archives of organised grids: recognised by content, classes shifted as documented, damage named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.grid_arrays import grid_arrays
from weakseg_ros.data.scans import open_scans, open_splits
from weakseg_ros.data.semantickitti_range import SemanticKittiRange
from weakseg_ros.data.vlp32_drive import Vlp32Drive
from weakseg_ros.errors import DataError
from weakseg_ros.points.labels import LabelMap


def test_each_archive_is_recognised_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "a" / "train.npz", **grid_arrays())
    np.savez(tmp_path / "b" / "train.npz", **grid_arrays(1, 64, 1024, stamps=False, top_label=19))
    assert isinstance(open_scans(tmp_path / "a"), Vlp32Drive)
    assert isinstance(open_scans(tmp_path / "b"), SemanticKittiRange)


def test_a_scan_is_its_grid(tmp_path: Path) -> None:
    stored = grid_arrays()
    np.savez(tmp_path / "train.npz", **stored)
    np.savez(tmp_path / "val.npz", **grid_arrays(1))
    scans = open_scans(tmp_path)
    assert list(scans.keys) == ["train/000000", "train/000001", "val/000000"]
    scan = scans[1]
    np.testing.assert_array_equal(scan.cloud.xyz, stored["xyz"][1].reshape(-1, 3))
    np.testing.assert_array_equal(scan.cloud.intensity, stored["intensity"][1].ravel())
    assert scan.class_id is not None
    np.testing.assert_array_equal(scan.class_id, (stored["label"][1].ravel() + 1) % 11)
    assert (scan.cloud.height, scan.cloud.width, scan.cloud.stamp_ns) == (32, 240, 10**18 + 1)
    assert not scan.cloud.valid[:240].any()
    assert scan.cloud.valid[240:].all()
    assert scan.cloud.ring is not None
    assert scan.cloud.ring[[0, 239, 240, -1]].tolist() == [0, 0, 1, 31]
    assert list(open_scans(tmp_path, "val").keys) == ["val/000000"]
    assert [len(part) for part in open_splits(tmp_path)] == [2, 1]
    with pytest.raises(DataError, match="no split 'test' here; it has train, val"):
        open_scans(tmp_path, "test")
    with pytest.raises(DataError, match="no sequences"):
        open_scans(tmp_path, sequences=["00"])


def test_classes_in_another_label_map(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", **grid_arrays())
    ours, kitti = open_scans(tmp_path), open_scans(tmp_path, labels="semantickitti")
    ids, names = ours[0].class_id, LabelMap.load("semantickitti").names
    assert ids is not None
    translated = kitti[0].class_id
    assert translated is not None
    for name in ("road", "sidewalk", "building", "pole", "vegetation", "person", "car", "truck"):
        np.testing.assert_array_equal(ids == ours.labels.id_of(name), translated == names.index(name))
    np.testing.assert_array_equal(ids == 0, translated == 0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"intensity": np.zeros((2, 32, 239), np.float32)}, "'intensity' has shape"),
        ({"stamp_ns": np.zeros(3, np.int64)}, "'stamp_ns' has shape"),
        ({"label": np.full((2, 32, 240), 11, np.uint8)}, "labels above 10"),
    ],
)
def test_a_wrong_archive_is_named(tmp_path: Path, change: dict[str, np.ndarray], text: str) -> None:
    np.savez(tmp_path / "train.npz", **{**grid_arrays(), **change})
    with pytest.raises(DataError, match=text):
        open_scans(tmp_path)


def flipped(path: Path) -> bytes:
    """A compressed archive with flipped bits where its first array begins."""
    np.savez_compressed(path, **grid_arrays())
    blob = bytearray(path.read_bytes())
    start = 30 + int.from_bytes(blob[26:28], "little") + int.from_bytes(blob[28:30], "little")  # after the local header
    blob[start] = 0xFF
    return bytes(blob)


def test_a_cut_off_or_foreign_archive_is_not_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", **grid_arrays())
    whole = (tmp_path / "train.npz").read_bytes()
    (tmp_path / "train.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="holds no scans"):
        open_scans(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        Vlp32Drive(tmp_path)
    for damaged in (b"", flipped(tmp_path / "packed.npz")):
        (tmp_path / "train.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"train\.npz: cannot be read"):
            Vlp32Drive(tmp_path)
    (tmp_path / "train.npz").write_bytes(b"")
    with pytest.raises(DataError, match="holds no scans"):
        open_scans(tmp_path)
    np.savez(tmp_path / "train.npz", **grid_arrays(1, 16, 100))
    with pytest.raises(DataError, match="holds no scans"):
        open_scans(tmp_path)


def test_real_vlp32_drive(shared_data: Path) -> None:
    train, val = open_splits(shared_data / "vlp32_drive")
    assert (len(train), len(val)) == (200, 25)
    assert train[199].cloud.stamp_ns < val[0].cloud.stamp_ns
    counts = np.zeros(11, np.int64)
    for index in range(len(train)):
        scan = train[index]
        assert scan.class_id is not None
        counts += np.bincount(scan.class_id[scan.cloud.valid], minlength=11)
    assert counts.tolist() == [4450, 314292, 135167, 106586, 16769, 287544, 283, 776, 90828, 3, 1]


def test_real_semantickitti_range(shared_data: Path) -> None:
    train, held = open_splits(shared_data / "semantickitti_range")
    assert (len(train), len(held)) == (17, 4)
    scan = held[0]
    assert scan.class_id is not None
    assert 40_000 < scan.cloud.valid.sum() < 65_536
    assert not scan.class_id[~scan.cloud.valid].any()
    rows = scan.cloud.xyz.reshape(64, 1024, 3)
    ranges = np.linalg.norm(rows, axis=2)
    inclination = np.degrees(np.arcsin(np.where(ranges > 0, rows[..., 2], np.nan) / np.maximum(ranges, 1e-6)))
    assert (np.diff(np.nanmedian(inclination, axis=1)) < 0).mean() > 0.95  # top row first
