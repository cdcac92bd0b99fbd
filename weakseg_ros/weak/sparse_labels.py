# SPDX-License-Identifier: Apache-2.0
"""Sparse labels on disk, drawn or clicked, as every training reads them.

`DATA/sparse/<protocol>-<ratio>-s<seed>/` holds one label file per scan in raw ids (0 = none; objects clicked per
instance keep their instance id), and `sparse.yaml`, which says what was drawn from which data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import from_mapping
from weakseg_ros.data.findings import some
from weakseg_ros.data.scan_files import content_hash, read_raw_labels
from weakseg_ros.data.scan_sets import ChangedScans, Scan, ScanSet, Subset
from weakseg_ros.data.side_files import say_once
from weakseg_ros.errors import ConfigError, DataError, counted
from weakseg_ros.files import (
    inside,
    sha256_of,
)
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import AnyLabels, LabelClass, LabelMap, instances_in
from weakseg_ros.weak.changed_map import OtherClassesError, follow, in_todays_raw_ids
from weakseg_ros.weak.protocols import SparseConfig
from weakseg_ros.yaml_files import read_yaml

RECORD = "sparse.yaml"
RECORD_VERSION = 1
UNFINISHED = "version: 0\n"
"""what the record says while a draw is moved into a folder that has to stay, such as a mount point"""


@dataclass(frozen=True)
class SparseRecord:
    """What `sparse.yaml` holds."""

    version: int
    draw: SparseConfig | None
    """how they were drawn; null for clicks made by a person"""
    data: str
    """name of the data set"""
    data_hash: str
    """content hash of the data as they were opened for the draw"""
    labels: str
    """name of the label map"""
    points: int
    """usable points in all scans"""
    clicks: int
    labelled_points: int
    clicks_per_class: dict[str, int]
    points_per_class: dict[str, int]
    """labelled points, which with propagation are more than the clicks"""
    content_hash: str
    """over the label files"""
    positions: dict[str, str]
    """by scan, the hash of the points that its labels belong to; empty where the scan could not be read"""
    files: dict[str, str]
    """by file, its sha256"""
    problems: tuple[str, ...]
    """one sentence for each scan that could not be read"""
    environment: dict[str, str]
    done: tuple[str, ...] = ()
    """scans that the person who clicks has finished"""
    raw_ids: dict[str, int] = field(default_factory=dict)
    """by class, the raw id that means it in the label files; empty in records of older versions"""
    reviews: dict[str, str] = field(default_factory=dict)
    """scans that another person has checked: 'accepted' or 'rejected'; nothing is learnt from rejected ones"""


class _Clicked(NamedTuple):
    """The raw labels of one scan, in the little room that clicks need."""

    points: int
    at: NDArray[np.int64]
    raw: NDArray[np.uint32]

    @classmethod
    def of(cls, raw: NDArray[np.uint32]) -> _Clicked:
        at = np.flatnonzero(raw)
        return cls(len(raw), at, raw[at])

    def dense(self) -> NDArray[np.uint32]:
        raw = np.zeros(self.points, np.uint32)
        raw[self.at] = self.raw
        return raw


class SparseLabels:
    """Stored sparse labels, opened for the scans they were drawn from or for some of them, in the classes of those scans.

    Drawn ones are read from disk when they are asked for. Clicks, which grow while they are learnt from, stay as they
    were when they were opened.
    """

    def __init__(self, folder: Path, record: SparseRecord, scans: ScanSet, clicked: Mapping[str, _Clicked] | None = None) -> None:
        self.folder, self.record = folder, record
        self._keys, self._labels = tuple(scans.keys), scans.labels
        self._clicked = dict(clicked or {})
        self._raw_now = _raw_ids_for(folder, record, scans.labels)

    @classmethod
    def load(cls, folder: Path, scans: ScanSet) -> SparseLabels:
        """Open the labels in `folder` for a data set, or for a split or subset of it.

        Raises DataError where the scans are not those that the labels were drawn from, where a label file was changed
        since, and where their classes cannot be found in the map of the scans; ConfigError where the folder holds no sparse
        labels.
        """
        record = read_record(folder)
        clicked: dict[str, _Clicked] = {}
        for name, digest in record.files.items():
            path = inside(folder, name)
            if record.draw is None:
                clicked[name.removesuffix(".label")] = _read_clicked(path, digest)
            elif not path.is_file() or sha256_of(path) != digest:
                raise DataError(f"{path}: is missing or was changed since it was drawn; draw the labels again")
        sparse = cls(folder, record, scans, clicked)
        sparse._check_data(scans)
        return sparse

    @property
    def content_hash(self) -> str:
        """Over all label files."""
        return self.record.content_hash

    def __len__(self) -> int:
        return len(self._keys)

    def class_id(self, index: int) -> NDArray[np.uint8]:
        """(N,) sparse class ids of a scan, 0 = none."""
        return self._labels.to_class(self._raw(index))

    def instance_id(self, index: int) -> NDArray[np.uint16]:
        """(N,) instances of the clicked objects, 0 = none; all 0 unless they were drawn per instance."""
        return instances_in(self._raw(index))

    def check_scan(self, scan: Scan) -> None:
        """Raise DataError where the points of a scan are not those that its labels were drawn for."""
        if self.record.positions.get(scan.key) != hash_of_points(scan.cloud):
            fault = f"scan '{scan.key}' is not the one that was labelled here, from '{self.record.data}'"
            raise DataError(f"{self.folder}: {fault}; draw the labels again")

    def _check_data(self, scans: ScanSet) -> None:
        strangers = [key for key in self._keys if key not in self.record.positions]
        if strangers:
            drawn_from = f"was drawn from '{self.record.data}', which has no scan '{strangers[0]}' as '{scans.name}' has"
            whole = next((key for key in self.record.positions if key.endswith(f"/{strangers[0]}")), None)
            part = "" if whole is None else f" alone: weakseg sparse DATA --split {whole.removesuffix(strangers[0])[:-1]}"
            raise DataError(f"{self.folder}: {drawn_from}; draw labels from the data to train on{part}")
        first = next((i for i, key in enumerate(self._keys) if self.record.positions[key]), None)
        if first is not None:
            self.check_scan(scans[first])

    def _raw(self, index: int) -> NDArray[np.uint32]:
        path = self.folder / f"{self._keys[index]}.label"
        if self._keys[index] in self._clicked:
            stored = self._clicked[self._keys[index]].dense()
        elif path.is_file():
            stored = read_raw_labels(path, path.stat().st_size // 4)
        else:
            raise DataError(
                f"{path}: does not exist, because the scan could not be read when the labels were drawn; leave the scan out"
            )
        raw = in_todays_raw_ids(stored, self._raw_now)
        self._labels.refuse_unknown(raw, str(path))
        return raw


def _raw_ids_for(folder: Path, record: SparseRecord, labels: LabelMap) -> dict[int, int]:
    """By the raw id in label files that `labels` does not list, the one that means the same class in it, 0 = it has none."""
    if not record.raw_ids or record.raw_ids == raw_ids_of(labels):
        return {}
    advice = "give the map that the labels were made with, which is --label-map of 'weakseg train'"
    if record.draw is not None:
        advice += ", or draw them again with 'weakseg sparse'"
    followed = follow(record, labels, str(folder), advice)
    where = f"{folder}: made with the label map '{record.labels}'"
    untold = [name for name in labels.names[1:] if name not in followed.name_now.values()]  # a draw writes one raw id a class
    if record.draw is not None and untold:
        raise OtherClassesError(f"{where}, in which the classes {some(untold)} of '{labels.name}' are part of others", advice)
    if followed.gone:
        lost = "; ".join(followed.gone.values())
        say_once(f"{where}; the map '{labels.name}' does not have these classes, so their labels are left out: {lost}")
    renamed = [f"'{old}' is '{new}'" for old, new in followed.name_now.items() if old != new and record.points_per_class[old]]
    if renamed:
        say_once(f"{where}; in the map '{labels.name}', by their raw ids, {some(renamed)}")
    return followed.raw_now | {record.raw_ids[name]: 0 for name in followed.gone}


class SparseScans(ChangedScans):
    """A data set seen through its sparse labels: the same scans, with class ids only where something was clicked."""

    def __init__(self, scans: ScanSet, sparse: SparseLabels) -> None:
        super().__init__(scans)
        self._sparse = sparse
        drawn = sparse.record.draw.folder_name if sparse.record.draw else sparse.folder.name
        self.name = f"{scans.name} ({drawn})"

    @property
    def content_hash(self) -> str:
        return content_hash({"scans": self._scans.content_hash, "sparse": self._sparse.content_hash})

    def changed(self, scan: Scan, index: int) -> Scan:
        self._sparse.check_scan(scan)
        return Scan(scan.key, scan.cloud, self._sparse.class_id(index), self._sparse.instance_id(index), scan.pose)


def _read_clicked(path: Path, digest: str) -> _Clicked:
    """The clicks of one scan, from the very bytes that are compared with the record's hash."""
    content = path.read_bytes() if path.is_file() else b""
    if not content or len(content) % 4 or hashlib.sha256(content).hexdigest() != digest:
        hint = "open the folder with 'weakseg label', which counts them again, and start again"
        raise DataError(f"{path}: is missing or was changed since its clicks were counted; {hint}")
    return _Clicked.of(np.frombuffer(content, "<u4"))


