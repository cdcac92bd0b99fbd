# SPDX-License-Identifier: Apache-2.0
"""Labels of one scan for another one of the same place, where it is known how the sensor moved in between."""

from __future__ import annotations

from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from weakseg_ros.errors import counted
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.weak.scan_poses import moved

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


class Carrier:
    """Gives labels of one frame to others of the same place, and says in a sentence what came of it.

    The poses of both frames must be known.
    """

    def __init__(self, store: ClickStore, source: FrameSource) -> None:
        self._store, self._source = store, source
        self._drawn: tuple[str, NDArray[np.float32]] = ("", NOTHING_AROUND.xyz)

    def from_near(self, key: str) -> str:
        """Label what has no label yet in a frame like the nearest frame in time that has something for it."""
        if self._source.pose(key) is None:
            return f"No labels are copied: {NO_POSES}."
        both = zip_longest(*(islice(self._source.neighbours(key, step), LOOKED_AT) for step in (-1, 1)))
        for other in (other for pair in both for other in pair if other is not None):
            if self._store.count(other) and (count := self._carry(other, key)):
                return f"{counted(count, 'point is', 'points are')} labelled as in frame {other}. Check what moves. Undo: Z"
        return f"No labels are copied: no frame within {FARTHEST_M:.0f} m of this one has labels for its points."

    def to_next(self, key: str) -> str:
        """Label the next frames like this one, where they have no label yet."""
        if self._source.pose(key) is None:
            return f"No labels are copied: {NO_POSES}."
        if not self._store.count(key):
            return "No labels are copied: this frame has no labels."
        counts = [self._carry(key, other) for other in islice(self._source.neighbours(key, 1), CARRIED_ON)]
        return (
            f"{counted(sum(counts), 'point')} of the next {counted(len(counts), 'frame')} "
            f"{'is' if sum(counts) == 1 else 'are'} labelled like these. Check what moves there."
        )

    def scans_around(self, key: str) -> Around:
        """The scans before and after a frame, and where its labels reach them; nothing without poses."""
        if self._drawn[0] != key:
            self._drawn = (key, self._points_around(key))
        xyz = self._drawn[1]
        class_id = np.zeros(len(xyz), np.uint8)
        raw = self._store.raw_labels(key)
        known = np.flatnonzero(raw)
        points, labels = carried(self._source.frame(key).cloud.xyz[known], raw[known], xyz)
        class_id[points] = self._store.labels.to_class(labels)
        return Around(xyz, class_id)

    def _points_around(self, key: str) -> NDArray[np.float32]:
        """(M, 3) the points of the scans before and after a frame, as its sensor would see them; none without poses."""
        into = self._source.pose(key)
        if into is None:
            return NOTHING_AROUND.xyz
        both = (other for step in (-1, 1) for other in islice(self._source.neighbours(key, step), DRAWN_AROUND))
        poses = [(other, self._source.pose(other)) for other in both]
        near = [(other, pose) for other, pose in poses if pose is not None and distance_m(pose, into) <= FARTHEST_M]
        parts = [moved(self._points(other), pose, into) for other, pose in near]
        return np.concatenate(parts) if parts else NOTHING_AROUND.xyz

    def _points(self, key: str) -> NDArray[np.float32]:
        cloud = self._source.frame(key).cloud
        return cloud.xyz[cloud.valid]

    def _carry(self, source: str, target: str) -> int:
        """Give a frame's labels to the points of another one that have none; the number of points."""
        pose, into = self._source.pose(source), self._source.pose(target)
        if pose is None or into is None or distance_m(pose, into) > FARTHEST_M:
            return 0
        raw, cloud = self._store.raw_labels(source), self._source.frame(target).cloud
        known = np.flatnonzero(raw)
        free = np.flatnonzero(cloud.valid & (self._store.raw_labels(target) == 0))
        there = moved(self._source.frame(source).cloud.xyz[known], pose, into)
        points, labels = carried(there, raw[known], cloud.xyz[free])
        if len(points):
            self._store.add_raw(target, free[points], labels)
        return len(points)


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
