# SPDX-License-Identifier: Apache-2.0
"""How a recording went from its beginning to its end: how sure the model was, when and where, and which clouds are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.places import Place
from weakseg_ros.deploy.segmentation import Segmentation

STRETCHES = 64
"""a recording is told in at most so many parts, however long it is"""
GAP = 1.5
"""of the usual time between two clouds, from which on one is missing"""


@dataclass
class _Stretch:
    """Sums over neighbouring scans."""

    stamp_ns: int
    scans: int = 0
    points: int = 0
    uncertainty: float = 0.0
    labelled: int = 0
    right: int = 0
    milliseconds: float = 0.0
    places: int = 0
    x_m: float = 0.0
    y_m: float = 0.0
    is_global: bool = False


class Course:
    """The stretches of a recording of about `scans` clouds, and the times of its clouds."""

    def __init__(self, scans: int) -> None:
        self._expected = max(1, scans)
        self._stretches: dict[int, _Stretch] = {}
        self._stamps: list[int] = []

    def add(self, index: int, stamp_ns: int, place: Place | None, answer: Segmentation, truth: NDArray[np.uint8] | None) -> None:
        """Count scan number `index`; `truth` (N,) are class ids, 0 = unknown."""
        self._stamps.append(stamp_ns)
        number = min(STRETCHES - 1, index * STRETCHES // self._expected)
        part = self._stretches.setdefault(number, _Stretch(stamp_ns))
        known = answer.class_id > 0
        part.scans += 1
        part.points += int(np.count_nonzero(known))
        part.uncertainty += float(answer.uncertainty[known].sum(dtype=np.float64))
        part.milliseconds += sum(answer.timings_ms.values())
        if truth is not None:
            part.labelled += int(np.count_nonzero(truth))
            part.right += int(np.count_nonzero((truth > 0) & (answer.class_id == truth)))
        if place is not None:
            part.places += 1
            part.x_m, part.y_m, part.is_global = part.x_m + place.x_m, part.y_m + place.y_m, place.is_global

    def to_mapping(self) -> dict[str, Any]:
        """First and last stamp (ns), clouds missing in between, and a row for each stretch."""
        stamps = sorted(self._stamps)
        return {
            "first_ns": stamps[0] if stamps else 0,
            "last_ns": stamps[-1] if stamps else 0,
            "missing": missing_between(stamps),
            "stretches": [_row(part) for _, part in sorted(self._stretches.items())],
        }


def missing_between(stamps_ns: Sequence[int]) -> int:
    """How many clouds were lost between those with these rising stamps, going by the usual time between two."""
    steps = np.diff(np.asarray(stamps_ns, np.int64)).astype(np.float64)
    usual = float(np.median(steps)) if len(steps) else 0.0
    if usual <= 0:
        return 0
    gaps = steps[steps > GAP * usual]
    return int(np.sum(np.rint(gaps / usual) - 1))


def _row(part: _Stretch) -> dict[str, Any]:
    row: dict[str, Any] = {
        "stamp_ns": part.stamp_ns,
        "scans": part.scans,
        "uncertainty": round(part.uncertainty / max(1, part.points), 5),
        "ms": round(part.milliseconds / part.scans, 3),
    }
    row |= {"right": round(part.right / part.labelled, 5)} if part.labelled else {}
    if part.places:
        row["place_m"] = [round(part.x_m / part.places, 2), round(part.y_m / part.places, 2)]
        row["is_global"] = part.is_global
    return row
