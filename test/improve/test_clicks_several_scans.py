# SPDX-License-Identifier: Apache-2.0
"""One click on several scans: the files are as if each scan were clicked, and all of it happens, or is undone, or nothing."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import PATIENCE_S
from support.bare_scans import CAR, POINTS, ROAD, STREET, write_scans
from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.clicks import ClickStore, Part, clicked_scans
from weakseg_ros.improve.label.several_files import TOGETHER

KEYS = ("000000", "000001", "000002")
STROKE = [Part(KEYS[1], np.array([4, 5]), 3), Part(KEYS[0], np.array([5]), 1), Part(KEYS[2], np.array([7, 8, 9]), 2)]


def label_files(store: ClickStore) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(store.path.glob("*.label"))}


def test_the_files_are_those_of_single_clicks_and_the_click_counts_once(tmp_path: Path) -> None:
    at_once, singly = (ClickStore(write_scans(tmp_path / name / "drive"), STREET) for name in ("one", "two"))
    for store in (at_once, singly):
        store.add(KEYS[0], [5, 6], ROAD)
    at_once.add_together(STROKE, CAR)
    for number, part in enumerate(STROKE):
        singly.add(part.key, part.points, CAR, part.instance_id, clicks=int(number == 0))
    assert label_files(at_once) == label_files(singly)
    one, two = vars(at_once.record), vars(singly.record)
    assert one == two
    assert one["clicks"] == 3
    assert list(clicked_scans(at_once.folder, STREET).keys) == list(KEYS)
    assert {file.name for file in at_once.path.iterdir() if not file.name.startswith(".")} == {*one["files"], "sparse.yaml"}


def test_one_undo_takes_back_all_scans_also_after_a_restart(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    store.add(KEYS[0], [5], ROAD)
    before = label_files(store)
    store.add_together(STROKE, CAR)
    after = label_files(store)
    again = ClickStore(bare_folder, STREET)
    assert again.undo() == KEYS[1]
    assert (label_files(again), again.clicks) == (before, 1)
    assert again.redo() == KEYS[1]
    assert (label_files(again), again.clicks) == (after, 2)
    again.erase_together([Part(KEYS[0], np.array([5])), Part(KEYS[2], np.array([7, 8]))])
    assert [again.count(key) for key in KEYS] == [0, 2, 1]
    assert again.undo() == KEYS[0]
    assert label_files(again) == after
    assert (again.undo(), again.undo(), again.undo()) == (KEYS[1], KEYS[0], None)
    assert (label_files(again), again.clicks, again.record.labelled_points) == ({}, 0, 0)


def test_undo_spares_what_another_page_has_clicked_in_one_of_the_scans(bare_folder: Path) -> None:
    mine, other = ClickStore(bare_folder, STREET), ClickStore(bare_folder, STREET)
    mine.add_together(STROKE, CAR)
    other.add(KEYS[2], [8], ROAD)
    mine.undo()
    assert [mine.count(key) for key in KEYS] == [0, 0, 1]
    assert mine.labelled(KEYS[2])[0][8] == ROAD


def test_what_one_scan_cannot_hold_labels_none(bare_folder: Path) -> None:
    store = ClickStore(bare_folder, STREET)
    for wrong in (Part(KEYS[2], np.array([POINTS])), Part(KEYS[2], np.array([1]), 1 << 16), Part(KEYS[0], np.array([1]))):
        with pytest.raises(DataError):
            store.add_together([*STROKE[:2], wrong], CAR)
    assert (label_files(store), store.undo()) == ({}, None)


def fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


def test_a_full_disk_refuses_all_scans_and_leaves_room_to_try_again(small_disk: Path) -> None:
    folder = write_scans(small_disk / "drive")
    store = ClickStore(folder, STREET)
    store.add(KEYS[0], [5], ROAD)
    before = label_files(store)
    ballast = small_disk / "ballast"
    fill(ballast)
    with pytest.raises(DataError, match="free some space"):
        store.add_together(STROKE, CAR)
    assert (label_files(store), store.clicks) == (before, 1)
    ballast.unlink()
    store.add_together(STROKE, CAR)
    assert [store.count(key) for key in KEYS] == [1, 2, 3]
    store.undo()
    assert label_files(store) == before


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from weakseg_ros.improve.label.clicks import ClickStore, Part
from weakseg_ros.points.labels import LabelMap
folder, what, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = ClickStore(folder, LabelMap.load("street"))
def counted(act):
    def acted(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*arguments, **named)
    return acted
for name in ("replace", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
parts = [Part(key, np.array([3, 4])) for key in ("000000", "000001", "000002")]
store.undo() if what == "undo" else store.add_together(parts, 2)
print("finished")
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["label", "undo"])
def test_a_kill_at_any_moment_leaves_all_scans_labelled_or_none(tmp_path: Path, what: str) -> None:
    """The child kills itself before its n-th change of a name in the folder, for each n until it comes through."""
    start = write_scans(tmp_path / "start")
    store = ClickStore(start, STREET)
    store.add("000000", [3], 1)
    none = label_files(store)
    store.add_together([Part(key, np.array([3, 4])) for key in KEYS], 2)
    done = label_files(store)
    if what == "label":
        store.undo()
    seen = set()
    for moment in range(100):
        folder = Path(shutil.copytree(start, tmp_path / f"at{moment}"))
        command = [sys.executable, "-c", KILLED, str(folder), what, str(moment)]
        child = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        again = ClickStore(folder, STREET)
        found = label_files(again)
        assert found in (none, done), moment
        seen.add(found == done)
        assert again.clicks == (2 if found == done else 1)
        assert len(clicked_scans(folder, STREET)) == len(found)
        assert not (again.path / TOGETHER).exists()
        if found == done:
            again.undo()
            assert (label_files(again), again.clicks) == (none, 1)
        again.add_together([Part(key, np.array([3, 4])) for key in KEYS], 2)
        assert (label_files(again), again.clicks) == (done, 2)
        if child.stdout:
            break
        assert child.returncode == -signal.SIGKILL
    assert seen == {True, False}
    assert moment > 6


def test_another_open_page_finishes_what_a_kill_has_cut_short(bare_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, store = ClickStore(bare_folder, STREET), ClickStore(bare_folder, STREET)
    with monkeypatch.context() as patch:
        patch.setattr("weakseg_ros.improve.label.click_files.finish", lambda folder: None)  # as a kill right before it
        store.add_together(STROKE, CAR)
        assert label_files(store) == {}
    other.add(KEYS[0], [11], ROAD)
    assert [other.count(key) for key in KEYS] == [2, 2, 3]
    assert other.clicks == 2
    (other.path / TOGETHER).mkdir()
    (other.path / TOGETHER / "steps.json").write_text("{")
    with pytest.raises(DataError, match="remove this folder"):
        ClickStore(bare_folder, STREET)
