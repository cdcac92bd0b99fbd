# SPDX-License-Identifier: Apache-2.0
"""Which query answers for which object: Hungarian matching, and the losses of the pairs it finds.

Cheng et al., Masked-attention Mask Transformer for Universal Image Segmentation, CVPR 2022, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.learn.instance.mask_losses import mask_bce, mask_dice, pairwise_bce, pairwise_dice, query_class_loss


@dataclass(frozen=True)
class MatchSettings:
    """Weights in the matching and in the loss alike, as published."""

    class_weight: float = setting(2.0, 0.0, 1000.0)
    """of the class"""
    mask_weight: float = setting(5.0, 0.0, 1000.0)
    """of the masks' cross-entropy"""
    dice_weight: float = setting(5.0, 0.0, 1000.0)
    """of the masks' overlap"""
    no_object_weight: float = setting(0.1, 0.0, 1.0)
    """how much a query without an object counts in the class loss"""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Objects:
    """The true (or pseudo) objects of one scan."""

    classes: Tensor
    """(M,) i64 class of each, 0..K-1 as the queries count them"""
    masks: Tensor
    """(M, P) f32, 1 where a pixel belongs to the object"""


def matching_cost(class_logits: Tensor, mask_logits: Tensor, objects: Objects, settings: MatchSettings) -> Tensor:
    """(Q, M) what it costs that a query answers for an object: logits (Q, K + 1) and (Q, P)."""
    probability = class_logits.softmax(dim=1)[:, objects.classes]  # (Q, M)
    return (
        settings.mask_weight * pairwise_bce(mask_logits, objects.masks)
        - settings.class_weight * probability
        + settings.dice_weight * pairwise_dice(mask_logits, objects.masks)
    )


@torch.no_grad()
def match(class_logits: Tensor, mask_logits: Tensor, objects: Objects, settings: MatchSettings) -> tuple[Tensor, Tensor]:
    """The cheapest pairs (query, object), min(Q, M) of them, by rising query; a cost that is not finite is a bad one."""
    with torch.autocast(mask_logits.device.type, enabled=False):  # sums over a scan's pixels overflow half precision
        cost = matching_cost(class_logits.float(), mask_logits.float(), objects, settings)
    query, target = linear_sum_assignment(torch.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6).cpu().numpy())
    device = class_logits.device
    return torch.as_tensor(query, device=device), torch.as_tensor(target, device=device)


def query_losses(class_logits: Tensor, mask_logits: Tensor, objects: Objects, settings: MatchSettings) -> dict[str, Tensor]:
    """Weighted `query_class`, `query_mask` and `query_dice` of one scan: logits (Q, K + 1) and (Q, P).

    Every query without an object is to say so; without any object the mask losses are 0.
    """
    query, target = match(class_logits, mask_logits, objects, settings)
    classes = torch.full_like(class_logits[:, 0], class_logits.shape[1] - 1, dtype=torch.long)
    classes[query] = objects.classes[target]
    paired = mask_logits[query], objects.masks[target]
    count = max(len(objects.classes), 1)
    return {
        "query_class": settings.class_weight * query_class_loss(class_logits, classes, settings.no_object_weight),
        "query_mask": settings.mask_weight * mask_bce(*paired).sum() / count,
        "query_dice": settings.dice_weight * mask_dice(*paired).sum() / count,
    }
