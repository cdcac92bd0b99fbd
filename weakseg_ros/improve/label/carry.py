# SPDX-License-Identifier: Apache-2.0
"""Labels of one scan for another one of the same place, where it is known how the sensor moved in between."""

from __future__ import annotations

import logging
from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from weakseg_ros.errors import DataError, counted
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.filters import Filters, shown_points
from weakseg_ros.improve.label.frame_source import Frame, FrameSource
from weakseg_ros.improve.label.moved_objects import objects_of
from weakseg_ros.improve.label.shown_scans import ShownScans
from weakseg_ros.points.labels import LabelMap, instances_in
from weakseg_ros.weak.scan_poses import moved

log = logging.getLogger(__name__)

REACH_M = 0.2
"""a point gets the label of a labelled one so near to it"""
NO_POSES = "this data does not tell where the sensor was; a folder of scans with poses.txt does"
FARTHEST_M = 30.0
"""scans taken farther apart than this show too little of the same place"""

DRAWN_AROUND = 3
"""scans before and after a frame that are drawn with it"""
LOOKED_AT, CARRIED_ON = 20, 5
"""frames before and after one that are searched for labels, and frames that its own labels are carried on to"""


class Around(NamedTuple):
    """The points of the scans before and after a frame, and what the frame's labels say of them."""

    xyz: NDArray[np.float32]
    """(M, 3) m, as the frame's sensor would see them"""
    class_id: NDArray[np.uint8]
    """(M,) the class of a label near enough to be carried there, 0 = none"""


NOTHING_AROUND = Around(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8))


class Near(NamedTuple):
    """A scan before or after a frame."""

    frame: Frame
    pose: NDArray[np.float64]
    """(4, 4)"""
    xyz: NDArray[np.float32]
    """(N, 3) m, all its points as the other frame's sensor would see them"""


class Carried(NamedTuple):
    """What the labels of one frame say of another one."""

    points: NDArray[np.int64]
    """(P,) points of the other frame"""
    raw: NDArray[np.uint32]
    """(P,) their labels"""
    moved: NDArray[np.int64]
    """the numbers of the objects that have moved, whose labels are left out"""


NOTHING_CARRIED = Carried(np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.int64))


