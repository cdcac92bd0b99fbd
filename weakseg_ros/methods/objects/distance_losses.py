# SPDX-License-Identifier: Apache-2.0
"""What distances are trained by: the clicks they must agree with, and the neighbours that must agree with each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.methods.objects.distance_branch import shares


def regression_loss(distance: Tensor, anchors: ClickAnchors) -> Tensor:
    """0 to the own anchor, 1 to every other: mean over labelled pixels of own^2 + mean over others of (1 - d)^2; (M, P).

    Every anchor counts alike, however many pixels it has: a stuff class has many, an object its click.
    """
    at_labels = distance[:, anchors.pixel]  # (M, L)
    own = F.one_hot(anchors.owner, len(anchors)).T.bool()  # (M, L)
    others = max(len(anchors) - 1, 1)
    wrong = torch.where(own, at_labels**2, (1 - at_labels) ** 2 / others).sum(dim=0)  # (L,)
    return _over_anchors(wrong, anchors)


def assignment_loss(distance: Tensor, anchors: ClickAnchors, temperature: float) -> Tensor:
    """Cross-entropy of sharing labelled pixels out among the anchors by distance (M, P); every anchor counts alike."""
    scores = -distance[:, anchors.pixel].T / temperature  # (L, M)
    return _over_anchors(F.cross_entropy(scores, anchors.owner, reduction="none"), anchors)


def _over_anchors(values: Tensor, anchors: ClickAnchors) -> Tensor:
    sums = values.new_zeros(len(anchors)).index_add_(0, anchors.owner, values)
    return (sums / torch.bincount(anchors.owner, minlength=len(anchors)).clamp_min(1)).mean()


@dataclass(frozen=True)
class Pairs:
    """Pixels that lie on one surface and therefore in one object."""

    left: Tensor
    """(N,) i64 pixel, 0..P-1"""
    right: Tensor
    """(N,) i64 pixel, 0..P-1"""


def surface_pairs(xyz: Tensor, mask: Tensor, dilation: int, gap_m: float, gap_share: float, most: int) -> Pairs:
    """Neighbours of a range image whose points are near each other: places (P, 3) m of the pixels in a (H, W) mask.

    The eight neighbours at `dilation` pixels, each pair once, not across the image's edge; near is `gap_m`, or
    `gap_share` of the range where that is more. A random choice of at most `most` pairs (torch's generator).
    """
    number = torch.full(mask.shape, -1, device=mask.device)
    number[mask] = torch.arange(len(xyz), device=mask.device)
    height, width = mask.shape
    lefts, rights = [], []
    for down, right in ((0, dilation), (dilation, -dilation), (dilation, 0), (dilation, dilation)):
        first = number[: max(height - down, 0), max(0, -right) : width - max(0, right)]
        second = number[down:, max(0, right) : width - max(0, -right)]
        both = (first >= 0) & (second >= 0)
        lefts.append(first[both])
        rights.append(second[both])
    left, other = torch.cat(lefts), torch.cat(rights)
    if len(left) > most:
        chosen = torch.randperm(len(left), device=left.device)[:most]
        left, other = left[chosen], other[chosen]
    reach = (gap_share * xyz.norm(dim=1)).clamp_min(gap_m)
    near = (xyz[left] - xyz[other]).norm(dim=1) <= torch.minimum(reach[left], reach[other])
    return Pairs(left[near], other[near])


def tie_loss(distance: Tensor, pairs: Pairs, temperature: float) -> Tensor:
    """-log of the probability that both pixels of a pair go to one anchor, mean over the pairs; distances (M, P)."""
    if not len(pairs.left):
        return distance.sum() * 0.0
    share = shares(distance, temperature)
    together = (share[:, pairs.left] * share[:, pairs.right]).sum(dim=0)
    return -together.clamp_min(1e-6).log().mean()
