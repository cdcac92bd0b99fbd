# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels and anchors where a net is sure: COARSE3D's two draws by entropy (BMVC 2022, section 3.3).

First, of the pixels that the net takes for a class that its image has labels of, some become pseudo-labels, unsure ones
rarely. Then anchors are drawn from labels and pseudo-labels, as many of each class. A group is one class in one image,
number image * K + class; a pixel is a flat index into B * H * W.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST_PROBABILITY = 1e-10
_BITS_OF_FLOAT = 32


@dataclass(frozen=True)
class Grouped:
    """Pixels, each in one group."""

    pixels: Tensor
    """(n,) i64 flat indices, ascending"""
    group: Tensor
    """(n,) i64"""
    counts: Tensor
    """(B * K,) i64 pixels in each group"""


@dataclass(frozen=True)
class ContrastAnchors:
    """Pixels to pull towards their class; one that was drawn several times is here once."""

    pixels: Tensor
    """(n,) i64 flat indices"""
    classes: Tensor
    """(n,) i64 class ids"""
    times: Tensor
    """(n,) i64 how often each was drawn, at least 1"""


def entropy(probs: Tensor) -> Tensor:
    """-sum q log q in nats: (B, K, H, W) -> (B, H, W)."""
    return -(probs * torch.log(probs + _SMALLEST_PROBABILITY)).sum(dim=1)


def select_ratio(progress: float, epochs: int = 100) -> float:
    """Share of each class's candidates that become pseudo-labels: log2(1 + (1 + e) / E) / 2 in epoch e of E.

    Grows from under 1 % to one half. `progress` 0..1 is that of the training, seen as E epochs.
    """
    epoch = min(int(progress * epochs), epochs - 1)
    return 0.5 * math.log2(1.0 + (1.0 + epoch) / epochs)


def select_pseudo_labels(
    probs: Tensor, uncertainty: Tensor, labels: Tensor, mask: Tensor, ratio: float, of_batch: bool = False
) -> Tensor:
    """Labels (B, H, W) with pseudo-labels beside them, 0 = none.

    probs (B, K, H, W), uncertainty (B, H, W) their entropy H, labels (B, H, W), mask (B, H, W) where a point is. Of each
    group's candidates, of classes that are labelled in its image, or `of_batch` in any, the share `ratio` is drawn without
    replacement, in proportion to exp(-H).
    """
    guess = most_likely(probs)
    candidates = candidate_pixels(guess, labels, mask, probs.shape[1], of_batch)
    chosen = draw_some(candidates, torch.exp(-uncertainty.flatten()[candidates.pixels]), quota(candidates, ratio))
    return merge_labels(guess, candidates.pixels[chosen], labels)


def most_likely(probs: Tensor) -> Tensor:
    """argmax over dim 1, (B, K, H, W) -> (B, H, W), the first of equals; a quarter of the time that argmax takes on a CPU."""
    classes = probs.shape[1]
    backwards = torch.arange(classes, 0, -1, dtype=torch.int16, device=probs.device)[:, None, None]
    return classes - torch.where(probs == probs.amax(dim=1, keepdim=True), backwards, 0).amax(dim=1).long()


def candidate_pixels(guess: Tensor, labels: Tensor, mask: Tensor, classes: int, of_batch: bool = False) -> Grouped:
    """Pixels of `guess`, `labels` and `mask` (B, H, W) whose guessed class has labels in the same image, or `of_batch` in any."""
    labelled = torch.zeros(len(labels), classes, dtype=torch.bool, device=labels.device)
    labelled.scatter_(1, labels.flatten(1), True)
    labelled[:, 0] = False
    labelled |= of_batch & labelled.any(dim=0)
    return _grouped(guess, mask & labelled.gather(1, guess.flatten(1)).view_as(mask), classes)


def quota(candidates: Grouped, ratio: float) -> Tensor:
    """How many of each group become pseudo-labels, rounded down: (B * K,)."""
    return (candidates.counts.double() * ratio).long()


