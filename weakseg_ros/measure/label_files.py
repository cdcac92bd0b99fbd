# SPDX-License-Identifier: Apache-2.0
"""Predictions of any model against the truth, both as label files: `weakseg evaluate --predictions DIR --truth DIR`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weakseg_ros.data.arrays import load_array
from weakseg_ros.data.scan_files import LABEL_SUFFIXES, own_files, read_raw_labels
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import check_can_write, make_folder, write_json
from weakseg_ros.measure.evaluation import SUMMARY_FILE
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.measure.panoptic import PanopticQuality
from weakseg_ros.measure.summary import panoptic_figures
from weakseg_ros.points.labels import LabelMap

PREDICTIONS, LABELS = "predictions", "labels"
FOLDERS = (PREDICTIONS, LABELS, "sequences")
"""names of folders that say what lies in them, not which scan it is of"""


def compare_files(predictions: Path, truth: Path, label_map: str, out: Path) -> dict[str, Any]:
    """Figures over all points of the scans in `truth`, also written to `out`/summary.json.

    A scan's files are those of the same name, below folders of the same names; ids are those of `label_map`. Raises DataError
    where a scan has no prediction, or one for another number of points.
    """
    check_can_write(out, "--out")
    labels = LabelMap.load(label_map)
    pairs = _pairs(predictions, truth)
    confusion, objects = ConfusionMatrix(labels.num_classes), PanopticQuality(labels)
    for predicted_file, true_file in pairs:
        count = _points_in(true_file)
        true = read_raw_labels(true_file, count)
        predicted = _same_count(predicted_file, true_file, count)
        for file, raw in ((predicted_file, predicted), (true_file, true)):
            strange = labels.unknown_raw_ids(raw)
            if strange:
                listed = ", ".join(map(str, strange[:5]))
                raise DataError(f"{file}: holds ids that label map '{labels.name}' does not list ({listed}); give --label-map")
        confusion.add(labels.to_class(predicted), labels.to_class(true))
        objects.add(predicted, true)
    summary = _summary(confusion, objects, labels, len(pairs))
    facts = {"predictions": str(predictions), "truth": str(truth), "label_map": labels.name, "environment": environment()}
    make_folder(out)
    write_json(out / SUMMARY_FILE, {**summary, **facts})
    return summary


def _summary(confusion: ConfusionMatrix, objects: PanopticQuality, labels: LabelMap, scans: int) -> dict[str, Any]:
    asked = range(1, labels.num_classes)
    truth = confusion.counts.sum(axis=0)
    present = [index for index in asked if truth[index]]
    if not present:
        raise DataError(
            f"truth: no point of its {counted(scans, 'scan')} has a class of label map '{labels.name}'; give --label-map"
        )
    iou = confusion.iou
    labelled = int(truth[1:].sum())
    return {
        "scans": scans,
        "labelled_points": labelled,
        "unanswered_share": round(float(confusion.counts[0, 1:].sum()) / labelled, 4),
        "miou": round(float(np.mean([iou[index] for index in asked])), 4),
        "miou_present": round(float(np.mean([iou[index] for index in present])), 4),
        "accuracy": round(float(np.trace(confusion.counts[1:, 1:])) / labelled, 4),
        "class_iou": {labels.names[index]: round(float(iou[index]), 4) for index in present},
        **panoptic_figures(objects, frozenset(asked)),
    }


def in_words(summary: dict[str, Any]) -> str:
    """The figures in one line."""
    rows = ", ".join(f"{name} {iou:.3f}" for name, iou in summary["class_iou"].items())
    return (
        f"{counted(summary['scans'], 'scan')}, mIoU {summary['miou_present']:.3f} over the "
        f"{counted(len(summary['class_iou']), 'class')} in them "
        f"({summary['miou']:.3f} over all), {summary['accuracy']:.1%} of the labelled points right, "
        f"{summary['unanswered_share']:.1%} without an answer; IoU: {rows}"
    )


def _pairs(predictions: Path, truth: Path) -> list[tuple[Path, Path]]:
    """(prediction, truth) of each scan in `truth`, no file both; DataError where one is missing or not clear."""
    found, wanted = _files_by_scan(predictions, PREDICTIONS), _files_by_scan(truth, LABELS)
    missing = [name for name in wanted if name not in found]
    if missing:
        listed = ", ".join(missing[:3])
        raise DataError(
            f"{predictions}: holds no prediction for {len(missing)} of "
            f"{counted(len(wanted), 'scan')} ({listed}); predict all of them"
        )
    same = [file for name, file in wanted.items() if file.samefile(found[name])]
    if same:
        raise DataError(f"{same[0]}: is both prediction and truth; give the folder of the one and that of the other")
    return [(found[name], file) for name, file in wanted.items()]


def _files_by_scan(folder: Path, preferred: str) -> dict[str, Path]:
    """The label files below a folder by what names their scan; of two for one scan the one in a folder called `preferred`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path")
    files = sorted(file for file in own_files(folder.rglob("*")) if file.suffix in LABEL_SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{folder}: holds no label file ({', '.join(LABEL_SUFFIXES)}); check the path")
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        parts = file.relative_to(folder).with_suffix("").parts
        found["/".join(part for part in parts if part not in FOLDERS)].append(file)
    return {name: _one_of(some, folder, preferred) for name, some in found.items()}


def _one_of(files: Sequence[Path], folder: Path, preferred: str) -> Path:
    """The label file of a scan; DataError where there are several."""
    meant = [file for file in files if preferred in file.relative_to(folder).parts] or files
    if len(meant) > 1:
        names = " and ".join(str(file.relative_to(folder)) for file in meant[:2])
        raise DataError(f"{folder}: has several label files of one scan ({names}); name the folder of the right ones")
    return meant[0]


def _points_in(file: Path) -> int:
    """How many points a label file is of, from its size or its own header."""
    if file.suffix == ".npy":
        try:
            return int(load_array(file).size)
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read as a numpy array ({error}); write it again with numpy.save") from None
    return file.stat().st_size // 4


def _same_count(predicted_file: Path, true_file: Path, count: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    try:
        return read_raw_labels(predicted_file, count)
    except DataError as error:
        raise DataError(f"{error} (the truth is {true_file})") from None
