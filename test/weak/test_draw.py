# SPDX-License-Identifier: Apache-2.0
"""Sparse labels: the protocols keep their promises, and what is stored is used with its own data only."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.cli import main
from weakseg_ros.config import dump_yaml
from weakseg_ros.data.scan_sets import Scan, ScanSet, Subset, holdout
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.weak.draw import draw_sparse
from weakseg_ros.weak.protocols import SparseConfig, clicks_of_ratio, draw_scan, group_voxels
from weakseg_ros.weak.sparse_labels import SparseLabels, SparseScans

STREET = LabelMap.load("street")
ROAD, CAR, PERSON = (STREET.id_of(name) for name in ("road", "car", "person"))


def street_scan(seed: int = 0, key: str = "000000", points: int = 3000) -> Scan:
    """Road, a few cars and persons with instances, unlabelled points and non-returns."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-20, 20, (points, 3)).astype(np.float32)
    xyz[::10] = 0
    class_id = rng.choice(np.array([0, ROAD, CAR, PERSON], np.uint8), points, p=[0.1, 0.7, 0.18, 0.02])
    instance = np.where(np.isin(class_id, [CAR, PERSON]), rng.integers(0, 5, points), 0).astype(np.uint16)
    return Scan(key, make_cloud(xyz), class_id, instance, None)


def record(folder: Path, count: int = 4, first_seed: int = 0) -> ScanSet:
    with ScanWriter(folder, STREET, RangeSpec(), source="test", seed=0, intensity_full_scale=1.0) as out:
        for i in range(count):
            scan = street_scan(first_seed + i)
            assert scan.class_id is not None
            assert scan.instance_id is not None
            raw = STREET.to_raw(scan.class_id).astype(np.uint32) | (scan.instance_id.astype(np.uint32) << 16)
            out.write(scan.cloud, raw)
    return open_scans(folder)


def test_voxel_clicks_count_and_propagate() -> None:
    scan = street_scan()
    config = SparseConfig("voxel", ratio=0.01, voxel_m=2.0)
    draw = draw_scan(scan, STREET, config)
    usable = int(scan.cloud.valid.sum())
    assert len(draw.clicks) == round(usable * 0.01)
    assert scan.class_id is not None
    np.testing.assert_array_equal(draw.class_id[draw.clicks], scan.class_id[draw.clicks])
    voxels = group_voxels(scan.cloud.xyz[scan.cloud.valid], 2.0)
    labels = draw.class_id[scan.cloud.valid]
    for voxel in np.unique(voxels.voxel_of_point[labels > 0]):
        assert len(np.unique(labels[voxels.voxel_of_point == voxel])) == 1
    assert np.count_nonzero(draw.class_id) > len(draw.clicks)
    alone = draw_scan(scan, STREET, SparseConfig("voxel", ratio=0.01, voxel_m=2.0, propagate=False))
    np.testing.assert_array_equal(np.flatnonzero(alone.class_id), np.sort(alone.clicks))
    np.testing.assert_array_equal(alone.clicks, draw.clicks)


@pytest.mark.parametrize(
    ("points", "ratio", "candidates", "clicks"),
    [(1000, 0.0025, 900, 2), (1000, 0.0035, 900, 4), (100, 1e-5, 90, 1), (1000, 1.0, 40, 40), (1000, 0.5, 0, 0)],
)
def test_clicks_round_half_to_even_and_are_clipped(points: int, ratio: float, candidates: int, clicks: int) -> None:
    assert clicks_of_ratio(points, ratio, candidates) == clicks


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.05, 0.3, 4.0]), st.sampled_from([1.0, 1e3, 1e7]))
def test_voxels_by_definition(seed: int, count: int, voxel_m: float, spread: float) -> None:
    xyz = (np.random.default_rng(seed).normal(0, spread, (count, 3))).astype(np.float32)
    index = np.floor((xyz.astype(np.float64) - (xyz.min(axis=0).astype(np.float64) - voxel_m / 2)) / voxel_m).astype(np.int64)
    _, first, inverse = np.unique(index, axis=0, return_index=True, return_inverse=True)
    voxels = group_voxels(xyz, voxel_m)
    np.testing.assert_array_equal(voxels.voxel_of_point, inverse.ravel())
    np.testing.assert_array_equal(voxels.first_point, first)


