# SPDX-License-Identifier: Apache-2.0
"""Clicks of a person on disk: sparse labels of a folder of scans that grow by one click at a time and lose none.

`FOLDER/sparse/clicks/` holds the layout that `weakseg sparse` writes (`KEY.label`, `sparse.yaml`), so training reads both
alike. A change is on disk before the call returns; several threads, pages and processes may write to one folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_files import content_hash, read_raw_labels, write_raw_labels
from weakseg_ros.data.scans import ScanSet
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.files import environment, inside, make_folder, sha256_of, write_atomic
from weakseg_ros.improve.label.changes import ChangeLog, LabelChange
from weakseg_ros.improve.label.labelled_folder import LabelledFolder
from weakseg_ros.improve.label.map_changes import brought_to
from weakseg_ros.locks import Turns
from weakseg_ros.points.labels import INSTANCE_SHIFT, LabelMap, instances_in
from weakseg_ros.weak.sparse_labels import (
    RECORD,
    RECORD_VERSION,
    SparseRecord,
    raw_ids_of,
    read_record,
    sparse_scans,
)

log = logging.getLogger(__name__)

CLICKS = "clicks"
"""the folder under sparse/ where a person's clicks go unless another name is given"""
LOCK, CHANGES = ".lock", ".changes"
LARGEST_INSTANCE = (1 << INSTANCE_SHIFT) - 1


