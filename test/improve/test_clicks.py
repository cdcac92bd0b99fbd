# SPDX-License-Identifier: Apache-2.0
"""Clicks on disk: none is lost, whoever writes, and training reads what was clicked."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from support import files_of_at_most
from support.bare_scans import CAR, PERSON, POINTS, ROAD, STREET, write_scans
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.changes import KEPT, ChangeLog, LabelChange
from weakseg_ros.improve.label.clicks import ClickStore, clicked_scans
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.training_data import open_data
from weakseg_ros.weak.draw import draw_sparse
from weakseg_ros.weak.protocols import SparseConfig
from weakseg_ros.weak.sparse_labels import SparseLabels


def test_a_click_is_on_disk_when_the_call_returns(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000001", [7], CAR, 12)
    raw = np.fromfile(bare_folder / "sparse" / "clicks" / "000001.label", "<u4")
    assert raw[7] == int(STREET.to_raw(np.array(CAR))) | 12 << 16
    assert np.count_nonzero(raw) == 1
    class_id, instance = ClickStore(bare_folder, STREET).labelled("000001")
    assert (class_id[7], instance[7]) == (CAR, 12)
    assert store.count("000001") == 1
    assert store.count("000000") == 0
    assert store.clicked == ["000001"]


def test_a_mask_costs_one_click(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", np.arange(10, 30), CAR, 1, clicks=1)
    store.add("000000", [2, 3, 3], ROAD)
    record = store.record
    assert record.clicks_per_class["car"] == 1
    assert record.points_per_class["car"] == 20
    assert (record.clicks, record.labelled_points, record.points) == (4, 22, POINTS - 4)
    store.erase("000000", np.arange(10, 20))
    assert (store.record.clicks, store.record.labelled_points) == (4, 12)
    store.undo()
    store.undo()
    assert (store.record.clicks, store.record.labelled_points) == (1, 20)


def test_training_reads_the_clicks_and_skips_the_other_scans(bare_folder: Path) -> None:
    with pytest.raises(DataError, match="none of the 3 scans of 'drive' is labelled"):
        clicked_scans(bare_folder)
    store = ClickStore(bare_folder, STREET)
    store.add("000002", [5], PERSON, 3)
    store.add("000000", [6], ROAD)
    scans = clicked_scans(bare_folder)
    assert tuple(scans.keys) == ("000000", "000002")
    np.testing.assert_array_equal(np.flatnonzero(scans[1].class_id), [5])
    assert scans[1].instance_id is not None
    assert scans[1].instance_id[5] == 3
    assert scans.name == "drive (clicks)"
    store.undo()
    assert tuple(clicked_scans(bare_folder).keys) == ("000002",)
    assert not (store.path / "000000.label").exists()


def test_opened_clicks_stay_as_they_were_while_somebody_goes_on(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", [6], ROAD)
    store.add("000001", [5, 7], CAR, 3)
    scans = clicked_scans(bare_folder)
    digest = scans.content_hash
    store.add("000000", [8], PERSON)
    store.add("000002", [9], PERSON)
    for _ in range(4):
        store.undo()
    assert store.clicked == []
    assert tuple(scans.keys) == ("000000", "000001")
    assert [np.flatnonzero(scans[i].class_id).tolist() for i in range(2)] == [[6], [5, 7]]
    assert scans[1].class_id[[5, 7]].tolist() == [CAR, CAR]
    assert scans[1].instance_id is not None
    assert scans[1].instance_id[[5, 6, 7]].tolist() == [3, 0, 3]
    assert scans.content_hash == digest


def test_recordings_below_a_folder_keep_their_keys_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_scans(tmp_path / "drives" / name, 1)
    store = ClickStore(tmp_path / "drives", STREET)
    store.add("b/000000", [9], CAR)
    assert (tmp_path / "drives" / "sparse" / "clicks" / "b" / "000000.label").is_file()
    assert tuple(clicked_scans(tmp_path / "drives").keys) == ("b/000000",)


@pytest.mark.parametrize(
    ("points", "class_id", "instance", "text"),
    [
        ([POINTS], CAR, 0, "which has 40"),
        ([-1], CAR, 0, "which has 40"),
        ([1], 0, 0, "class 0 is not in"),
        ([1], 99, 0, "class 99 is not in"),
        ([1], CAR, 1 << 16, "does not fit into 0..65535"),
    ],
)
def test_what_no_label_file_can_hold_is_refused(
    bare_folder: Path, points: list[int], class_id: int, instance: int, text: str
) -> None:
    store = ClickStore(bare_folder, STREET)
    with pytest.raises(DataError, match=text):
        store.add("000000", points, class_id, instance)
    assert store.clicked == []
    assert store.undo() is None


def test_an_unknown_scan_and_a_name_that_leaves_the_folder_are_refused(bare_folder: Path) -> None:
    with pytest.raises(DataError, match="no scan '000009'"):
        ClickStore(bare_folder, STREET).add("000009", [0], CAR)
    with pytest.raises(DataError, match="points outside"):
        ClickStore(bare_folder, STREET, "../../elsewhere")


def test_a_damaged_label_file_says_which_and_spares_the_others(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", [5], CAR)
    store.add("000001", [6], CAR)
    file = store.path / "000000.label"
    file.write_bytes(file.read_bytes()[:-4])
    again = ClickStore(bare_folder, STREET)
    with pytest.raises(DataError, match=r"000000\.label: has 156 bytes.*160 are due"):
        again.labelled("000000")
    with pytest.raises(DataError, match=r"000000\.label"):
        again.add("000000", [1], ROAD)
    again.add("000001", [7], ROAD)
    assert again.clicked == ["000001"]
    np.full(POINTS, 31999, "<u4").tofile(file)
    with pytest.raises(DataError, match="does not list \\(31999"):
        again.labelled("000000")


def test_a_damaged_record_and_one_that_was_drawn_are_refused(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", [5], CAR)
    (store.path / "sparse.yaml").write_text("version: [")
    with pytest.raises(DataError, match=r"not valid YAML.*remove it"):
        ClickStore(bare_folder, STREET)
    (store.path / "sparse.yaml").unlink()
    assert ClickStore(bare_folder, STREET).record.points_per_class["car"] == 1
    with pytest.raises(DataError, match=r"has the classes of 'street' .* use the map of the clicks .* --label-map"):
        ClickStore(bare_folder, LabelMap.load("nuscenes"))


def test_drawn_labels_are_not_clicked_over(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    with ScanWriter(folder, STREET, RangeSpec(), source="test", seed=0, intensity_full_scale=1.0) as out:
        cloud = make_cloud(np.random.default_rng(0).uniform(1, 20, (POINTS, 3)).astype(np.float32))
        out.write(cloud, np.full(POINTS, int(STREET.to_raw(np.array(CAR))), np.uint32))
    draw_sparse(open_scans(folder), SparseConfig("full"), folder / "sparse" / "full")
    with pytest.raises(DataError, match="'weakseg sparse' drew"):
        ClickStore(folder, STREET, "full")


def test_a_kill_between_label_file_and_record_loses_nothing(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", [5], CAR)
    before = (store.path / "sparse.yaml").read_bytes()
    store.add("000001", [6, 7], ROAD)
    (store.path / "sparse.yaml").write_bytes(before)  # as a kill after the label file leaves it
    again = ClickStore(bare_folder, STREET)
    assert again.clicked == ["000000", "000001"]
    assert again.record.points_per_class["road"] == 2
    assert len(SparseLabels.load(store.path, clicked_scans(bare_folder))) == 2


@pytest.mark.parametrize("class_id", [ROAD, CAR, PERSON])
def test_a_killed_first_click_on_labels_of_the_data_counts_for_its_own_class(tmp_path: Path, class_id: int) -> None:
    folder = tmp_path / "drive"
    with ScanWriter(folder, STREET, RangeSpec(), source="test", seed=0, intensity_full_scale=1.0) as out:
        cloud = make_cloud(np.random.default_rng(0).uniform(1, 20, (POINTS, 3)).astype(np.float32))
        out.write(cloud, np.full(POINTS, int(STREET.to_raw(np.array(CAR))), np.uint32))
        out.write(cloud, STREET.to_raw(np.arange(POINTS) % 3 + 1).astype(np.uint32))
    store = ClickStore(folder, STREET)
    store.add("000000", [0], PERSON)
    before = (store.path / "sparse.yaml").read_bytes()
    point = int(np.flatnonzero(store.labelled("000001")[0] != class_id)[0])
    store.add("000001", [point], class_id)
    wanted = store.record.clicks_per_class
    (store.path / "sparse.yaml").write_bytes(before)  # as a kill after the label file leaves it
    assert ClickStore(folder, STREET).record.clicks_per_class == wanted


def test_training_on_clicks_that_were_changed_by_hand_says_how_to_count_them_anew(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", [5], CAR)
    file = store.path / "000000.label"
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DataError, match=r"000000\.label: .* open the folder with 'weakseg label'"):
        SparseLabels.load(store.path, store.scans)


def test_a_click_that_cannot_be_saved_says_so(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", [5], CAR)
    target = store.path / "000001.label"
    target.mkdir()  # a rename onto a bare_folder fails for root too, unlike one into a read-only bare_folder
    with pytest.raises(DataError, match="could not be saved"):
        store.add("000001", [5], CAR)
    target.rmdir()
    store.add("000001", [6], CAR)
    assert np.flatnonzero(store.labelled("000001")[0]).tolist() == [6]


def test_a_full_disk_is_a_sentence_and_loses_no_click(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000000", [5], CAR)
    with files_of_at_most(0):
        with pytest.raises(DataError, match="could not be saved"):
            store.add("000000", [6], CAR)
        with pytest.raises(DataError, match="clicks cannot be saved"):
            ClickStore(bare_folder, STREET)
    (store.path / "sparse.yaml").unlink()
    with files_of_at_most(64), pytest.raises(DataError, match="clicks cannot be saved"):  # room for the lock, not for the record
        ClickStore(bare_folder, STREET)
    other = ClickStore(bare_folder, STREET)
    other.add("000000", [7], ROAD)
    store.add("000000", [6], CAR)
    assert np.flatnonzero(store.labelled("000000")[0]).tolist() == [5, 6, 7]
    assert np.flatnonzero(other.labelled("000000")[0]).tolist() == [5, 6, 7]


def test_the_verb_train_takes_the_clicks_as_sparse_labels(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add("000001", [8], CAR)
    train, val = open_data(TrainConfig(data=bare_folder, sparse_labels=store.path, hold_out=0.0))
    assert tuple(train.keys) == ("000001",)
    assert val is None
    assert np.flatnonzero(train[0].class_id).tolist() == [8]


def test_changes_can_be_taken_back_after_a_restart(bare_folder: Path) -> None:
    first = ClickStore(bare_folder)
    key = first.scans.keys[0]
    first.add(key, [1, 2, 3], 1)
    first.add(key, [2], 2)
    again = ClickStore(bare_folder)
    assert again.undo() == key
    assert again.labelled(key)[0][[1, 2, 3]].tolist() == [1, 1, 1]
    assert again.redo() == key
    assert again.labelled(key)[0][2] == 2
    assert (again.undo(), again.undo(), again.undo()) == (key, key, None)
    assert (again.count(key), again.clicks) == (0, 0)
    assert first.undo() is None, "what another program has taken back is not taken back twice"
    assert first.clicks == 0


def test_a_damaged_change_is_passed_over(bare_folder: Path) -> None:
    store = ClickStore(bare_folder)
    key = store.scans.keys[0]
    store.add(key, [1], 1)
    store.add(key, [2], 1)
    newest = max((store.path / ".changes").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:40])
    again = ClickStore(bare_folder)
    assert again.undo() == key
    assert np.flatnonzero(again.labelled(key)[0]).tolist() == [2]


def test_only_the_last_changes_are_kept(bare_folder: Path) -> None:
    store = ClickStore(bare_folder)
    log = ChangeLog(store.path / ".changes")
    points = np.array([1])
    for number in range(KEPT + 5):
        log.push((LabelChange("a", points, np.zeros(1, np.uint32), np.ones(1, np.uint32), "", number),))
    assert len(list((store.path / ".changes").glob("*.npz"))) == KEPT
    last = ChangeLog(store.path / ".changes").last()
    assert last is not None
    assert last[0].clicks == KEPT + 4


def test_labels_that_are_there_can_be_corrected(tmp_path: Path, layouts: ModuleType) -> None:
    folder = layouts.write_bare(tmp_path / "data", 2)
    store = ClickStore(folder)
    points = np.fromfile(folder / "labels" / "000000.label", "<u4")
    road, building = (store.labels.id_of(name) for name in ("road", "building"))
    assert store.count("000000") == len(points)
    assert store.clicked == []
    assert store.record.labelled_points == 0
    at = np.flatnonzero(points == 40)[:3]
    store.add("000000", at, building, clicks=1)
    assert store.record.clicks == 1
    assert store.record.labelled_points == len(points)
    assert store.clicked == ["000000"]
    corrected = clicked_scans(folder)[0]
    assert corrected.class_id is not None
    assert (corrected.class_id[at] == building).all()
    assert np.count_nonzero(corrected.class_id == road) == np.count_nonzero(points == 40) - 3
    store.erase("000000", np.arange(len(points)))
    assert ClickStore(folder).count("000000") == 0  # what was erased does not come back
    store.undo()
    store.undo()
    assert store.clicked == []
    assert store.record.labelled_points == 0
    np.testing.assert_array_equal(np.fromfile(folder / "labels" / "000000.label", "<u4"), points)


def test_a_label_that_is_confirmed_is_a_click_like_any_other(tmp_path: Path, layouts: ModuleType) -> None:
    folder = layouts.write_bare(tmp_path / "data", 2)
    store = ClickStore(folder)
    road = store.labels.id_of("road")
    first, second = np.flatnonzero(store.labelled("000000")[0] == road)[:2]
    store.add("000000", [first], road)
    assert (store.clicked, store.record.clicks) == (["000000"], 1)
    assert [scan.key for scan in clicked_scans(folder)] == ["000000"]
    assert open_data(TrainConfig(data=folder, sparse_labels=store.path, hold_out=0.0))[0].keys == ("000000",)
    other = ClickStore(folder)
    other.add("000000", [second], road)
    store.undo()
    assert (ClickStore(folder).clicked, store.record.clicks) == (["000000"], 1), "what another page has confirmed stays"
    other.undo()
    assert (ClickStore(folder).clicked, store.record.clicks) == ([], 0)
    store.redo()
    assert (ClickStore(folder).clicked, store.record.clicks) == (["000000"], 1)
    store.erase("000000", [second])
    store.undo()
    assert ClickStore(folder).clicked == ["000000"]


@pytest.mark.parametrize("what", ["first click", "another class", "brush", "undo", "undo of all"])
def test_a_kill_before_the_record_leaves_the_count_of_clicks_right(bare_folder: Path, what: str) -> None:
    """The label file is on disk, the record is as it was before."""
    store = ClickStore(bare_folder, STREET)
    first, second = (STREET.names[1], STREET.names[2])
    if what != "first click":
        store.add("000000", [3], 1)
    if what == "undo":
        store.add("000000", [4], 2)
    record = store.path / "sparse.yaml"
    before = record.read_bytes() if record.exists() else None
    act = {
        "first click": lambda: store.add("000000", [3], 1),
        "another class": lambda: store.add("000000", [3], 2),
        "brush": lambda: store.add("000000", [3, 4, 5, 6], 2, clicks=1),
        "undo": store.undo,
        "undo of all": store.undo,
    }[what]
    act()
    wanted = store.record.clicks_per_class
    if before is None:
        record.unlink()
    else:
        record.write_bytes(before)
    mended = ClickStore(bare_folder, STREET).record
    assert mended.clicks_per_class == wanted
    expected = {"first click": (1, 0), "another class": (1, 1), "brush": (1, 1), "undo": (1, 0), "undo of all": (0, 0)}[what]
    assert (mended.clicks_per_class[first], mended.clicks_per_class[second]) == expected
