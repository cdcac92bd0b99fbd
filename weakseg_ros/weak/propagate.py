# SPDX-License-Identifier: Apache-2.0
"""Labels travel through time: a click names the same surface in the scans before and after it.

Where it is known how the sensor moved, a labelled point labels the points near its place in the scans around. The nearest
labelled point wins; where one of another class is about as near, none does. What was named by a person keeps a weight of 1;
what was propagated weighs less, the less the farther, the later and the more contested it is, and the more labels its class
has of its own. Only the scans that are given take part: validation scans are not among them.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.data.scan_files import content_hash
from weakseg_ros.data.scan_sets import ChangedScans, Scan, ScanSet, Subset, readable
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.scan_poses import PoseSource, ScanPoses, moved, poses_of_scans

log = logging.getLogger(__name__)

LARGEST_WEIGHT = 0.99
"""of a label that nobody gave; those that were given weigh 1"""
SAME_PLACE_M = 1e-6
PRIOR_AGREEING, PRIOR_LABELS = 9.0, 10.0
"""propagated labels are taken to be right this often until the given ones say otherwise"""


@dataclass(frozen=True)
class PropagateSettings:
    """Sets how labels are propagated to the scans before and after, with the poses of the scans."""

    scans: int = setting(0, 0, 1000)
    """Sets the number of scans before and after its own to which a label is propagated (0 to 1000); 0 propagates none."""
    thing_scans: int = setting(1, 0, 1000)
    """Sets the same number for labels of thing classes such as cars and people, which may move (0 to 1000)."""
    radius_m: float = setting(0.3, 0.01, 10.0)
    """Sets the largest distance in metres between a labelled point and a point that takes its label (0.01 to 10)."""
    contradiction: float = setting(0.5, 0.0, 1.0)
    """Sets how ambiguous a propagated label may be (0 to 1); a point gets no label if its distance to the nearest label exceeds
    this share of its distance to the nearest label of another class."""
    weight: float = setting(0.5, 0.0, 1.0)
    """Sets the loss weight of a label that is propagated over zero distance and time (0 to 1); original labels weigh 1."""
    half_scans: float = setting(10.0, 0.1, 10000.0)
    """Sets the number of scans after which the weight of a propagated label is halved (0.1 to 10000)."""
    half_labels: float = setting(1000.0, 1.0, 1e9)
    """Sets the number of original labels of a class at which the weight of its propagated labels is halved (1 to
    1000000000)."""
    poses: PoseSource = "auto"
    """Selects where the poses come from: 'data' uses those of the scans, 'estimated' computes them with KISS-ICP, and 'auto'
    computes them only for scans without a pose."""
    poses_file: Path | None = None
    """Names a file of poses in KITTI's format, with one line for each scan, to use instead."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def name(self) -> str:
        """Part of the name of a folder with such labels; empty where nothing is propagated."""
        return f"t{self.scans}" if self.scans else ""


class Labelled(NamedTuple):
    """The labelled points of one scan."""

    xyz: NDArray[np.float32]
    """(L, 3) m, as the scan's sensor sees them"""
    class_id: NDArray[np.uint8]
    """(L,) from 1"""


class Reached(NamedTuple):
    """The labels of one scan's N points, given and propagated."""

    class_id: NDArray[np.uint8]
    """(N,) 0 = none"""
    weight: NDArray[np.float32]
    """(N,) 1 where the label was given, less where it was propagated, 0 without a label"""


class Agreement(NamedTuple):
    """How far given labels and those propagated to the same points agree: what the labels themselves say of the propagation."""

    by_class: NDArray[np.float64]
    """(K,) share of the labels propagated as this class that a person confirmed, with a prior of 9 in 10"""
    same: int
    reached: int
    """given labels whose point others reach"""


