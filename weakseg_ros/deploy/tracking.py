# SPDX-License-Identifier: Apache-2.0
"""Instance ids that stay: an object keeps its number from scan to scan while it is seen, and over short occlusions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.association import Outlines, associate, displacement, no_outlines, outlines_of
from weakseg_ros.deploy.boxes import ObjectPoints, objects_of
from weakseg_ros.deploy.ego_motion import FASTEST_M_S, EgoMotion
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.track_settings import TrackSettings
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap

KINDS = (
    ("car", "truck", "bus", "other-vehicle", "van", "trailer"),
    ("person", "pedestrian", "bicycle", "motorcycle", "bicyclist", "motorcyclist", "two-wheeler", "rider"),
)
"""classes between which a network wavers on one object: an id stays within them; every other class is alone"""
IDS = 1 << 16
NOMINAL_PERIOD_S, SHORTEST_S = 0.1, 0.005
"""between two scans whose stamps are equal, or nearer than any sensor turns: a driver that sets none runs at 10 Hz"""
COARSER = 5
"""squares so many times as large as `cell_m` are looked at as well, and alone as long as the sensor's motion is a guess"""
LONGEST_PERIOD_S = 1.0
"""so long after a scan comes the next one at the latest; no object was absent in between"""
TRUST, TRUSTED_SCANS = 0.2, 10
"""worth of a track that was seen in so many scans, and again of one that was seen in the scan before"""


@dataclass(frozen=True)
class _Tracks:
    """T objects that are remembered, each where it was seen last."""

    outlines: Outlines
    ids: NDArray[np.uint16]
    velocity: NDArray[np.float64]
    """(T, 2) m/s"""
    unseen_s: NDArray[np.float64]
    """(T,) since it was seen"""
    scans: NDArray[np.int64]
    """(T,) in how many it was seen"""

    def chosen(self, which: NDArray[np.int64]) -> _Tracks:
        rows = (self.ids[which], self.velocity[which], self.unseen_s[which], self.scans[which])
        return _Tracks(self.outlines.chosen(which), *rows)

    def followed_by(self, others: _Tracks) -> _Tracks:
        names = ("ids", "velocity", "unseen_s", "scans")
        rows = (np.concatenate([getattr(self, name), getattr(others, name)]) for name in names)
        return _Tracks(self.outlines.followed_by(others.outlines), *rows)


def _no_tracks() -> _Tracks:
    return _Tracks(no_outlines(), np.zeros(0, np.uint16), np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))


