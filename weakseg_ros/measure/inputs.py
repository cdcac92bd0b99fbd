# SPDX-License-Identifier: Apache-2.0
"""What is evaluated: a bag or a folder of scans, one after the other, with truth in the bundle's own classes."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.bag_cursor import BagCursor
from weakseg_ros.data.bag_files import is_bag
from weakseg_ros.data.bags import RawMessage, find_cloud_topic, list_topics, read_raw
from weakseg_ros.data.places import PLACE_TYPES, Place, place_of
from weakseg_ros.data.scan_files import own_files, read_raw_labels
from weakseg_ros.data.scan_sets import Scan, readable
from weakseg_ros.data.scans import open_scans
from weakseg_ros.data.side_files import say_once
from weakseg_ros.errors import CloudError, DataError, counted
from weakseg_ros.files import sha256_of, sha256_of_parts
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.labels import NO_LABELS, LabelMap, instances_in
from weakseg_ros.points.matched_labels import in_data_of
from weakseg_ros.points.reading import as_asked, read_message


@dataclass(frozen=True)
class Item:
    """One scan to evaluate."""

    index: int
    key: str
    cloud: Cloud
    truth: NDArray[np.uint8] | None
    """(N,) the bundle's class ids, 0 = unknown; None where the scan has no labels"""
    truth_instance: NDArray[np.uint16] | None = None
    """(N,) number of the object, 0 = none or not known; None where the scan has no labels"""
    serialized: bytes = b""
    """the message it was decoded from; empty for scans from a folder"""
    decode_ms: float = 0.0
    place: Place | None = None
    """where the robot was, as far as the data tell"""

    @property
    def recording(self) -> str:
        """Name of the recording that the scan follows others in; empty where there is only one."""
        return self.key.rpartition("/")[0]