class Propagation:
    """Carries the labels of some scans to each of them. The poses are those of `scans`, in their order."""

    def __init__(self, labels: LabelMap, sources: Sequence[Labelled], poses: ScanPoses, settings: PropagateSettings) -> None:
        self.settings, self._poses, self._sources = settings, poses, sources
        reach = np.where(labels.things, min(settings.thing_scans, settings.scans), settings.scans)
        self._reach: NDArray[np.int64] = reach.astype(np.int64)
        counts = np.zeros(labels.num_classes)
        for source in sources:
            counts += np.bincount(source.class_id, minlength=labels.num_classes)
        self.class_weight: NDArray[np.float64] = np.full(labels.num_classes, settings.weight)
        """(K,) of a class's propagated labels where nothing else speaks against them"""
        self.agreement = self._agreement()
        own = settings.half_labels / (settings.half_labels + counts)
        self.class_weight = settings.weight * own * np.maximum(0.0, 2.0 * self.agreement.by_class - 1.0)

    def onto(self, number: int, scan: Scan) -> Reached:
        """The labels of the scan of that number: its own, and those that reach it from the scans around."""
        given = scan.class_id if scan.class_id is not None else np.zeros(len(scan.cloud), np.uint8)
        class_id, weight = given.copy(), (given > 0).astype(np.float32)
        free = np.flatnonzero((given == 0) & scan.cloud.valid)
        around = self._around(number)
        if len(around.class_id) and len(free):
            found = self._nearest(around, scan.cloud.xyz[free])
            class_id[free], weight[free] = found.class_id, found.weight
        return Reached(class_id, weight)

    def is_near(self, number: int) -> bool:
        """Whether the scan of that number has a label, or one of the scans around it whose labels may reach it has."""
        return bool(len(self._around(number).class_id))

    def _agreement(self) -> Agreement:
        """How often a given label is what the labels of other scans would have made of its point."""
        same, reached = np.zeros(len(self.class_weight)), np.zeros(len(self.class_weight))
        for number, source in enumerate(self._sources):
            around = self._around(number, without_own=True)
            if len(around.class_id) and len(source.class_id):
                propagated = self._nearest(around, source.xyz).class_id
                hit = propagated > 0
                reached += np.bincount(propagated[hit], minlength=len(reached))
                same += np.bincount(propagated[hit & (propagated == source.class_id)], minlength=len(same))
        return Agreement((same + PRIOR_AGREEING) / (reached + PRIOR_LABELS), int(same.sum()), int(reached.sum()))

    def _around(self, number: int, without_own: bool = False) -> _Around:
        """The labels of the scans around one, as its sensor sees them."""
        drive, farthest = self._poses.drive[number], int(self._reach.max())
        parts: list[tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]] = []
        for other in range(max(0, number - farthest), min(len(self._sources), number + farthest + 1)):
            source, lag = self._sources[other], abs(other - number)
            chosen = (self._reach[source.class_id] >= lag) & (lag > 0 or not without_own)
            if self._poses.drive[other] == drive and chosen.any():
                into = self._poses.matrices[number]
                there = moved(source.xyz[chosen], self._poses.matrices[other], into)
                parts.append((there, source.class_id[chosen], np.full(int(chosen.sum()), lag)))
        if not parts:
            return _Around(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8), np.zeros(0, np.int64))
        xyz, class_id, lag_of = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _Around(xyz, class_id, lag_of)

    def _nearest(self, around: _Around, xyz: NDArray[np.float32]) -> Reached:
        """What points (P, 3) take from the labels around them."""
        from scipy.spatial import cKDTree

        settings = self.settings
        classes = np.unique(around.class_id)
        distance = np.full((len(classes), len(xyz)), np.inf)
        lag = np.zeros((len(classes), len(xyz)))
        for row, wanted in enumerate(classes):
            own = np.flatnonzero(around.class_id == wanted)
            tree = cKDTree(around.xyz[own])
            distance[row], nearest = tree.query(xyz, distance_upper_bound=_seen_rivals(settings))
            hit = np.isfinite(distance[row])
            lag[row, hit] = around.lag[own[nearest[hit]]]
        order = np.argsort(distance, axis=0, kind="stable")
        points = np.arange(len(xyz))
        best = order[0]
        nearest_m = distance[best, points]
        rival_m = distance[order[1], points] if len(classes) > 1 else np.full(len(xyz), np.inf)
        near_enough = nearest_m <= settings.radius_m
        contested = np.where(near_enough, nearest_m, 0.0) / np.maximum(rival_m, SAME_PLACE_M)
        taken = near_enough & (contested <= settings.contradiction)
        class_id = np.where(taken, classes[best], 0).astype(np.uint8)
        near = np.exp(-((np.where(taken, nearest_m, 0.0) / settings.radius_m) ** 2))
        weight = self.class_weight[class_id] * near * 0.5 ** (lag[best, points] / settings.half_scans) * (1.0 - contested)
        return Reached(class_id, np.where(taken, np.minimum(weight, LARGEST_WEIGHT), 0.0).astype(np.float32))


