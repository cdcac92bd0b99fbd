# SPDX-License-Identifier: Apache-2.0
"""The files of a folder of clicks: a label file for each clicked scan, and the record that counts and hashes them.

`FOLDER/sparse/clicks/` holds the layout that `weakseg sparse` writes (`KEY.label`, `sparse.yaml`), so training reads both
alike. A change is on disk before the call returns; several threads, pages and processes may write to one folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_files import content_hash, read_raw_labels, write_raw_labels
from weakseg_ros.environment import environment
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.files import inside, make_folder, sha256_of, write_atomic
from weakseg_ros.improve.label.labelled_folder import LabelledFolder
from weakseg_ros.improve.label.map_changes import brought_to
from weakseg_ros.improve.label.several_files import finish, prepare
from weakseg_ros.locks import Turns
from weakseg_ros.reads import read_json
from weakseg_ros.weak.sparse_labels import RECORD, RECORD_VERSION, SparseRecord, raw_ids_of, read_record

log = logging.getLogger(__name__)

LOCK = ".lock"
UNDER_WAY = ".under_way.json"
"""the change that is being written: which file it makes, and the clicks that it costs. It tells what a kill has cut short"""


class Write(NamedTuple):
    """What is to be written to one scan; see `ClickFiles.write`."""

    key: str
    points: NDArray[np.int64]
    """(P,) each once"""
    raw: NDArray[np.uint32]
    """(P,) their labels from now on"""
    clicked: str
    """name of the class that the clicks count for, '' for none"""
    clicks: int
    is_last_undo: bool = False


class ClickFiles:
    """Label files and record in one folder, read again where another page changed them, and brought in order when opened.

    Opening follows a label map that has changed and mends what a kill left behind. Raises DataError where the folder holds
    labels that were drawn and not clicked, and where the disk refuses.
    """

    def __init__(self, path: Path, opened: LabelledFolder) -> None:
        self.path, self.labels = path, opened.labels
        self._opened = opened
        self._read_before: dict[str, tuple[tuple[int, int], NDArray[np.uint32]]] = {}
        self._record: tuple[tuple[int, int], SparseRecord] | None = None
        self._turns = Turns(self.path / LOCK)
        self._mutex = threading.RLock()
        self._environment = environment()
        try:
            make_folder(self.path)
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be created ({error.strerror}); free some space, or check the rights of {opened.folder}"
            ) from None
        with self.alone():
            self._follow_map()
            self._mend()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads and other processes out until the block has ended; what others wrote is read again."""
        with self._mutex:
            with ExitStack() as stack:
                try:
                    others = stack.enter_context(self._turns.take())
                    finish(self.path)  # what a kill or a fault of the disk has cut short
                except OSError as error:
                    raise self._refusal(error) from None
                if others:
                    self._read_before.clear()
                    self._record = None
                yield

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one after every change, whoever made it."""
        return _identity(self.path / RECORD)

    @property
    def record(self) -> SparseRecord:
        """What `sparse.yaml` says now."""
        with self._mutex:
            now = self.stamp
            if self._record is None or self._record[0] != now:
                self._record = (now, self._read_record())
            return self._record[1]

    def save_record(self, record: SparseRecord) -> None:
        """Replace `sparse.yaml`."""
        write_atomic(self.path / RECORD, _text_of(record))
        self._record = (self.stamp, record)

    def raw(self, key: str) -> NDArray[np.uint32]:
        """(N,) the raw labels on disk; read again only where the file is another one than last time."""
        with self._mutex:
            file = self.file(key)
            now = _identity(file)
            if key not in self._read_before or self._read_before[key][0] != now:
                self._read_before[key] = (now, self._read_raw(key, file))
            return self._read_before[key][1]

    def file(self, key: str) -> Path:
        """Where the labels of a scan are kept once it is clicked."""
        return inside(self.path, f"{key}.label")

    def write(
        self, key: str, points: NDArray[np.int64], raw: NDArray[np.uint32], clicked: str, clicks: int, is_last_undo: bool = False
    ) -> None:
        """The label file first, since the record can be made again from the files, but not the other way round.

        A scan whose labels are as its data set has them was clicked nevertheless where somebody confirmed one of them,
        unless `is_last_undo`: all that was ever done to it has been taken back.
        """
        file, name = self.file(key), f"{key}.label"
        record, after = self._planned(self.record, Write(key, points, raw, clicked, clicks, is_last_undo))
        try:
            under_way = {"file": name, "sha256": record.files.get(name, ""), "class": clicked, "clicks": clicks}
            write_atomic(self.path / UNDER_WAY, json.dumps(under_way, ensure_ascii=False))
            if after is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_raw_labels(file, after)
            else:
                file.unlink(missing_ok=True)
            self.save_record(record)
        except OSError as error:
            raise DataError(f"{file}: the click could not be saved ({error.strerror}); free some space or check rights") from None

    def write_together(self, writes: Sequence[Write], kept: tuple[str, bytes] | None = None, dropped: str = "") -> None:
        """Write to several scans in one step: after a kill or on a full disk either all of it is done or nothing.

        `kept` is a file below the folder that is written with it, with its content, `dropped` one that is removed.
        """
        record, files, removed = self.record, dict([kept] if kept else []), [dropped] if dropped else []
        for write in writes:
            record, after = self._planned(record, write)
            if after is None:
                removed.append(f"{write.key}.label")
            else:
                files[f"{write.key}.label"] = after.astype("<u4").tobytes()
        try:
            prepare(self.path, {**files, RECORD: _text_of(record)}, removed)
            finish(self.path)
        except OSError as error:
            raise self._refusal(error) from None
        self._record = (self.stamp, record)

    def _planned(self, record: SparseRecord, write: Write) -> tuple[SparseRecord, NDArray[np.uint32] | None]:
        """The record after a change, and the (N,) labels of the scan then; None where it goes back to those of its data set."""
        key, name, before = write.key, f"{write.key}.label", self.raw(write.key)
        after = before.copy()
        after[write.points] = write.raw
        facts, was_clicked = self._opened.facts(key), key in record.positions
        files, positions = dict(record.files), dict(record.positions)
        usable = record.points - (facts.usable if was_clicked else 0)
        start = self._opened.start(key)
        confirms = start.any() and (was_clicked or bool(write.clicked)) and not write.is_last_undo
        stays = confirms or not np.array_equal(after, start)
        if stays:
            files[name] = hashlib.sha256(after.astype("<u4").tobytes()).hexdigest()
            positions[key] = facts.position
            usable += facts.usable
        else:
            files.pop(name, None)
            positions.pop(key, None)
        per_class = self._per_class(after) * stays - self._per_class(before) * was_clicked
        spent = dict(record.clicks_per_class)
        if write.clicked:
            spent[write.clicked] = max(0, spent[write.clicked] + write.clicks)
        labelled = {name: record.points_per_class[name] + int(per_class[i]) for i, name in self._class_names()}
        planned = self._record_of(files, positions, usable, spent, labelled, record.done, record.reviews)
        return planned, after if stays else None

    def _record_of(
        self,
        files: dict[str, str],
        positions: dict[str, str],
        usable: int,
        clicks: dict[str, int],
        labelled: dict[str, int],
        done: tuple[str, ...],
        reviews: dict[str, str],
    ) -> SparseRecord:
        return SparseRecord(
            version=RECORD_VERSION,
            draw=None,
            data=self._opened.scans.name,
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
                self.save_record(record)
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
                counted += self._per_class(self.raw(key))
            except DataError as error:
                log.warning("left as it is: %s", error)
                continue
            positions[key] = self._opened.facts(key).position
            usable += self._opened.facts(key).usable
        labelled = {name: int(counted[i]) for i, name in self._class_names()}
        clicks = dict(known.clicks_per_class) if known else dict.fromkeys(labelled, 0)
        name, spent = self._cut_short(known.files if known else {}, on_disk)
        if name in clicks:
            clicks[name] = max(0, clicks[name] + spent)
        files = {name: digest for name, digest in on_disk.items() if name.removesuffix(".label") in positions}
        done, reviews = (known.done, known.reviews) if known else ((), {})
        try:
            self.save_record(self._record_of(files, positions, usable, clicks, labelled, done, reviews))
        except OSError as error:
            raise self._refusal(error) from None

    def _cut_short(self, known: dict[str, str], on_disk: dict[str, str]) -> tuple[str, int]:
        """(class, clicks) of the change whose label file is on disk and whose clicks nobody has counted yet; ('', 0) without one.

        Turns let no more than one change be under way.
        """
        try:
            change = read_json(self.path / UNDER_WAY)
            file, digest, clicked, clicks = change["file"], change["sha256"], str(change["class"]), int(change["clicks"])
        except (OSError, ValueError, TypeError, KeyError):
            return "", 0
        is_new = known.get(file, "") != digest and on_disk.get(file, "") == digest
        return (clicked, clicks) if is_new else ("", 0)

    def _refusal(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: clicks cannot be saved ({error.strerror}); free some space or check rights")


def _text_of(record: SparseRecord) -> bytes:
    """A line a field, each value as JSON, which is YAML too and written in a hundredth of the time."""
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in vars(record).items()).encode()


def _identity(path: Path) -> tuple[int, int]:
    """Which file lies at a path: it is another one after every replacement; zeros where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