class Tracker:
    """Gives objects the ids they had in earlier scans; one thread calls `update`, scan after scan.

    Objects are compared from above, where they are expected: each with a constant velocity, in a frame that moves with
    the odometry, or, where none is given, with what the objects themselves say of the sensor's motion. An id is
    1..65535 and comes again only after all others. A stamp that goes back, as when a bag begins anew, and another
    frame_id start all over.
    """

    def __init__(self, labels: LabelMap, settings: TrackSettings | None = None) -> None:
        self.labels = labels
        self.settings = settings or TrackSettings()
        """may be replaced between two scans"""
        self._kind_of_class = _kinds(labels)
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Forget all objects; ids go on counting, so that none returns at once with another meaning."""
        self._tracks = _no_tracks()
        self._ego = EgoMotion()
        self._stamp_ns: int | None = None
        self._frame_id = ""

    def update(self, answer: Segmentation, cloud: Cloud, pose: NDArray[np.float64] | None = None) -> Segmentation:
        """The answer with ids that stay, in `instance_id` and `instance_image`; everything else as it came.

        `pose` (4, 4) leads from the sensor to the odometry frame. Instances are neither split nor joined, and those of
        one scan never share an id.
        """
        elapsed_s = self._elapsed_s(cloud)
        objects = self._followed(objects_of(cloud.xyz, answer.instance_id))
        kind = self._kind_of_class[objects.commonest(answer.class_id)]
        found, match = self._match(objects, kind, elapsed_s, pose)
        names = _names(answer, objects)
        ids = self._remember(found, match, len(names), elapsed_s)
        table = np.zeros(IDS, np.uint16)
        table[names] = ids
        return dataclasses.replace(answer, instance_id=table[answer.instance_id], instance_image=table[answer.instance_image])

    def _elapsed_s(self, cloud: Cloud) -> float:
        """Seconds since the scan before; starts all over where there is none that this one follows."""
        before, frame_id = self._stamp_ns, self._frame_id
        if before is None or cloud.stamp_ns < before or cloud.frame_id != frame_id:
            self.reset()
        elapsed_s = (cloud.stamp_ns - self._stamp_ns) * 1e-9 if self._stamp_ns is not None else 0.0
        self._stamp_ns, self._frame_id = cloud.stamp_ns, cloud.frame_id
        return elapsed_s if elapsed_s >= SHORTEST_S else NOMINAL_PERIOD_S

    def _followed(self, objects: ObjectPoints) -> ObjectPoints:
        """The largest objects, in the order of their first points, which their ids have no part in."""
        first = objects.at[objects.start]
        largest = np.lexsort((first, -objects.count))[: self.settings.max_objects]
        return objects.chosen(largest[np.argsort(first[largest])])

    def _match(
        self, objects: ObjectPoints, kind: NDArray[np.int64], elapsed_s: float, pose: NDArray[np.float64] | None
    ) -> tuple[Outlines, NDArray[np.int64]]:
        """The objects from above, and the number of the track that each of them is, -1 = none."""
        settings = self.settings
        longest_s = max(settings.max_age_s, LONGEST_PERIOD_S)
        self._tracks = self._tracks.chosen(np.flatnonzero(self._tracks.unseen_s + elapsed_s <= longest_s))
        tracks = self._tracks
        gap_s = tracks.unseen_s + elapsed_s
        expected = tracks.outlines.moved(tracks.velocity * gap_s[:, None])
        reach_m = settings.reach_m + settings.reach_m_s * gap_s
        trust = TRUST * np.minimum(tracks.scans / TRUSTED_SCANS, 1.0) + TRUST * (tracks.unseen_s == 0)
        exact = self._ego.advance(elapsed_s, pose)
        found = outlines_of(objects, kind, self._ego.pose)
        cells_m = (settings.cell_m, COARSER * settings.cell_m)
        match = associate(expected, found, reach_m, trust, cells_m if exact else cells_m[1:])
        if not exact and (match >= 0).any():
            self._ego.settle(expected.chosen(match[match >= 0]), found.chosen(np.flatnonzero(match >= 0)), elapsed_s)
            found = outlines_of(objects, kind, self._ego.pose)
            match = associate(expected, found, reach_m, trust, cells_m)
        return found, match

    def _remember(self, found: Outlines, match: NDArray[np.int64], count: int, elapsed_s: float) -> NDArray[np.uint16]:
        """Take the `found` objects over into the tracks; returns ids for them, and new ones up to `count`."""
        old, known = self._tracks, match >= 0
        ids = np.zeros(count, np.uint16)
        ids[: len(found)][known] = old.ids[match[known]]
        velocity, scans = np.zeros((len(found), 2)), np.ones(len(found), np.int64)
        velocity[known], scans[known] = self._measured(found, match, elapsed_s), old.scans[match[known]] + 1
        waiting = self._waiting(match[known], elapsed_s)
        if count - np.count_nonzero(known) > IDS - 1 - np.count_nonzero(known) - len(waiting.ids):
            waiting = _no_tracks()  # as many instances as there are ids: nothing can be kept for those that are gone
        ids[ids == 0] = self._new_ids(int(np.count_nonzero(ids == 0)), np.concatenate([ids, waiting.ids]))
        seen = _Tracks(found, ids[: len(found)], velocity, np.zeros(len(found)), scans)
        self._tracks = seen.followed_by(waiting)
        return ids

    def _waiting(self, seen: NDArray[np.int64], elapsed_s: float) -> _Tracks:
        """The tracks that are not among the `seen` and may come back, as they are now; of too many those seen last."""
        old = dataclasses.replace(self._tracks, unseen_s=self._tracks.unseen_s + elapsed_s)
        lost = old.unseen_s <= self.settings.max_age_s
        lost[seen] = False
        latest = np.argsort(np.where(lost, old.unseen_s, np.inf), kind="stable")
        return old.chosen(latest[: min(int(lost.sum()), self.settings.max_objects)])

    def _measured(self, found: Outlines, match: NDArray[np.int64], elapsed_s: float) -> NDArray[np.float64]:
        """(known, 2) velocity in m/s of the found objects that are known."""
        which = match[match >= 0]
        gap_s = self._tracks.unseen_s[which] + elapsed_s
        measured = displacement(self._tracks.outlines.chosen(which), found.chosen(np.flatnonzero(match >= 0))) / gap_s[:, None]
        gain = np.maximum(1.0 / self._tracks.scans[which], self.settings.gain)[:, None]
        before = self._tracks.velocity[which]
        return np.clip(before + gain * (measured - before), -FASTEST_M_S, FASTEST_M_S)

    def _new_ids(self, count: int, used: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """`count` ids that are not among `used`, counting on from the last new one."""
        free = np.ones(IDS, np.bool_)
        free[0] = False
        free[used] = False
        ids = (np.flatnonzero(np.roll(free, -self._next_id))[:count] + self._next_id) % IDS
        if count:
            self._next_id = int(ids[-1] + 1) % IDS
        return ids.astype(np.uint16)


def _names(answer: Segmentation, objects: ObjectPoints) -> NDArray[np.int64]:
    """The ids in the answer: first those of the `objects`, then those whose points cannot be followed."""
    other = np.zeros(IDS, np.bool_)
    for ids in (answer.instance_id, answer.instance_image):
        other[ids[ids > 0]] = True
    other[objects.ids] = False
    return np.concatenate([objects.ids.astype(np.int64), np.flatnonzero(other)])


def _kinds(labels: LabelMap) -> NDArray[np.int64]:
    """(K,) number of the kind that each class belongs to."""
    table = {name: number for number, names in enumerate(KINDS) for name in names}
    return np.array([table.get(row.name, len(KINDS) + row.id) for row in labels.classes], np.int64)
