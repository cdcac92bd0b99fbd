# SPDX-License-Identifier: Apache-2.0
"""From counts to the figures of a report: one plain mapping, written as JSON and rendered as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.measure.latency import describe, histogram
from weakseg_ros.measure.panoptic import PanopticQuality
from weakseg_ros.measure.tally import RANGE_EDGES_M, UNCERTAINTY_BINS, Tally
from weakseg_ros.measure.tracks import TrackQuality
from weakseg_ros.points.labels import LabelMap

TOP_CONFUSIONS = 5
Unanswered = Literal["wrong", "left_out"]


def figures(tally: Tally, labels: LabelMap, shared: frozenset[int], unanswered: Unanswered = "wrong") -> dict[str, Any]:
    """Every figure that follows from the counts alone; labelled points that got no class are `wrong`, or `left_out` of them.

    `shared` are the class ids that the data's labels can name; the mIoU is taken over these. Where the data are labelled
    the mapping has `miou` (SemanticKITTI's rule: a class without a point counts 0), `miou_present` (classes that have
    points), `class_iou`, `accuracy` (point accuracy), `unanswered_share`, `miou_by_range`, `calibration`, `confusions`.
    """
    return {
        "scans": tally.scans,
        "labelled_scans": tally.labelled_scans,
        "points": tally.points,
        "points_per_scan": round(tally.points / tally.scans) if tally.scans else 0,
        "silent_scans": tally.silent_scans,
        "points_without_class": {**tally.flags, "total": int(tally.predicted[0])},
        **(_against_truth(tally, labels, shared, unanswered) if tally.labelled_scans else {}),
        "classes": _class_rows(tally, labels, shared),
        "latency_ms": tally.times.summary(),
        "latency_warm_ms": describe(tally.warm_ms),
        "cold_start_ms": round(max(tally.cold_ms), 3) if tally.cold_ms and tally.scans > 1 else None,
        "latency_histogram": _latency_histogram(tally),
        "uncertainty_histogram": _uncertainty_histogram(tally),
        **(_agreement(tally) if tally.compared_with_direct else {}),
    }


def _against_truth(tally: Tally, labels: LabelMap, shared: frozenset[int], unanswered: Unanswered) -> dict[str, Any]:
    confusion = tally.confusion if unanswered == "wrong" else tally.confusion.trainer_rule()
    iou, truth = confusion.iou, confusion.counts.sum(axis=0)
    asked = sorted(shared)
    present = [index for index in asked if truth[index]]
    return {
        "miou": round(float(iou[asked].mean()), 4),
        "miou_present": round(float(iou[present].mean()), 4) if present else 0.0,
        "class_iou": {labels.names[index]: round(float(iou[index]), 4) for index in asked},
        "classes_present": [labels.names[index] for index in present],
        "accuracy": round(confusion.right, 4),
        "accuracy_of_answered": round(confusion.accuracy, 4),
        "unanswered": unanswered,
        "labelled_share": round(int(tally.confusion.counts[:, 1:].sum()) / max(1, tally.points), 4),
        "unanswered_share": round(tally.confusion.unanswered, 4),
        "miou_by_range": _by_range(tally, asked),
        "calibration": _calibration(tally),
        "confusions": _confusions(confusion.counts, labels),
        "confusion_matrix": confusion.counts.tolist(),
    }


def panoptic_figures(quality: PanopticQuality, shared: frozenset[int]) -> dict[str, Any]:
    """`panoptic`: quality of the segments over the classes that the data can name, or nothing where no true object was seen.

    The means `pq`, `sq`, `rq`, over `things` and `stuff` too, follow SemanticKITTI's rule: a class without a segment counts 0.
    """
    labels = quality.labels
    seen = quality.tp + quality.fn > 0
    if not seen[labels.things].any():
        return {}
    asked = np.isin(np.arange(labels.num_classes), sorted(shared))
    groups = {"": asked, "_things": asked & labels.things, "_stuff": asked & ~labels.things, "_present": asked & seen}
    means = {
        f"{name}{ending}": round(float(getattr(quality, name)[classes].mean()), 4)
        for ending, classes in groups.items()
        for name in ("pq", "sq", "rq")
        if classes.any()
    }
    class_pq = {labels.names[index]: round(float(quality.pq[index]), 4) for index in np.flatnonzero(asked)}
    objects = [_object_row(quality, int(index)) for index in np.flatnonzero(asked & labels.things)]
    return {"panoptic": {**means, "min_points": quality.min_points, "class_pq": class_pq, "objects": objects}}


def _object_row(quality: PanopticQuality, index: int) -> dict[str, Any]:
    """How many objects of a class were found, missed and invented, and how well."""
    figures = {name: round(float(getattr(quality, name)[index]), 4) for name in ("pq", "sq", "rq")}
    counts = {"found": int(quality.tp[index]), "missed": int(quality.fn[index]), "invented": int(quality.fp[index])}
    return {"name": quality.labels.names[index], **figures, **counts}


def track_figures(quality: TrackQuality) -> dict[str, Any]:
    """`tracks`: how long ids last, or nothing where no true object was found twice; needs truth whose own ids last."""
    if quality.found <= quality.followed:
        return {}
    return {"tracks": {name: round(value, 4) for name, value in quality.summary().items()}}


def _by_range(tally: Tally, asked: list[int]) -> list[dict[str, Any]]:
    """mIoU ring by ring, each over the classes that have points there."""
    rows = []
    for index, confusion in enumerate(tally.confusion_by_range):
        truth = confusion.counts.sum(axis=0)
        present = [k for k in asked if truth[k]]
        rows.append(
            {
                "from_m": RANGE_EDGES_M[index],
                "to_m": RANGE_EDGES_M[index + 1] if index + 1 < len(RANGE_EDGES_M) else None,
                "miou": round(float(confusion.iou[present].mean()), 4) if present else None,
                "classes": len(present),
                "points": int(truth[1:].sum()),
            }
        )
    return rows


def _calibration(tally: Tally) -> dict[str, Any]:
    calibration = tally.calibration
    counts = calibration.counts
    safe = np.maximum(counts, 1)
    bins = zip(counts, calibration.confidence_sum / safe, calibration.correct / safe, strict=True)
    return {
        "ece": round(float(calibration.ece), 4),
        "bins": [
            {"points": int(count), "confidence": round(float(confidence), 4), "accuracy": round(float(accuracy), 4)}
            for count, confidence, accuracy in bins
        ],
    }


def _confusions(counts: NDArray[np.int64], labels: LabelMap) -> list[dict[str, Any]]:
    """The largest shares of a class's points that another class got, for classes of which at least 0.01 % of the points are."""
    truth = counts.sum(axis=0)
    shares = counts / np.maximum(truth, 1)
    np.fill_diagonal(shares, 0.0)
    shares[0] = 0.0
    shares[:, truth < 1e-4 * truth.sum()] = 0.0
    order = np.argsort(shares, axis=None)[::-1][:TOP_CONFUSIONS]
    pairs = [np.unravel_index(index, shares.shape) for index in order]
    return [
        {"truth": labels.names[t], "predicted": labels.names[p], "share": round(float(shares[p, t]), 4)}
        for p, t in pairs
        if shares[p, t] > 0.01
    ]


