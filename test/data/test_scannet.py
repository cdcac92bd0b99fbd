# SPDX-License-Identifier: Apache-2.0
"""ScanNet v2 in its real layout, tiny: classes, objects and colours by vertex, its lists as splits, damage by file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.data.scannet import ScanNet
from weakseg_ros.data.scans import open_scans, open_splits
from weakseg_ros.errors import DataError
from weakseg_ros.points.labels import LabelMap

TRAIN, VAL = ["scene0000_00", "scene0000_01"], ["scene0011_00"]


@pytest.fixture
def root(layouts: Any, tmp_path: Path) -> Path:
    return layouts.write_scannet(tmp_path / "scannet", TRAIN, VAL, ("scene0707_00",))


def test_a_vertex_has_its_class_object_and_colour_and_stands_upright(root: Path, layouts: Any) -> None:
    scans = open_scans(root, "train")
    scan = scans[0]
    assert isinstance(scans, ScanNet)
    assert scan.class_id is not None
    assert scan.instance_id is not None
    names = [LabelMap.load("scannet").names[i] for i in scan.class_id[::20]]
    # a monitor is NYU40's 40, which the benchmark ignores; the last vertices belong to no object
    assert names == ["wall", "floor", "chair", "chair", "shower-curtain", "unlabelled", "unlabelled"]
    assert scan.instance_id[::20].tolist() == [1, 2, 3, 4, 5, 6, 0]
    stored = layouts.colored_points(0, layouts.SCANNET_COUNT)
    expected = np.stack([1.5 - stored["y"], stored["x"] - 2, stored["z"] + 0.25], axis=1)
    np.testing.assert_allclose(scan.cloud.xyz, expected, atol=1e-6)
    assert scan.cloud.rgb is not None
    np.testing.assert_array_equal(scan.cloud.rgb[:, 2], stored["blue"])


def test_the_lists_are_the_splits(root: Path) -> None:
    assert [list(part.keys) for part in open_splits(root)] == [TRAIN, VAL]
    assert list(open_scans(root / "scans", "val").keys) == VAL
    test = open_scans(root, "test")
    assert test[0].class_id is None
    assert list(open_scans(root / "scans" / "scene0011_00").keys) == VAL
    for split in ("train", "val"):
        (root / f"scannetv2_{split}.txt").unlink()
    with pytest.raises(DataError, match=r"no split 'val' here; it has: test; the official lists scannetv2_train.txt"):
        open_scans(root, "val")


def test_lists_and_table_from_windows_name_all_their_scenes(root: Path) -> None:
    before = open_scans(root, "val")[0].class_id
    for file in (*root.glob("*.txt"), *root.glob("*.tsv")):
        columns = [line.split("\t") for line in file.read_text().splitlines()]
        lines = ["\t".join([*row[1:2], row[0], *row[2:]]) for row in columns]  # the first column is the one that is needed
        file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert [list(part.keys) for part in open_splits(root)] == [TRAIN, VAL]
    (root / "scans" / "scene0011_00" / "scene0011_00_vh_clean_2.labels.ply").unlink()
    np.testing.assert_array_equal(open_scans(root, "val")[0].class_id, before)


def test_without_its_label_file_a_scene_has_the_classes_of_its_objects(root: Path) -> None:
    before = open_scans(root, "val")[0].class_id
    (root / "scans" / "scene0011_00" / "scene0011_00_vh_clean_2.labels.ply").unlink()
    np.testing.assert_array_equal(open_scans(root, "val")[0].class_id, before)
    (root / "scannetv2-labels.combined.tsv").unlink()
    assert open_scans(root, "val")[0].class_id is None


def test_ids_of_the_three_wrong_scenes_are_known_and_ignored() -> None:
    labels = LabelMap.load("scannet")
    assert labels.num_classes == 21
    assert labels.to_class(np.array([50, 149, 13, 39, 36])).tolist() == [0, 0, 0, 20, 19]
    assert labels.unknown_raw_ids(np.arange(1, 41)) == []
    assert labels.unknown_raw_ids(np.array([41])) == [41]


def shortened(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-300])


def with_too_few(file: Path) -> None:
    content = json.loads(file.read_text())
    content["segIndices"].pop()
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("ending", "damage", "text"),
    [
        ("_vh_clean_2.ply", shortened, "its header says 130 points"),
        ("_vh_clean_2.labels.ply", lambda file: file.write_bytes(b"ply\n"), "is not a PLY file"),
        ("_vh_clean_2.0.010000.segs.json", with_too_few, "has 129 segments, but its mesh has 130 vertices"),
        ("_vh_clean_2.0.010000.segs.json", lambda file: file.write_text("[" * 100_000), "is not complete JSON"),
        (".aggregation.json", lambda file: file.write_text('{"segGroups": [{"objectId": 1}]}'), "its segGroups cannot be read"),
        (".aggregation.json", lambda file: file.write_text('{"segGroups": 7}'), "its segGroups cannot be read"),
        (".txt", lambda file: file.write_text("axisAlignment = 1 2 x\n"), "its axisAlignment is not 16 numbers"),
    ],
)
def test_damage_is_named(ending: str, damage: Callable[[Path], None], text: str, root: Path) -> None:
    file = root / "scans" / "scene0011_00" / f"scene0011_00{ending}"
    damage(file)
    with pytest.raises(DataError, match=text) as caught:
        open_scans(root, "val")[0]
    assert str(file) in str(caught.value)


def test_labels_of_another_version_do_not_fit(root: Path, layouts: Any) -> None:
    columns = layouts.colored_points(1, 99)
    layouts.write_ply(
        root / "scans" / "scene0011_00" / "scene0011_00_vh_clean_2.labels.ply", columns | {"label": np.ones(99, "u2")}
    )
    with pytest.raises(DataError, match="has 99 labels, but its mesh has 130 vertices; their versions differ"):
        open_scans(root, "val")[0]