class _Around(NamedTuple):
    xyz: NDArray[np.float32]
    class_id: NDArray[np.uint8]
    lag: NDArray[np.int64]


def _seen_rivals(settings: PropagateSettings) -> float:
    """How far a label of another class is looked for, m: beyond, it contests nothing."""
    return settings.radius_m / max(settings.contradiction, 0.1) + 1e-6


class PropagatedScans(ChangedScans):
    """Training scans whose labels were propagated to each other; scans that nothing reaches stay without labels.

    `label_weight` of each scan says how much its labels count. Raises what `poses_of_scans` raises.
    """

    def __init__(self, scans: ScanSet, settings: PropagateSettings, poses: ScanPoses | None = None) -> None:
        super().__init__(scans)
        poses = poses or poses_of_scans(scans, settings.poses, settings.poses_file)
        self.poses = poses
        sources = [Labelled(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8))] * len(scans)
        for number, scan in readable(scans, []):
            sources[number] = labelled_of(scan)
        self.propagation = Propagation(scans.labels, sources, poses, settings)
        self.given = sum(len(source.class_id) for source in sources)
        agreement = self.propagation.agreement
        log.info(
            "%s: %d labels are propagated over up to %d scans (poses: %s; drives: %d); labels of other scans reach %d of them, "
            "and %d agree",
            scans.name,
            self.given,
            settings.scans,
            poses.source,
            len(np.unique(poses.drive)),
            agreement.reached,
            agreement.same,
        )

    @property
    def content_hash(self) -> str:
        settings = dataclasses.replace(self.propagation.settings, poses="auto", poses_file=None)
        return content_hash({"scans": self._scans.content_hash, "poses": self.poses.content_hash, "settings": repr(settings)})

    def changed(self, scan: Scan, index: int) -> Scan:
        reached = self.propagation.onto(index % len(self), scan)
        return dataclasses.replace(scan, class_id=reached.class_id, label_weight=reached.weight)


class RelabelledScans(ChangedScans):
    """Scans with the labels that a function of the scan gives, where that differs from what they have."""

    def __init__(self, scans: ScanSet, labels_of: Callable[[Scan], NDArray[np.uint8] | None]) -> None:
        super().__init__(scans)
        self._labels_of = labels_of

    def changed(self, scan: Scan, index: int) -> Scan:
        return dataclasses.replace(scan, class_id=self._labels_of(scan))


def reached_scans(scans: PropagatedScans) -> ScanSet:
    """Those of the scans that have a label or that one may reach; all of them where that is so for each."""
    kept = [number for number in range(len(scans)) if scans.propagation.is_near(number)]
    if len(kept) == len(scans) or not kept:
        return scans
    log.info(
        "%s: %d of the %d scans have no label and none nearby, and are left out",
        scans.name,
        len(scans) - len(kept),
        len(scans),
    )
    return Subset(scans, kept)


def labelled_of(scan: Scan) -> Labelled:
    """The labelled points of a scan that a ray reached."""
    if scan.class_id is None:
        return Labelled(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8))
    at = np.flatnonzero((scan.class_id > 0) & scan.cloud.valid)
    return Labelled(scan.cloud.xyz[at], scan.class_id[at])
