# SPDX-License-Identifier: Apache-2.0
"""Losses of one mask per expression over superpoints: those of 3D-STMN.

Wu et al., 3D-STMN: Dependency-Driven Superpoint-Text Matching Network for End-to-End 3D Referring Expression
Segmentation, AAAI 2024. Shapes: B expressions, S superpoints, padded where `valid` (B, S) is False.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.methods.referring.settings import ReferringWeights as ReferringWeights

EPSILON = 1e-6
SURE_IOU = 0.5
"""The predicted IoU of a mask is trained only where the true IoU is larger than this."""


@dataclass(frozen=True)
class ReferredMask:
    """The output of one decoder layer."""

    logits: Tensor
    """(B, S) of the mask"""
    score: Tensor
    """(B,) the predicted IoU of the mask"""


def mask_iou(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B,) IoU of the masks, logits at least 0, with true ones (B, S) 0 or 1; 0 where both are empty.

    `weight` (B, S) is the number of points of each superpoint, or 0 for padding: the IoU is then one of points.
    """
    weight = torch.ones_like(target) if weight is None else weight.to(target.dtype)
    predicted = (logits.sigmoid() >= 0.5).to(target.dtype)
    shared = (predicted * target * weight).sum(dim=1)
    union = ((predicted + target - predicted * target) * weight).sum(dim=1)
    return shared / (union + EPSILON)


def focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss of each element, targets 0..1 of the same shape (Lin et al., ICCV 2017, eq. 5)."""
    probability = logits.sigmoid()
    right = probability * target + (1 - probability) * (1 - target)
    balance = alpha * target + (1 - alpha) * (1 - target)
    return balance * (1 - right) ** gamma * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def losses_by_expression(predicted: ReferredMask, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """`mask`, `dice`, `score`, (B,) each, of one layer, and `sure` (B,) bool: where the score counts.

    `target` (B, S) 0 or 1 and 0 on padding.
    """
    logits = predicted.logits
    soft = logits.sigmoid() * valid
    iou = mask_iou(logits, target, valid).detach()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return {
        "mask": _mean_of_valid(cross_entropy, valid),
        "dice": 1 - (2 * (soft * target).sum(dim=1) + 1) / (soft.sum(dim=1) + target.sum(dim=1) + 1),
        "score": (predicted.score - iou) ** 2,
        "sure": iou > SURE_IOU,
    }


def layer_losses(predicted: ReferredMask, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """`mask`, `dice`, `score` of one layer, mean over the batch; the score's over its sure masks, 0 where there is none."""
    terms = losses_by_expression(predicted, target, valid)
    sure = terms["sure"].to(target.dtype)
    score = (terms["score"] * sure).sum() / sure.sum().clamp(min=1.0)
    return {"mask": terms["mask"].mean(), "dice": terms["dice"].mean(), "score": score}


def choice_loss(layers: Sequence[ReferredMask], target: Tensor, valid: Tensor) -> Tensor:
    """(B,) -log of the share that a softmax over the superpoints gives to those that are meant, mean over the layers.

    Ours: the published losses alone find nothing where one superpoint of many is meant and examples are few. 0 where none is.
    """
    meant = (target > 0) & valid
    shares = [
        layer.logits.masked_fill(~valid, -1e4).log_softmax(dim=1).masked_fill(~meant, -1e4).logsumexp(1) for layer in layers
    ]
    return -torch.stack(shares).mean(dim=0) * meant.any(dim=1)


def sampling_loss(scores: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Focal loss of the scores (logits, (B, S)) by which superpoints are chosen, mean over the batch.

    `reference` (B, S): 1 on the object that is meant, 0.5 on others of a class that the sentence names, else 0.
    """
    return _mean_of_valid(focal(scores, reference), valid).mean()


def referring_losses(
    layers: Sequence[ReferredMask],
    target: Tensor,
    valid: Tensor,
    weights: ReferringWeights,
    sampling: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Weighted `referred_mask`, `referred_dice`, `referred_score`, each summed over the layers, and `referred_sampling`.

    `sampling` are the scores and their reference, (B, S) each, where the classes in the sentence are known.
    """
    terms = [layer_losses(layer, target, valid) for layer in layers]
    total = {
        f"referred_{name}": getattr(weights, name) * torch.stack([term[name] for term in terms]).sum()
        for name in ("mask", "dice", "score")
    }
    if sampling is not None:
        total["referred_sampling"] = weights.sampling * sampling_loss(*sampling, valid)
    return total


def _mean_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    """(B,) mean of (B, S) over the superpoints that are there."""
    kept = torch.where(valid, values, torch.zeros_like(values))
    return kept.sum(dim=1) / valid.sum(dim=1).clamp(min=1)