def test_per_class_keeps_a_share_of_each_class_and_at_least_one_point() -> None:
    scan = street_scan()
    assert scan.class_id is not None
    dense = np.where(scan.cloud.valid, scan.class_id, 0)
    draw = draw_scan(scan, STREET, SparseConfig("per_class", ratio=0.01))
    for class_id in (ROAD, CAR, PERSON):
        assert np.count_nonzero(draw.class_id == class_id) == max(int(np.count_nonzero(dense == class_id) * 0.01), 1)
    assert np.all((draw.class_id == 0) | (draw.class_id == dense))


def test_per_instance_clicks_each_object_once() -> None:
    scan = street_scan()
    assert scan.class_id is not None
    assert scan.instance_id is not None
    draw = draw_scan(scan, STREET, SparseConfig("per_instance", ratio=0.0))
    things = (scan.class_id == CAR) | (scan.class_id == PERSON)
    objects = things & (scan.instance_id > 0) & scan.cloud.valid
    wanted = {(int(c), int(i)) for c, i in zip(scan.class_id[objects], scan.instance_id[objects], strict=True)}
    clicked = [(int(scan.class_id[p]), int(scan.instance_id[p])) for p in draw.objects]
    assert sorted(clicked) == sorted(wanted)
    np.testing.assert_array_equal(draw.clicks, np.sort(draw.objects))
    with_stuff = draw_scan(scan, STREET, SparseConfig("per_instance", ratio=0.01))
    assert np.count_nonzero(with_stuff.class_id == ROAD) == int(
        np.count_nonzero((scan.class_id == ROAD) & scan.cloud.valid) * 0.01
    )
    without = Scan(scan.key, scan.cloud, scan.class_id, None, None)
    with pytest.raises(ConfigError, match="has no instance ids"):
        draw_scan(without, STREET, SparseConfig("per_instance"))


def test_full_keeps_every_usable_label() -> None:
    scan = street_scan()
    assert scan.class_id is not None
    draw = draw_scan(scan, STREET, SparseConfig("full"))
    np.testing.assert_array_equal(draw.class_id, np.where(scan.cloud.valid, scan.class_id, 0))


@pytest.mark.parametrize("protocol", ["voxel", "per_class", "per_instance", "full"])
def test_scans_without_any_label_draw_nothing(protocol: str) -> None:
    scan = street_scan()
    for class_id in (None, np.zeros(len(scan.cloud), np.uint8)):
        draw = draw_scan(Scan("0", scan.cloud, class_id, scan.instance_id, None), STREET, SparseConfig(protocol))  # type: ignore[arg-type]
        assert not draw.class_id.any()
        assert len(draw.clicks) == 0


def test_a_draw_depends_on_seed_and_scan_only(tmp_path: Path) -> None:
    scans = record(tmp_path)
    config = SparseConfig("voxel", ratio=0.02)
    whole = [draw_scan(scans[i], STREET, config).class_id for i in range(4)]
    part = Subset(scans, [3, 1])
    np.testing.assert_array_equal(draw_scan(part[0], STREET, config).class_id, whole[3])
    np.testing.assert_array_equal(draw_scan(part[1], STREET, config).class_id, whole[1])
    other = draw_scan(scans[0], STREET, SparseConfig("voxel", ratio=0.02, seed=1)).class_id
    assert not np.array_equal(other, whole[0])
    moved = Scan("000001", scans[0].cloud, scans[0].class_id, None, None)
    assert not np.array_equal(draw_scan(moved, STREET, config).class_id, whole[0])


