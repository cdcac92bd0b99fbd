# SPDX-License-Identifier: Apache-2.0
"""SemanticPOSS in its real layout, tiny: tags put points back into the grid, splits are its own, damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.data.scans import open_scans, open_splits
from weakseg_ros.data.semantic_poss import SemanticPoss
from weakseg_ros.errors import DataError
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import project

SLOTS = 40 * 1800


def test_points_lie_where_the_tag_says(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_poss(tmp_path, ["00", "02"])
    scans = open_scans(root)
    scan = scans[1]
    folder = root / "sequences" / "00"
    slots = np.fromfile(folder / "tag" / "000001.tag", bool)
    stored = np.fromfile(folder / "velodyne" / "000001.bin", "<f4").reshape(-1, 4)
    raw = np.fromfile(folder / "labels" / "000001.label", "<u4")
    assert (scan.key, scan.cloud.height, scan.cloud.width) == ("00/000001", 40, 1800)
    np.testing.assert_array_equal(scan.cloud.valid, slots)
    np.testing.assert_array_equal(scan.cloud.xyz[slots], stored[:, :3])
    np.testing.assert_array_equal(scan.cloud.intensity[slots], stored[:, 3])
    assert scan.class_id is not None
    assert scan.instance_id is not None
    np.testing.assert_array_equal(scan.class_id[slots], LabelMap.load("semanticposs").to_class(raw))
    np.testing.assert_array_equal(scan.instance_id[slots], raw >> 16)
    assert not scan.class_id[~slots].any()
    np.testing.assert_array_equal(project(scan.cloud, scans.spec).point_of_pixel.ravel() >= 0, slots)


def test_thirteen_classes_and_its_own_splits(layouts: Any, tmp_path: Path) -> None:
    labels = LabelMap.load("semanticposs")
    assert labels.num_classes == 14
    assert labels.to_class(np.array([4, 5, 10, 11, 12, 22, 0], np.uint32)).tolist() == [1, 1, 6, 6, 6, 13, 0]
    root = layouts.write_poss(tmp_path, ["00", "02", "03"], scans=1)
    assert [list(part.keys) for part in open_splits(root)] == [["00/000000", "03/000000"], ["02/000000"]]
    assert isinstance(open_scans(root / "sequences" / "02"), SemanticPoss)
    with pytest.raises(DataError, match="no split 'test' here; it has: train, val"):
        open_scans(root, "test")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(bytes(SLOTS)), "marks 0 of 72000 slots"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "71995 slots"),
    ],
)
def test_damage_is_named(layouts: Any, tmp_path: Path, damage: Callable[[Path], None], text: str) -> None:
    root = layouts.write_poss(tmp_path, ["01"], scans=1)
    damage(root / "sequences" / "01" / "tag" / "000000.tag")
    with pytest.raises(DataError, match=rf"000000\.tag: .*{text}"):
        open_scans(root)[0]
