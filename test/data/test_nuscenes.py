# SPDX-License-Identifier: Apache-2.0
"""nuScenes in its real layout, tiny: tables, key frames of the LiDAR, categories, splits, and what a user can get wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.data.nuscenes import CATEGORIES, VAL_SCENES, NuScenes
from weakseg_ros.data.scans import open_scans, open_splits, splits_of
from weakseg_ros.errors import DataError
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import project


def test_key_frames_come_by_scene_and_time(layouts: Any, tmp_path: Path) -> None:
    scans = open_scans(layouts.write_nuscenes(tmp_path, [103, 61]))
    assert isinstance(scans, NuScenes)
    assert list(scans.keys) == ["scene-0061/000000", "scene-0061/000001", "scene-0103/000000", "scene-0103/000001"]
    scan = scans[1]
    stored = layouts.nuscenes_points(61, 1)
    np.testing.assert_array_equal(scan.cloud.xyz, stored[:, :3])
    np.testing.assert_array_equal(scan.cloud.intensity, stored[:, 3])
    assert scan.cloud.ring is not None
    np.testing.assert_array_equal(scan.cloud.ring, stored[:, 4])
    assert scan.cloud.stamp_ns == (1_500_000_000_000_000 + 610_000_000 + 500_000) * 1000
    np.testing.assert_array_equal(scan.class_id, LabelMap.load("nuscenes").to_class(layouts.nuscenes_categories(61, 1)))
    assert (scan.instance_id, scan.pose) == (None, None)
    assert (scans.spec.height, scans.spec.width, scans.intensity_full_scale) == (64, 2048, 255.0)


def test_points_on_the_car_itself_have_no_pixel(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_nuscenes(tmp_path, [61])
    near = layouts.nuscenes_points(61, 0)
    near[0, :3] = (0.5, 0.5, 0.0)
    near[1, :3] = (5.0, 0.0, 0.0)
    _first(root, "*.pcd.bin").write_bytes(near.tobytes())
    scans = open_scans(root)
    pixels = project(scans[0].cloud, scans.spec).pixel_of_point
    assert pixels[0] == -1 < pixels[1]


def test_categories_of_the_challenge() -> None:
    labels = LabelMap.load("nuscenes")
    assert labels.num_classes == 17
    assert labels.unknown_raw_ids(np.arange(32, dtype=np.uint8)) == []
    named = {"barrier": [9], "bus": [15, 16], "pedestrian": [2, 3, 4, 6], "driveable-surface": [24], "vegetation": [30]}
    for name, categories in named.items():
        assert set(labels.to_class(np.array(categories, np.uint8))) == {labels.id_of(name)}
    assert not labels.to_class(np.array([0, 1, 5, 7, 8, 10, 11, 13, 19, 20, 29, 31], np.uint8)).any()


def test_official_splits(layouts: Any, tmp_path: Path) -> None:
    assert len(VAL_SCENES) == 150
    mini = layouts.write_nuscenes(tmp_path / "mini", [61, 103, 553])
    assert [[key[:10] for key in part.keys[::2]] for part in open_splits(mini)] == [["scene-0061", "scene-0553"], ["scene-0103"]]
    whole = layouts.write_nuscenes(tmp_path / "whole", [1, 3, 553], version="v1.0-trainval")
    assert [[key[:10] for key in part.keys[::2]] for part in open_splits(whole)] == [["scene-0001"], ["scene-0003", "scene-0553"]]
    assert list(open_scans(whole, sequences=["scene-0003"]).keys) == ["scene-0003/000000", "scene-0003/000001"]
    with pytest.raises(DataError, match=r"no scene 'scene-0004'; did you mean 'scene-000"):
        open_scans(whole, sequences=["scene-0004"])
    with pytest.raises(DataError, match="no split 'test' here; it has train, val"):
        open_scans(whole, "test")


def test_scenes_of_ones_own_have_no_official_split_and_are_held_out_by_share(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_nuscenes(tmp_path, [2001, 2002, 2003], version="v1.0-trainval")
    assert splits_of(root) == ("train",)
    with pytest.raises(DataError, match=r"no split 'val' here; it has train$"):
        open_scans(root, "val")
    assert [len(part) for part in open_splits(root, 0.34)] == [4, 2]


def test_numbers_that_mean_other_categories_need_a_map_of_their_own(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_nuscenes(tmp_path, [61])
    table = root / "v1.0-mini" / "category.json"
    table.write_text(json.dumps([{"name": name, "index": i} for i, name in enumerate(CATEGORIES)]))
    assert open_scans(root)[0].class_id is not None
    table.write_text(json.dumps([{"name": name, "index": i} for i, name in enumerate(reversed(CATEGORIES))]))
    with pytest.raises(DataError, match=r"category.json: number 0 is 'vehicle.ego', and .* with --label-map"):
        open_scans(root)
    assert open_scans(root, labels="nuscenes")[0].class_id is not None, "whoever names a map knows the numbers"


def test_frames_without_labels(layouts: Any, tmp_path: Path) -> None:
    scans = open_scans(layouts.write_nuscenes(tmp_path, [77], version="v1.0-test", labelled=False), "test")
    assert [scan.class_id for scan in (scans[0], scans[1])] == [None, None]


def test_the_hash_follows_the_content(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_nuscenes(tmp_path, [61])
    before = open_scans(root).content_hash
    assert open_scans(root).content_hash == before
    file = next((root / "lidarseg").rglob("*.bin"))
    file.write_bytes(bytes(40))
    assert open_scans(root).content_hash != before


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda root: _first(root, "*.pcd.bin").unlink(), r"pcd\.bin: cannot be read"),
        (lambda root: _first(root, "*.pcd.bin").write_bytes(b"123"), r"pcd\.bin: has 3 bytes, not a multiple of 20"),
        (lambda root: _first(root, "*_lidarseg.bin").write_bytes(bytes(39)), r"has 39 labels, its scan 40 points"),
        (lambda root: _first(root, "*_lidarseg.bin").write_bytes(bytes([99] * 40)), r"does not list \(99\)"),
        (lambda root: _first(root, "sample.json").write_text("[{"), r"sample\.json: cannot be read"),
        (
            lambda root: _first(root, "sample_data.json").write_text("[]"),
            r"lists no file below samples/LIDAR_TOP/ for the scenes asked for; copy",
        ),
        (lambda root: _edit(_first(root, "lidarseg.json"), '"lidarseg/v1.0', '"../lidarseg/v1.0'), "outside the data set"),
    ],
)
def test_damage_is_named(layouts: Any, tmp_path: Path, damage: Callable[[Path], None], text: str) -> None:
    root = layouts.write_nuscenes(tmp_path, [61])
    damage(root)
    with pytest.raises(DataError, match=text):
        open_scans(root)[0]


def test_data_may_lie_on_another_disk(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_nuscenes(tmp_path / "here", [61])
    (root / "samples").rename(tmp_path / "there")
    (root / "samples").symlink_to(tmp_path / "there")
    assert len(open_scans(root)[0].cloud) == 40


def _edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def _first(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]