def test_stored_labels_come_back(tmp_path: Path) -> None:
    scans, config = record(tmp_path / "drive"), SparseConfig("per_instance", ratio=0.01, seed=5)
    folder = tmp_path / "drive" / "sparse" / config.folder_name
    drawn = draw_sparse(scans, config, folder)
    sparse = SparseLabels.load(folder, scans)
    assert sparse.record == drawn.record
    assert len(sparse) == 4
    clicks = 0
    for i in range(4):
        draw = draw_scan(scans[i], STREET, config)
        clicks += len(draw.clicks)
        np.testing.assert_array_equal(sparse.class_id(i), draw.class_id)
        instance = scans[i].instance_id
        assert instance is not None
        np.testing.assert_array_equal(np.flatnonzero(sparse.instance_id(i)), np.sort(draw.objects))
        np.testing.assert_array_equal(sparse.instance_id(i)[draw.objects], instance[draw.objects])
    assert sparse.record.clicks == clicks == sum(sparse.record.clicks_per_class.values())
    assert sparse.record.labelled_points == sum(sparse.record.points_per_class.values())
    assert draw_sparse(scans, config, tmp_path / "again").content_hash == sparse.content_hash


def test_a_data_set_seen_through_its_sparse_labels(tmp_path: Path) -> None:
    scans = record(tmp_path / "drive")
    sparse = draw_sparse(scans, SparseConfig("voxel", ratio=0.01), tmp_path / "sparse")
    seen = SparseScans(scans, sparse)
    np.testing.assert_array_equal(seen[2].class_id, sparse.class_id(2))
    np.testing.assert_array_equal(seen[2].cloud.xyz, scans[2].cloud.xyz)
    assert seen.content_hash != scans.content_hash
    kept, held = holdout(seen, 0.25)
    assert (len(kept), len(held), kept[0].key) == (3, 1, "000000")


def test_labels_fit_parts_of_their_data(tmp_path: Path) -> None:
    scans = record(tmp_path / "drive")
    draw_sparse(scans, SparseConfig("voxel", ratio=0.01), tmp_path / "sparse")
    part = Subset(scans, [3, 0])
    seen = SparseScans(part, SparseLabels.load(tmp_path / "sparse", part))
    np.testing.assert_array_equal(seen[0].class_id, draw_scan(scans[3], STREET, SparseConfig("voxel", ratio=0.01)).class_id)


def test_labels_of_other_data_are_refused(tmp_path: Path) -> None:
    scans, others, longer = record(tmp_path / "a"), record(tmp_path / "b", first_seed=9), record(tmp_path / "c", 5)
    sparse = draw_sparse(scans, SparseConfig(), tmp_path / "sparse")
    with pytest.raises(DataError, match="scan '000000' is not the one that was labelled here, from 'a'"):
        SparseLabels.load(tmp_path / "sparse", others)
    with pytest.raises(DataError, match="which has no scan '000004' as 'c' has"):
        SparseLabels.load(tmp_path / "sparse", longer)
    record(tmp_path / "split" / "train")
    draw_sparse(open_scans(tmp_path / "split"), SparseConfig(), tmp_path / "whole")
    with pytest.raises(DataError, match=r"draw labels from the data to train on alone: weakseg sparse DATA --split train$"):
        SparseLabels.load(tmp_path / "whole", open_scans(tmp_path / "split", "train"))
    with pytest.raises(DataError, match="scan '000001' is not the one"):
        SparseScans(others, sparse)[1]


def test_changed_files_are_refused(tmp_path: Path) -> None:
    scans = record(tmp_path / "drive")
    folder = tmp_path / "sparse"
    draw_sparse(scans, SparseConfig(), folder)
    whole = (folder / "sparse.yaml").read_text()
    (folder / "sparse.yaml").write_text(whole.replace("000001.label", "../000001.label"))
    with pytest.raises(DataError, match="outside its folder"):
        SparseLabels.load(folder, scans)
    (folder / "sparse.yaml").write_text(whole)
    label = folder / "000001.label"
    label.write_bytes(label.read_bytes()[::-1])
    with pytest.raises(DataError, match=r"000001.label: is missing or was changed"):
        SparseLabels.load(folder, scans)
    (folder / "sparse.yaml").write_text("version: 0\n")
    with pytest.raises(DataError, match="has version 0"):
        SparseLabels.load(folder, scans)
    (folder / "sparse.yaml").unlink()
    with pytest.raises(ConfigError, match=r"holds no sparse labels \(sparse.yaml is missing\); 'weakseg sparse' draws some"):
        SparseLabels.load(folder, scans)
    draw_sparse(scans, SparseConfig(), folder / "one")
    with pytest.raises(ConfigError, match=r"holds no sparse labels .*; name one of those in it: one"):
        SparseLabels.load(folder, scans)


