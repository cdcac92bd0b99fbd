# SPDX-License-Identifier: Apache-2.0
"""SensatUrban and Toronto-3D in their real layouts, tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.data.scans import open_scans, open_splits
from weakseg_ros.data.sensaturban import SPLIT_OF, SensatUrban
from weakseg_ros.errors import DataError
from weakseg_ros.points.labels import LabelMap

TILES = ["birmingham_block_0", "birmingham_block_1", "cambridge_block_34"]


@pytest.fixture
def city(layouts: Any, tmp_path: Path) -> Path:
    return layouts.write_sensaturban(tmp_path / "data_release", TILES, ("cambridge_block_15",))


def test_a_tile_has_its_classes_although_ground_is_number_0(city: Path, layouts: Any) -> None:
    scans = open_scans(city)
    assert isinstance(scans, SensatUrban)
    scan = scans[0]
    assert scan.class_id is not None
    assert scan.class_id[:14].tolist() == [*range(1, 14), 1]
    assert [LabelMap.load("sensaturban").names[i] for i in (1, 13)] == ["ground", "water"]
    stored = layouts.colored_points(0, 260)
    np.testing.assert_array_equal(scan.cloud.xyz[:, 1], stored["y"])
    assert scan.cloud.rgb is not None
    np.testing.assert_array_equal(scan.cloud.rgb[:, 0], stored["red"])


def test_splits_are_the_owners(city: Path) -> None:
    counts = {split: list(SPLIT_OF.values()).count(split) for split in ("train", "val", "test")}
    assert counts == {"train": 33, "val": 4, "test": 6}
    assert [list(part.keys) for part in open_splits(city)] == [[TILES[0], TILES[2]], [TILES[1]]]
    assert open_scans(city, "test")[0].class_id is None


def test_tiles_known_to_be_short_are_read_and_others_are_not(city: Path) -> None:
    for tile in ("cambridge_block_34", "birmingham_block_1"):
        file = city / "train" / f"{tile}.ply"
        file.write_bytes(file.read_bytes()[: -16 * 60 - 5])
    scans = open_scans(city / "train")  # a folder of tiles alone
    assert len(scans[2].cloud) == 199
    with pytest.raises(DataError, match=r"birmingham_block_1.ply: its header says 260 points in 4160 bytes, its data have 3195"):
        scans[1]


def test_a_tile_of_another_version_is_named(city: Path, layouts: Any) -> None:
    layouts.write_ply(city / "train" / "birmingham_block_0.ply", layouts.colored_points(0, 5))
    with pytest.raises(DataError, match=r"has no column class \(has x, y, z, red, green, blue\)"):
        open_scans(city)[0]
    layouts.write_ply(city / "train" / "birmingham_block_0.ply", {"x": np.ones(2, "f4"), "class": np.ones(2, "u1")})
    with pytest.raises(DataError, match="has no column y, z, red, green, blue"):
        open_scans(city)[0]


def test_toronto_stands_near_the_origin_with_intensity(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_toronto3d(tmp_path / "Toronto_3D")
    train, val = open_splits(root.parent)
    assert (list(train.keys), list(val.keys)) == (["L001"], ["L002"])
    scan = train[0]
    stored = layouts.colored_points(0, 90, "f8")
    np.testing.assert_allclose(scan.cloud.xyz[:, 0], stored["x"], atol=1e-6)
    np.testing.assert_array_equal(scan.cloud.intensity, np.arange(90))
    assert scan.class_id is not None
    assert scan.class_id[:10].tolist() == [*range(9), 0]
