# SPDX-License-Identifier: Apache-2.0
"""Which query answers for which object: Hungarian matching, and the losses of the pairs it finds.

Cheng et al., Masked-attention Mask Transformer for Universal Image Segmentation, CVPR 2022, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from weakseg_ros.methods.objects.mask_losses import mask_bce, mask_dice, pairwise_bce, pairwise_dice, query_class_loss
from weakseg_ros.methods.settings import MatchSettings, QuerySettings
from weakseg_ros.nets.heads.queries import Answer


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


def objects_of(instance: Tensor, class_id: Tensor, things: Tensor) -> Objects:
    """The objects and stuff classes among P pixels: instance (P,) 0 = none, class ids (P,) 0 = none, which classes are things.

    Classes are counted from 0 for class 1, as the queries count them. Pixels of a thing class without an object are in none.
    """
    numbers, first = _first_of_each(instance)
    stuff = torch.unique(class_id[(instance == 0) & (class_id > 0) & ~things[class_id]])
    masks = torch.cat((instance == numbers[:, None], (class_id == stuff[:, None]) & (instance == 0)))
    return Objects(torch.cat((class_id[first], stuff)) - 1, masks.float())


def _first_of_each(instance: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers above 0, and for each a pixel that has it."""
    numbers, of_pixel = torch.unique(instance, return_inverse=True)
    first = torch.zeros_like(numbers)
    first[of_pixel] = torch.arange(len(instance), device=instance.device)
    return numbers[numbers > 0], first[numbers > 0]


def query_head_losses(
    answers: list[Answer], instances: Tensor, class_id: Tensor, things: Tensor, settings: QuerySettings
) -> dict[str, Tensor]:
    """`query_class`, `query_mask`, `query_dice` summed over the layers' answers, mean over the scans.

    `instances` and `class_id` (B, H, W), 0 = none. Only pixels that have either are asked about, every other of the image's
    rows and columns, as the masks are half as large.
    """
    nothing = torch.stack([values.sum() for answer in answers for values in answer]).sum() * 0.0
    totals = dict.fromkeys(("query_class", "query_mask", "query_dice"), nothing)
    for i in range(len(instances)):
        instance, classes = instances[i, ::2, ::2].flatten(), class_id[i, ::2, ::2].flatten()
        asked = ((instance > 0) | (classes > 0)).nonzero()[:, 0]
        if not len(asked):  # nothing is known of this scan, least of all that it is empty
            continue
        objects = objects_of(instance[asked], classes[asked], things)
        for class_logits, masks in answers:
            losses = query_losses(class_logits[i].float(), masks[i].float().flatten(1)[:, asked], objects, settings)
            for name, value in losses.items():
                totals[name] = totals[name] + value / len(instances)
    return totals
