# SPDX-License-Identifier: Apache-2.0
"""A label map that changes while people label: which of its classes are those that were clicked before."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weakseg_ros.data.scan_files import content_hash, write_raw_labels
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import inside
from weakseg_ros.points.labels import RAW_IDS, LabelMap
from weakseg_ros.weak.sparse_labels import SparseRecord, raw_ids_of

NAMES_THAT_STAY = 0.5
"""share of the names that must be in the new map; where fewer are, it is another map, given by mistake"""


class OtherClassesError(DataError):
    """A map lacks classes that were clicked; `fault` says which, without what to do about it."""

    def __init__(self, fault: str, advice: str) -> None:
        super().__init__(f"{fault}; {advice}")
        self.fault = fault


class Followed(NamedTuple):
    """What became of the classes of a record."""

    name_now: dict[str, str]
    """by the name that a class was clicked under, its name now; those that are gone are missing"""
    raw_now: dict[int, int]
    """by the raw id in the label files that the map lists no more, the one to write in its place"""
    sentence: str
    """what is different, for the user; empty where nothing is"""


def follow(record: SparseRecord, labels: LabelMap, where: str) -> Followed:
    """Find the clicked classes of a record in the map of today: by raw id, or by name where that id is gone.

    Raises OtherClassesError where a class with clicks or labels is not in the map, or most of the names are other ones.
    """
    before, now = list(record.clicks_per_class), labels.names[1:]
    kept = [name for name in before if name in now]
    if len(kept) < NAMES_THAT_STAY * len(before):
        fault = f"has the classes of '{record.labels}' ({_some(before)}), the map '{labels.name}' has {_some(list(now))}"
        raise OtherClassesError(f"{where}: {fault}", "use the map of the clicks with --label-map, or another --name")
    owner = {raw: row.name for row in labels.classes[1:] for raw in row.raw_ids}
    first = {row.name: row.raw_ids[0] for row in labels.classes[1:]}
    name_now: dict[str, str] = {}
    raw_now: dict[int, int] = {}
    for name in before:
        raw = record.raw_ids.get(name)
        today = owner.get(raw) if raw is not None else None
        if today is None and name in first:
            today = name
            if raw is not None:
                raw_now[raw] = first[name]
        if today is not None:
            name_now[name] = today
        elif record.clicks_per_class[name] or record.points_per_class[name]:
            was = f"'{name}' (raw id {raw}, {counted(record.points_per_class[name], 'point')} labelled)"
            fault = f"{where}: the map '{labels.name}' has no class {was}"
            raise OtherClassesError(fault, "put it back, or label under another --name")
    return Followed(name_now, raw_now, _sentence(before, name_now, raw_now, labels, where))


def brought_to(folder: Path, record: SparseRecord, labels: LabelMap) -> tuple[SparseRecord, str]:
    """(record in the classes of `labels`, what is different); label files in `folder` with raw ids that are gone are rewritten.

    Raises what `follow` raises, and OSError where a file cannot be written.
    """
    ours = raw_ids_of(labels)
    if list(record.clicks_per_class) == list(ours) and record.raw_ids in ({}, ours):
        return dataclasses.replace(record, raw_ids=ours), ""
    followed = follow(record, labels, str(folder))
    files = {name: _rewritten(folder, name, digest, followed.raw_now) for name, digest in record.files.items()}
    changed = dataclasses.replace(
        record,
        labels=labels.name,
        clicks_per_class=_summed(record.clicks_per_class, followed, labels),
        points_per_class=_summed(record.points_per_class, followed, labels),
        files=files,
        content_hash=content_hash(files),
        raw_ids=ours,
    )
    return changed, followed.sentence


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
    table = np.arange(RAW_IDS, dtype=np.uint32)
    table[list(raw_now)] = list(raw_now.values())
    fresh = raw - raw % RAW_IDS + table[raw % RAW_IDS]
    return digest if np.array_equal(fresh, raw) else hashlib.sha256(write_raw_labels(file, fresh)).hexdigest()


def _sentence(before: list[str], name_now: Mapping[str, str], raw_now: Mapping[int, int], labels: LabelMap, where: str) -> str:
    fresh = [name for name in labels.names[1:] if name not in name_now.values()]
    renamed = [f"'{old}' is '{new}' now" for old, new in name_now.items() if old != new]
    gone = [name for name in before if name not in name_now]
    parts = [f"new: {_some(fresh)}"] if fresh else []
    parts += renamed
    parts += [f"raw id {old} is written as {new} now" for old, new in raw_now.items()]
    parts += [f"gone, and never clicked: {_some(gone)}"] if gone else []
    return f"{where}: the label map has changed ({'; '.join(parts)}); clicks and done marks are kept" if parts else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
