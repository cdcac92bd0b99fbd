# SPDX-License-Identifier: Apache-2.0
"""A label map that changes while people label: clicks and their record are brought to its classes of today."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weakseg_ros.data.findings import some
from weakseg_ros.data.scan_files import content_hash, write_raw_labels
from weakseg_ros.files import inside
from weakseg_ros.improve.label.changes import CHANGES, LabelChange, rewrite
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.changed_map import Followed, OtherClassesError, follow, in_todays_raw_ids
from weakseg_ros.weak.sparse_labels import SparseRecord, raw_ids_of

ADVICE = "use the map of the clicks with --label-map, or another --name"


def brought_to(folder: Path, record: SparseRecord, labels: LabelMap) -> tuple[SparseRecord, str]:
    """(record in the classes of `labels`, what is different); raw ids that are gone are rewritten in `folder`, in its label
    files and in the changes that can be taken back.

    Raises OtherClassesError where a class with labels is not in the map or cannot be told, and OSError where a file cannot
    be written.
    """
    ours = raw_ids_of(labels)
    if list(record.clicks_per_class) == list(ours) and record.raw_ids in ({}, ours):
        return dataclasses.replace(record, raw_ids=ours), ""
    followed = follow(record, labels, str(folder), ADVICE)
    if followed.gone:
        lost = next(iter(followed.gone.values()))
        fault = f"{folder}: the map '{labels.name}' has no class {lost}"
        raise OtherClassesError(fault, "put it back, or label under another --name")
    files = {name: _rewritten(folder, name, digest, followed.raw_now) for name, digest in record.files.items()}
    rewrite(folder / CHANGES, lambda change: _followed(change, followed, labels))
    changed = dataclasses.replace(
        record,
        labels=labels.name,
        clicks_per_class=_summed(record.clicks_per_class, followed, labels),
        points_per_class=_summed(record.points_per_class, followed, labels),
        files=files,
        content_hash=content_hash(files),
        raw_ids=ours,
    )
    return changed, _sentence(record, followed, labels, str(folder))


def _summed(counts: Mapping[str, int], followed: Followed, labels: LabelMap) -> dict[str, int]:
    """Counts by the names of before as counts by the names of today; classes that became one are added up."""
    total = dict.fromkeys(labels.names[1:], 0)
    for name, today in followed.name_now.items():
        total[today] += counts[name]
    return total


def _rewritten(folder: Path, name: str, digest: str, raw_now: Mapping[int, int]) -> str:
    """Write other raw ids into a label file where it holds such; returns its sha256."""
    file = inside(folder, name)
    if not raw_now or not file.is_file():
        return digest
    raw = np.fromfile(file, "<u4")
    fresh = in_todays_raw_ids(raw, raw_now)
    return digest if np.array_equal(fresh, raw) else hashlib.sha256(write_raw_labels(file, fresh)).hexdigest()


def _followed(change: LabelChange, followed: Followed, labels: LabelMap) -> LabelChange:
    """A change as it would have been with the map of today; labels of classes that are gone are none."""
    before, after = (in_todays_raw_ids(raw, followed.raw_now) for raw in (change.before, change.after))
    before, after = (np.where(labels.to_class(raw) > 0, raw, 0).astype(np.uint32) for raw in (before, after))
    same = change.clicked if change.clicked in labels.names else ""
    return change._replace(before=before, after=after, clicked=followed.name_now.get(change.clicked, same))


def _sentence(record: SparseRecord, followed: Followed, labels: LabelMap, where: str) -> str:
    """What is different, for the user; empty where nothing is."""
    name_now = followed.name_now
    fresh = [name for name in labels.names[1:] if name not in name_now.values()]
    gone = [name for name in record.clicks_per_class if name not in name_now]
    parts = [f"new: {some(fresh)}"] if fresh else []
    parts += [f"'{old}' is '{new}' now" for old, new in name_now.items() if old != new]
    parts += [f"raw id {old} is written as {new} now" for old, new in followed.raw_now.items()]
    parts += [f"gone, and never clicked: {some(gone)}"] if gone else []
    return f"{where}: the label map has changed ({'; '.join(parts)}); clicks and done marks are kept" if parts else ""
