# SPDX-License-Identifier: Apache-2.0
"""Matching, mask losses and panoptic inference beside Mask2Former's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from weakseg_ros.deploy.queries import panoptic_inference
from weakseg_ros.methods.objects.mask_losses import pairwise_bce, pairwise_dice
from weakseg_ros.methods.objects.matching import Objects, match, matching_cost, query_losses
from weakseg_ros.methods.settings import MatchSettings

Arrays = Mapping[str, np.ndarray]


def check_losses(arrays: Arrays) -> None:
    classes, masks = torch.from_numpy(arrays["pred_class_logits"])[0], torch.from_numpy(arrays["pred_mask_logits"])
    objects = Objects(torch.from_numpy(arrays["target_labels"]), torch.from_numpy(arrays["target_masks"]))
    plain = MatchSettings(1.0, 1.0, 1.0, float(arrays["no_object_weight"]))
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(pairwise_bce(masks, objects.masks), arrays["cost_mask"], **close)
    np.testing.assert_allclose(pairwise_dice(masks, objects.masks), arrays["cost_dice"], **close)
    only_class = MatchSettings(class_weight=1.0, mask_weight=0.0, dice_weight=0.0)
    np.testing.assert_allclose(matching_cost(classes, masks, objects, only_class), arrays["cost_class"], **close)
    np.testing.assert_allclose(matching_cost(classes, masks, objects, MatchSettings()), arrays["cost_total"], **close)
    query, target = match(classes, masks, objects, MatchSettings())
    np.testing.assert_array_equal(query, arrays["match_query"])
    np.testing.assert_array_equal(target, arrays["match_target"])
    weighted = query_losses(classes, masks, objects, MatchSettings(no_object_weight=plain.no_object_weight))
    for name, weight, official in (("class", 2.0, "loss_ce"), ("mask", 5.0, "loss_mask"), ("dice", 5.0, "loss_dice")):
        np.testing.assert_allclose(weighted[f"query_{name}"] / weight, arrays[official], rtol=1e-5, err_msg=name)


def check_panoptic_inference(arrays: Arrays) -> None:
    things = np.zeros(arrays["class_logits"].shape[1] - 1, bool)
    things[arrays["thing_classes"]] = True
    thresholds = float(arrays["object_mask_threshold"]), float(arrays["overlap_threshold"])
    found = panoptic_inference(arrays["class_logits"], arrays["mask_logits"], things, *thresholds)
    np.testing.assert_array_equal(found.image, arrays["panoptic_seg"])
    np.testing.assert_array_equal(np.arange(1, len(found.classes) + 1), arrays["segment_ids"])
    np.testing.assert_array_equal(found.classes, arrays["segment_category"])
    np.testing.assert_array_equal(found.things, arrays["segment_isthing"])


CHECKS = {"losses": check_losses, "panoptic_inference": check_panoptic_inference}
