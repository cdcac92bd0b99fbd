# SPDX-License-Identifier: Apache-2.0
"""Clicks of a person: sparse labels of a folder of scans. Each click is saved at once and can be undone; none is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError, WeaksegError, counted
from weakseg_ros.files import inside
from weakseg_ros.improve.label.changes import CHANGES, ChangeLog, LabelChange, Step
from weakseg_ros.improve.label.click_files import ClickFiles, Write
from weakseg_ros.improve.label.labelled_folder import LabelledFolder
from weakseg_ros.points.labels import INSTANCE_SHIFT, LabelMap, instances_in
from weakseg_ros.weak.sparse_labels import SparseRecord, classes_of, read_record, sparse_scans

CLICKS = "clicks"
"""the folder under sparse/ where a person's clicks go unless another name is given"""
LARGEST_INSTANCE = (1 << INSTANCE_SHIFT) - 1


class Part(NamedTuple):
    """Points of one scan that are labelled together with those of others."""

    key: str
    points: NDArray[np.int64]
    """(P,) indices of points"""
    instance_id: int = 0


class ClickStore:
    """The clicks in one folder of scans, read from disk and written to it at each change.

    Raises DataError for a folder without scans, for sparse labels that were drawn and not clicked, and for a damaged
    label file when its scan is asked for.
    """

    def __init__(self, folder: Path, labels: LabelMap | None = None, name: str = CLICKS) -> None:
        self.folder, self.name = Path(folder), name
        self._opened = LabelledFolder(self.folder, labels)
        self.labels = self._opened.labels
        self._files = ClickFiles(inside(self.folder / "sparse", name), self._opened)
        self.path = self._files.path
        self._done = ChangeLog(self.path / CHANGES)
        self._undone: list[Step] = []

    @property
    def scans(self) -> ScanSet:
        """The scans of the folder, as far as they are known."""
        return self._opened.scans

    def add(
        self,
        key: str,
        points: NDArray[np.integer] | list[int],
        class_id: int,
        instance_id: int = 0,
        clicks: int | None = None,
    ) -> None:
        """Label points (P,) of a scan; on disk when this returns. Earlier labels of these points are replaced.

        `clicks` is what it cost, 1 for a mask that one click brought; None counts a click for each point.
        """
        cost = np.size(points) if clicks is None else clicks
        raw = self._raw_of(class_id, instance_id)
        self._label(key, np.asarray(points, np.int64).reshape(-1), raw, self.labels.names[class_id], cost)

    def add_together(self, parts: Sequence[Part], class_id: int) -> None:
        """Label points of several scans with one click, which counts once; the files are as if each were labelled by `add`.

        All of it is on disk when this returns, or nothing; `undo` takes all of it back.
        """
        raw = [self._raw_of(class_id, part.instance_id) for part in parts]
        name = self.labels.names[class_id]
        self._label_together([(part, raw[number], name, int(number == 0)) for number, part in enumerate(parts)])

    def erase_together(self, parts: Sequence[Part]) -> None:
        """Take the labels off points of several scans in one step; see `add_together`."""
        self._label_together([(part, 0, "", 0) for part in parts])

    def next_instance(self, key: str, class_id: int, same: bool = False) -> int:
        """An id that no object of a scan has yet; with `same` that of the newest object of the class, where there is one."""
        classes, instances = self.labelled(key)
        mine = instances[classes == class_id]
        if same and mine.any():
            return int(mine.max())
        largest = int(instances.max(initial=0))
        if largest >= LARGEST_INSTANCE:
            raise DataError(f"{key}: all {LARGEST_INSTANCE} instance ids are used; label it without instances")
        return largest + 1

    def erase(self, key: str, points: NDArray[np.integer] | list[int]) -> None:
        """Take the labels off points (P,) of a scan; the clicks that they cost stay counted."""
        self._label(key, np.asarray(points, np.int64).reshape(-1), 0, "", 0)

    def undo(self) -> str | None:
        """Take back the last step, of an earlier start too; returns the key of its first scan, None where there is nothing to do.

        What somebody else has labelled over it since stays.
        """
        with self._files.alone():
            step = self._done.last()
            if step is None:
                return None
            if self._is_replaced(step):
                self._done.pop()  # or what was done before it could not be taken back either
            self._turn(step, back=True)
            self._done.pop()
            self._undone.append(step)
            return step[0].key

    def redo(self) -> str | None:
        """Do the last step again that was taken back; returns the key of its first scan, None where there is none."""
        with self._files.alone():
            if not self._undone:
                return None
            step = self._undone[-1]
            if self._is_replaced(step):
                self._undone.pop()
            self._turn(step, back=False)
            self._undone.pop()
            return step[0].key

    def labelled(self, key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """((N,) class ids, (N,) instance ids) of a scan as they are on disk, 0 where nothing is labelled.

        Until it is first changed, a scan shows the labels that its data set has of it.
        """
        raw = self._files.raw(key)
        return self.labels.to_class(raw), instances_in(raw)

    def count(self, key: str) -> int:
        """How many points of a scan have a label."""
        may_have = self._files.file(key).is_file() or self._opened.may_have_labels
        return int(np.count_nonzero(self._files.raw(key))) if may_have else 0

    @property
    def clicks(self) -> int:
        """Clicks spent in the whole folder."""
        return self.record.clicks

    @property
    def clicked(self) -> list[str]:
        """The keys of the scans that have a label, in the order of the scans."""
        return sorted(self.record.positions, key=self._opened.place)

    @property
    def done(self) -> tuple[str, ...]:
        """The keys of the scans that were marked as finished."""
        return self.record.done

    def mark_done(self, key: str, done: bool = True) -> None:
        """Say that a scan is finished, or that it is not."""
        with self._files.alone():
            others = tuple(name for name in self.record.done if name != key)
            try:
                reviews = {name: word for name, word in self.record.reviews.items() if name != key}  # it is new work
                marked = (*others, key) if done else others
                self._files.save_record(dataclasses.replace(self.record, done=marked, reviews=reviews))
            except OSError as error:
                raise DataError(f"{self.path}: the mark could not be saved ({error.strerror}); free some space") from None

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one after every change, whoever made it: what a page looks at to see the clicks of others."""
        return self._files.stamp

    @property
    def record(self) -> SparseRecord:
        """What `sparse.yaml` says now."""
        return self._files.record

    def raw_labels(self, key: str) -> NDArray[np.uint32]:
        """(N,) labels of a scan as its file holds them: raw class ids, instances in the high 16 bits."""
        return self._files.raw(key).copy()

    def add_raw(self, key: str, points: NDArray[np.integer], raw: NDArray[np.uint32]) -> None:
        """Label points (P,) of a scan, each once, with raw labels (P,) of this folder; they cost no click."""
        self._label(key, np.asarray(points, np.int64), np.asarray(raw, np.uint32), "", 0)

    def review(self, key: str, accepted: bool) -> None:
        """Say that a finished scan was checked by somebody else. One that is not accepted is not finished any more."""
        reviews = {**self.record.reviews, key: "accepted" if accepted else "rejected"}
        with self._files.alone():
            done = self.record.done if accepted else tuple(name for name in self.record.done if name != key)
            try:
                self._files.save_record(dataclasses.replace(self.record, done=done, reviews=reviews))
            except OSError as error:
                raise DataError(f"{self.path}: the review could not be saved ({error.strerror}); free some space") from None

    def labelled_scans(self, labels: LabelMap | None = None) -> ScanSet:
        """The scans that have a label, with the clicks of this moment, in the classes of `labels` where that is given.

        Raises DataError where there is none, and where the clicks cannot be told in these classes.
        """
        scans = self.scans if labels is None else open_scans(self.folder, labels=labels)
        with self._files.alone():  # a click between the record and the label files would look like damage
            return sparse_scans(scans, self.path)

    def _raw_of(self, class_id: int, instance_id: int) -> int:
        """The raw label of an object of a class; DataError where the map or the files cannot hold it."""
        if not 1 <= class_id < self.labels.num_classes:
            raise DataError(f"{self.path}: class {class_id} is not in label map '{self.labels.name}'; choose one of its classes")
        if not 0 <= instance_id <= LARGEST_INSTANCE:
            raise DataError(
                f"{self.path}: instance {instance_id} does not fit into 0..{LARGEST_INSTANCE}, the range of label files"
            )
        return int(self.labels.to_raw(np.array(class_id))) | int(instance_id) << INSTANCE_SHIFT

    def _label(self, key: str, points: NDArray[np.int64], raw: int | NDArray[np.uint32], clicked: str, clicks: int) -> None:
        with self._files.alone():
            change = self._change(key, points, raw, clicked, clicks)
            self._files.write(key, change.points, change.after, clicked, clicks)
            self._done.push((change,))
            self._undone.clear()

    def _label_together(self, parts: Sequence[tuple[Part, int, str, int]]) -> None:
        """Give points of several scans each a raw label, with the class that clicks count for and their number."""
        if len(parts) == 1:
            part, raw, clicked, clicks = parts[0]
            self._label(part.key, part.points, raw, clicked, clicks)
            return
        with self._files.alone():
            step = tuple(self._change(part.key, part.points, raw, clicked, clicks) for part, raw, clicked, clicks in parts)
            if len({change.key for change in step}) < len(step):
                raise DataError(f"{self.path}: a scan is named twice; give all its points at once")
            self._keep([Write(change.key, change.points, change.after, change.clicked, change.clicks) for change in step], step)
            self._undone.clear()

    def _keep(self, writes: Sequence[Write], step: Step) -> None:
        """Write to several scans, and the step that takes it back with it."""
        name, content = self._done.packed(step)
        self._done.is_stored(name)  # where nothing is written, the log passes over it
        self._files.write_together(writes, kept=(f"{CHANGES}/{name}", content))

    def _change(
        self, key: str, points: NDArray[np.int64], raw: int | NDArray[np.uint32], clicked: str, clicks: int
    ) -> LabelChange:
        """What giving points of a scan a raw label, or one each, changes there; DataError where that cannot be."""
        if self._opened.is_replaced(key):
            raise DataError(f"{self.folder}: frame '{key}' was replaced in the log, so nothing is saved; go to the next one")
        before = self._files.raw(key)
        if len(points) and not (points.min() >= 0 and points.max() < len(before)):
            fault = f"points {points.min()}..{points.max()} do not fit scan '{key}', which has {counted(len(before), 'point')}"
            raise DataError(f"{self.path}: {fault}; open it again")
        points, first = np.unique(points, return_index=True)
        after = np.full(len(points), raw, np.uint32) if isinstance(raw, int) else raw[first]
        return LabelChange(key, points, before[points], after, clicked, clicks)

    def _is_replaced(self, step: Step) -> bool:
        return any(self._opened.is_replaced(change.key) for change in step)

    def _turn(self, step: Step, back: bool) -> None:
        """Write what a step found, or what it left, where nobody has labelled over it since."""
        for change in step:
            if self._opened.is_replaced(change.key):
                raise DataError(f"{self.folder}: frame '{change.key}' was replaced in the log; go to the next one")
        writes = [self._turned(change, back) for change in step]
        if len(writes) == 1:
            self._files.write(*writes[0])
            if not back:
                self._done.push(step)
        elif back:
            self._files.write_together(writes, dropped=f"{CHANGES}/{self._done.last_name}")
        else:
            self._keep(writes, step)

    def _turned(self, change: LabelChange, back: bool) -> Write:
        """What takes a change back, or does it again."""
        expected, wanted = (change.after, change.before) if back else (change.before, change.after)
        mine = self._files.raw(change.key)[change.points] == expected
        cost = -change.clicks if back else change.clicks
        is_last = back and not self._done.holds_other(change.key)
        return Write(change.key, change.points[mine], wanted[mine], change.clicked, cost, is_last)


def open_as_clicked(folder: Path, labels: LabelMap | None = None, name: str = CLICKS) -> ClickStore:
    """The clicks of a folder in the very classes that they were made with, for those who only read them: nothing is rewritten.

    Opening mends what a kill left behind. `labels` are the classes of clicks that no record tells about.
    """
    try:
        record = read_record(inside(folder / "sparse", name))
    except WeaksegError:  # without a record, or with one that the store tells what to do about
        return ClickStore(folder, labels, name)
    return ClickStore(folder, classes_of(record) if record.raw_ids else labels, name)


def clicked_scans(folder: Path, labels: LabelMap | None = None, name: str = CLICKS) -> ScanSet:
    """The scans of a folder that a person has labelled, with the clicks of this moment as their labels; the others are left out.

    The classes are those of `labels`, by default those of the folder; the files keep their own. Raises DataError where none
    is labelled yet, and where the clicks cannot be told in these classes.
    """
    labels = labels or open_scans(folder).labels
    return open_as_clicked(folder, labels, name).labelled_scans(labels)
