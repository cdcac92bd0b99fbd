# SPDX-License-Identifier: Apache-2.0
"""`weakseg sparse`: sparse labels drawn once from dense ones with a seed, and stored with hash and counts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from weakseg_ros.config import dump_yaml, parse, setting
from weakseg_ros.data.scan_files import content_hash, write_raw_labels
from weakseg_ros.data.scan_sets import Scan, ScanSet, readable
from weakseg_ros.data.scans import open_scans
from weakseg_ros.environment import environment
from weakseg_ros.errors import DISK_FULL, DataError, counted, say
from weakseg_ros.files import cannot_be_replaced, content_of, inside, move_into, put_in_place, staged, write_atomic
from weakseg_ros.half_written import is_ours
from weakseg_ros.points.labels import LabelMap, pack_raw
from weakseg_ros.progress import Progress
from weakseg_ros.weak.propagate import PropagatedScans, PropagateSettings
from weakseg_ros.weak.propagated_share import measure_propagated
from weakseg_ros.weak.protocols import Draw, SparseConfig, draw_scan
from weakseg_ros.weak.sparse_labels import (
    RECORD,
    RECORD_VERSION,
    UNFINISHED,
    SparseLabels,
    SparseRecord,
    SparseScans,
    hash_of_points,
    is_clicked,
    is_unfinished,
    raw_ids_of,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SparseVerb:
    """Draw sparse labels from dense ones at random and store them; the same seed draws the same labels."""

    data: tyro.conf.Positional[Path]
    """Names the folder of labelled scans, in any layout that 'weakseg check' recognises."""
    draw: Annotated[SparseConfig, tyro.conf.arg(name="")] = field(default_factory=SparseConfig)
    """Sets which labels are kept."""
    split: str = ""
    """Selects the split of the data to draw from by name, for example train; an empty string means all of it."""
    label_map: str = setting("", was="labels")
    """Selects a label map, by name or as a YAML file, instead of the data's own."""
    out: Path | None = None
    """Names the folder to write; None means DATA/sparse/<protocol>-<ratio>-s<seed>."""
    overwrite: bool = False
    """Replaces the labels of an earlier draw in `out`."""
    propagate: PropagateSettings = field(default_factory=PropagateSettings, metadata={"was": "carried"})
    """Sets how the drawn labels are propagated to the scans before and after, only to report how many points that would label and
    how many of them correctly; the stored labels do not change, because a training propagates them itself."""


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
    for _, scan in Progress(readable(scans, problems), what="sparse", unit="scan", total=len(scans)):
        unlabelled += scan.class_id is None or not scan.class_id.any()
        tally.add(scan, draw_scan(scan, scans.labels, config), fresh)
    if unlabelled:
        log.info("%s: %d of the %d scans have no label to draw from", scans.name, unlabelled, len(scans))
    if not tally.points_per_class.any():
        if len(problems) == len(scans):
            raise DataError(f"{scans.name}: none of its {counted(len(scans), 'scan')} can be read; the first: {problems[0]}")
        raise DataError(f"{scans.name}: none of its {counted(len(scans), 'scan')} has a labelled point to draw; label some first")
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
    say(_summary(sparse.record))
    say(f"{folder}: sparse labels of {counted(len(scans) - len(sparse.record.problems), 'scan')}")
    if sparse.record.problems:
        say(
            f"left out: {counted(len(sparse.record.problems), 'scan')} that cannot "
            f"be read; the first: {sparse.record.problems[0]}"
        )
    if config.propagate.scans:
        say(measure_propagated(scans, PropagatedScans(SparseScans(scans, sparse), config.propagate)).summary)
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
        [
            *rows,
            f"{record.labelled_points} of {counted(record.points, 'point')} labelled "
            f"({share:.3g} %), {counted(record.clicks, 'click')}",
        ]
    )


def _check_room(folder: Path, overwrite: bool) -> None:
    """DataError where the folder holds anything but a draw that may be replaced, or one that was cut short."""
    if not content_of(folder) or is_unfinished(folder):
        return
    if not (overwrite and (folder / RECORD).is_file()):
        raise DataError(f"{folder}: is not empty; choose another folder with --out, or replace an earlier draw with --overwrite")
    strangers = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".label" and path != folder / RECORD]
    strangers = [path for path in strangers if not is_ours(path.name)]
    if strangers or is_clicked(folder):
        what = strangers[0].name if strangers else "clicks made by a person"
        raise DataError(f"{folder}: holds {what}, which 'weakseg sparse' did not draw; choose another folder with --out")
