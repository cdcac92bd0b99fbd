# SPDX-License-Identifier: Apache-2.0
"""Trees of recordings: SemanticKITTI's layout, splits, and parts that are held out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.small_scans import SPEC, STREET, grid_cloud, record, writer
from weakseg_ros.data.scan_sets import Subset, check, holdout
from weakseg_ros.data.scans import open_scans, open_splits
from weakseg_ros.errors import DataError
from weakseg_ros.measure.inputs import open_input
from weakseg_ros.points.projection import RangeSpec


def kitti_root(root: Path, sequences: list[str]) -> Path:
    """A SemanticKITTI tree without manifests."""
    for name in sequences:
        folder = record(root / "sequences" / name, 2)
        for extra in ("manifest.yaml", "times.txt", "poses.txt"):
            (folder / extra).unlink()
    return root


def test_semantickitti_root_and_its_splits(tmp_path: Path) -> None:
    root = kitti_root(tmp_path, ["00", "08", "11"])
    scans = open_scans(root)
    assert list(scans.keys) == ["00/000000", "00/000001", "08/000000", "08/000001", "11/000000", "11/000001"]
    assert scans[2].key == "08/000000"
    assert scans[-1].key == "11/000001"
    np.testing.assert_array_equal(scans[3].cloud.xyz, grid_cloud(1).xyz)
    assert scans.labels.name == "semantickitti"
    assert [key[:2] for key in open_scans(root, "train").keys] == ["00", "00"]
    assert open_scans(root, "val").keys[0] == "08/000000"
    assert list(open_scans(root, sequences=["11"]).keys) == ["11/000000", "11/000001"]
    assert [s.name for s in open_splits(root)] == [f"{root.name} train", f"{root.name} val"]
    assert open_scans(root, "val", labels="street").labels == STREET
    with pytest.raises(DataError, match="no recording '12'"):
        open_scans(root, sequences=["12"])
    with pytest.raises(DataError, match="no split 'vall' here; it has: train, val, test"):
        open_scans(root, "vall")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("0", "did you mean '00'?; it has 00, 08, 11"),
        ("00,08", "; write 00 08, with spaces between"),
        ("9", "'9'; it has 00, 08, 11"),
    ],
)
def test_recordings_by_number_or_with_commas_are_answered_with_their_names(tmp_path: Path, name: str, told: str) -> None:
    root = kitti_root(tmp_path, ["00", "08", "11"])
    with pytest.raises(DataError, match=re.escape(told)):
        open_scans(root, sequences=[name])
    with pytest.raises(DataError, match=r"no recording '00'; it is a single one and has no name, so name none"):
        open_scans(root / "sequences" / "00", sequences=["00"])


def test_a_recording_that_is_named_twice_is_opened_once(tmp_path: Path) -> None:
    root = kitti_root(tmp_path, ["00", "08"])
    assert list(open_scans(root, sequences=["08", "00", "08"]).keys) == ["08/000000", "08/000001", "00/000000", "00/000001"]


def test_folders_named_after_splits(tmp_path: Path) -> None:
    record(tmp_path / "train" / "a", 2)
    record(tmp_path / "train" / "b", 1)
    record(tmp_path / "val", 1)
    train, val = open_splits(tmp_path)
    assert (len(train), len(val)) == (3, 1)
    assert train.spec == SPEC
    with pytest.raises(DataError, match="no split 'test' here; it has: train, val"):
        open_scans(tmp_path, "test")


def test_recordings_that_differ_are_not_joined(tmp_path: Path) -> None:
    record(tmp_path / "a", 1)
    with writer(tmp_path / "b", RangeSpec()) as out:
        out.write(grid_cloud(0))
    with pytest.raises(DataError, match="'b' and 'a' differ in their spec"):
        open_scans(tmp_path)


def test_places_without_scans(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no scans"):
        open_scans(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_scans(tmp_path / "absent")
    (tmp_path / "drive.mcap").touch()
    with pytest.raises(DataError, match="weakseg import"):
        open_scans(tmp_path / "drive.mcap")
    (tmp_path / "velodyne").mkdir()
    with pytest.raises(DataError, match=r"holds no \.bin file"):
        open_scans(tmp_path)


def test_poses_of_the_camera_become_the_lidars(tmp_path: Path) -> None:
    folder = kitti_root(tmp_path, ["00"]) / "sequences" / "00"
    (folder / "calib.txt").write_text("P0: 1 2 3\nTr: 0 -1 0 0.1 0 0 -1 0.2 1 0 0 0.3\n")
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 5\n")
    scans = open_scans(folder)
    np.testing.assert_allclose(scans[0].pose, np.eye(4), atol=1e-12)
    forward = np.eye(4)
    forward[0, 3] = 5  # the camera's z is the LiDAR's x
    np.testing.assert_allclose(scans[1].pose, forward, atol=1e-12)


@pytest.mark.parametrize("name", ["Tr", "Tr_velo_to_cam", "Tr_velo_cam "])
def test_the_axes_of_the_camera_have_several_names(name: str, tmp_path: Path) -> None:
    folder = kitti_root(tmp_path, ["00"]) / "sequences" / "00"
    (folder / "calib.txt").write_text(f"P0: 1 2 3\n{name}: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 5\n")
    pose = open_scans(folder)[1].pose
    assert pose is not None
    assert pose[0, 3] == pytest.approx(5)


def test_poses_of_a_camera_whose_axes_nobody_tells_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = kitti_root(tmp_path, ["00"]) / "sequences" / "00"
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 5\n")
    (folder / "calib.txt").write_text("P0: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    assert open_scans(folder)[1].pose is None
    assert "calib.txt: has no line 'Tr:', from the LiDAR to the camera" in caplog.text


def test_numbers_without_leading_zeros_keep_their_poses_times_and_labels(tmp_path: Path) -> None:
    folder = record(tmp_path / "drive", 12)
    (folder / "manifest.yaml").unlink()
    for file in [*folder.glob("velodyne/*"), *folder.glob("labels/*")]:
        file.rename(file.with_name(f"{int(file.stem)}{file.suffix}"))
    (folder / "poses.txt").write_text("".join(f"1 0 0 {i} 0 1 0 0 0 0 1 0\n" for i in range(12)))
    (folder / "times.txt").write_text("".join(f"{i}\n" for i in range(12)))
    scans = open_scans(folder)
    assert list(scans.keys) == [str(i) for i in range(12)]
    for i in range(12):
        assert scans[i].pose[0, 3] == i
        assert scans[i].cloud.stamp_ns == i * 10**9
    truth = open_input(folder, STREET, label_folder=folder / "labels")
    for item, scan in zip(truth, scans, strict=True):
        np.testing.assert_array_equal(item.truth, STREET.to_class(np.fromfile(folder / "labels" / f"{scan.key}.label", "<u4")))


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(1, 6))
def test_holdout_cuts_whole_stretches(count: int, fraction: float, blocks: int) -> None:
    class Row:
        name, content_hash, labels, spec, intensity_full_scale = "row", "h", STREET, SPEC, 1.0
        keys = tuple(map(str, range(count)))

        def __len__(self) -> int:
            return count

    kept, held = holdout(Row(), fraction, blocks)  # type: ignore[arg-type]
    assert sorted(kept.indices + held.indices) == list(range(count))
    assert len(kept)
    assert len(held)
    stretches = 1 + int((np.diff(held.indices) > 1).sum())
    assert stretches <= blocks
    assert held.indices[-1] == count - 1


def test_holdout_needs_two_scans(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs at least 2"):
        holdout(open_scans(record(tmp_path, 1)), 0.5)


def test_subset_is_a_data_set(tmp_path: Path) -> None:
    scans = open_scans(record(tmp_path))
    part = Subset(scans, [2, 0])
    assert list(part.keys) == ["000002", "000000"]
    assert part[0].key == "000002"
    assert part.content_hash not in (scans.content_hash, Subset(scans, [0, 2]).content_hash)


def test_real_semantickitti(shared_data: Path) -> None:
    scans = open_scans(shared_data / "semantickitti_seq00")
    assert len(scans) == 5
    assert check(scans) == []
    assert scans[3].class_id is None
    cars = scans.labels.id_of("car")
    for scan in (scans[i] for i in range(3)):
        assert len(scan.cloud) > 120_000
        assert scan.cloud.valid.all()
        assert scan.class_id is not None
        assert scan.instance_id is not None
        assert len(np.unique(scan.class_id[scan.class_id > 0])) >= 12
        things = np.flatnonzero(scan.instance_id)
        assert set(np.unique(scan.class_id[things])) == {cars, scans.labels.id_of("motorcyclist")}
        assert len(np.unique(scan.instance_id[scan.class_id == cars])) >= 13
