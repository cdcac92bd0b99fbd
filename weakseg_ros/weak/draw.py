# SPDX-License-Identifier: Apache-2.0
"""Sparse labels on disk: drawn once from dense ones with a seed, stored with hash and counts, read by every training.

`DATA/sparse/<protocol>-<ratio>-s<seed>/` holds one label file per scan in raw ids (0 = none; objects clicked per
instance keep their instance id), and `sparse.yaml`, which says what was drawn from which data.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from weakseg_ros.config import dump_yaml, from_mapping, parse, read_yaml, setting
from weakseg_ros.data.scan_files import content_hash, read_raw_labels, write_raw_labels
from weakseg_ros.data.scan_sets import ChangedScans
from weakseg_ros.data.scans import Scan, ScanSet, Subset, open_scans, readable
from weakseg_ros.errors import DISK_FULL, DataError
from weakseg_ros.files import (
    cannot_be_replaced,
    content_of,
    environment,
    inside,
    is_ours,
    move_into,
    put_in_place,
    sha256_of,
    staged,
    write_atomic,
)
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap, instances_in, pack_raw
from weakseg_ros.weak.protocols import Draw, SparseConfig, draw_scan

log = logging.getLogger(__name__)

RECORD = "sparse.yaml"
RECORD_VERSION = 1
UNFINISHED = "version: 0\n"
"""what the record says while a draw is moved into a folder that has to stay, such as a mount point"""


@dataclass(frozen=True)
class SparseVerb:
    """Draw sparse labels from dense ones, once, with a seed."""

    data: tyro.conf.Positional[Path]
    """folder of labelled scans, in any layout that 'weakseg train' reads"""
    draw: Annotated[SparseConfig, tyro.conf.arg(name="")] = field(default_factory=SparseConfig)
    """which labels are kept"""
    split: str = ""
    """part of the data to draw from, as the data set calls it; empty: all of it"""
    label_map: str = setting("", was="labels")
    """label map by name or file, in place of the data's own"""
    out: Path | None = None
    """folder to write; none: DATA/sparse/<protocol>-<ratio>-s<seed>"""
    overwrite: bool = False
    """replace the labels that an earlier draw left in the folder"""


