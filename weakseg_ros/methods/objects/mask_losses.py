# SPDX-License-Identifier: Apache-2.0
"""Losses and costs between predicted and true masks: Mask2Former's, on whatever P pixels or points the caller picks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Sigmoid cross-entropy of each mask, mean over its P pixels: logits (M, P), masks (M, P) 0..1 -> (M,)."""
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=1)


def mask_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 |intersection| + 1) / (|a| + |b| + 1) of each pair, soft: logits (M, P), masks (M, P) 0..1 -> (M,)."""
    soft = logits.sigmoid()
    return 1 - (2 * (soft * masks).sum(dim=1) + 1) / (soft.sum(dim=1) + masks.sum(dim=1) + 1)


def pairwise_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """`mask_bce` of every pair: logits (Q, P), masks (M, P) -> (Q, M)."""
    inside, outside = F.softplus(-logits), F.softplus(logits)  # what a pixel costs where the mask is 1, and where it is 0
    return (inside @ masks.T + outside @ (1 - masks).T) / logits.shape[1]


def pairwise_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """`mask_dice` of every pair: logits (Q, P), masks (M, P) -> (Q, M)."""
    soft = logits.sigmoid()
    return 1 - (2 * soft @ masks.T + 1) / (soft.sum(dim=1)[:, None] + masks.sum(dim=1) + 1)


def query_class_loss(class_logits: Tensor, target: Tensor, no_object_weight: float = 0.1) -> Tensor:
    """Cross-entropy over Q queries, weighted mean: logits (Q, K + 1), targets (Q,) 0..K; K, the last, is 'no object'.

    That class counts `no_object_weight`, for most queries hold nothing.
    """
    weight = torch.ones(class_logits.shape[1], dtype=class_logits.dtype, device=class_logits.device)
    weight[-1] = no_object_weight
    return F.cross_entropy(class_logits, target, weight)