class ClickStore:
    """The clicks in one folder of scans, read from disk and written to it at each change.

    Raises DataError for a folder without scans, for sparse labels that were drawn and not clicked, and for a damaged
    label file when its scan is asked for.
    """

    def __init__(self, folder: Path, labels: LabelMap | None = None, name: str = CLICKS) -> None:
        self.folder, self.name = Path(folder), name
        self._opened = LabelledFolder(self.folder, labels)
        self.labels = self._opened.labels
        self.path = inside(self.folder / "sparse", name)
        self._read_before: dict[str, tuple[tuple[int, int], NDArray[np.uint32]]] = {}
        self._record: tuple[tuple[int, int], SparseRecord] | None = None
        self._done = ChangeLog(self.path / CHANGES)
        self._undone: list[LabelChange] = []
        self._turns = Turns(self.path / LOCK)
        self._mutex = threading.RLock()
        self._environment = environment()
        try:
            make_folder(self.path)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be made ({error.strerror}); check the rights of {self.folder}") from None
        with self._alone():
            self._follow_map()
            self._mend()

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
        if not 1 <= class_id < self.labels.num_classes:
            raise DataError(f"{self.path}: class {class_id} is not in label map '{self.labels.name}'; choose one of its classes")
        if not 0 <= instance_id <= LARGEST_INSTANCE:
            raise DataError(f"{self.path}: instance {instance_id} is outside 0..{LARGEST_INSTANCE}, which label files can hold")
        raw = int(self.labels.to_raw(np.array(class_id))) | int(instance_id) << INSTANCE_SHIFT
        cost = np.size(points) if clicks is None else clicks
        self._label(key, np.asarray(points, np.int64).reshape(-1), raw, self.labels.names[class_id], cost)

    def erase(self, key: str, points: NDArray[np.integer] | list[int]) -> None:
        """Take the labels off points (P,) of a scan; the clicks that they cost stay counted."""
        self._label(key, np.asarray(points, np.int64).reshape(-1), 0, "", 0)

    def undo(self) -> str | None:
        """Take back the last change, of an earlier start too; returns the key of its scan, None where there is nothing to do.

        What somebody else has labelled over it since stays.
        """
        with self._alone():
            change = self._done.last()
            if change is None:
                return None
            if self._opened.is_replaced(change.key):
                self._done.pop()  # or what was done before it could not be taken back either
            self._turn(change, back=True)
            self._done.pop()
            self._undone.append(change)
            return change.key

    def redo(self) -> str | None:
        """Do the last change again that was taken back; returns the key of its scan, None where there is none."""
        with self._alone():
            if not self._undone:
                return None
            change = self._undone[-1]
            if self._opened.is_replaced(change.key):
                self._undone.pop()
            self._turn(change, back=False)
            self._done.push(self._undone.pop())
            return change.key

    def labelled(self, key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """((N,) class ids, (N,) instance ids) of a scan as they are on disk, 0 where nothing is labelled.

        Until it is first changed, a scan shows the labels that its data set has of it.
        """
        raw = self._raw(key)
        return self.labels.to_class(raw), instances_in(raw)

    def count(self, key: str) -> int:
        """How many points of a scan have a label."""
        return int(np.count_nonzero(self._raw(key))) if self._file(key).is_file() or self._opened.may_have_labels else 0

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
        with self._alone():
            others = tuple(name for name in self.record.done if name != key)
            try:
                reviews = {name: word for name, word in self.record.reviews.items() if name != key}  # it is new work
                marked = (*others, key) if done else others
                self._save_record(dataclasses.replace(self.record, done=marked, reviews=reviews))
            except OSError as error:
                raise DataError(f"{self.path}: the mark could not be saved ({error.strerror}); free some space") from None

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one after every change, whoever made it: what a page looks at to see the clicks of others."""
        return _identity(self.path / RECORD)

    @property
    def record(self) -> SparseRecord:
        """What `sparse.yaml` says now."""
        with self._mutex:
            now = self.stamp
            if self._record is None or self._record[0] != now:
                self._record = (now, self._read_record())
            return self._record[1]

    def raw_labels(self, key: str) -> NDArray[np.uint32]:
        """(N,) labels of a scan as its file holds them: raw class ids, instances in the high 16 bits."""
        return self._raw(key).copy()

    def add_raw(self, key: str, points: NDArray[np.integer], raw: NDArray[np.uint32]) -> None:
        """Label points (P,) of a scan, each once, with raw labels (P,) of this folder; they cost no click."""
        self._label(key, np.asarray(points, np.int64), np.asarray(raw, np.uint32), "", 0)

    def review(self, key: str, accepted: bool) -> None:
        """Say that a finished scan was checked by somebody else. One that is not accepted is not finished any more."""
        reviews = {**self.record.reviews, key: "accepted" if accepted else "rejected"}
        with self._alone():
            done = self.record.done if accepted else tuple(name for name in self.record.done if name != key)
            try:
                self._save_record(dataclasses.replace(self.record, done=done, reviews=reviews))
            except OSError as error:
                raise DataError(f"{self.path}: the review could not be saved ({error.strerror}); free some space") from None

    def _label(self, key: str, points: NDArray[np.int64], raw: int | NDArray[np.uint32], clicked: str, clicks: int) -> None:
        with self._alone():
            if self._opened.is_replaced(key):
                raise DataError(f"{self.folder}: frame '{key}' was replaced in the log, nothing is saved; go to the next one")
            before = self._raw(key)
            if len(points) and not (points.min() >= 0 and points.max() < len(before)):
                raise DataError(f"{self.path}: points {points.min()}..{points.max()} of scan '{key}', which has {len(before)}")
            points, first = np.unique(points, return_index=True)
            after = np.full(len(points), raw, np.uint32) if isinstance(raw, int) else raw[first]
            change = LabelChange(key, points, before[points], after, clicked, clicks)
            self._write(key, points, change.after, clicked, clicks)
            self._done.push(change)
            self._undone.clear()

    def _turn(self, change: LabelChange, back: bool) -> None:
        """Write what a change found, or what it left, where nobody has labelled over it since."""
        if self._opened.is_replaced(change.key):
            raise DataError(f"{self.folder}: frame '{change.key}' was replaced in the log, its clicks with it")
        expected, wanted = (change.after, change.before) if back else (change.before, change.after)
        mine = self._raw(change.key)[change.points] == expected
        cost = -change.clicks if back else change.clicks
        self._write(change.key, change.points[mine], wanted[mine], change.clicked, cost)

    def _write(self, key: str, points: NDArray[np.int64], raw: NDArray[np.uint32], clicked: str, clicks: int) -> None:
        """The label file first, since the record can be made again from the files, but not the other way round."""
        record, before = self.record, self._raw(key)
        after = before.copy()
        after[points] = raw
        facts, file, was_clicked = self._opened.facts(key), self._file(key), key in record.positions
        files, positions = dict(record.files), dict(record.positions)
        usable = record.points - (facts.usable if was_clicked else 0)
        try:
            if not np.array_equal(after, self._opened.start(key)):
                file.parent.mkdir(parents=True, exist_ok=True)
                files[f"{key}.label"] = hashlib.sha256(write_raw_labels(file, after)).hexdigest()
                positions[key] = facts.position
                usable += facts.usable
            else:
                file.unlink(missing_ok=True)
                files.pop(f"{key}.label", None)
                positions.pop(key, None)
            per_class = self._per_class(after) * (key in positions) - self._per_class(before) * was_clicked
            spent = dict(record.clicks_per_class)
            if clicked:
                spent[clicked] = max(0, spent[clicked] + clicks)
            labelled = {name: record.points_per_class[name] + int(per_class[i]) for i, name in self._class_names()}
            self._save(files, positions, usable, spent, labelled, record.done, record.reviews)
        except OSError as error:
            raise DataError(f"{file}: the click could not be saved ({error.strerror}); free some space or check rights") from None

    def _save(
        self,
        files: dict[str, str],
        positions: dict[str, str],
        usable: int,
        clicks: dict[str, int],
        labelled: dict[str, int],
        done: tuple[str, ...],
        reviews: dict[str, str],
    ) -> None:
        record = SparseRecord(
            version=RECORD_VERSION,
            draw=None,
            data=self.scans.name,
            data_hash=self._opened.data_hash,
            labels=self.labels.name,
            points=usable,
            clicks=sum(clicks.values()),
            labelled_points=sum(labelled.values()),
            clicks_per_class=clicks,
            points_per_class=labelled,
            content_hash=content_hash(files),
            positions=positions,
            files=files,
            problems=(),
            environment=self._environment,
            done=done,
            raw_ids=raw_ids_of(self.labels),
            reviews=reviews,
        )
        self._save_record(record)

    def _save_record(self, record: SparseRecord) -> None:
        """A line a field, each value as JSON, which is YAML too and written in a hundredth of the time."""
        lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in vars(record).items())
        write_atomic(self.path / RECORD, "".join(lines))
        self._record = (self.stamp, record)

    def _raw(self, key: str) -> NDArray[np.uint32]:
        """(N,) the raw labels on disk; read again only where the file is another one than last time."""
        with self._mutex:
            file = self._file(key)
            now = _identity(file)
            if key not in self._read_before or self._read_before[key][0] != now:
                self._read_before[key] = (now, self._read_raw(key, file))
            return self._read_before[key][1]

    def _read_raw(self, key: str, file: Path) -> NDArray[np.uint32]:
        points = self._opened.facts(key).points
        if not file.is_file():
            return self._opened.start(key)
        raw = read_raw_labels(file, points)
        unknown = self.labels.unknown_raw_ids(raw)
        if unknown:
            found = ", ".join(map(str, unknown[:5]))
            hint = "open it with the map that it was labelled with (--label-map), or remove the file"
            raise DataError(f"{file}: holds raw ids that label map '{self.labels.name}' does not list ({found}); {hint}")
        return raw

    def _file(self, key: str) -> Path:
        return inside(self.path, f"{key}.label")

    def _class_names(self) -> list[tuple[int, str]]:
        return list(enumerate(self.labels.names))[1:]

    def _per_class(self, raw: NDArray[np.uint32]) -> NDArray[np.int64]:
        labelled = self.labels.to_class(raw[raw > 0])
        return np.bincount(labelled, minlength=self.labels.num_classes).astype(np.int64)

    def _read_record(self) -> SparseRecord:
        record = self._stored_record()
        if set(record.clicks_per_class) != set(self.labels.names[1:]):
            raise DataError(f"{self.path}: the label map was changed by another program meanwhile; open the folder again")
        return record

    def _stored_record(self) -> SparseRecord:
        try:
            record = read_record(self.path)
        except ConfigError as error:
            raise DataError(
                f"{error}; remove it, and it is made again from the label files, without the count of clicks"
            ) from None
        if record.draw is not None:
            raise DataError(f"{self.path}: holds labels that 'weakseg sparse' drew; label under another --name")
        return record

    def _follow_map(self) -> None:
        """Bring record and label files to the map of today, where it is another one than they were clicked with."""
        if not (self.path / RECORD).is_file():
            return
        try:
            stored = self._stored_record()
            record, sentence = brought_to(self.path, stored, self.labels)
            if record != stored:
                self._save_record(record)
        except OSError as error:
            raise self._refusal(error) from None
        if sentence:
            log.warning("%s", sentence)

    def _mend(self) -> None:
        """Make the record again where it does not tell what lies on disk: a kill came between a label file and it."""
        on_disk = {file.relative_to(self.path).as_posix(): sha256_of(file) for file in sorted(self.path.rglob("*.label"))}
        known = self.record if (self.path / RECORD).is_file() else None
        if known is not None and known.files == on_disk:
            return
        positions, usable, counted = {}, 0, np.zeros(self.labels.num_classes, np.int64)
        for name in on_disk:
            key = name.removesuffix(".label")
            try:
                counted += self._per_class(self._raw(key))
            except DataError as error:
                log.warning("left as it is: %s", error)
                continue
            positions[key] = self._opened.facts(key).position
            usable += self._opened.facts(key).usable
        labelled = {name: int(counted[i]) for i, name in self._class_names()}
        clicks = dict(known.clicks_per_class) if known else dict.fromkeys(labelled, 0)
        if known is not None and (gained := [name for name in labelled if labelled[name] > known.points_per_class[name]]):
            clicks[gained[0]] += 1  # turns let no more than one click be under way, and it is on disk
        files = {name: digest for name, digest in on_disk.items() if name.removesuffix(".label") in positions}
        try:
            self._save(files, positions, usable, clicks, labelled, known.done if known else (), known.reviews if known else {})
        except OSError as error:
            raise self._refusal(error) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and other processes out until the block has ended; what others wrote is read again."""
        with self._mutex:
            with ExitStack() as stack:
                try:
                    others = stack.enter_context(self._turns.take())
                except OSError as error:
                    raise self._refusal(error) from None
                if others:
                    self._read_before.clear()
                    self._record = None
                yield

    def _refusal(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: clicks cannot be saved ({error.strerror}); free some space or check rights")


def clicked_scans(folder: Path, labels: LabelMap | None = None, name: str = CLICKS) -> ScanSet:
    """The scans of a folder that a person has labelled, with the clicks of this moment as their labels; the others are left out.

    Raises DataError where none is labelled yet.
    """
    store = ClickStore(folder, labels, name)  # opening it mends what a kill left behind
    with store._alone():  # a click between the record and the label files would look like damage
        return sparse_scans(store.scans, store.path)


def _identity(path: Path) -> tuple[int, int]:
    """Which file lies at a path: it is another one after every replacement; zeros where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
