# SPDX-License-Identifier: Apache-2.0
"""The scans that clicks, brush, boxes and lassos work on: the open one alone, or those around it as well.

Their points are numbered through, those of the open scan first: a point's number in the open scan is its number here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.improve.label.brush import ERASER_M, erased
from weakseg_ros.improve.label.clicks import ClickStore, Part
from weakseg_ros.improve.label.filters import Filters, shown_points
from weakseg_ros.improve.label.frame_source import Frame


class OneScan(NamedTuple):
    """One of the scans."""

    frame: Frame
    xyz: NDArray[np.float32]
    """(N, 3) m, its points as the open scan's sensor would see them"""
    start: int
    """the number of its first point among those of all scans"""

    @property
    def numbers(self) -> slice:
        """Its points among those of all scans."""
        return slice(self.start, self.start + len(self.xyz))


class ShownScans:
    """The scans whose points are labelled together, M points in all; with one scan its arrays are used as they are."""

    def __init__(self, frame: Frame, others: Sequence[tuple[Frame, NDArray[np.float32]]] = ()) -> None:
        self._scans = [OneScan(frame, frame.cloud.xyz, 0)]
        for other, xyz in others:
            self._scans.append(OneScan(other, xyz, self._scans[-1].numbers.stop))
        self.xyz = np.concatenate([scan.xyz for scan in self._scans]) if others else frame.cloud.xyz
        """(M, 3) m, in the frame of the open scan's sensor"""

    def __len__(self) -> int:
        return len(self._scans)

    def __iter__(self) -> Iterator[OneScan]:
        return iter(self._scans)

    def owner(self, point: int) -> OneScan:
        """The scan that a point belongs to."""
        return next(scan for scan in reversed(self._scans) if scan.start <= point)

    def split(self, points: NDArray[np.int64]) -> list[tuple[OneScan, NDArray[np.int64]]]:
        """Points (P,) by scan, as numbers of that scan; the scans without one are left out."""
        if len(self) == 1:
            return [(self._scans[0], points)] if len(points) else []
        order = np.sort(points)
        parts = [(scan, order[slice(*np.searchsorted(order, (scan.start, scan.numbers.stop)))] - scan.start) for scan in self]
        return [(scan, numbers) for scan, numbers in parts if len(numbers)]

    def parts(self, points: NDArray[np.int64], instance_of: Callable[[str], int] = lambda key: 0) -> list[Part]:
        """Points (P,) by scan, as the store takes them; `instance_of` gives their instance in the scan of a key."""
        return [Part(scan.frame.key, numbers, instance_of(scan.frame.key)) for scan, numbers in self.split(points)]

    def shown(self, store: ClickStore, filters: Filters) -> NDArray[np.bool_]:
        """(M,) the points that are on the page."""
        parts = [shown_points(scan.frame, store.labelled(scan.frame.key)[0], filters) for scan in self]
        return np.concatenate(parts) if len(self) > 1 else parts[0]

    def class_id(self, store: ClickStore) -> NDArray[np.uint8]:
        """(M,) the classes on disk, 0 where nothing is labelled."""
        parts = [store.labelled(scan.frame.key)[0] for scan in self]
        return np.concatenate(parts) if len(self) > 1 else parts[0]

    def nearest(self, scan: OneScan, place: NDArray[np.float32], reach_m: float, usable: NDArray[np.bool_]) -> int | None:
        """The usable (N,) point of a scan next to a place (3,), as a number of that scan; None where all are farther away."""
        apart = np.where(usable, np.linalg.norm(scan.xyz - place, axis=1), np.inf)
        at = int(np.argmin(apart)) if len(apart) else -1
        return at if at >= 0 and apart[at] <= reach_m else None

    def erased(self, store: ClickStore, shown: NDArray[np.bool_], point: int, brush_m: float) -> NDArray[np.int64]:
        """(P,) what a click with the eraser takes, in each scan as if its labelled point next to the place were clicked."""
        parts = []
        for scan in self:
            class_id, instance_id = store.labelled(scan.frame.key)
            here = shown[scan.numbers]
            reach_m = max(ERASER_M, brush_m)
            own = scan is self.owner(point)
            at = point - scan.start if own else self.nearest(scan, self.xyz[point], reach_m, here & (class_id > 0))
            if at is not None:
                parts.append(scan.start + erased(scan.xyz, here, class_id, instance_id, at, brush_m))
        return np.concatenate(parts)