class Carrier:
    """Gives labels of one frame to others of the same place, and says in a sentence what came of it.

    The poses of both frames must be known.
    """

    def __init__(self, store: ClickStore, source: FrameSource) -> None:
        self._store, self._source = store, source
        self._near: tuple[str, list[Near]] = ("", [])

    def from_near(self, key: str) -> str:
        """Label what has no label yet in a frame like the nearest frame in time that has something for it."""
        if self._source.pose(key) is None:
            return f"No labels are copied: {NO_POSES}."
        both = zip_longest(*(islice(self._source.neighbours(key, step), LOOKED_AT) for step in (-1, 1)))
        moved_away = 0
        for other in (other for pair in both for other in pair if other is not None):
            found = self._carry(other, key) if self._store.count(other) else None
            if found is not None and len(found.points):
                count = counted(len(found.points), "point is", "points are")
                return f"{count} labelled as in frame {other}.{left_out(len(found.moved))} Undo: Z"
            moved_away = max(moved_away, len(found.moved) if found else 0)
        why = f"no frame within {FARTHEST_M:.0f} m of this one has labels for its points"
        return f"No labels are copied: {why}.{left_out(moved_away)}"

    def to_next(self, key: str) -> str:
        """Label the next frames like this one, where they have no label yet."""
        if self._source.pose(key) is None:
            return f"No labels are copied: {NO_POSES}."
        if not self._store.count(key):
            return "No labels are copied: this frame has no labels."
        found = [self._carry(key, other) for other in islice(self._source.neighbours(key, 1), CARRIED_ON)]
        count = sum(len(one.points) for one in found)
        gone = {number for one in found for number in one.moved.tolist()}
        return (
            f"{counted(count, 'point')} of the next {counted(len(found), 'frame')} "
            f"{'is' if count == 1 else 'are'} labelled like these.{left_out(len(gone))}"
        )

    def near(self, key: str) -> list[Near]:
        """The scans before and after a frame that can be read; none without poses."""
        if self._near[0] != key:
            self._near = (key, self._read_near(key))
        return self._near[1]

    def scans_around(self, frame: Frame, filters: Filters) -> Around:
        """The points on the page of the scans before and after a frame, and where its labels reach them."""
        raw, into = self._store.raw_labels(frame.key), self._source.pose(frame.key)
        parts = [NOTHING_AROUND]
        for near in self.near(frame.key):
            class_id = np.zeros(len(near.xyz), np.uint8)
            if into is not None and raw.any():
                found = carried_over(frame, raw, near.frame, np.linalg.inv(near.pose) @ into, self._store.labels)
                class_id[found.points] = self._store.labels.to_class(found.raw)
            shown = shown_points(near.frame, self._store.labelled(near.frame.key)[0], filters)
            parts.append(Around(near.xyz[shown], class_id[shown]))
        return Around(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _read_near(self, key: str) -> list[Near]:
        into = self._source.pose(key)
        found = []
        for other in (other for step in (-1, 1) for other in islice(self._source.neighbours(key, step), DRAWN_AROUND)):
            try:
                pose = self._source.pose(other)
                if into is None or pose is None or distance_m(pose, into) > FARTHEST_M:
                    continue
                frame = self._source.frame(other)
                self._store.labelled(other)
            except DataError as error:
                log.warning("left out: %s", error)
                continue
            found.append(Near(frame, pose, moved(frame.cloud.xyz, pose, into)))
        return found

    def _carry(self, source: str, target: str) -> Carried:
        """Give a frame's labels to the points of another one that have none."""
        pose, into = self._source.pose(source), self._source.pose(target)
        if pose is None or into is None or distance_m(pose, into) > FARTHEST_M:
            return NOTHING_CARRIED
        frame, other, raw = self._source.frame(source), self._source.frame(target), self._store.raw_labels(source)
        found = carried_over(frame, raw, other, np.linalg.inv(into) @ pose, self._store.labels)
        free = self._store.raw_labels(target)[found.points] == 0
        found = found._replace(points=found.points[free], raw=found.raw[free])
        if len(found.points):
            self._store.add_raw(target, found.points, found.raw)
        return found


def left_out(count: int) -> str:
    """What is said of objects that have moved, after another sentence; '' where there is none."""
    return f" {counted(count, 'object has moved and was', 'objects have moved and were')} left out." if count else ""


def carried_over(frame: Frame, raw: NDArray[np.uint32], other: Frame, turn: NDArray[np.float64], labels: LabelMap) -> Carried:
    """The labels `raw` (N,) of a frame for the points of another one; `turn` (4, 4) brings points into its sensor's frame.

    Objects that the other frame sees gone are left out, and no object's label goes to its ground: a car that has driven on
    leaves ground behind.
    """
    known = np.flatnonzero(raw)
    there = moved(frame.cloud.xyz[known], turn, np.eye(4))
    class_id, instance_id = labels.to_class(raw[known]), instances_in(raw[known])
    thing, stays = labels.things[class_id], np.ones(len(known), np.bool_)
    gone = np.zeros(0, np.bool_)
    if thing.any():
        number = objects_of(frame.cloud.xyz[known[thing]], class_id[thing], instance_id[thing])
        gone = other.sight.moved(there[thing], number)
        stays[thing] = ~gone[number]
    usable = np.flatnonzero(other.cloud.valid)
    points, found = carried(there[stays], raw[known[stays]], other.cloud.xyz[usable])
    points = usable[points]
    fits = ~labels.things[labels.to_class(found)] if len(found) else np.zeros(0, np.bool_)
    if not fits.all():
        fits |= ~other.ground[points]
    return Carried(points[fits], found[fits], np.flatnonzero(gone))


def drawn_around(carrier: Carrier, store: ClickStore, frame: Frame, scans: ShownScans, around: bool, filters: Filters) -> Around:
    """The points on the page of the scans around: those of `scans` with their own labels, as they are labelled themselves.

    Where only the frame is labelled, what its labels reach if `around`, else nothing.
    """
    if len(scans) == 1:
        return carrier.scans_around(frame, filters) if around else NOTHING_AROUND
    shown = scans.shown(store, filters)
    shown[: len(frame.cloud)] = False
    return Around(scans.xyz[shown], scans.class_id(store)[shown])


def distance_m(pose: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How far apart two scans were taken."""
    return float(np.linalg.norm(pose[:3, 3] - other[:3, 3]))


def carried(
    labelled: NDArray[np.float32], raw: NDArray[np.uint32], xyz: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Which of the points (N, 3) lie near a labelled one (M, 3), and the raw label (M,) of that: indices (P,), labels (P,)."""
    if not len(labelled) or not len(xyz):
        return np.zeros(0, np.int64), np.zeros(0, np.uint32)
    distance, nearest = cKDTree(labelled).query(xyz, distance_upper_bound=REACH_M)
    near = np.flatnonzero(np.isfinite(distance))
    return near, raw[nearest[near]]
