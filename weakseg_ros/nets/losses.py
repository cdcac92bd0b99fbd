# SPDX-License-Identifier: Apache-2.0
"""Losses on class probabilities: focal and Lovász-Softmax, as COARSE3D combines them.

Labels are class ids, 0 = none. A batch without any label gives a loss of zero whose gradient is zero, so that one empty
scan does not end a training.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

_SMALLEST_PROBABILITY = 1e-6
_SMALLEST_WEIGHT = 1e-6


def class_probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes that can be predicted, in float32: (B, K, H, W) -> (B, K, H, W), 0 for class 0."""
    known = torch.softmax(logits[:, 1:].float(), dim=1)
    return torch.cat((torch.zeros_like(known[:, :1]), known), dim=1)


def focal_loss(
    probs: Tensor,
    labels: Tensor,
    alpha: Tensor | None = None,
    gamma: float = 2.0,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over the labelled pixels of -alpha_y (1 - q_y)^gamma log(max(q_y, 1e-6)).

    probs (B, K, H, W) after softmax, labels (B, H, W), alpha (K,) weight by class (None = 1), mask (B, H, W) the pixels
    to average over (default: labels > 0), weights (B, H, W) of the labels in that mean (None = 1). gamma 0 and no alpha is
    cross-entropy. COARSE3D (BMVC 2022), supervised loss.
    """
    chosen = labels > 0 if mask is None else mask
    if not chosen.any():
        return probs.sum() * 0.0
    classes = labels[chosen]  # (P,)
    q = probs.permute(0, 2, 3, 1)[chosen].gather(1, classes[:, None])[:, 0]  # (P,)
    loss = -((1.0 - q) ** gamma) * torch.log(q.clamp_min(_SMALLEST_PROBABILITY))
    loss = loss if alpha is None else loss * alpha[classes]
    if weights is None:
        return loss.mean()
    share = weights[chosen]
    return (loss * share).sum() / share.sum().clamp_min(_SMALLEST_WEIGHT)


def class_alpha(counts: Tensor) -> Tensor:
    """Weight by class for the focal loss from how often each class was labelled: (K,) counts -> (K,) float64, 0..1.

    w = 1 / (count / sum + 1e-3), alpha = log(1 + w) / max log(1 + w), 0 for class 0 (COARSE3D). Count the sparse labels
    that are trained on, never the dense ones behind them.
    """
    frequency = counts.double() / counts.sum()
    weight = 1.0 / (frequency + 1e-3)
    weight[0] = 0.0
    alpha = torch.log1p(weight)
    return alpha / alpha.max()


def class_weight(frequency: Tensor) -> Tensor:
    """ERDA's class weights for a cross-entropy, 1 / (frequency + 0.02), from the shares (K,) of the labelled points."""
    return 1.0 / (frequency + 0.02)


def lovasz_softmax(
    probs: Tensor,
    labels: Tensor,
    classes: Literal["present", "all"] = "present",
    per_image: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Lovász-Softmax: a surrogate whose minimum is the best mean IoU (Berman et al., CVPR 2018, eq. 10 to 12).

    probs (B, K, H, W), labels (B, H, W). The batch counts as one image unless `per_image`; the mean runs over the
    classes that have labels, or over all K (class 0 then counts as a class without pixels). weights (B, H, W) say how much
    of a pixel each one is in intersection and union (None = 1).
    """
    if per_image:
        parts = [None] * len(labels) if weights is None else [part[None] for part in weights]
        single = [lovasz_softmax(p[None], y[None], classes, weights=w) for p, y, w in zip(probs, labels, parts, strict=True)]
        return torch.stack(single).mean()
    chosen = labels > 0
    if not chosen.any():
        return probs.sum() * 0.0
    q = probs.permute(1, 0, 2, 3)[:, chosen]  # (K, P)
    y = labels[chosen]  # (P,)
    ids = torch.unique(y) if classes == "present" else torch.arange(len(q), device=y.device)
    truth = (y[None] == ids[:, None]).to(q.dtype)  # (present, P)
    errors = (truth - q[ids]).abs()
    order = _descending(errors.detach())
    share = None if weights is None else weights[chosen].to(q.dtype)[order]
    return (errors.gather(1, order) * lovasz_gradient(truth.gather(1, order), share)).sum(dim=1).mean()


def lovasz_gradient(truth_sorted: Tensor, weights_sorted: Tensor | None = None) -> Tensor:
    """Weight of each error, sorted descending, in the Lovász extension of 1 - IoU: (..., P) 0/1 -> (..., P).

    The difference of the Jaccard loss from one prefix to the next (Berman et al., algorithm 1); with weights (..., P) > 0
    each pixel is so much of one in both counts, and the loss stays a Jaccard loss of a measure.
    """
    inside, outside = truth_sorted, 1.0 - truth_sorted
    if weights_sorted is not None:
        inside, outside = inside * weights_sorted, outside * weights_sorted
    total = inside.sum(dim=-1, keepdim=True)
    intersection = total - inside.cumsum(dim=-1)
    union = total + outside.cumsum(dim=-1)
    jaccard = 1.0 - intersection / (union if weights_sorted is None else union.clamp_min(_SMALLEST_WEIGHT))
    return torch.cat((jaccard[..., :1], jaccard[..., 1:] - jaccard[..., :-1]), dim=-1)


def _descending(errors: Tensor) -> Tensor:
    """The order (R, P) that sorts each row of non-negative errors from large to small."""
    if errors.device.type != "cpu" or errors.dtype != torch.float32:
        return errors.argsort(dim=1, descending=True)
    # One sort of whole numbers, error bits above the index, takes half the time of torch's sort on CPUs.
    keys = (0x7FFFFFFF - errors.numpy().view(np.int32)).astype(np.int64) << 32 | np.arange(errors.shape[1])
    keys.sort(axis=1)
    return torch.from_numpy(keys & 0xFFFFFFFF)
