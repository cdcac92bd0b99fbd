# SPDX-License-Identifier: Apache-2.0
"""S3DIS in its real layout, tiny: objects become classes and instances, both versions stand alike, known errors are mended."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.data.point_text import read_point_text
from weakseg_ros.data.s3dis import ALIGNED, ROOMS, S3dis
from weakseg_ros.data.scans import open_scans, open_splits
from weakseg_ros.errors import DataError
from weakseg_ros.points.labels import LabelMap

NAMES = ["Area_1/office_1", "Area_2/hallway_1", "Area_5/office_1"]


@pytest.fixture
def root(layouts: Any, tmp_path: Path) -> Path:
    return layouts.write_s3dis(tmp_path / ALIGNED, NAMES)


def test_a_room_has_all_points_of_its_objects_with_colour_class_and_instance(root: Path, layouts: Any) -> None:
    scan = open_scans(root)[1]
    labels = LabelMap.load("s3dis")
    assert isinstance(open_scans(root), S3dis)
    assert scan.key == "Area_2/hallway_1"
    assert len(scan.cloud) == 40 * len(layouts.S3DIS_OBJECTS)
    assert scan.class_id is not None
    assert scan.instance_id is not None
    assert scan.cloud.rgb is not None
    # by class, then by number: ceiling, floor, wall 1, 2 and 10, table, chair, clutter, stairs (which counts as clutter)
    assert [labels.names[i] for i in scan.class_id[::40]] == [
        *("ceiling", "floor", "wall", "wall", "wall", "table", "chair", "clutter", "clutter"),
    ]
    assert scan.instance_id[::40].tolist() == list(range(1, 10))
    wall_10 = np.array([line.split() for line in layouts.s3dis_lines(1, layouts.S3DIS_OBJECTS.index("wall_10"))], float)
    np.testing.assert_array_equal(scan.cloud.xyz[160:200], wall_10[:, :3].astype(np.float32))
    np.testing.assert_array_equal(scan.cloud.rgb[160:200], wall_10[:, 3:])


def test_area_5_validates_and_folds_are_named(root: Path) -> None:
    assert sum(ROOMS.values()) == 272
    assert [list(part.keys) for part in open_splits(root)] == [NAMES[:2], NAMES[2:]]
    assert list(open_scans(root, sequences=["Area_2"]).keys) == NAMES[1:2]
    assert list(open_scans(root.parent, "val").keys) == NAMES[2:]
    assert list(open_scans(root / "Area_1").keys) == NAMES[:1]
    with pytest.raises(DataError, match="no place 'Area_7'"):
        open_scans(root, sequences=["Area_7"])
    with pytest.raises(DataError, match="no split 'test' here; it has: train, val"):
        open_scans(root, "test")


def test_rooms_of_the_other_version_are_turned_upright(layouts: Any, tmp_path: Path) -> None:
    turned = layouts.write_s3dis(tmp_path / "Stanford3dDataset_v1.2", NAMES[:1])
    before = open_scans(turned)[0].cloud.xyz
    (turned / "Area_1" / "Area_1_alignmentAngle.txt").write_text("## Global alignment angle\n## Space Angle\noffice_1 90\n")
    after = open_scans(turned)[0].cloud.xyz
    middle = (before.min(axis=0) + before.max(axis=0)) / 2
    moved = before - middle
    np.testing.assert_allclose(after, np.stack([moved[:, 1], -moved[:, 0], moved[:, 2]], axis=1) + middle, atol=1e-4)
    shifted = turned.rename(tmp_path / ALIGNED)
    np.testing.assert_array_equal(open_scans(shifted)[0].cloud.xyz, before)


def test_colours_from_0_to_1_are_the_same_colours(root: Path) -> None:
    before = open_scans(root)[0].cloud.rgb
    for file in (root / NAMES[0] / "Annotations").glob("*.txt"):
        table = np.loadtxt(file)
        table[:, 3:] /= 255
        np.savetxt(file, table, fmt="%.6f")
    np.testing.assert_array_equal(open_scans(root)[0].cloud.rgb, before)


def test_a_room_without_annotations_has_no_labels(root: Path) -> None:
    room = root / "Area_1" / "office_1"
    for file in (room / "Annotations").iterdir():
        file.unlink()
    scan = open_scans(root / "Area_1")[0]
    assert scan.class_id is None
    assert len(scan.cloud) == 360


@pytest.mark.parametrize(
    ("line", "values"),
    [  # as distributed: a space and digits that lost a bit
        (b"22.350 6.692 3.048 185\x10187 182", (22.35, 6.692, 3.048, 185, 187, 182)),
        (b"22.350 6.692 3.048 185\x00187 182", (22.35, 6.692, 3.048, 185, 187, 182)),
        (b"0.577500 -12.407500 2.604000 167.\x1000000 175.000000 177.000000", (0.5775, -12.4075, 2.604, 167, 175, 177)),
        (b"19.302 -9.1\x160 1.785 146 137 106", (19.302, -9.16, 1.785, 146, 137, 106)),
    ],
)
def test_the_known_errors_are_mended_and_named(
    line: bytes, values: tuple[float, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ceiling_1.txt"
    file.write_bytes(b"1 2 3 4 5 6\n" + line + b"\n7 8 9 1 2 3\n")
    with caplog.at_level(logging.WARNING):
        table = read_point_text(file, 6)
    assert table[1].tolist() == list(values)
    assert len(table) == 3
    assert f"{file}:2: has a damaged character" in caplog.text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"1 2 3 4 5 6\n1 2 3 4", r":2: '1 2 3 4' is not 6 numbers \(the last line: the file is cut off\); copy the file again"),
        (b"1 2 3 4 5 six\n1 2 3 4 5 6\n", r":1: '1 2 3 4 5 six' is not 6 numbers; copy"),
        (b"1 2 3 4 5 nan\n", r":1: '1 2 3 4 5 nan' is not 6 numbers"),
        (b"1 2 3 4 \xff 6\n", r":1: has a damaged character \(byte 0xff\); copy the file again"),
        (bytes(range(256)), "is not a text file of points"),
    ],
)
def test_damage_is_named_with_its_line(content: bytes, text: str, root: Path) -> None:
    (root / "Area_1" / "office_1" / "Annotations" / "chair_1.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"chair_1.txt.*{text}"):
        open_scans(root)[0]


def test_an_unknown_class_and_an_empty_room_are_named(root: Path) -> None:
    chair = root / "Area_1" / "office_1" / "Annotations" / "chair_1.txt"
    lamp = chair.rename(chair.with_name("lamp_1.txt"))
    with pytest.raises(DataError, match="its name begins with no class of S3DIS"):
        open_scans(root)[0]
    lamp.unlink()
    for file in chair.parent.iterdir():
        file.write_text("")
    with pytest.raises(DataError, match="hold no point"):
        open_scans(root)[0]