@dataclass(frozen=True)
class SparseRecord:
    """What `sparse.yaml` holds."""

    version: int
    draw: SparseConfig | None
    """how they were drawn; null for the clicks of a person"""
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
    """Stored sparse labels, opened for the scans they were drawn from or for some of them.

    Drawn ones are read from disk when they are asked for. Clicks, which grow while they are learnt from, stay as they
    were when they were opened.
    """

    def __init__(self, folder: Path, record: SparseRecord, scans: ScanSet, clicked: Mapping[str, _Clicked] | None = None) -> None:
        self.folder, self.record = folder, record
        self._keys, self._labels = tuple(scans.keys), scans.labels
        self._clicked = dict(clicked or {})

    @classmethod
    def load(cls, folder: Path, scans: ScanSet) -> SparseLabels:
        """Open the labels in `folder` for a data set, or for a split or subset of it.

        Raises DataError where the scans are not those that the labels were drawn from, and where a label file was
        changed since; ConfigError where the folder holds no sparse labels.
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
        if self._keys[index] in self._clicked:
            return self._clicked[self._keys[index]].dense()
        path = self.folder / f"{self._keys[index]}.label"
        if not path.is_file():
            raise DataError(f"{path}: there is none, as the scan could not be read when labels were drawn; leave it out")
        return read_raw_labels(path, path.stat().st_size // 4)


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
        hint = "open the folder with 'weakseg label', which counts them anew, and start again"
        raise DataError(f"{path}: is missing or was changed since its clicks were counted; {hint}")
    return _Clicked.of(np.frombuffer(content, "<u4"))


def read_record(folder: Path) -> SparseRecord:
    """What lies in a folder of sparse labels; ConfigError where there are none, DataError for another version of them."""
    content = read_yaml(folder / RECORD)
    version = content.get("version") if isinstance(content, dict) else None
    if version != RECORD_VERSION:
        raise DataError(f"{folder / RECORD}: has version {version}, this program reads {RECORD_VERSION}; draw the labels again")
    return from_mapping(SparseRecord, content, str(folder / RECORD))


def sparse_scans(scans: ScanSet, folder: Path) -> SparseScans:
    """A data set seen through the sparse labels in `folder`; where a person clicked them, only the scans with a click.

    Raises what `SparseLabels.load` raises, and DataError where no scan of the data set was clicked.
    """
    record = read_record(folder)
    if record.draw is None:
        rejected = {key for key, word in record.reviews.items() if word == "rejected"}
        clicked = [i for i, key in enumerate(scans.keys) if key in record.positions and key not in rejected]
        if not clicked:
            raise DataError(
                f"{folder}: none of the {len(scans)} scans of '{scans.name}' is labelled here; click some points first"
            )
        scans = Subset(scans, clicked)
    return SparseScans(scans, SparseLabels.load(folder, scans))


def draw_sparse(scans: ScanSet, config: SparseConfig, folder: Path, overwrite: bool = False) -> SparseLabels:
    """Draw sparse labels for every scan of a data set and store them in `folder`.

    Scans that cannot be read are left out and listed in the record. Raises DataError where no point gets a label, and
    for a folder that is not empty (`overwrite` replaces an earlier draw in it).
    """
    try:
        _check_room(folder, overwrite)
        with staged(folder, inside=cannot_be_replaced(folder)) as fresh:
            record = _draw_into(fresh, scans, config)
            _check_room(folder, overwrite)
            _publish(fresh, folder)
    except OSError as error:
        if error.errno in DISK_FULL:  # another folder would not help
            raise
        raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from None
    return SparseLabels(folder, record, scans)


def _draw_into(fresh: Path, scans: ScanSet, config: SparseConfig) -> SparseRecord:
    problems: list[str] = []
    tally, unlabelled = _Tally(scans.labels), 0
    for _, scan in tqdm(readable(scans, problems), total=len(scans), desc="sparse", unit="scan", disable=None):
        unlabelled += scan.class_id is None or not scan.class_id.any()
        tally.add(scan, draw_scan(scan, scans.labels, config), fresh)
    if unlabelled:
        log.info("%s: %d of the %d scans have no label to draw from", scans.name, unlabelled, len(scans))
    if not tally.points_per_class.any():
        raise DataError(f"{scans.name}: none of its {len(scans)} scans has a labelled point to draw; label some first")
    record = tally.record(scans, config, problems)
    write_atomic(fresh / RECORD, dump_yaml(record))
    return record


def _publish(fresh: Path, folder: Path) -> None:
    if not cannot_be_replaced(folder):
        put_in_place(fresh, folder)
        return
    write_atomic(folder / RECORD, UNFINISHED)
    for path in folder.rglob("*.label"):
        if fresh.resolve() not in path.resolve().parents:
            path.unlink()
    move_into(fresh, folder, RECORD)


def main(argv: Sequence[str]) -> int:
    """`weakseg sparse DATA`: draw, store, and say what was drawn."""
    config = parse(SparseVerb, argv, "sparse")
    scans = open_scans(config.data, config.split, config.label_map)
    folder = config.out or config.data / "sparse" / config.draw.folder_name
    sparse = draw_sparse(scans, config.draw, folder, config.overwrite)
    print(_summary(sparse.record))
    print(f"{folder}: sparse labels of {len(scans) - len(sparse.record.problems)} scans")
    if sparse.record.problems:
        print(f"left out: {len(sparse.record.problems)} scans that cannot be read; the first: {sparse.record.problems[0]}")
    return 0


class _Tally:
    """What a draw has written so far."""

    def __init__(self, labels: LabelMap) -> None:
        self.points_per_class = np.zeros(labels.num_classes, np.int64)
        self._clicks_per_class = np.zeros(labels.num_classes, np.int64)
        self._points = 0
        self._positions: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._labels = labels

    def add(self, scan: Scan, draw: Draw, folder: Path) -> None:
        """Write the labels of one scan and count them."""
        raw = self._labels.to_raw(draw.class_id).astype(np.uint32)
        if scan.instance_id is not None:
            raw[draw.objects] = pack_raw(raw[draw.objects], scan.instance_id[draw.objects])
        name = f"{scan.key}.label"
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files[name] = hashlib.sha256(write_raw_labels(path, raw)).hexdigest()
        self._positions[scan.key] = hash_of_points(scan.cloud)
        self._points += int(scan.cloud.valid.sum())
        classes = len(self.points_per_class)
        self.points_per_class += np.bincount(draw.class_id[draw.class_id > 0], minlength=classes)
        self._clicks_per_class += np.bincount(draw.class_id[draw.clicks], minlength=classes)

    def record(self, scans: ScanSet, config: SparseConfig, problems: Sequence[str]) -> SparseRecord:
        """The record of the finished draw."""
        return SparseRecord(
            version=RECORD_VERSION,
            draw=config,
            data=scans.name,
            data_hash=scans.content_hash,
            labels=self._labels.name,
            points=self._points,
            clicks=int(self._clicks_per_class.sum()),
            labelled_points=int(self.points_per_class.sum()),
            clicks_per_class=self._by_name(self._clicks_per_class),
            points_per_class=self._by_name(self.points_per_class),
            content_hash=content_hash(self._files),
            positions={key: self._positions.get(key, "") for key in scans.keys},
            files=self._files,
            problems=tuple(problems),
            environment=environment(),
            raw_ids=raw_ids_of(self._labels),
        )

    def _by_name(self, counts: NDArray[np.int64]) -> dict[str, int]:
        return {row.name: int(counts[row.id]) for row in self._labels.classes[1:]}


def _summary(record: SparseRecord) -> str:
    width = max(map(len, record.clicks_per_class))
    rows = [f"{'class':<{width}}  clicks  points"]
    rows += [
        f"{name:<{width}}  {clicks:6d}  {record.points_per_class[name]:6d}" for name, clicks in record.clicks_per_class.items()
    ]
    share = 100 * record.labelled_points / record.points
    return "\n".join(
        [*rows, f"{record.labelled_points} of {record.points} points labelled ({share:.3g} %), {record.clicks} clicks"]
    )


def raw_ids_of(labels: LabelMap) -> dict[str, int]:
    """By class name, the raw id that is written for it."""
    return {row.name: row.raw_ids[0] for row in labels.classes[1:]}


def hash_of_points(cloud: Cloud) -> str:
    """Hex SHA-256 over the positions of a cloud: whether labels belong to it."""
    return hashlib.sha256(np.ascontiguousarray(cloud.xyz).tobytes()).hexdigest()


def _check_room(folder: Path, overwrite: bool) -> None:
    """DataError where the folder holds anything but a draw that may be replaced, or one that was cut short."""
    if not content_of(folder) or is_unfinished(folder):
        return
    if not (overwrite and (folder / RECORD).is_file()):
        raise DataError(f"{folder}: is not empty; choose another folder with --out, or replace an earlier draw with --overwrite")
    strangers = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".label" and path != folder / RECORD]
    strangers = [path for path in strangers if not is_ours(path.name)]
    if strangers or _is_clicked(folder):
        what = strangers[0].name if strangers else "the clicks of a person"
        raise DataError(f"{folder}: holds {what}, which no draw has made; choose another folder with --out")


def is_unfinished(folder: Path) -> bool:
    """Whether a draw was cut short in the folder, by this version or an earlier one."""
    record = folder / RECORD
    return record.is_file() and record.read_text(encoding="utf-8", errors="replace") == UNFINISHED


def _is_clicked(folder: Path) -> bool:
    content = read_yaml(folder / RECORD)
    return isinstance(content, dict) and content.get("version") == RECORD_VERSION and content.get("draw") is None
