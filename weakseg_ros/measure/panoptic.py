# SPDX-License-Identifier: Apache-2.0
"""Panoptic quality as the SemanticKITTI API counts it: integer counts that add up over scans and processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError
from weakseg_ros.measure.metrics import TINY, ConfusionMatrix
from weakseg_ros.points.labels import LabelMap, pack_raw

COUNTS = ("tp", "fp", "fn", "iou_sum")


class PanopticQuality:
    """Segments found, invented and missed, by class: PQ = SQ x RQ (Kirillov et al., Panoptic Segmentation, CVPR 2019, eq. 1).

    Scans come as raw 32-bit labels and every rule is that of SemanticKITTI's API: a segment is all points of one full
    label, so objects of two raw classes that the map merges stay two; points without true class are dropped first; a pair
    of one class matches where its IoU exceeds 0.5; unmatched segments count from `min_points` points up, matched ones
    always; classes that never occur have quality 0 and are part of the means. Objects of one map and one `min_points` add
    up with `+` and `sum`.
    """

    def __init__(self, labels: LabelMap, min_points: int = 50) -> None:
        """Empty counts for the K classes of a label map; the API's own default of `min_points` is 50."""
        if min_points < 0:
            raise ValueError(f"PanopticQuality: min_points {min_points} is negative")
        self.labels = labels
        self.min_points = min_points
        self.confusion = ConfusionMatrix(labels.num_classes)
        """of the classes alone; gives the IoU of stuff in PQ dagger"""
        self.tp: NDArray[np.int64] = np.zeros(labels.num_classes, np.int64)
        """(K,) true segments that a predicted one matches"""
        self.fp: NDArray[np.int64] = np.zeros(labels.num_classes, np.int64)
        """(K,) predicted segments without a match"""
        self.fn: NDArray[np.int64] = np.zeros(labels.num_classes, np.int64)
        """(K,) true segments without a match"""
        self.iou_sum: NDArray[np.float64] = np.zeros(labels.num_classes)
        """(K,) sum of the IoU of the matches"""

    def add(self, predicted: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count one scan: raw labels of N points each, instance << 16 | raw class id, as `.label` files hold them.

        Predicted stuff must carry one instance number, else every number is a segment; `raw_labels` sees to it.
        """
        if predicted.shape != truth.shape:
            raise DataError(f"panoptic: {predicted.shape} predictions for {truth.shape} labels; give one for each")
        self.confusion.add(self.labels.to_class(predicted), self.labels.to_class(truth))
        known = self.labels.to_class(truth) > 0
        ours = _Segments(predicted[known], self.labels)
        theirs = _Segments(truth[known], self.labels)
        pair, shared = np.unique(ours.of_point * max(len(theirs.size), 1) + theirs.of_point, return_counts=True)
        left, right = np.divmod(pair, max(len(theirs.size), 1))
        iou = shared / (ours.size[left] + theirs.size[right] - shared)
        match = (ours.class_id[left] == theirs.class_id[right]) & (ours.class_id[left] > 0) & (iou > 0.5)
        classes = ours.class_id[left[match]]
        self.tp += np.bincount(classes, minlength=len(self.tp))
        self.iou_sum += np.bincount(classes, weights=iou[match], minlength=len(self.tp))
        self.fp += ours.count_unmatched(left[match], self.min_points)
        self.fn += theirs.count_unmatched(right[match], self.min_points)

    def __add__(self, other: PanopticQuality) -> PanopticQuality:
        if self.labels.to_rows() != other.labels.to_rows() or self.min_points != other.min_points:
            raise DataError(
                "panoptic: counts of different label maps or min_points do not add up; merge results of one evaluation"
            )
        total = PanopticQuality(self.labels, self.min_points)
        total.confusion = self.confusion + other.confusion
        for name in COUNTS:
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def __radd__(self, start: int) -> PanopticQuality:
        """What `sum` needs: it begins with 0."""
        return self + PanopticQuality(self.labels, self.min_points)

    @property
    def sq(self) -> NDArray[np.float64]:
        """(K,) segmentation quality: mean IoU of the matches."""
        quality: NDArray[np.float64] = self.iou_sum / np.maximum(self.tp, TINY)
        return quality

    @property
    def rq(self) -> NDArray[np.float64]:
        """(K,) recognition quality: the F1 score of the segments."""
        quality: NDArray[np.float64] = self.tp / np.maximum(self.tp + 0.5 * self.fp + 0.5 * self.fn, TINY)
        return quality

    @property
    def pq(self) -> NDArray[np.float64]:
        """(K,) panoptic quality."""
        return self.sq * self.rq

    @property
    def pq_dagger(self) -> float:
        """Mean PQ in which stuff counts by its IoU (Porzi et al., Seamless Scene Segmentation, CVPR 2019)."""
        return float(np.where(self.labels.things, self.pq, self.confusion.iou)[1:].mean())

    def summary(self) -> dict[str, float]:
        """The means, 0..1, by name: `pq`, `sq`, `rq` over all classes, each also `_things` and `_stuff`; `pq_dagger`, `miou`."""
        known = np.arange(self.labels.num_classes) > 0
        groups = {"": known, "_things": known & self.labels.things, "_stuff": known & ~self.labels.things}
        figures = {}
        for ending, classes in groups.items():
            for name in ("pq", "sq", "rq"):
                values = getattr(self, name)[classes]
                figures[name + ending] = float(values.mean()) if len(values) else 0.0
        return {**figures, "pq_dagger": self.pq_dagger, "miou": self.confusion.miou}

    def to_mapping(self) -> dict[str, Any]:
        """Plain numbers and lists for a JSON file; `from_mapping` reads them back exactly."""
        lists = {name: getattr(self, name).tolist() for name in COUNTS}
        return {"min_points": self.min_points, "confusion": self.confusion.counts.tolist(), **lists}

    @classmethod
    def from_mapping(cls, labels: LabelMap, mapping: Mapping[str, Any]) -> PanopticQuality:
        """The counts that `to_mapping` wrote, of the same label map; KeyError, TypeError or ValueError for anything else."""
        total = cls(labels, int(mapping["min_points"]))
        total.confusion = ConfusionMatrix(labels.num_classes, np.asarray(mapping["confusion"]))
        for name in COUNTS:
            values = np.asarray(mapping[name], getattr(total, name).dtype)
            if values.shape != total.tp.shape:
                raise ValueError(f"PanopticQuality: expected {total.tp.shape} {name}, found {values.shape}")
            setattr(total, name, values)
        return total


class _Segments:
    """The points of one scan by their full label."""

    def __init__(self, raw: NDArray[Any], labels: LabelMap) -> None:
        name, of_point, self.size = np.unique(raw, return_inverse=True, return_counts=True)
        self.of_point: NDArray[np.int64] = of_point.astype(np.int64)
        self.class_id = labels.to_class(name)
        self.num_classes = labels.num_classes

    def count_unmatched(self, matched: NDArray[np.int64], min_points: int) -> NDArray[np.int64]:
        """(K,) segments of each class that are large enough to be asked about and are not among `matched`."""
        asked = self.size >= min_points
        asked[matched] = False
        counts = np.bincount(self.class_id[asked], minlength=self.num_classes)
        counts[0] = 0
        return counts


def raw_labels(labels: LabelMap, class_id: NDArray[np.uint8], instance_id: NDArray[Any]) -> NDArray[np.uint32]:
    """Raw labels (N,) of an answer: raw class id, and above it the instance number of things; stuff gets number 0."""
    return pack_raw(labels.to_raw(class_id), np.where(labels.things[class_id], instance_id, 0))
