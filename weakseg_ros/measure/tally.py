# SPDX-License-Identifier: Apache-2.0
"""Everything an evaluation counts, in one object that adds up: over scans, over processes, over a thousand bags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import DataError, counted
from weakseg_ros.measure.latency import StageTimes
from weakseg_ros.measure.metrics import Calibration, ConfusionMatrix
from weakseg_ros.points.cloud import FLAG_NON_FINITE, FLAG_NON_RETURN, FLAG_OUT_OF_RANGE, Cloud

RANGE_EDGES_M = (0.0, 10.0, 20.0, 30.0, 50.0)
UNCERTAINTY_BINS = 20
SCALARS = ("scans", "silent_scans", "labelled_scans", "points", "same_as_direct", "compared_with_direct")
FLAG_NAMES = {FLAG_NON_FINITE: "non_finite", FLAG_NON_RETURN: "non_return", FLAG_OUT_OF_RANGE: "out_of_range"}


class Tally:
    """Counts over scans: confusion by range, calibration, class shares, uncertainty, flags, latency, agreement.

    `num_classes` counts class 0. Without truth the confusion and the calibration stay empty.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.scans = 0
        self.silent_scans = 0
        """scans of which no point gets a class"""
        self.labelled_scans = 0
        self.points = 0
        self.confusion_by_range = [ConfusionMatrix(num_classes) for _ in RANGE_EDGES_M]
        self.calibration = Calibration()
        self.predicted = np.zeros(num_classes, np.int64)
        self.uncertainty = np.zeros(UNCERTAINTY_BINS, np.int64)
        self.flags = dict.fromkeys(FLAG_NAMES.values(), 0)
        self.times = StageTimes()
        self.cold_ms: list[float] = []
        """total time of the first scan of each process, while its engine warmed up; among `times`, too"""
        self.same_as_direct = 0
        self.compared_with_direct = 0

    def add(self, cloud: Cloud, answer: Segmentation, truth: NDArray[np.uint8] | None = None) -> None:
        """Count one scan; `truth` (N,) are the bundle's class ids, 0 = unknown."""
        self.scans += 1
        self.points += len(cloud)
        self.predicted += np.bincount(answer.class_id, minlength=self.num_classes)
        known = answer.class_id > 0
        self.silent_scans += not known.any()
        self.uncertainty += np.histogram(answer.uncertainty[known], UNCERTAINTY_BINS, (0.0, 1.0))[0]
        for flag, name in FLAG_NAMES.items():
            self.flags[name] += int(np.count_nonzero(answer.flags & flag))
        self._add_times(answer.timings_ms)
        if truth is not None:
            self._add_truth(cloud, answer, truth)

    def _add_times(self, timings_ms: Mapping[str, float]) -> None:
        if timings_ms:
            total = sum(timings_ms.values())
            self.times.add({**timings_ms, "total": total})
            self.cold_ms = self.cold_ms or [total]

    @property
    def warm_ms(self) -> list[float]:
        """Total times without those of first scans; all of them where there are no others."""
        every = self.times.samples_ms.get("total", [])
        cold = Counter(self.cold_ms)
        rest = []
        for total in every:
            if cold[total] > 0:
                cold[total] -= 1
            else:
                rest.append(total)
        return rest or list(every)

    def _add_truth(self, cloud: Cloud, answer: Segmentation, truth: NDArray[np.uint8]) -> None:
        self.labelled_scans += 1
        labelled = np.flatnonzero(truth > 0)
        distance = np.linalg.norm(cloud.xyz[labelled].astype(np.float64), axis=1)
        ring = np.searchsorted(RANGE_EDGES_M, np.nan_to_num(distance, nan=0.0, posinf=1e9), side="right") - 1
        for index, confusion in enumerate(self.confusion_by_range):
            here = labelled[ring == index]
            confusion.add(answer.class_id[here], truth[here])
        answered = labelled[answer.class_id[labelled] > 0]
        self.calibration.add(answer.confidence[answered], answer.class_id[answered] == truth[answered])

    def compare(self, answer: Segmentation, direct: Segmentation) -> None:
        """Count on how many points the node and the segmenter called directly agree."""
        self.same_as_direct += int(np.count_nonzero(answer.class_id == direct.class_id))
        self.compared_with_direct += len(direct.class_id)

    @property
    def confusion(self) -> ConfusionMatrix:
        """All ranges together."""
        return sum(self.confusion_by_range[1:], start=self.confusion_by_range[0])

    def __add__(self, other: Tally) -> Tally:
        if self.num_classes != other.num_classes:
            raise DataError(
                f"tally: {self.num_classes} and {counted(other.num_classes, 'class')} do not add up; merge results of one bundle"
            )
        total = Tally(self.num_classes)
        for name in (*SCALARS, "predicted", "uncertainty"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        total.confusion_by_range = [a + b for a, b in zip(self.confusion_by_range, other.confusion_by_range, strict=True)]
        total.calibration = self.calibration + other.calibration
        total.flags = {name: self.flags[name] + other.flags[name] for name in self.flags}
        total.times = self.times + other.times
        total.cold_ms = self.cold_ms + other.cold_ms
        return total

    def to_mapping(self) -> dict[str, Any]:
        """Plain numbers and lists for a JSON file; `from_mapping` reads them back exactly."""
        return {
            **{name: getattr(self, name) for name in SCALARS},
            "num_classes": self.num_classes,
            "confusion_by_range": [confusion.counts.tolist() for confusion in self.confusion_by_range],
            "calibration": self.calibration.to_mapping(),
            "predicted": self.predicted.tolist(),
            "uncertainty": self.uncertainty.tolist(),
            "flags": self.flags,
            "cold_ms": [round(sample, 4) for sample in self.cold_ms],
            "times_stride": self.times.stride,
            "worst_ms": {stage: round(worst, 4) for stage, worst in self.times.worst_ms.items()},
            "times_ms": {stage: [round(sample, 4) for sample in samples] for stage, samples in self.times.samples_ms.items()},
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], where: str) -> Tally:
        """The tally that `to_mapping` wrote; DataError, beginning with `where`, for anything else."""
        try:
            tally = cls(int(mapping["num_classes"]))
            scalars = {"silent_scans": 0, **mapping}  # which older summaries lack
            for name in SCALARS:
                setattr(tally, name, int(scalars[name]))
            counts = np.asarray(mapping["confusion_by_range"], np.int64)
            tally.confusion_by_range = [ConfusionMatrix(tally.num_classes, matrix) for matrix in counts]
            tally.calibration = Calibration.from_mapping(mapping["calibration"])
            tally.predicted = np.asarray(mapping["predicted"], np.int64)
            tally.uncertainty = np.asarray(mapping["uncertainty"], np.int64)
            tally.flags = {name: int(mapping["flags"][name]) for name in FLAG_NAMES.values()}
            tally.times = StageTimes(mapping["times_ms"], int(mapping.get("times_stride", 1)), mapping.get("worst_ms"))
            tally.cold_ms = [float(sample) for sample in mapping.get("cold_ms", ())]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: its counts cannot be read ({error!r}); write it again with 'weakseg evaluate'") from None
        return tally
