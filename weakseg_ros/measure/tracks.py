# SPDX-License-Identifier: Apache-2.0
"""How well instance ids stay: identity switches along recordings whose true ids last; counts that add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError

COUNTS = ("scans", "seen", "found", "followed", "switches", "fragmentations", "transfers")


class TrackQuality:
    """Counts of what became of each true object's id, scan after scan.

    A true object is *seen* in a scan in which it has at least `min_points` points, and *found* where a predicted
    instance overlaps it with an IoU above 0.5, as in panoptic quality. Counts of recordings add up with `+` and `sum`;
    a recording is counted by one object from its first scan to its last.
    """

    def __init__(self, min_points: int = 10) -> None:
        if min_points < 1:
            raise ValueError(f"TrackQuality: min_points {min_points} is below 1")
        self.min_points = min_points
        self.scans = 0
        self.seen = 0
        """true objects in scans"""
        self.found = 0
        """of them, those that a predicted instance matches"""
        self.followed = 0
        """true objects that were found at least once in their recording"""
        self.switches = 0
        """true objects found under another id than when they were found last"""
        self.fragmentations = 0
        """true objects found again after scans in which they were seen and not found"""
        self.transfers = 0
        """predicted ids found on another true object than last: worse than a new id, since it looks the same"""
        self.begin()

    def begin(self) -> None:
        """A new recording: ids mean nothing across it."""
        self._id_of_object: dict[int, int] = {}
        self._object_of_id: dict[int, int] = {}
        self._missed: set[int] = set()

    def add(self, predicted: NDArray[Any], truth: NDArray[Any], known: NDArray[np.bool_] | None = None) -> None:
        """Count the next scan of the recording: instance ids (N,) each, 0 = none; points not `known` (N,) are left out.

        True ids that are unique within a class only come with the class in their upper bits: see `object_keys`.
        """
        if predicted.shape != truth.shape:
            raise DataError(f"tracks: {predicted.shape} predicted ids for {truth.shape} true ones; give one for each point")
        if known is not None:
            predicted, truth = predicted[known], truth[known]
        self.scans += 1
        seen, found = _overlaps(predicted.astype(np.int64), truth.astype(np.int64), self.min_points)
        for true_id in seen:
            self.seen += 1
            if true_id in found:
                self._note(true_id, found[true_id])
            else:
                self._missed.add(true_id)

    def _note(self, true_id: int, predicted_id: int) -> None:
        before = self._id_of_object.get(true_id)
        self.found += 1
        self.followed += before is None
        self.switches += before is not None and before != predicted_id
        self.fragmentations += before is not None and true_id in self._missed
        self.transfers += self._object_of_id.get(predicted_id, true_id) != true_id
        self._id_of_object[true_id] = predicted_id
        self._object_of_id[predicted_id] = true_id
        self._missed.discard(true_id)

    def __add__(self, other: TrackQuality) -> TrackQuality:
        if self.min_points != other.min_points:
            raise DataError("tracks: counts of different min_points do not add up; merge results of one evaluation")
        total = TrackQuality(self.min_points)
        for name in COUNTS:
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def __radd__(self, start: int) -> TrackQuality:
        """What `sum` needs: it begins with 0."""
        return self + TrackQuality(self.min_points)

    @property
    def switch_rate(self) -> float:
        """Share of the times an object was found again at which its id had changed; 0 where none was."""
        return self.switches / max(self.found - self.followed, 1)

    @property
    def lifetime_scans(self) -> float:
        """Mean number of scans in which an object was found under one id."""
        return self.found / max(self.followed + self.switches, 1)

    def summary(self) -> dict[str, float]:
        """The counts, and `switch_rate`, `lifetime_scans`, `recall` (found of seen) by name."""
        counts = {name: getattr(self, name) for name in COUNTS}
        recall = self.found / max(self.seen, 1)
        return {**counts, "switch_rate": self.switch_rate, "lifetime_scans": self.lifetime_scans, "recall": recall}

    def to_mapping(self) -> dict[str, Any]:
        """Plain numbers for a JSON file; `from_mapping` reads them back exactly."""
        return {"min_points": self.min_points, **{name: getattr(self, name) for name in COUNTS}}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TrackQuality:
        """The counts that `to_mapping` wrote; KeyError, TypeError or ValueError for anything else."""
        total = cls(int(mapping["min_points"]))
        for name in COUNTS:
            setattr(total, name, int(mapping[name]))
        return total


def object_keys(class_id: NDArray[np.uint8], instance_id: NDArray[np.uint16], things: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) one number per object of a thing class: class and instance together, 0 where a point belongs to no object."""
    counted = things[class_id] & (instance_id > 0)
    return np.where(counted, class_id.astype(np.int64) << 16 | instance_id, 0)


def _overlaps(predicted: NDArray[np.int64], truth: NDArray[np.int64], min_points: int) -> tuple[list[int], dict[int, int]]:
    """The true objects that are seen, ascending, and the predicted id of each that is found."""
    counted = np.flatnonzero((predicted > 0) | (truth > 0))
    predicted, truth = predicted[counted], truth[counted]
    names, of_point, size = np.unique(truth, return_inverse=True, return_counts=True)
    ids, of_id, id_size = np.unique(predicted, return_inverse=True, return_counts=True)
    pair, shared = np.unique(of_point * max(len(ids), 1) + of_id, return_counts=True)
    left, right = np.divmod(pair, max(len(ids), 1))
    iou = shared / (size[left] + id_size[right] - shared)
    match = (iou > 0.5) & (names[left] > 0) & (ids[right] > 0) & (size[left] >= min_points)
    seen = names[(names > 0) & (size >= min_points)]
    found = zip(names[left[match]].tolist(), ids[right[match]].tolist(), strict=True)
    return seen.tolist(), dict(found)