def read_record(folder: Path) -> SparseRecord:
    """What lies in a folder of sparse labels; ConfigError where there are none, DataError for another version of them."""
    if not (folder / RECORD).is_file():
        raise ConfigError(f"{folder}: holds no sparse labels ({RECORD} is missing){_near(folder)}")
    content = read_yaml(folder / RECORD)
    version = content.get("version") if isinstance(content, dict) else None
    if version != RECORD_VERSION:
        raise DataError(
            f"{folder / RECORD}: has version {version}, but this program reads {RECORD_VERSION}; draw the labels again"
        )
    return from_mapping(SparseRecord, content, str(folder / RECORD))


def _near(folder: Path) -> str:
    """The folders below that hold sparse labels, or what makes some, as the end of a sentence."""
    found = [below.parent.name for below in sorted(folder.glob(f"*/{RECORD}"))]
    return f"; name one of those in it: {some(found)}" if found else "; 'weakseg sparse' draws some, 'weakseg label' takes clicks"


class PartlyLabelled(ChangedScans):
    """All scans of a data set of which only some have labels, by the number that each of those has in it."""

    def __init__(self, scans: ScanSet, labelled: ScanSet, numbers: Sequence[int]) -> None:
        super().__init__(scans)
        self._labelled, self._place = labelled, {number: place for place, number in enumerate(numbers)}
        self.name = labelled.name

    @property
    def content_hash(self) -> str:
        return content_hash({"scans": self._scans.content_hash, "labelled": self._labelled.content_hash})

    def __getitem__(self, index: int) -> Scan:
        place = self._place.get(index % len(self))
        return super().__getitem__(index) if place is None else self._labelled[place]

    def changed(self, scan: Scan, index: int) -> Scan:
        return replace(scan, class_id=np.zeros(len(scan.cloud), np.uint8), instance_id=None)


