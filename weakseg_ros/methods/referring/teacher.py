# SPDX-License-Identifier: Apache-2.0
"""A teacher for expressions without a mask: semi-supervised referring segmentation as 3DResT puts it.

3DResT: A Strong Baseline for Semi-Supervised 3D Referring Expression Segmentation, arXiv 2504.12599. The
measure of agreement, the choice by it and the weight by it are the paper's; what it leaves open (how the pool is
renewed, the teacher's pace, the weight of the unlabelled) is ours, and a setting each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weakseg_ros.methods.referring.criterion import ReferredMask, losses_by_expression, mask_iou
from weakseg_ros.methods.referring.settings import ReferringWeights
from weakseg_ros.methods.referring.settings import TeacherSettings as TeacherSettings


@torch.no_grad()
def agreement(student: Tensor, teacher: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(B,) IoU of the student's masks with the teacher's, and these, (B, S) 0 or 1: logits (B, S) each.

    `points` (B, S) is the number of points of each superpoint, 0 for padding. Two empty masks agree by 0.
    """
    pseudo = (teacher.sigmoid() >= 0.5).to(student.dtype)
    if points is not None:
        pseudo = pseudo * (points > 0)
    return mask_iou(student, pseudo, points), pseudo


def quality_weighted_loss(
    layers: Sequence[ReferredMask], pseudo: Tensor, valid: Tensor, quality: Tensor, weights: ReferringWeights
) -> Tensor:
    """Loss on teacher's masks (B, S), each expression by its `quality` (B,) 0..1: bad masks count little, none is lost.

    Mean over the batch, not over the qualities; all layers learn. A mask's own score is taught where it is sure.
    """
    total = torch.zeros_like(quality)
    for layer in layers:
        terms = losses_by_expression(layer, pseudo, valid)
        total = total + weights.mask * terms["mask"] + weights.dice * terms["dice"]
        total = total + weights.score * terms["score"] * terms["sure"]
    return (quality.detach() * total).mean()


class AgreedMasks:
    """Expressions whose teacher's mask is taken as a label, by key; the masks stay on the CPU."""

    def __init__(self, settings: TeacherSettings) -> None:
        self._settings = settings
        self._masks: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._masks)

    def __contains__(self, key: str) -> bool:
        return key in self._masks

    def keys(self) -> tuple[str, ...]:
        """The expressions, in the order in which they were taken in."""
        return tuple(self._masks)

    def mask(self, key: str) -> Tensor:
        """(S,) bool; KeyError where the expression is not among them."""
        return self._masks[key]

    def offer(self, keys: Sequence[str], agreements: Tensor, pseudo: Tensor, valid: Tensor) -> None:
        """Take in those that agree, renew those that are in, and let those go that no longer agree.

        `agreements` (B,), `pseudo` (B, S) 0 or 1; padding is cut off. An empty mask is never taken in.
        """
        least = self._settings.agreement - self._settings.patience
        for key, agreed, mask, there in zip(keys, agreements.tolist(), pseudo, valid, strict=True):
            own = mask[there].bool().cpu()
            if own.any() and (agreed > self._settings.agreement or (key in self and agreed >= least)):
                self._masks[key] = own
            else:
                self._masks.pop(key, None)

    def state_dict(self) -> dict[str, Tensor]:
        """The masks by key, for a checkpoint."""
        return dict(self._masks)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the masks of a checkpoint."""
        self._masks = {key: mask.bool().cpu() for key, mask in state.items()}