def test_damaged_scans_are_left_out_with_a_report(tmp_path: Path) -> None:
    record(tmp_path / "drive")
    (tmp_path / "drive" / "labels" / "000001.label").write_bytes(b"123")
    scans = open_scans(tmp_path / "drive")
    sparse = draw_sparse(scans, SparseConfig(), tmp_path / "sparse")
    assert len(sparse.record.problems) == 1
    assert "000001.label" in sparse.record.problems[0]
    again = SparseLabels.load(tmp_path / "sparse", scans)
    assert again.class_id(0).any()
    with pytest.raises(DataError, match="could not be read when the labels were drawn"):
        again.class_id(1)


def test_drawing_nothing_is_refused(tmp_path: Path) -> None:
    with ScanWriter(tmp_path / "drive", STREET, RangeSpec(), source="", seed=0, intensity_full_scale=1.0) as out:
        out.write(street_scan().cloud)
    with pytest.raises(DataError, match="none of its 1 scan has a labelled point"):
        draw_sparse(open_scans(tmp_path / "drive"), SparseConfig(), tmp_path / "sparse")


def test_where_no_scan_can_be_read_that_is_the_reason(tmp_path: Path) -> None:
    record(tmp_path / "drive", count=2)
    for file in (tmp_path / "drive" / "labels").iterdir():
        file.write_bytes(b"\x01\x02\x03")
    with pytest.raises(DataError, match=r"none of its 2 scans can be read; the first: .*000000\.label: has 3 bytes"):
        draw_sparse(open_scans(tmp_path / "drive"), SparseConfig(), tmp_path / "sparse")


def test_settings_that_label_nothing() -> None:
    with pytest.raises(ConfigError, match="ratio: 0 labels nothing"):
        SparseConfig("voxel", ratio=0.0)
    with pytest.raises(ConfigError, match="voxel_m"):
        SparseConfig(voxel_m=0.0)
    assert SparseConfig("full").folder_name == "full-1-s0"
    assert SparseConfig("per_class", 0.0001, seed=2).folder_name == "per_class-0.0001-s2"