def sparse_scans(scans: ScanSet, folder: Path, unlabelled: bool = False) -> ScanSet:
    """A data set seen through the sparse labels in `folder`; where a person clicked them, only the scans with a click.

    With `unlabelled` the scans without a click stay, without labels: for labels that are propagated to them. Raises what
    `SparseLabels.load` raises, and DataError where no scan of the data set was clicked.
    """
    record = read_record(folder)
    if record.draw is None:
        rejected = {key for key, word in record.reviews.items() if word == "rejected"}
        clicked = [i for i, key in enumerate(scans.keys) if key in record.positions and key not in rejected]
        if not clicked and rejected & set(scans.keys):
            count = counted(len(rejected & set(scans.keys)), "labelled scan was", "labelled scans were")
            raise DataError(f"{folder}: {count} rejected in review, and no other one is labelled; mark them as done again")
        if not clicked:
            raise DataError(
                f"{folder}: none of the {counted(len(scans), 'scan')} of '{scans.name}' is labelled here; click some points first"
            )
        some = Subset(scans, clicked)
        labelled = SparseScans(some, SparseLabels.load(folder, some))
        return PartlyLabelled(scans, labelled, clicked) if unlabelled and len(clicked) < len(scans) else labelled
    return SparseScans(scans, SparseLabels.load(folder, scans))


def raw_ids_of(labels: LabelMap) -> dict[str, int]:
    """By class name, the raw id that is written for it."""
    return {row.name: row.raw_ids[0] for row in labels.classes[1:]}


def classes_of(record: SparseRecord) -> LabelMap:
    """The classes that labels were made with, as far as their record tells of them: names and raw ids."""
    black = (0, 0, 0)
    rows = (LabelClass(i, name, black, False, (raw,)) for i, (name, raw) in enumerate(record.raw_ids.items(), 1))
    return AnyLabels(record.labels, (LabelClass(0, "unlabelled", black, False, (0,)), *rows))


def hash_of_points(cloud: Cloud) -> str:
    """Hex SHA-256 over the positions of a cloud: whether labels belong to it."""
    return hashlib.sha256(np.ascontiguousarray(cloud.xyz).tobytes()).hexdigest()


def is_clicked(folder: Path) -> bool:
    """Whether a folder with a record of sparse labels holds clicks of a person, not a draw."""
    content = read_yaml(folder / RECORD)
    return isinstance(content, dict) and content.get("version") == RECORD_VERSION and content.get("draw") is None


def is_unfinished(folder: Path) -> bool:
    """Whether a draw was cut short in the folder, by this version or an earlier one."""
    record = folder / RECORD
    return record.is_file() and record.read_text(encoding="utf-8", errors="replace") == UNFINISHED
