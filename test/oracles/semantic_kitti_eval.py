# SPDX-License-Identifier: Apache-2.0
"""Figures, panoptic ones too, and label map beside the SemanticKITTI API's."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.measure.panoptic import PanopticQuality
from weakseg_ros.points.labels import LabelMap

Arrays = Mapping[str, np.ndarray]


def check_semantics(arrays: Arrays) -> None:
    labels = LabelMap.load("semantickitti")
    confusion = ConfusionMatrix(labels.num_classes)
    for predicted, truth in zip(arrays["pred_raw"], arrays["gt_raw"], strict=True):
        confusion.add(labels.to_class(predicted), labels.to_class(truth))
    np.testing.assert_array_equal(confusion.counts, arrays["confusion_pred_rows_gt_cols"])
    np.testing.assert_allclose(confusion.iou, arrays["class_iou"], rtol=1e-9)
    np.testing.assert_allclose(confusion.miou, arrays["miou"], rtol=1e-9)
    np.testing.assert_allclose(confusion.accuracy, arrays["acc"], rtol=1e-9)


def check_label_maps(arrays: Arrays) -> None:
    labels = LabelMap.load("semantickitti")
    table = arrays["learning_map_lut"]
    np.testing.assert_array_equal(labels.to_class(np.arange(len(table), dtype=np.uint32)), table)
    np.testing.assert_array_equal(labels.to_raw(np.arange(labels.num_classes)), arrays["learning_map_inv"])
    np.testing.assert_array_equal(np.arange(labels.num_classes) == 0, arrays["learning_ignore"])


def check_panoptic(arrays: Arrays) -> None:
    quality = PanopticQuality(LabelMap.load("semantickitti"), int(arrays["min_points"]))
    for start, end in pairwise(arrays["scan_offsets"].tolist()):
        quality.add(arrays["pred_raw_concat"][start:end], arrays["gt_raw_concat"][start:end])
    for name in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(getattr(quality, name), arrays[name], err_msg=name)
    np.testing.assert_allclose(quality.iou_sum, arrays["iou_sum"], rtol=1e-9)
    for name in ("pq", "sq", "rq"):
        np.testing.assert_allclose(getattr(quality, name), arrays[f"class_{name.upper()}"], rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(quality.confusion.iou, arrays["class_IoU"], rtol=1e-9)
    summary = quality.summary()
    for name, official in _PANOPTIC_MEANS.items():
        np.testing.assert_allclose(summary[name], arrays[official], rtol=1e-9, err_msg=name)


_PANOPTIC_MEANS = {"pq_dagger": "PQ_dagger", "miou": "mIoU"} | {
    name + ending: name.upper() + ending for name in ("pq", "sq", "rq") for ending in ("", "_things", "_stuff")
}

CHECKS = {"panoptic": check_panoptic, "semantics": check_semantics, "label_maps": check_label_maps}