class Input(Protocol):
    """A sequence of items that is read once; `content_hash` and `problems` are complete when it has been read."""

    name: str
    topic: str
    notes: list[str]
    problems: list[str]
    """one sentence for each scan that was left out because it cannot be read"""
    shared: frozenset[int]
    """class ids of the bundle that the labels can name"""

    @property
    def content_hash(self) -> str:
        """Changes where the data change."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Item]:
        """DataError, after what could be read, where the data are damaged."""

    def item(self, index: int) -> Item:
        """One item alone, in any order; DataError or CloudError where it cannot be read, IndexError past the end."""


def open_input(
    path: Path,
    labels: LabelMap,
    topic: str = "",
    split: str = "",
    label_folder: Path | None = None,
    reading: InputSettings | None = None,
    label_map: str = "",
) -> Input:
    """A bag (file or folder, as `bag_files.is_bag` says) or any folder of scans that `data.scans` knows.

    `label_folder` holds one .label file per scan, in order, for a bag or in place of the folder's own; `label_map`, a name or
    a YAML file, lists the raw ids of the label files in place of the data's own map; `reading` says how clouds are taken in.
    With `labels` NO_LABELS the labels of a folder do not matter, whatever they are. Raises DataError.
    """
    settings = reading or InputSettings()
    if is_bag(path):
        return BagInput(path, labels, topic, label_folder, settings, label_map)
    if topic:
        raise DataError(f"{path}: a folder of scans has no topics; leave --topic out")
    if settings.intensity_field not in ("auto", "", "intensity"):
        raise DataError(
            f"{path}: a folder of scans has one intensity and no field '{settings.intensity_field}'; "
            "leave --intensity-field out, or give '' to feed zeros"
        )
    return ScanInput(path, labels, split, label_folder, settings, label_map)


def open_inputs(paths: Sequence[Path], open_one: Callable[[Path], Input]) -> tuple[list[Input], list[str]]:
    """Those of some data that can be opened, and one sentence for each of the others; DataError where none can."""
    inputs: list[Input] = []
    problems: list[DataError] = []
    for path in paths:
        try:
            inputs.append(open_one(path))
        except DataError as error:
            problems.append(error)
    if not inputs:
        raise problems[0]
    return inputs, list(map(str, problems))


class BagInput:
    """The clouds of one topic of a bag, straight from the file, so that every one of them counts."""

    def __init__(
        self, path: Path, labels: LabelMap, topic: str, label_folder: Path | None, reading: InputSettings, label_map: str
    ) -> None:
        self.name = path.stem or path.name
        self.topic, _, self._count = find_cloud_topic(path, topic)
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.shared = frozenset(range(1, labels.num_classes)) if label_folder else frozenset()
        self._path, self._reading = path, reading
        self._truth = _TruthFiles(label_folder, labels, label_map, self.notes, self._count) if label_folder else None
        self._digest = hashlib.sha256()
        self._cursor = BagCursor(path, self.topic)
        self._place: Place | None = None

    @property
    def content_hash(self) -> str:
        return self._digest.hexdigest()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        for index, message in enumerate(read_raw(self._path, self.topic, beside=self._places())):
            self._digest.update(message.stamp_ns.to_bytes(8, "little", signed=True) + message.data)
            try:
                item = self._item(index, message)
            except CloudError as error:
                self.problems.append(f"message {index}: {error}")
                continue
            yield dataclasses.replace(item, place=self._place)

    def _places(self) -> dict[str, Callable[[bytes], None]]:
        """The best topic of the bag that tells where the robot is, if any."""
        topics = [topic for topic in list_topics(self._path) if topic.msgtype in PLACE_TYPES]
        best = min(topics, key=lambda topic: list(PLACE_TYPES).index(topic.msgtype), default=None)
        return {} if best is None else {best.name: partial(self._note_place, best.msgtype)}

    def _note_place(self, kind: str, data: bytes) -> None:
        self._place = place_of(kind, data) or self._place

    def item(self, index: int) -> Item:
        return self._item(index, self._cursor.at(index))

    def _item(self, index: int, message: RawMessage) -> Item:
        begin, data = time.perf_counter(), message.data
        cloud = read_message(data, self._reading)
        decode_ms = (time.perf_counter() - begin) * 1e3
        if self._truth is None:
            return Item(index, f"{index:06d}", cloud, None, None, data, decode_ms)
        if index not in self._truth.file_of:
            raise DataError(
                f"{self._path}: has more clouds than label files ({len(self._truth.files)}), none for message {index}; "
                "label all of them"
            )
        if message.follows_gap:
            raise DataError(
                f"{self._path}: clouds before message {index} are lost, so which label file belongs to it is not known; "
                "leave the label files out, or record or copy the bag again"
            )
        return Item(index, f"{index:06d}", cloud, *self._truth.read(index, len(cloud)), data, decode_ms)


class ScanInput:
    """A folder of scans; labels of another map come over as `in_data_of` says."""

    def __init__(
        self, path: Path, labels: LabelMap, split: str, label_folder: Path | None, reading: InputSettings, label_map: str
    ) -> None:
        self.shared, self.notes = frozenset[int](), list[str]()
        if labels is NO_LABELS:
            self._scans = open_scans(path, split, labels=NO_LABELS)
        else:
            native = open_scans(path, split, label_map or None).labels
            matched, assumed = in_data_of(labels, native)
            self._scans = open_scans(path, split, labels=matched)
            self.shared, self.notes = _shared(matched, native, str(path))
            self.notes += assumed
            for sentence in assumed:
                say_once(f"{path}: {sentence}")
        self.name, self.topic = self._scans.name, ""
        self.problems: list[str] = []
        self._reading = reading
        self._truth = _TruthFiles(label_folder, labels, label_map, self.notes, len(self._scans)) if label_folder else None
        if self._truth and len(self._truth.files) != len(self._scans):
            raise DataError(
                f"{label_folder}: holds {counted(len(self._truth.files), 'label file')} for "
                f"{counted(len(self._scans), 'scan')}; one each is required"
            )

    @property
    def content_hash(self) -> str:
        if self._truth is None:
            return self._scans.content_hash
        return sha256_of_parts([self._scans.content_hash, *map(sha256_of, self._truth.files)])

    def __len__(self) -> int:
        return len(self._scans)

    def __iter__(self) -> Iterator[Item]:
        for index, scan in readable(self._scans, self.problems):
            yield self._item(index, scan)

    def item(self, index: int) -> Item:
        return self._item(index, self._scans[index])

    def _item(self, index: int, scan: Scan) -> Item:
        truth = scan.class_id, scan.instance_id
        if self._truth is not None:
            truth = self._truth.read(index, len(scan.cloud))
        place = None if scan.pose is None else Place(float(scan.pose[0, 3]), float(scan.pose[1, 3]), False)
        return Item(index, scan.key, as_asked(scan.cloud, self._reading), *truth, place=place)


class _TruthFiles:
    """One label file for each of `count` scans; the raw ids that the map does not list are named in one of the `notes`.

    Files belong to the scans in order, or by the numbers that they have for names where some scans have none, as `weakseg
    predict` leaves them out that it cannot read.
    """

    def __init__(self, folder: Path, labels: LabelMap, label_map: str, notes: list[str], count: int) -> None:
        self.files = own_files(folder.glob("*.label")) or own_files(folder.glob("*.npy"))
        if not self.files:
            raise DataError(f"{folder}: holds no .label or .npy file; give the folder that holds one per scan")
        self.file_of = dict(zip(numbers_of(self.files, count), self.files, strict=True))
        self._labels, assumed = in_data_of(labels, LabelMap.load(label_map)) if label_map else (labels, [])
        self._notes = notes
        notes += assumed
        self._strange: set[int] = set()

    def read(self, index: int, points: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """(class ids, numbers of the objects) of a scan with so many points."""
        raw = read_raw_labels(self.file_of[index], points)
        before = self._note()
        self._strange.update(self._labels.unknown_raw_ids(raw))
        if (now := self._note()) != before:
            self._notes[:] = [*(note for note in self._notes if note != before), now]
        return self._labels.to_class(raw), instances_in(raw)

    def _note(self) -> str:
        listed = ", ".join(map(str, sorted(self._strange)[:5])) + (", ..." if len(self._strange) > 5 else "")
        return f"points with the raw ids {listed} are not counted: label map '{self._labels.name}' does not list them"


def numbers_of(files: Sequence[Path], count: int) -> list[int]:
    """The number of the scan that each of some label files belongs to, out of `count` scans."""
    in_order = list(range(len(files)))
    named = [int(file.stem) for file in files if file.stem.isdecimal()]
    has_gaps = named != in_order and len(set(named)) == len(files) < count and max(named) < count
    is_from_one = named == [number + 1 for number in in_order] and max(named) < count - 1
    return named if has_gaps and not is_from_one else in_order


def _shared(labels: LabelMap, native: LabelMap, where: str) -> tuple[frozenset[int], list[str]]:
    """Class ids of the bundle that the data's classes reach, and what falls by the wayside."""
    reached = labels.to_class(native.to_raw(np.arange(native.num_classes)))
    shared = frozenset(int(k) for k in reached if k)
    if not shared:
        theirs, ours = ", ".join(native.names[1:]), ", ".join(labels.names[1:])
        raise DataError(
            f"{where}: its classes ({theirs}) and the bundle's ({ours}) share neither raw id nor name; give the label maps "
            "common raw_ids, or use a bundle trained for these classes"
        )
    lost = [native.names[k] for k in range(1, native.num_classes) if not reached[k]]
    unasked = [labels.names[k] for k in range(1, labels.num_classes) if k not in shared]
    notes = [f"points labelled {', '.join(lost)} are not counted: the model has no such class"] if lost else []
    notes += [f"the data do not label {', '.join(unasked)}: not part of the mIoU"] if unasked else []
    return shared, notes
