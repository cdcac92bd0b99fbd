# SPDX-License-Identifier: Apache-2.0
"""The gate: a retrained bundle is deployed only where it is worse than the old one in nothing that was agreed on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import counted
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.measure.panoptic import PanopticQuality, raw_labels
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap


@dataclass(frozen=True)
class GateConfig:
    """Sets what a new bundle may lose and what it must gain."""

    miou_drop: float = setting(0.01, 0.0, 1.0)
    """Sets the largest permitted drop in mIoU on the regression set (0 to 1)."""
    pq_drop: float = setting(0.01, 0.0, 1.0)
    """Sets the largest permitted drop in PQ on the regression set, if it has instances (0 to 1)."""
    class_drop: float = setting(0.05, 0.0, 1.0)
    """Sets the largest permitted drop in the IoU of a single class (0 to 1)."""
    class_points: int = setting(1000, 1)
    """Sets the number of points that a class needs in the regression set for its IoU to be judged (1 or more)."""
    latency_ratio: float = setting(1.15, 0.1, 100.0)
    """Sets the largest permitted ratio of the new to the old median latency per scan, measured alternately (0.1 to 100)."""
    new_gain: float = setting(0.0, -1.0, 1.0)
    """Sets by how much the accuracy on the held-out clicks must rise (-1 to 1), unless all of them are already correct."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass
class Scores:
    """How a bundle does on one set of scans."""

    labels: LabelMap
    confusion: ConfusionMatrix = field(init=False)
    panoptic: PanopticQuality = field(init=False)
    scans: int = 0
    instances: int = 0
    """objects with an instance id in the truth"""

    def __post_init__(self) -> None:
        self.confusion = ConfusionMatrix(self.labels.num_classes)
        self.panoptic = PanopticQuality(self.labels)

    def add(self, segmenter: Segmenter, scan: Scan) -> None:
        """Run one labelled scan and count."""
        if scan.class_id is None or not scan.class_id.any():
            return
        answer = segmenter.run(scan.cloud)
        self.scans += 1
        self.confusion.add(answer.class_id, scan.class_id)
        if scan.instance_id is None:
            return
        truth = raw_labels(self.labels, scan.class_id, scan.instance_id)
        of_things = self.labels.things[scan.class_id] & (scan.instance_id > 0)
        self.instances += len(np.unique(truth[of_things]))
        self.panoptic.add(raw_labels(self.labels, answer.class_id, answer.instance_id), truth)

    @property
    def labelled_points(self) -> int:
        """Points with truth."""
        return int(self.confusion.counts[:, 1:].sum())

    @property
    def right(self) -> float:
        """Share of the points with truth that are answered right."""
        return self.confusion.right

    @property
    def pq(self) -> float | None:
        """Mean PQ over the classes that occur in the truth; None without instances."""
        present = self.confusion.counts[:, 1:].sum(axis=0) > 0
        return float(self.panoptic.pq[1:][present].mean()) if self.instances else None

    def summary(self) -> dict[str, object]:
        """Plain figures for a report."""
        points = self.confusion.counts.sum(axis=0)
        iou = {row.name: round(float(self.confusion.iou[row.id]), 4) for row in self.labels.classes[1:] if points[row.id]}
        return {
            "scans": self.scans,
            "points": self.labelled_points,
            "miou": round(self.confusion.miou_present, 4),
            "right": round(self.right, 4),
            "pq": None if self.pq is None else round(self.pq, 4),
            "class_iou": iou,
            "class_points": {row.name: int(points[row.id]) for row in self.labels.classes[1:] if points[row.id]},
        }


@dataclass(frozen=True)
class Check:
    """One question of the gate."""

    name: str
    passed: bool
    before: float
    after: float
    limit: float
    """what `bound` refers to"""
    bound: Literal["at least", "at most", "more than"] = "at least"
    """how `after` has to lie to `limit`"""

    def __str__(self) -> str:
        return f"{self.name}: {self.before:.3f} before, {self.after:.3f} after, {self.bound} {self.limit:.3f} is required"


@dataclass(frozen=True)
class GateVerdict:
    """What the gate found."""

    checks: tuple[Check, ...]
    unasked: tuple[str, ...] = ()
    """one sentence for each question that could not be asked"""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that refuse the bundle."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def passed(self) -> bool:
        """Whether the bundle may be deployed."""
        return not self.failed


def judge(
    old: Scores, new: Scores, old_clicks: Scores, new_clicks: Scores, latency_ratio: float, config: GateConfig
) -> GateVerdict:
    """Hold a new bundle against the old one: `old`, `new` on the regression set, the clicks on held-out new frames."""
    checks = [_at_least("mIoU", old.confusion.miou_present, new.confusion.miou_present, config.miou_drop)]
    unasked = []
    if old.pq is not None and new.pq is not None:
        checks.append(_at_least("PQ", old.pq, new.pq, config.pq_drop))
    else:
        unasked.append("PQ: the regression set has no instances")
    points = old.confusion.counts.sum(axis=0)
    for row in old.labels.classes[1:]:
        if points[row.id] >= config.class_points:
            before, after = float(old.confusion.iou[row.id]), float(new.confusion.iou[row.id])
            checks.append(_at_least(f"IoU of {row.name}", before, after, config.class_drop))
        elif points[row.id]:
            unasked.append(
                f"IoU of {row.name}: {counted(points[row.id], 'point is', 'points are')} "
                f"too few (class_points {config.class_points})"
            )
    checks.append(
        Check("latency ratio", latency_ratio <= config.latency_ratio, 1.0, latency_ratio, config.latency_ratio, "at most")
    )
    before, after = old_clicks.right, new_clicks.right
    least = min(before + config.new_gain, 1.0)
    checks.append(Check("accuracy on held-out clicks", after > least or after == 1.0, before, after, least, "more than"))
    return GateVerdict(tuple(checks), tuple(unasked))


def measure_latency(old: Segmenter, new: Segmenter, clouds: Sequence[Cloud], rounds: int = 5) -> tuple[float, float]:
    """Median ms per scan of two segmenters, cloud by cloud in turns, so that a busy machine slows both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for cloud in clouds:
            for segmenter, samples in zip((old, new), times, strict=True):
                begin = time.perf_counter()
                segmenter.run(cloud)
                if number:  # the first round warms up
                    samples.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def score(segmenter: Segmenter, scans: Iterable[Scan]) -> Scores:
    """Run every labelled scan through a segmenter and count."""
    scores = Scores(segmenter.bundle.labels)
    for scan in scans:
        scores.add(segmenter, scan)
    return scores


def _at_least(name: str, before: float, after: float, drop: float) -> Check:
    least = max(before - drop, 0.0)
    return Check(name, after >= least, before, after, least)
