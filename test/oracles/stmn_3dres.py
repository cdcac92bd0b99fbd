# SPDX-License-Identifier: Apache-2.0
"""Masks of expressions beside 3D-STMN's criterion, and the teacher's pace beside RefTeacher's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from weakseg_ros.methods.mean_teacher import follow
from weakseg_ros.methods.objects.mask_losses import mask_dice, pairwise_bce, pairwise_dice
from weakseg_ros.methods.referring.criterion import ReferredMask, focal, layer_losses, mask_iou, referring_losses, sampling_loss
from weakseg_ros.methods.referring.settings import ReferringWeights
from weakseg_ros.methods.referring.teacher import agreement

Arrays = Mapping[str, np.ndarray]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
OFFICIAL = {"mask": "mask_bce_loss", "dice": "mask_dice_loss", "score": "score_loss"}


def check_criterion(arrays: Arrays) -> None:
    tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
    valid, target = ~tensors["pad_mask"], tensors["gt_spmask_padded"]
    last = ReferredMask(tensors["masks"][:, 0], tensors["scores"][:, 0, 0])
    pairs = zip(tensors["aux_masks"], tensors["aux_scores"], strict=True)
    others = [ReferredMask(masks[:, 0], scores[:, 0, 0]) for masks, scores in pairs]
    np.testing.assert_allclose(mask_iou(last.logits, target, valid), arrays["iou_pred_vs_gt"], **CLOSE)
    for prefix, layer in [("", last), *((f"layer_{i}_", layer) for i, layer in enumerate(others))]:
        found = layer_losses(layer, target, valid)
        for name, official in OFFICIAL.items():
            np.testing.assert_allclose(found[name], arrays[prefix + official], **CLOSE, err_msg=prefix + name)
    sampling = tensors["ref_scores"], tensors["sp_ref_mask_padded"]
    np.testing.assert_allclose(sampling_loss(*sampling, valid), arrays["sample_loss"], **CLOSE)
    weights = ReferringWeights(*map(float, arrays["loss_weight"]))
    layers = [*others, last]
    without = sum(referring_losses(layers, target, valid, weights).values())
    np.testing.assert_allclose(without, arrays["total_loss_no_ref"], **CLOSE)
    whole = sum(referring_losses(layers, target, valid, weights, sampling).values())
    np.testing.assert_allclose(whole, arrays["total_loss_focal_ref"], **CLOSE)


def check_mask_losses(arrays: Arrays) -> None:
    logits, targets = torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["targets"])
    np.testing.assert_allclose(mask_iou(logits, targets), arrays["iou"], **CLOSE)
    np.testing.assert_allclose(mask_iou(logits, targets), arrays["iou_prob"], **CLOSE)
    both = agreement(logits, torch.where(targets > 0, 1.0, -1.0))
    np.testing.assert_allclose(both[0], arrays["iou"], **CLOSE)
    np.testing.assert_allclose(mask_dice(logits, targets).mean(), arrays["dice"], **CLOSE)
    np.testing.assert_allclose(focal(logits, targets).mean(), arrays["focal"], **CLOSE)
    np.testing.assert_allclose(pairwise_dice(logits, targets), arrays["batch_dice"], **CLOSE)
    np.testing.assert_allclose(pairwise_bce(logits, targets), arrays["batch_bce"], **CLOSE)


def check_refteacher_ema(arrays: Arrays) -> None:
    class Holder(nn.Module):
        """The tensors of a state dict, each as it is."""

        def __init__(self, prefix: str) -> None:
            super().__init__()
            for name in names:
                self.register_buffer(name.replace(".", "_"), torch.from_numpy(np.array(arrays[f"{prefix}.{name}"])))

    names = [name.removeprefix("student.") for name in arrays if name.startswith("student.")]
    student, teacher = Holder("student"), Holder("teacher_before")
    follow(teacher, student, float(arrays["keep_rate"]))
    for name in names:
        found, expected = getattr(teacher, name.replace(".", "_")), arrays[f"teacher_after.{name}"]
        assert found.dtype == torch.from_numpy(np.array(expected)).dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7, err_msg=name)


CHECKS = {"criterion": check_criterion, "mask_losses": check_mask_losses, "refteacher_ema": check_refteacher_ema}
