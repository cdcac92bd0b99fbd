# SPDX-License-Identifier: Apache-2.0
"""Clicks of two pages and of several processes on one folder: none is lost, and each undo takes back its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from support import PATIENCE_S
from support.bare_scans import CAR, POINTS, ROAD, STREET, write_scans
from weakseg_ros.improve.label.clicks import ClickStore, Part, clicked_scans
from weakseg_ros.weak.sparse_labels import SparseLabels


def test_undo_spares_what_another_page_has_clicked_since(bare_folder: Path) -> None:
    mine, other = ClickStore(bare_folder, STREET), ClickStore(bare_folder, STREET)
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


def test_processes_that_click_at_once_lose_no_click(bare_folder: Path) -> None:
    workers = [start_clicker(bare_folder, i, POINTS, 3) for i in range(3)]
    for worker in workers:
        worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == 0
    store = ClickStore(bare_folder, STREET)
    class_id, instance = store.labelled("000001")
    np.testing.assert_array_equal(class_id, 1 + np.arange(POINTS) % 3)
    np.testing.assert_array_equal(instance, np.arange(POINTS))
    assert store.clicks == POINTS
    assert len(SparseLabels.load(store.path, clicked_scans(bare_folder))) == 1


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


def test_a_killed_process_loses_no_click_that_it_confirmed(bare_folder: Path) -> None:
    worker = start_clicker(bare_folder, 0, 60000, 1)
    assert worker.stdout is not None
    for _ in range(25):
        worker.stdout.readline()
    worker.kill()
    last = 24 + len(worker.communicate(timeout=PATIENCE_S)[0].split())
    _, instance = ClickStore(bare_folder, STREET).labelled("000001")
    expected = np.arange(POINTS) + POINTS * ((last - np.arange(POINTS)) // POINTS)
    expected[expected < 0] = 0
    one_more = (last + 1) % POINTS  # may have been saved before its confirmation was printed
    np.testing.assert_array_equal(np.delete(instance, one_more), np.delete(expected, one_more))
    assert instance[one_more] in (expected[one_more], last + 1)
    assert len(clicked_scans(bare_folder)) == 1


KEYS = st.sampled_from(["000000", "000001", "000002"])
CHOSEN = st.lists(st.integers(0, POINTS - 1), min_size=1, max_size=5, unique=True)


class Change(NamedTuple):
    """What one step did to one scan."""

    key: str
    points: list[int]
    before: np.ndarray
    after: np.ndarray


@dataclass(eq=False)
class Done:
    """One step, equal to itself alone."""

    changes: list[Change]


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

    def change(self, page: int, chosen: dict[str, list[int]], wanted: tuple[int, int]) -> None:
        changes = []
        for key, points in chosen.items():
            points = sorted(points)
            before = self.truth[key][points].copy()
            self.truth[key][points] = wanted
            changes.append(Change(key, points, before, self.truth[key][points].copy()))
        self.push(page, Done(changes))
        self.undone[page].clear()

    def push(self, page: int, change: Done) -> None:
        self.done[page].append(change)
        self.on_disk.append(change)

    @rule(page=st.integers(0, 1), key=KEYS, points=CHOSEN, class_id=st.integers(1, 3), instance=st.integers(0, 9))
    def add(self, page: int, key: str, points: list[int], class_id: int, instance: int) -> None:
        self.stores[page].add(key, points, class_id, instance)
        self.change(page, {key: points}, (class_id, instance))

    @rule(page=st.integers(0, 1), key=KEYS, points=CHOSEN)
    def erase(self, page: int, key: str, points: list[int]) -> None:
        self.stores[page].erase(key, points)
        self.change(page, {key: points}, (0, 0))

    @rule(page=st.integers(0, 1), chosen=st.dictionaries(KEYS, CHOSEN, min_size=1), class_id=st.integers(0, 3))
    def several(self, page: int, chosen: dict[str, list[int]], class_id: int) -> None:
        parts = [Part(key, np.array(points)) for key, points in chosen.items()]
        self.stores[page].add_together(parts, class_id) if class_id else self.stores[page].erase_together(parts)
        self.change(page, chosen, (class_id, 0))

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
            self.push(page, Done(change.changes))
        assert answer == change.changes[0].key
        for key, points, before, after in change.changes:
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
