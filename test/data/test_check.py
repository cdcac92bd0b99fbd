# SPDX-License-Identifier: Apache-2.0
"""`weakseg check`: for every published layout what is missing, damaged or of another version, and no crash on what is none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.cli import main
from weakseg_ros.data.check import findings
from weakseg_ros.data.pcd import read_ply
from weakseg_ros.data.s3dis import ALIGNED, AREAS, RAW, ROOMS
from weakseg_ros.data.scans import open_scans
from weakseg_ros.data.sensaturban import SPLIT_OF


def faults(folder: Path, **options: Any) -> list[str]:
    return [finding.text for finding in findings(folder, **options) if finding.wrong]


def s3dis(layouts: Any, root: Path) -> Path:
    return layouts.write_s3dis(root / ALIGNED, ["Area_1/office_1", "Area_1/office_2", "Area_3/office_1"], points=1)


def whole_s3dis(layouts: Any, root: Path) -> Path:
    rooms = [f"{area}/office_{n + 1}" for area in AREAS for n in range(ROOMS[area])]
    return layouts.write_s3dis(root / ALIGNED, rooms, points=1, objects=("floor_1",))


def scannet(layouts: Any, root: Path) -> Path:
    return layouts.write_scannet(root / "scannet", ["scene0000_00"], ["scene0011_00"], ("scene0707_00",))


def kitti(layouts: Any, root: Path) -> Path:
    return layouts.write_kitti(root / "kitti", ["00", "08"], points=50)


def poss(layouts: Any, root: Path) -> Path:
    return layouts.write_poss(root / "poss", ["00", "02"])


def nuscenes(layouts: Any, root: Path) -> Path:
    return layouts.write_nuscenes(root / "nuscenes", list(range(10)))


def sensaturban(layouts: Any, root: Path) -> Path:
    tiles = [tile for tile, split in SPLIT_OF.items() if split != "test"]
    return layouts.write_sensaturban(root / "data_release", tiles, ("birmingham_block_2",), points=26)


def toronto(layouts: Any, root: Path) -> Path:
    return layouts.write_toronto3d(root / "Toronto_3D", ("L001", "L002", "L003", "L004"))


def renamed_in(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def camera_poses(recording: Path) -> None:
    """Poses of KITTI's camera without the transform that makes them the LiDAR's."""
    (recording / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 2)
    (recording / "calib.txt").write_text("P0: 1 0 0 0 0 1 0 0 0 0 1 0\n")


WHOLE = (whole_s3dis, nuscenes, sensaturban, toronto)
"""writers of a data set with as many parts as were published"""


@pytest.mark.parametrize("write", WHOLE)
def test_a_whole_data_set_has_no_fault(
    write: Callable[[Any, Path], Path], layouts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(layouts, tmp_path)
    assert main(["check", str(root)]) == 0
    said = capsys.readouterr().out
    assert f"{root}: no fault was found (every scan was looked at)" in said
    assert f"{root}: is read as '" in said


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("write", "damage", "text"),
    [
        (s3dis, lambda r: cut(r / "Area_1/office_1/Annotations/wall_2.txt"), "wall_2.txt:1: .* is not 6 numbers"),
        (s3dis, lambda r: None, "Area_3: has 1 room, 23 were published"),
        (s3dis, lambda r: None, r"lacks 1 of the 1 areas of the split val \(Area_5\); copy them"),
        (
            s3dis,
            lambda r: (r / "Area_1/office_2/Annotations/chair_1.txt").unlink(),
            "its objects hold 8 points and office_2.txt 9",
        ),
        (s3dis, lambda r: (r / "Area_1/office_2/Annotations").rename(r / "away"), "office_2: has no Annotations"),
        (
            s3dis,
            lambda r: (r / "Area_1/office_2/Annotations/lamp_1.txt").write_text(""),
            "its name begins with no class of S3DIS",
        ),
        (
            scannet,
            lambda r: cut(r / "scans/scene0011_00/scene0011_00_vh_clean_2.0.010000.segs.json"),
            "segs.json: is not complete JSON",
        ),
        (scannet, lambda r: (r / "scannetv2_val.txt").unlink(), "has no scannetv2_val.txt; the official lists"),
        (scannet, lambda r: None, "scannetv2_train.txt: lists 1 scene, version 2 has 1201"),
        (scannet, lambda r: (r / "scans/scene0011_00").rename(r / "away"), "lacks 1 of the 1 scenes of the split val"),
        (
            scannet,
            lambda r: (r / "scans/scene0000_00/scene0000_00.aggregation.json").unlink(),
            "lacks scene0000_00.aggregation.json",
        ),
        (
            scannet,
            lambda r: (r / "scannetv2-labels.combined.tsv").rename(r / "scannet-labels.combined.tsv"),
            "has scannet-labels.combined.tsv, the table of ScanNet's first version, and no scannetv2-labels",
        ),
        (
            scannet,
            lambda r: (r / "scans/scene0011_00/scene0011_00_vh_clean_2.ply").rename(
                r / "scans/scene0011_00/scene0011_00_vh_clean.ply"
            ),
            r"1 scene has only the full mesh .* \(scene0011_00\)",
        ),
        (kitti, lambda r: None, r"lacks 9 of the 10 sequences of the split train \(01, 02, 03, 04, 05 and 4 more\)"),
        (kitti, lambda r: None, "08/velodyne: has 2 scans, 4071 were published"),
        (kitti, lambda r: cut(r / "sequences/08/velodyne/000001.bin"), "000001.bin: has 793 bytes"),
        (kitti, lambda r: cut(r / "sequences/08/labels/000001.label"), "000001.label: has 193 bytes"),
        (kitti, lambda r: (r / "sequences/08/labels/000000.label").unlink(), r"lacks the labels of 1 of 2 scans \(000000\)"),
        (kitti, lambda r: (r / "sequences/00/velodyne/000000.bin").unlink(), r"lacks the scans of 1 label file \(000000\)"),
        (
            kitti,
            lambda r: (r / "sequences/00/poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n"),
            "poses.txt: has 1 line for 2 scans",
        ),
        (poss, lambda r: cut(r / "sequences/02/tag/000001.tag"), "000001.tag: marks"),
        (poss, lambda r: None, "02/velodyne: has 2 scans, 500 were published"),
        (nuscenes, lambda r: next((r / "samples/LIDAR_TOP").iterdir()).unlink(), "lacks 1 of the 20 scans in its tables"),
        (nuscenes, lambda r: cut(next((r / "lidarseg/v1.0-mini").iterdir())), "has 33 labels, its scan 40 points"),
        (nuscenes, lambda r: (r / "v1.0-mini/lidarseg.json").unlink(), "has no lidarseg.json"),
        (nuscenes, lambda r: (r / "v1.0-mini/scene.json").write_text("[]"), "lists 0 scenes, 10 were published"),
        (nuscenes, lambda r: (r / "v1.0-mini/category.json").write_text('[{"token": "a"}]'), "is older than lidarseg"),
        (nuscenes, lambda r: (r / "v1.0-mini/sample.json").write_text('[{"token": "a"}]'), "has unexpected content"),
        (sensaturban, lambda r: cut(r / "train/cambridge_block_2.ply"), "cambridge_block_2.ply: its header says 26 points"),
        (sensaturban, lambda r: (r / "train/birmingham_block_1.ply").unlink(), "lacks 1 of the 4 tiles of the split val"),
        (sensaturban, lambda r: (r / "train").rename(r / "grid_0.200"), "holds tiles that were thinned out"),
        (
            scannet,
            lambda r: (r / "scannetv2-labels.combined.tsv").write_text("id,category\n1,wall\n"),
            "is not a table of categories",
        ),
        (scannet, lambda r: (r / "scannetv2-labels.combined.tsv").write_text("id\traw_category\tnyu40id\n"), "lists no category"),
        (
            scannet,
            lambda r: (r / "scannetv2_val.txt").rename(r / "scannetv1_val.txt"),
            "has scannetv1_val.txt, the list of ScanNet's first version, and no scannetv2_val.txt",
        ),
        (
            scannet,
            lambda r: (r / "scannetv2_val.txt").write_text("scene0011_00\nscene0000_00\n"),
            r"its official lists name 1 scene twice \(scene0000_00\)",
        ),
        (
            nuscenes,
            lambda r: (r / "v1.0-mini/category.json").write_text('[{"name": "noise", "index": 0}, {"name": "car", "index": 1}]'),
            "category.json: number 1 is 'car', and in nuScenes-lidarseg it is not; write a label map",
        ),
        (
            nuscenes,
            lambda r: renamed_in(r / "v1.0-mini/sample_data.json", "LIDAR_TOP", "LIDAR_FRONT"),
            r"lists no file below samples/LIDAR_TOP/ .* \(it lists CAM_FRONT, LIDAR_FRONT\); call",
        ),
        (
            kitti,
            lambda r: (r / "sequences/08/labels").rename(r / "sequences/08/scribbles"),
            r"lacks the labels of 2 of 2 scans .*; scribbles/ of ScribbleKITTI lies there, which is read if it is called labels/",
        ),
        (kitti, lambda r: camera_poses(r / "sequences/08"), r"calib.txt: has no line 'Tr:', from the LiDAR to the camera"),
        (toronto, lambda r: (r / "L002.ply").unlink(), r"lacks 1 of the 1 files of the split val \(L002\)"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    write: Callable[[Any, Path], Path], damage: Callable[[Path], None], text: str, layouts: Any, tmp_path: Path
) -> None:
    root = write(layouts, tmp_path)
    damage(root)
    found = faults(root)
    assert [sentence for sentence in found if re.search(text, sentence)], found


def test_the_verb_ends_with_1_and_limits_what_it_prints(layouts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = kitti(layouts, tmp_path)
    for file in root.glob("sequences/*/velodyne/*.bin"):
        cut(file)
    assert main(["check", str(root), "--sequences", "00", "08"]) == 1
    assert capsys.readouterr().out.count("FAULT") == 4
    assert main(["check", str(root), "--sequences", "00", "08", "--most", "1"]) == 1
    said = capsys.readouterr().out
    assert "3 more faults are not printed; raise --most to see them" in said
    assert said.count("000000.bin: has") == 1
    assert main(["check", str(root), "--no-read", "--sequences", "00"]) == 0
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert main(["check"]) == 2


def test_the_version_is_named(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_s3dis(tmp_path / "Stanford3dDataset_v1.2", ["Area_1/office_1", "Area_2/office_1"])
    (root / "Area_1" / "Area_1_alignmentAngle.txt").write_text("office_1 0\n")
    told = [finding.text for finding in findings(root)]
    assert any("is the version without alignment; rooms are rotated" in text for text in told)
    assert any("has no alignmentAngle.txt of Area_2" in text for text in told)


def test_a_simulated_area_lacks_no_published_room(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_s3dis(tmp_path, ["Area_1/office_1"])
    assert len(faults(root)) == 3
    (root / "Area_1" / "simulated.yaml").write_text("seed: 1\n")
    assert faults(root) == []


def test_a_recording_of_ones_own_may_be_labelled_in_part(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_bare(tmp_path / "mine", frames=2)
    (root / "labels" / "000001.label").unlink()
    assert faults(root) == []
    assert any("lacks the labels of 1 of 2 scans (000001)" in finding.text for finding in findings(root))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ply_data_all_0.h5", "S3DIS as blocks of 4096 points"),
        ("Area_1_conferenceRoom_1.npy", "S3DIS's rooms as arrays of another program"),
        ("original_ply/Area_5_office_1.ply", "S3DIS's rooms as another program prepared them"),
        ("area_5a/3d/pointcloud.mat", "2D-3D-Semantics"),
        ("scans/scene0000_00/scene0000_00.sens", "ScanNet's recordings without meshes"),
        ("train/scene0000_00_vh_clean_2.pth", "ScanNet's scenes as another program prepared them"),
        ("L001.las", "Toronto-3D in another format"),
    ],
)
def test_data_of_another_program_are_told(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    (found,) = faults(tmp_path)
    assert f"it holds {text}" in found
    assert f"(found {name})" in found


def test_the_right_folder_is_told_where_it_lies_near(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_s3dis(tmp_path / "data" / "rooms" / ALIGNED, ["Area_1/office_1"])
    assert f"; name {root.parent}" in faults(tmp_path / "data")[0]
    room = root / "Area_1" / "office_1"
    assert f"; {room.parent} holds data, name that if it is meant" in faults(room)[0]
    assert any(f"{root / 'Area_1'}: has 1 room" in text for text in faults(root / "Area_1"))
    tiles = layouts.write_sensaturban(tmp_path / "cities" / "SensatUrban_Dataset" / "ply", ["birmingham_block_0"])
    assert f"; name {tiles.parent}" in faults(tmp_path / "cities")[0]


def test_the_raw_version_without_its_angles_is_not_taken_for_the_aligned_one(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_s3dis(tmp_path / RAW, ["Area_1/office_1"])
    assert f"{root}: is the version that is not aligned, and has no alignmentAngle.txt" in faults(root)[0]


def test_positions_that_lost_their_centimetres_are_refused(layouts: Any, tmp_path: Path) -> None:
    root = toronto(layouts, tmp_path)
    columns = read_ply(root / "L001.ply")
    columns |= {axis: columns[axis].astype("f4") for axis in "xyz"}
    layouts.write_ply(root / "L001.ply", columns)
    assert "L001.ply: its positions are float32" in faults(root)[0]


def test_scenes_without_a_folder_around_them_are_read(layouts: Any, tmp_path: Path) -> None:
    root = layouts.write_scannet(tmp_path / "scannet", ["scene0000_00"], ["scene0011_00"])
    for scene in (root / "scans").iterdir():
        scene.rename(root / scene.name)
    (root / "scans").rmdir()
    assert not [text for text in faults(root) if "lacks" in text or "mesh" in text]


def test_archives_that_were_never_unpacked_are_named(tmp_path: Path) -> None:
    (tmp_path / "Stanford3dDataset_v1.2_Aligned_Version.zip").write_bytes(b"PK")
    assert "archives lie there (Stanford3dDataset_v1.2_Aligned_Version.zip): unpack them" in faults(tmp_path)[0]


def test_a_pipe_is_not_waited_for(layouts: Any, tmp_path: Path) -> None:
    root = kitti(layouts, tmp_path)
    os.mkfifo(root / "sequences" / "00" / "velodyne" / "000009.bin")
    (root / "sequences" / "00" / "labels" / "000009.label").symlink_to("nowhere")
    assert len(faults(root)) == 1
    assert "holds 2 entries that are neither files nor folders" in faults(root)[0]


CONTENT = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"[]", b"{}", b'[{"token": 1}]', b'{"segIndices": [[1]], "segGroups": [{}]}', b"ply\nend_header\n"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["token", "label", "segGroups"]), inner),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)


@pytest.fixture(scope="module")
def every_layout(layouts: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("every")
    small = layouts.write_s3dis(root / "s3dis", ["Area_1/office_1", "Area_5/office_1"], points=2)
    return [small, *(write(layouts, root) for write in (scannet, kitti, nuscenes, toronto))]


@settings(max_examples=30)
@given(st.data())
def test_whatever_a_file_holds_a_check_ends_with_sentences(every_layout: list[Path], data: st.DataObject) -> None:
    folder = data.draw(st.sampled_from(every_layout))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    before = file.read_bytes()
    file.write_bytes(data.draw(CONTENT))
    try:
        for finding in findings(folder):
            assert str(folder) in finding.text
            assert "; " in finding.text or not finding.wrong
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("write", [s3dis, kitti, scannet])
def test_what_macos_lays_beside_each_file_is_no_part_of_the_data(
    write: Callable[[Any, Path], Path], layouts: Any, tmp_path: Path
) -> None:
    root = write(layouts, tmp_path)
    before, hash_before = faults(root), open_scans(root).content_hash
    for file in [file for file in root.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7" + bytes(100))
        (file.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert faults(root) == before
    assert open_scans(root).content_hash == hash_before


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("sequences/08/labels/000000.label", "SemanticKITTI's labels without their scans; unpack KITTI's data_odometry_vel"),
        ("sequences/08/voxels/000000.bin", "SemanticKITTI's voxels without the scans"),
        ("area_1/office_1/Annotations/chair_1.txt", "S3DIS's areas under other names; call them Area_1 to Area_6"),
    ],
)
def test_half_of_a_data_set_is_told_for_what_it_is(file: str, told: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(b"1 2 3 4 5 6\n")
    assert told in faults(tmp_path)[0]