def _class_rows(tally: Tally, labels: LabelMap, shared: frozenset[int]) -> list[dict[str, Any]]:
    counts = tally.confusion.counts
    truth, answered = counts.sum(axis=0), counts[:, 1:].sum(axis=1)
    known = max(1, int(tally.predicted[1:].sum()))
    rows = []
    for row in labels.classes[1:]:
        measured = {}
        if tally.labelled_scans and row.id in shared:
            right = int(counts[row.id, row.id])
            measured = {
                "iou": round(float(tally.confusion.iou[row.id]), 4),
                "precision": round(right / max(1, int(answered[row.id])), 4),
                "recall": round(right / max(1, int(truth[row.id])), 4),
                "truth_points": int(truth[row.id]),
                "taken_for": _taken_for(counts[:, row.id], row.id, labels),
            }
        share = round(int(tally.predicted[row.id]) / known, 6)
        rows.append({"id": row.id, "name": row.name, "color": list(row.color), "predicted_share": share, **measured})
    return rows


def _taken_for(column: NDArray[np.int64], class_id: int, labels: LabelMap) -> dict[str, Any] | None:
    """The other class that most points of a class were given, and their share of it; None where there is none."""
    others = column.copy()
    others[[0, class_id]] = 0
    most = int(np.argmax(others))
    return {"name": labels.names[most], "share": round(float(others[most] / column.sum()), 4)} if others[most] else None


def _latency_histogram(tally: Tally) -> dict[str, Any]:
    counts, edges = histogram(tally.times.samples_ms.get("total", ()))
    return {"counts": counts.tolist(), "edges_ms": [round(float(edge), 3) for edge in edges]}


def _uncertainty_histogram(tally: Tally) -> dict[str, Any]:
    counts = tally.uncertainty
    total = max(1, int(counts.sum()))
    middles = (np.arange(UNCERTAINTY_BINS) + 0.5) / UNCERTAINTY_BINS
    return {
        "counts": counts.tolist(),
        "mean": round(float(counts @ middles) / total, 4),
        "share_above_half": round(float(counts[UNCERTAINTY_BINS // 2 :].sum()) / total, 4),
    }


def _agreement(tally: Tally) -> dict[str, Any]:
    share = tally.same_as_direct / tally.compared_with_direct
    return {
        "agreement_with_direct": {"points": tally.compared_with_direct, "same": tally.same_as_direct, "share": round(share, 6)}
    }


def replay_figures(samples_ms: Sequence[float]) -> dict[str, Any]:
    """Latency from publishing a cloud to receiving its answer, with its histogram."""
    counts, edges = histogram(samples_ms)
    return {**describe(samples_ms), "histogram": {"counts": counts.tolist(), "edges_ms": [round(float(e), 3) for e in edges]}}
