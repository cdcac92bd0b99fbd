# SPDX-License-Identifier: Apache-2.0
"""Figures and label map beside the SemanticKITTI API's; its panoptic figures have no check yet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from weakseg_ros.measure.metrics import ConfusionMatrix
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


CHECKS = {"semantics": check_semantics, "label_maps": check_label_maps}