def test_the_verb_draws_and_keeps_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(tmp_path / "drive")
    scans = record(tmp_path / "drive")
    arguments = ["sparse", data, "--protocol", "per_class", "--ratio", "0.01", "--seed", "4"]
    assert main(arguments) == 0
    folder = tmp_path / "drive" / "sparse" / "per_class-0.01-s4"
    shown = capsys.readouterr().out
    assert str(folder) in shown
    assert "person" in shown
    first = SparseLabels.load(folder, scans).content_hash
    assert main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert SparseLabels.load(folder, open_scans(data)).content_hash == first
    assert main(["sparse", data, "--ratio", "0"]) == 2
    assert main(["sparse", data, "--out", str(tmp_path / "drive" / "manifest.yaml" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_real_scans(shared_data: Path, tmp_path: Path) -> None:
    scans = Subset(open_scans(shared_data / "semantickitti_seq00"), [0, 1])
    voxel = draw_sparse(scans, SparseConfig("voxel", ratio=0.001), tmp_path / "voxel").record
    assert voxel.clicks == sum(round(len(scans[i].cloud) * 0.001) for i in range(2))
    assert voxel.labelled_points > voxel.clicks
    clicks = draw_sparse(scans, SparseConfig("per_instance", ratio=0.0), tmp_path / "clicks").record
    assert clicks.clicks_per_class["car"] == 26
    assert clicks.clicks == clicks.labelled_points == 28


def test_what_a_draw_leaves_out_is_counted(
    tmp_path: Path, layouts: ModuleType, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = layouts.write_bare(tmp_path / "data", 4)
    (folder / "labels" / "000001.label").unlink()
    (folder / "velodyne" / "000002.bin").write_bytes(b"cut")
    with caplog.at_level(logging.INFO):
        assert main(["sparse", str(folder), "--ratio", "0.1"]) == 0
    assert "1 of the 4 scans have no label to draw from" in caplog.text
    said = capsys.readouterr().out
    assert "sparse labels of 3 scans" in said
    assert "left out: 1 scan that cannot be read; the first: " in said


def map_of(**raw_ids: tuple[int, ...]) -> LabelMap:
    """Some classes; all other raw ids of the scans are to be ignored."""
    rows = [LabelClass(i, name, (i, i, i), False, raw) for i, (name, raw) in enumerate(raw_ids.items(), 1)]
    ignored = sorted({0, 10, 30, 40} - {each for row in rows for each in row.raw_ids})
    return LabelMap("mine", (LabelClass(0, "unlabelled", (0, 0, 0), False, tuple(ignored)), *rows))


def other_rows(**raw_ids: int) -> LabelMap:
    """The street's classes, some with other raw ids."""
    rows = (replace(row, raw_ids=(raw_ids[row.name],)) if row.name in raw_ids else row for row in STREET.classes)
    return LabelMap("other", tuple(rows))


def test_labels_are_read_in_the_classes_of_another_map_where_that_is_clear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scans = record(tmp_path / "drive")
    drawn = draw_sparse(scans, SparseConfig("per_instance", ratio=0.01), tmp_path / "sparse")

    def seen(labels: LabelMap) -> np.ndarray:
        return SparseLabels.load(tmp_path / "sparse", open_scans(tmp_path / "drive", labels=labels)).class_id(0)

    ours = drawn.class_id(0)
    coarse = seen(map_of(ground=(40,), mover=(10, 30)))
    np.testing.assert_array_equal(coarse, np.select([ours == ROAD, ours > 0], [1, 2]))
    assert "by their raw ids, 'road' is 'ground', 'car' is 'mover', 'person' is 'mover'" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(seen(map_of(road=(40,), car=(10,))), np.select([ours == ROAD, ours == CAR], [1, 2]))
    assert re.search(
        r"does not have these classes, so their labels are left out: 'person' \(raw id 30, \d+ points? lab", caplog.text
    )
    with pytest.raises(DataError, match=r"the classes moving of 'mine' are part of others; .* draw them again"):
        seen(map_of(road=(40,), car=(10,), person=(30,), moving=(252,)))


def test_labels_whose_raw_ids_and_names_mean_two_classes_are_refused(tmp_path: Path) -> None:
    scans = record(tmp_path / "drive")
    draw_sparse(scans, SparseConfig(), tmp_path / "sparse")
    swapped = other_rows(car=30, person=10)
    with pytest.raises(DataError, match=r"raw id 10 is 'car' in these labels and 'person' in the map 'other', which has another"):
        SparseLabels.load(tmp_path / "sparse", open_scans(tmp_path / "drive", labels=swapped))


def test_stored_raw_ids_that_no_row_lists_are_told(tmp_path: Path) -> None:
    scans = record(tmp_path / "drive")
    drawn = draw_sparse(scans, SparseConfig(ratio=0.1), tmp_path / "sparse")
    old = dump_yaml(replace(drawn.record, raw_ids={}))  # as earlier versions wrote it
    (tmp_path / "sparse" / "sparse.yaml").write_text(old)
    for labels in (tmp_path / "drive" / "labels").iterdir():
        labels.unlink()
    lacking = LabelMap("lacking", STREET.classes[: ROAD + 1])
    with pytest.raises(DataError, match=r"000000.label: contains raw ids that label map 'lacking' does not list"):
        SparseLabels.load(tmp_path / "sparse", open_scans(tmp_path / "drive", labels=lacking)).class_id(0)
