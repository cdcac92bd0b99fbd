# SPDX-License-Identifier: Apache-2.0
"""Clicks on disk: none is lost, whoever writes, and training reads what was clicked."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from support import PATIENCE_S
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.changes import KEPT, ChangeLog, LabelChange
from weakseg_ros.improve.label.clicks import ClickStore, clicked_scans
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.training_data import open_data
from weakseg_ros.weak.draw import draw_sparse
from weakseg_ros.weak.protocols import SparseConfig
from weakseg_ros.weak.sparse_labels import SparseLabels

STREET = LabelMap.load("street")
ROAD, CAR, PERSON = (STREET.id_of(name) for name in ("road", "car", "person"))
POINTS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three scans without labels."""
    return write_scans(tmp_path / "drive")


def write_scans(folder: Path, count: int = 3) -> Path:
    rng = np.random.default_rng(0)
    with ScanWriter(folder, STREET, RangeSpec(), source="test", seed=0, intensity_full_scale=1.0) as out:
        for _ in range(count):
            xyz = rng.uniform(1, 20, (POINTS, 3)).astype(np.float32)
            xyz[:4] = 0
            out.write(make_cloud(xyz))
    return folder


def test_a_click_is_on_disk_when_the_call_returns(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000001", [7], CAR, 12)
    raw = np.fromfile(folder / "sparse" / "clicks" / "000001.label", "<u4")
    assert raw[7] == int(STREET.to_raw(np.array(CAR))) | 12 << 16
    assert np.count_nonzero(raw) == 1
    class_id, instance = ClickStore(folder, STREET).labelled("000001")
    assert (class_id[7], instance[7]) == (CAR, 12)
    assert store.count("000001") == 1
    assert store.count("000000") == 0
    assert store.clicked == ["000001"]


def test_a_mask_costs_one_click(folder: Path) -> None:
    store = ClickStore(folder, STREET)
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


def test_training_reads_the_clicks_and_skips_the_other_scans(folder: Path) -> None:
    with pytest.raises(DataError, match="none of the 3 scans of 'drive' is labelled"):
        clicked_scans(folder)
    store = ClickStore(folder, STREET)
    store.add("000002", [5], PERSON, 3)
    store.add("000000", [6], ROAD)
    scans = clicked_scans(folder)
    assert tuple(scans.keys) == ("000000", "000002")
    np.testing.assert_array_equal(np.flatnonzero(scans[1].class_id), [5])
    assert scans[1].instance_id is not None
    assert scans[1].instance_id[5] == 3
    assert scans.name == "drive (clicks)"
    store.undo()
    assert tuple(clicked_scans(folder).keys) == ("000002",)
    assert not (store.path / "000000.label").exists()


def test_opened_clicks_stay_as_they_were_while_somebody_goes_on(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000000", [6], ROAD)
    store.add("000001", [5, 7], CAR, 3)
    scans = clicked_scans(folder)
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
def test_what_no_label_file_can_hold_is_refused(folder: Path, points: list[int], class_id: int, instance: int, text: str) -> None:
    store = ClickStore(folder, STREET)
    with pytest.raises(DataError, match=text):
        store.add("000000", points, class_id, instance)
    assert store.clicked == []
    assert store.undo() is None


def test_an_unknown_scan_and_a_name_that_leaves_the_folder_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no scan '000009'"):
        ClickStore(folder, STREET).add("000009", [0], CAR)
    with pytest.raises(DataError, match="points outside"):
        ClickStore(folder, STREET, "../../elsewhere")


def test_a_damaged_label_file_says_which_and_spares_the_others(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000000", [5], CAR)
    store.add("000001", [6], CAR)
    file = store.path / "000000.label"
    file.write_bytes(file.read_bytes()[:-4])
    again = ClickStore(folder, STREET)
    with pytest.raises(DataError, match=r"000000\.label: has 156 bytes.*160 are due"):
        again.labelled("000000")
    with pytest.raises(DataError, match=r"000000\.label"):
        again.add("000000", [1], ROAD)
    again.add("000001", [7], ROAD)
    assert again.clicked == ["000001"]
    np.full(POINTS, 31999, "<u4").tofile(file)
    with pytest.raises(DataError, match="does not list \\(31999"):
        again.labelled("000000")


def test_a_damaged_record_and_one_that_was_drawn_are_refused(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000000", [5], CAR)
    (store.path / "sparse.yaml").write_text("version: [")
    with pytest.raises(DataError, match=r"not valid YAML.*remove it"):
        ClickStore(folder, STREET)
    (store.path / "sparse.yaml").unlink()
    assert ClickStore(folder, STREET).record.points_per_class["car"] == 1
    with pytest.raises(DataError, match=r"has the classes of 'street' .* choose the map .* --label-map"):
        ClickStore(folder, LabelMap.load("nuscenes"))


def test_drawn_labels_are_not_clicked_over(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    with ScanWriter(folder, STREET, RangeSpec(), source="test", seed=0, intensity_full_scale=1.0) as out:
        cloud = make_cloud(np.random.default_rng(0).uniform(1, 20, (POINTS, 3)).astype(np.float32))
        out.write(cloud, np.full(POINTS, int(STREET.to_raw(np.array(CAR))), np.uint32))
    draw_sparse(open_scans(folder), SparseConfig("full"), folder / "sparse" / "full")
    with pytest.raises(DataError, match="'weakseg sparse' drew"):
        ClickStore(folder, STREET, "full")


def test_a_kill_between_label_file_and_record_loses_nothing(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000000", [5], CAR)
    before = (store.path / "sparse.yaml").read_bytes()
    store.add("000001", [6, 7], ROAD)
    (store.path / "sparse.yaml").write_bytes(before)  # as a kill after the label file leaves it
    again = ClickStore(folder, STREET)
    assert again.clicked == ["000000", "000001"]
    assert again.record.points_per_class["road"] == 2
    assert len(SparseLabels.load(store.path, clicked_scans(folder))) == 2


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


def test_training_on_clicks_that_were_changed_by_hand_says_how_to_count_them_anew(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000000", [5], CAR)
    file = store.path / "000000.label"
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DataError, match=r"000000\.label: .* open the folder with 'weakseg label'"):
        SparseLabels.load(store.path, store.scans)


def test_a_click_that_cannot_be_saved_says_so(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000000", [5], CAR)
    target = store.path / "000001.label"
    target.mkdir()  # a rename onto a folder fails for root too, unlike one into a read-only folder
    with pytest.raises(DataError, match="could not be saved"):
        store.add("000001", [5], CAR)
    target.rmdir()
    store.add("000001", [6], CAR)
    assert np.flatnonzero(store.labelled("000001")[0]).tolist() == [6]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit to the size of new files stands for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_a_sentence_and_loses_no_click(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000000", [5], CAR)
    with files_of_at_most(0):
        with pytest.raises(DataError, match="could not be saved"):
            store.add("000000", [6], CAR)
        with pytest.raises(DataError, match="clicks cannot be saved"):
            ClickStore(folder, STREET)
    (store.path / "sparse.yaml").unlink()
    with files_of_at_most(64), pytest.raises(DataError, match="clicks cannot be saved"):  # room for the lock, not for the record
        ClickStore(folder, STREET)
    other = ClickStore(folder, STREET)
    other.add("000000", [7], ROAD)
    store.add("000000", [6], CAR)
    assert np.flatnonzero(store.labelled("000000")[0]).tolist() == [5, 6, 7]
    assert np.flatnonzero(other.labelled("000000")[0]).tolist() == [5, 6, 7]


def test_undo_spares_what_another_page_has_clicked_since(folder: Path) -> None:
    mine, other = ClickStore(folder, STREET), ClickStore(folder, STREET)
    mine.add("000000", [5, 6], CAR)
    stamp = mine.stamp
    other.add("000000", [6, 7], ROAD)
    assert mine.stamp != stamp
    assert mine.undo() == "000000"
    assert mine.labelled("000000")[0][5:8].tolist() == [0, ROAD, ROAD]
    assert mine.redo() == "000000"
    assert mine.labelled("000000")[0][5:8].tolist() == [CAR, ROAD, ROAD]


CLICKER = """
import sys
from pathlib import Path
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.points.labels import LabelClass, LabelMap
folder, first, end, step = Path(sys.argv[1]), *map(int, sys.argv[2:])
store = ClickStore(folder, LabelMap.load("street"))
for point in range(first, end, step):
    store.add("000001", [point % 40], 1 + point % 3, point)
    print(point, flush=True)
"""


def start_clicker(folder: Path, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLICKER, str(folder), *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_click_at_once_lose_no_click(folder: Path) -> None:
    workers = [start_clicker(folder, i, POINTS, 3) for i in range(3)]
    for worker in workers:
        worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == 0
    store = ClickStore(folder, STREET)
    class_id, instance = store.labelled("000001")
    np.testing.assert_array_equal(class_id, 1 + np.arange(POINTS) % 3)
    np.testing.assert_array_equal(instance, np.arange(POINTS))
    assert store.clicks == POINTS
    assert len(SparseLabels.load(store.path, clicked_scans(folder))) == 1


def test_clicks_can_be_opened_at_any_moment_of_somebody_elses_work(tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "drive", 150)  # so many that reading them all takes longer than a click
    store = ClickStore(folder, STREET)
    for key in store.scans.keys:
        store.add(key, [5], ROAD)
    worker = start_clicker(folder, 0, 60000, 1)
    assert worker.stdout is not None
    worker.stdout.readline()
    try:
        for _ in range(8):
            assert len(clicked_scans(folder)) == 150
    finally:
        worker.kill()
        worker.communicate(timeout=PATIENCE_S)


def test_a_killed_process_loses_no_click_that_it_confirmed(folder: Path) -> None:
    worker = start_clicker(folder, 0, 60000, 1)
    assert worker.stdout is not None
    for _ in range(25):
        worker.stdout.readline()
    worker.kill()
    last = 24 + len(worker.communicate(timeout=PATIENCE_S)[0].split())
    _, instance = ClickStore(folder, STREET).labelled("000001")
    expected = np.arange(POINTS) + POINTS * ((last - np.arange(POINTS)) // POINTS)
    expected[expected < 0] = 0
    one_more = (last + 1) % POINTS  # may have been saved before its confirmation was printed
    np.testing.assert_array_equal(np.delete(instance, one_more), np.delete(expected, one_more))
    assert instance[one_more] in (expected[one_more], last + 1)
    assert len(clicked_scans(folder)) == 1


KEYS = st.sampled_from(["000000", "000001", "000002"])
CHOSEN = st.lists(st.integers(0, POINTS - 1), min_size=1, max_size=5, unique=True)


@dataclass(eq=False)
class Done:
    """One change, equal to itself alone."""

    key: str
    points: list[int]
    before: np.ndarray
    after: np.ndarray


class TwoPages(RuleBasedStateMachine):
    """Two stores on one folder against a plain model; the second one is reopened now and then."""

    root: Path

    @initialize()
    def begin(self) -> None:
        self.folder = write_scans(self.root / os.urandom(6).hex())
        self.stores = [ClickStore(self.folder, STREET), ClickStore(self.folder, STREET)]
        self.truth = {f"{i:06d}": np.zeros((POINTS, 2), np.int64) for i in range(3)}
        self.on_disk: list[Done] = []
        self.done: list[list[Done]] = [[], []]
        self.undone: list[list[Done]] = [[], []]

    def change(self, page: int, key: str, points: list[int], wanted: tuple[int, int]) -> None:
        points = sorted(points)
        before = self.truth[key][points].copy()
        self.truth[key][points] = wanted
        self.push(page, Done(key, points, before, self.truth[key][points].copy()))
        self.undone[page].clear()

    def push(self, page: int, change: Done) -> None:
        self.done[page].append(change)
        self.on_disk.append(change)

    @rule(page=st.integers(0, 1), key=KEYS, points=CHOSEN, class_id=st.integers(1, 3), instance=st.integers(0, 9))
    def add(self, page: int, key: str, points: list[int], class_id: int, instance: int) -> None:
        self.stores[page].add(key, points, class_id, instance)
        self.change(page, key, points, (class_id, instance))

    @rule(page=st.integers(0, 1), key=KEYS, points=CHOSEN)
    def erase(self, page: int, key: str, points: list[int]) -> None:
        self.stores[page].erase(key, points)
        self.change(page, key, points, (0, 0))

    @rule(page=st.integers(0, 1), back=st.booleans())
    def turn(self, page: int, back: bool) -> None:
        while back and self.done[page] and self.done[page][-1] not in self.on_disk:
            self.done[page].pop()  # the other page has taken it back
        source = self.done[page] if back else self.undone[page]
        answer = self.stores[page].undo() if back else self.stores[page].redo()
        if not source:
            assert answer is None
            return
        change = source.pop()
        if back:
            self.on_disk.remove(change)
            self.undone[page].append(change)
        else:
            self.push(page, Done(*vars(change).values()))
        key, points, before, after = vars(change).values()
        assert answer == key
        expected, wanted = (after, before) if back else (before, after)
        mine = (self.truth[key][points] == expected).all(axis=1)
        self.truth[key][np.array(points)[mine]] = wanted[mine]

    @rule()
    def reopen(self) -> None:
        self.stores[1] = ClickStore(self.folder, STREET)
        self.done[1], self.undone[1] = list(self.on_disk), []

    @invariant()
    def both_show_what_was_clicked(self) -> None:
        for store in getattr(self, "stores", []):
            for key, truth in self.truth.items():
                class_id, instance = store.labelled(key)
                np.testing.assert_array_equal(np.stack([class_id, instance], 1), truth)
            labelled = {key for key, truth in self.truth.items() if truth.any()}
            assert set(store.clicked) == labelled
            assert store.record.labelled_points == sum(np.count_nonzero(truth[:, 0]) for truth in self.truth.values())


def test_any_order_of_clicks_on_two_pages(tmp_path: Path) -> None:
    machine = type("Machine", (TwoPages,), {"root": tmp_path})
    quick = settings(deadline=None, max_examples=12, stateful_step_count=15, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=quick)


def test_the_verb_train_takes_the_clicks_as_sparse_labels(folder: Path) -> None:
    store = ClickStore(folder, STREET)
    store.add("000001", [8], CAR)
    train, val = open_data(TrainConfig(data=folder, sparse_labels=store.path, hold_out=0.0))
    assert tuple(train.keys) == ("000001",)
    assert val is None
    assert np.flatnonzero(train[0].class_id).tolist() == [8]


def test_changes_can_be_taken_back_after_a_restart(folder: Path) -> None:
    first = ClickStore(folder)
    key = first.scans.keys[0]
    first.add(key, [1, 2, 3], 1)
    first.add(key, [2], 2)
    again = ClickStore(folder)
    assert again.undo() == key
    assert again.labelled(key)[0][[1, 2, 3]].tolist() == [1, 1, 1]
    assert again.redo() == key
    assert again.labelled(key)[0][2] == 2
    assert (again.undo(), again.undo(), again.undo()) == (key, key, None)
    assert (again.count(key), again.clicks) == (0, 0)
    assert first.undo() is None, "what another program has taken back is not taken back twice"
    assert first.clicks == 0


def test_a_damaged_change_is_passed_over(folder: Path) -> None:
    store = ClickStore(folder)
    key = store.scans.keys[0]
    store.add(key, [1], 1)
    store.add(key, [2], 1)
    newest = max((store.path / ".changes").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:40])
    again = ClickStore(folder)
    assert again.undo() == key
    assert np.flatnonzero(again.labelled(key)[0]).tolist() == [2]


def test_only_the_last_changes_are_kept(folder: Path) -> None:
    store = ClickStore(folder)
    log = ChangeLog(store.path / ".changes")
    points = np.array([1])
    for number in range(KEPT + 5):
        log.push(LabelChange("a", points, np.zeros(1, np.uint32), np.ones(1, np.uint32), "", number))
    assert len(list((store.path / ".changes").glob("*.npz"))) == KEPT
    last = ChangeLog(store.path / ".changes").last()
    assert last is not None
    assert last.clicks == KEPT + 4


ROWS = ("road", "wall", "car")


def own_map(names: tuple[str, ...] = ROWS, raw: tuple[int, ...] = (1, 2, 3, 4), name: str = "mine") -> LabelMap:
    rows = [LabelClass(0, "unlabelled", (0, 0, 0), False, (0,))]
    rows += [LabelClass(i, each, (i, i, i), each == "car", (raw[i - 1],)) for i, each in enumerate(names, 1)]
    return LabelMap(name, tuple(rows))


@pytest.fixture
def clicked(folder: Path) -> Path:
    (folder / "manifest.yaml").unlink()
    store = ClickStore(folder, own_map())
    store.add("000000", [10, 11], 1)
    store.add("000001", [30], 3, instance_id=7)
    store.mark_done("000000")
    return folder


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (own_map((*ROWS, "kerb")), "new: kerb"),
        (own_map(("kerb", *ROWS), (4, 1, 2, 3)), "new: kerb"),
        (own_map(("road", "building", "car")), "'wall' is 'building' now"),
        (own_map(("street", "wall", "car")), "'road' is 'street' now"),
        (own_map(("road", "car"), (1, 3)), "gone, and never clicked: wall"),
        (own_map(ROWS, (1, 2, 9)), "raw id 3 is written as 9 now"),
    ],
)
def test_labelling_goes_on_with_a_map_that_has_grown(
    labels: LabelMap, said: str, clicked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ClickStore(clicked, labels)
    assert said in caplog.text
    assert "clicks and done marks are kept" in caplog.text
    assert (store.clicks, store.done) == (3, ("000000",))
    first, car = labels.names[labels.to_class(np.array([1]))[0]], labels.id_of("car")
    assert store.record.clicks_per_class[first] == store.record.points_per_class[first] == 2
    assert store.record.points_per_class["car"] == 1
    class_id, instance = store.labelled("000001")
    assert (class_id[30], instance[30]) == (car, 7)
    store.add("000002", [3], len(labels.names) - 1)
    caplog.clear()
    assert ClickStore(clicked, labels).clicks == 4
    assert not caplog.text
    assert len(clicked_scans(clicked, labels)) == 3


@pytest.mark.parametrize("labels", [own_map(("road", "wall")), own_map(("road", "wall", "van"), (1, 2, 9))])
def test_a_map_without_a_class_that_was_clicked_is_refused_by_its_name(labels: LabelMap, clicked: Path) -> None:
    with pytest.raises(DataError, match=r"has no class 'car' \(raw id 3, 1 points labelled\); put it back"):
        ClickStore(clicked, labels)
    assert ClickStore(clicked, own_map()).clicks == 3


def test_another_map_that_happens_to_share_raw_ids_is_refused(clicked: Path) -> None:
    with pytest.raises(DataError, match="choose the map that was clicked with by --label-map"):
        ClickStore(clicked, own_map(("grass", "fence", "car"), name="other"))


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


@pytest.mark.parametrize("what", ["first click", "another class", "brush", "undo", "undo of all"])
def test_a_kill_before_the_record_leaves_the_count_of_clicks_right(folder: Path, what: str) -> None:
    """The label file is on disk, the record is as it was before."""
    store = ClickStore(folder, STREET)
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
    mended = ClickStore(folder, STREET).record
    assert mended.clicks_per_class == wanted
    expected = {"first click": (1, 0), "another class": (1, 1), "brush": (1, 1), "undo": (1, 0), "undo of all": (0, 0)}[what]
    assert (mended.clicks_per_class[first], mended.clicks_per_class[second]) == expected