def draw_some(grouped: Grouped, weight: Tensor, amounts: Tensor) -> Tensor:
    """Draw `amounts` (B * K,) of each group without replacement, in proportion to weight (n,) float32 > 0: (n,) bool.

    The first arrivals of an exponential race, time = noise / weight, are such a draw (Efraimidis and Spirakis, 2006).
    Positive floats sort as their bits do, so one sort of integers, group before time, serves all groups.
    """
    time = (torch.empty_like(weight).exponential_() / weight).view(torch.int32)
    order = torch.argsort((grouped.group << _BITS_OF_FLOAT) | time)
    group = grouped.group[order]
    first = grouped.counts.cumsum(0) - grouped.counts
    place = torch.arange(len(order), device=order.device) - first[group]
    return torch.zeros_like(order, dtype=torch.bool).index_put_((order,), place < amounts[group])


def merge_labels(guess: Tensor, chosen: Tensor, labels: Tensor) -> Tensor:
    """(B, H, W) the guesses at the chosen pixels (n,), counted over the batch, 0 elsewhere; labels win over them."""
    pseudo = torch.zeros_like(labels).flatten()
    pseudo[chosen] = guess.flatten()[chosen]
    return torch.where(labels > 0, labels, pseudo.view_as(labels))


def draw_anchors(
    labels: Tensor, mask: Tensor, uncertainty: Tensor, classes: int, number: int, by_entropy: bool = True
) -> ContrastAnchors:
    """`number` anchors of each group of labels (B, H, W), drawn with replacement in proportion to exp(-H^2).

    With `by_entropy` off every labelled pixel is as likely as the next.
    """
    grouped, sure = anchor_candidates(labels, mask, uncertainty, classes)
    return contrast_anchors(grouped, draw_repeatedly(grouped, sure if by_entropy else torch.ones_like(sure), number), classes)


def anchor_candidates(labels: Tensor, mask: Tensor, uncertainty: Tensor, classes: int) -> tuple[Grouped, Tensor]:
    """The n labelled pixels of (B, H, W) inputs, which can be anchors, and exp(-H^2) of each: (n,) float64."""
    grouped = _grouped(labels, mask & (labels > 0), classes)
    return grouped, torch.exp(-(uncertainty.flatten()[grouped.pixels].double() ** 2))


def contrast_anchors(grouped: Grouped, times: Tensor, classes: int) -> ContrastAnchors:
    """The pixels that were drawn at all, from how often each of n was: `times` (n,)."""
    drawn = times > 0
    return ContrastAnchors(grouped.pixels[drawn], grouped.group[drawn] % classes, times[drawn])


def draw_repeatedly(grouped: Grouped, weight: Tensor, number: int) -> Tensor:
    """How often each pixel comes up in `number` draws with replacement from each group: (n,), weight (n,) float64."""
    order = torch.argsort(grouped.group, stable=True)
    running = weight[order].cumsum(0)
    present = grouped.counts[grouped.counts > 0]
    last = present.cumsum(0) - 1  # place of each group's last pixel
    upper = running[last]
    lower = torch.cat((upper.new_zeros(1), upper[:-1]))[: len(upper), None]
    level = lower + torch.rand(len(present), number, dtype=upper.dtype, device=upper.device) * (upper[:, None] - lower)
    place = torch.searchsorted(running, level.flatten(), right=True).view_as(level)
    place = place.minimum(last[:, None]).maximum((last - present + 1)[:, None])
    return torch.bincount(order[place.flatten()], minlength=len(order))


def _grouped(class_image: Tensor, chosen: Tensor, classes: int) -> Grouped:
    pixels = chosen.flatten().nonzero()[:, 0]
    image = pixels // chosen[0].numel()
    group = image * classes + class_image.flatten()[pixels]
    return Grouped(pixels, group, torch.bincount(group, minlength=len(chosen) * classes))
