# SPDX-License-Identifier: Apache-2.0
"""Stored labels under another label map than they were made with: which of its classes each of them means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.findings import some
from weakseg_ros.errors import DataError, counted
from weakseg_ros.points.labels import RAW_IDS, LabelMap, raw_ids_in

if TYPE_CHECKING:
    from weakseg_ros.weak.sparse_labels import SparseRecord

NAMES_THAT_STAY = 0.5
"""share of the names that must be in the new map; where fewer are, it is another map, given by mistake"""


class OtherClassesError(DataError):
    """A map does not have the classes of the labels; `fault` says which, without what to do about it."""

    def __init__(self, fault: str, advice: str) -> None:
        super().__init__(f"{fault}; {advice}")
        self.fault = fault


class Followed(NamedTuple):
    """What became of the classes of a record."""

    name_now: dict[str, str]
    """by the name that a class was labelled under, its name now; those that are gone are missing"""
    raw_now: dict[int, int]
    """by the raw id in the label files that the map lists no more, the one that means the same class in it"""
    gone: dict[str, str]
    """the classes with labels that the map does not have, each with what that loses, in words"""


def follow(record: SparseRecord, labels: LabelMap, where: str, advice: str) -> Followed:
    """Find the classes of a record in the map of today: by raw id, or by name where that id is gone.

    Raises OtherClassesError, which ends with `advice`, where most names of clicks are other ones, and where the raw id of a
    class with labels means one class of the map and its name another: nobody can know then which of them it is.
    """
    before, now = list(record.clicks_per_class), labels.names[1:]
    kept = [name for name in before if name in now]
    if record.draw is None and len(kept) < NAMES_THAT_STAY * len(before):
        fault = f"has the classes of '{record.labels}' ({some(before)}), the map '{labels.name}' has {some(now)}"
        raise OtherClassesError(f"{where}: {fault}", advice)
    owner = {raw: row.name for row in labels.classes[1:] for raw in row.raw_ids}
    first = {row.name: row.raw_ids[0] for row in labels.classes[1:]}
    followed = Followed({}, {}, {})
    for name in before:
        raw = record.raw_ids.get(name)
        today = owner.get(raw) if raw is not None else None
        has_labels = bool(record.clicks_per_class[name] or record.points_per_class[name])
        if has_labels and today not in (None, name):
            other = _other_meaning(name, str(today), record.raw_ids, owner, first)
            if other:
                fault = f"{where}: raw id {raw} is '{name}' in these labels and '{today}' in the map '{labels.name}', {other}"
                raise OtherClassesError(fault, advice)
        if today is None and name in first:
            today = name
            if raw is not None:
                followed.raw_now[raw] = first[name]
        if today is not None:
            followed.name_now[name] = today
        elif has_labels:
            followed.gone[name] = f"'{name}' (raw id {raw}, {counted(record.points_per_class[name], 'point')} labelled)"
    return followed


def _other_meaning(name: str, today: str, raw_ids: Mapping[str, int], owner: Mapping[int, str], first: Mapping[str, int]) -> str:
    """Why a class is not simply one that was renamed, where its raw id is that of `today` in the map; nothing where it is."""
    if name in first:
        return f"which has another '{name}' (raw id {first[name]})"
    if today in raw_ids and owner.get(raw_ids[today]) != today:
        return f"while '{today}' is raw id {raw_ids[today]} in these labels"
    return ""


def in_todays_raw_ids(raw: NDArray[np.uint32], raw_now: Mapping[int, int]) -> NDArray[np.uint32]:
    """Raw labels (N,) with other raw ids where `raw_now` names them; instances stay, but for labels that go (0)."""
    if not raw_now:
        return raw
    table = np.arange(RAW_IDS, dtype=np.uint32)
    table[list(raw_now)] = list(raw_now.values())
    now = table[raw_ids_in(raw)]
    return np.where(now > 0, raw - raw % RAW_IDS + now, 0).astype(np.uint32)
