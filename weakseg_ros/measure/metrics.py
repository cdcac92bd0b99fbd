# SPDX-License-Identifier: Apache-2.0
"""Confusion matrix and calibration error: integer counts that add up over scans and processes, and the figures read off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from weakseg_ros.errors import DataError, counted

TINY = 1e-15  # keeps 0 / 0 at 0, as the SemanticKITTI API does


class ConfusionMatrix:
    """How often each class was taken for each: `counts` (K, K) int64, rows predicted, columns truth.

    All points are counted, those with class 0 too. The figures follow the SemanticKITTI API: points without truth
    (column 0) do not count; class 0 predicted on a labelled point is a miss of that point's class; a class that never
    occurs has IoU 0 and is part of the mean. Matrices of one K add up with `+` and `sum`.
    """

    def __init__(self, num_classes: int, counts: ArrayLike | None = None) -> None:
        """An empty matrix of K classes, class 0 included, or one with given counts; ValueError for another shape."""
        if num_classes < 2:
            raise ValueError(f"ConfusionMatrix: needs class 0 and at least one more, not {counted(num_classes, 'class')}")
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        if counts is not None:
            given = np.asarray(counts)
            if given.shape != self.counts.shape or given.dtype.kind not in "iu" or (given < 0).any():
                raise ValueError(
                    f"ConfusionMatrix: expected {self.counts.shape} counts from 0 up, found {given.shape} {given.dtype}"
                )
            self.counts += given.astype(np.int64)

    def add(self, predicted: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count the class ids of N points, or of any two arrays of one shape; DataError for ids outside 0..K-1."""
        if predicted.shape != truth.shape:
            raise DataError(f"metrics: {predicted.shape} predictions for {truth.shape} labels; give one for each")
        for name, ids in (("predicted", predicted), ("true", truth)):
            if ids.size and not (ids.min() >= 0 and ids.max() < self.num_classes):
                found = f"{name} class ids {ids.min()}..{ids.max()}"
                raise DataError(f"metrics: {found} are outside 0..{self.num_classes - 1}; check the label map")
        cell = predicted.astype(np.int64).ravel() * self.num_classes + truth.astype(np.int64).ravel()
        self.counts += np.bincount(cell, minlength=self.num_classes**2).reshape(self.counts.shape)

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.num_classes, self.counts + ConfusionMatrix(self.num_classes, other.counts).counts)

    def __radd__(self, start: int) -> ConfusionMatrix:
        """What `sum` needs: it begins with 0."""
        return ConfusionMatrix(self.num_classes, self.counts)

    def trainer_rule(self) -> ConfusionMatrix:
        """These counts as the trainers of lidar-bonnetal, SalsaNext and COARSE3D see them: row 0 is dropped as well.

        Points that the network left unlabelled then cost nothing, so the mIoU comes out higher than the API's.
        """
        known = np.arange(self.num_classes) > 0
        return ConfusionMatrix(self.num_classes, self.counts * np.outer(known, known))

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union of each class; 0 for class 0 and for classes that never occur."""
        hit, predicted, true = self._sums()
        return hit / (predicted + true - hit + TINY)

    @property
    def overlaps(self) -> NDArray[np.int64]:
        """(K, 2) points in the intersection and in the union of each class, of which `iou` is the quotient; they add up."""
        hit, predicted, true = self._sums()
        return np.stack([hit, predicted + true - hit], axis=1).astype(np.int64)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,) share of the labelled points predicted as a class that are of it; COARSE3D calls it accuracy."""
        hit, predicted, _ = self._sums()
        return hit / (predicted + TINY)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,) share of a class's points that were found."""
        hit, _, true = self._sums()
        return hit / (true + TINY)

    @property
    def miou(self) -> float:
        """Mean IoU over classes 1..K-1; absent ones count as 0."""
        return float(self.iou[1:].mean())

    @property
    def miou_present(self) -> float:
        """Mean IoU over the classes that occur in the truth; 0 where none does."""
        return self.restricted(np.flatnonzero(self.counts.sum(axis=0)[1:]) + 1)

    def restricted(self, classes: Sequence[int] | NDArray[np.int64]) -> float:
        """Mean IoU over some class ids, each still measured against all classes; 0 for an empty list."""
        chosen = np.asarray(classes, np.int64)
        return float(self.iou[chosen].mean()) if chosen.size else 0.0

    @property
    def accuracy(self) -> float:
        """Share of right points among the labelled ones that got a class; unlabelled predictions are left out."""
        hit, predicted, _ = self._sums()
        return float(hit[1:].sum() / (predicted[1:].sum() + TINY))

    @property
    def right(self) -> float:
        """Share of the labelled points that got their class; unlike in `accuracy`, a point without an answer is a wrong one."""
        hit, _, true = self._sums()
        return float(hit[1:].sum() / (true[1:].sum() + TINY))

    @property
    def unanswered(self) -> float:
        """Share of the labelled points that got no class."""
        return float(self.counts[0, 1:].sum() / max(1, int(self.counts[:, 1:].sum())))

    def _sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(K,) each: hits, points predicted as the class, points of the class; truth 0 left out."""
        counts = self.counts.astype(np.float64)
        counts[:, 0] = 0.0
        return np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)


class Calibration:
    """How far stated confidence is from being right: points counted in equal bins of confidence; adds up with `+`.

    Expected calibration error as in Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """

    def __init__(self, num_bins: int = 20) -> None:
        if num_bins < 1:
            raise ValueError(f"Calibration: needs at least one bin, not {num_bins}")
        self.counts: NDArray[np.int64] = np.zeros(num_bins, np.int64)
        """(bins,) points whose confidence lies in (i, i + 1] / bins; 0 lies in the first"""
        self.confidence_sum: NDArray[np.float64] = np.zeros(num_bins)
        """(bins,) sum of their confidences"""
        self.correct: NDArray[np.int64] = np.zeros(num_bins, np.int64)
        """(bins,) how many of them were right"""

    def add(self, confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_]) -> None:
        """Count N points with truth, by confidence 0..1 and whether the class was right; DataError for other values."""
        if confidence.shape != correct.shape:
            raise DataError(f"metrics: {confidence.shape} confidences for {correct.shape} answers; give one for each")
        if confidence.size and not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):
            raise DataError(
                f"metrics: confidences {confidence.min()}..{confidence.max()} are outside 0..1; check the network's output"
            )
        bins = len(self.counts)
        cell = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
        self.counts += np.bincount(cell, minlength=bins)
        self.confidence_sum += np.bincount(cell, weights=confidence, minlength=bins)
        self.correct += np.bincount(cell[correct], minlength=bins)

    def __add__(self, other: Calibration) -> Calibration:
        if len(self.counts) != len(other.counts):
            raise ValueError(f"Calibration: {len(self.counts)} and {len(other.counts)} bins do not add up")
        total = Calibration(len(self.counts))
        for name in ("counts", "confidence_sum", "correct"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    @property
    def ece(self) -> float:
        """Expected calibration error, 0..1: mean over points of |confidence - accuracy| of their bin; 0 without points."""
        return float(np.abs(self.confidence_sum - self.correct).sum() / max(1, int(self.counts.sum())))

    def to_mapping(self) -> dict[str, list[int] | list[float]]:
        """Plain lists for a JSON file; `from_mapping` reads them back exactly."""
        return {
            "counts": self.counts.tolist(),
            "confidence_sum": self.confidence_sum.tolist(),
            "correct": self.correct.tolist(),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Calibration:
        """The counts that `to_mapping` wrote; KeyError, TypeError or ValueError for anything else."""
        total = cls(len(mapping["counts"]))
        for name in ("counts", "confidence_sum", "correct"):
            values = np.asarray(mapping[name], getattr(total, name).dtype)
            if values.shape != total.counts.shape:
                raise ValueError(f"Calibration: expected {total.counts.shape} {name}, found {values.shape}")
            setattr(total, name, values)
        return total
