# SPDX-License-Identifier: Apache-2.0
"""What surely belongs to a click by rule: the pixels from which a learned distance learns how far an object reaches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weakseg_ros.config import setting
from weakseg_ros.methods.objects.anchors import Anchors
from weakseg_ros.methods.objects.relations import FAR, Relations


@dataclass(frozen=True)
class SpreadSettings:
    """How far the rule is believed."""

    spread_weight: float = setting(1.0, 0.0, 100.0)
    """weight of the losses at pixels that surely belong to a click, or surely to none"""
    spread_reach: float = setting(0.6, 0.0, 2.0)
    """such pixels lie at most this share of a click's reach away from it, along surfaces"""
    spread_margin: float = setting(0.3, 0.0, 2.0)
    """and nearer to it than to any other click by this share of the reach"""
    spread_prob: float = setting(0.05, 0.0, 1.0)
    """and are of the click's class with at least this probability"""


@torch.no_grad()
def spread(anchors: Anchors, relations: Relations, probs: Tensor, settings: SpreadSettings) -> Anchors:
    """The anchors with all pixels that surely belong to one: probabilities (P, K) of the P pixels."""
    surface = relations.of("surface")  # (T, P)
    if not len(surface):
        return anchors
    nearest = surface.topk(min(2, len(surface)), dim=0, largest=False)
    owner, reach = nearest.indices[0], nearest.values[0]
    sure = reach <= settings.spread_reach
    if len(surface) > 1:
        sure &= nearest.values[1] - reach >= settings.spread_margin
    sure &= probs.gather(1, anchors.classes[owner][:, None])[:, 0] >= settings.spread_prob
    sure[anchors.pixel] = False
    pixel = sure.nonzero()[:, 0]
    return replace(anchors, pixel=torch.cat((anchors.pixel, pixel)), owner=torch.cat((anchors.owner, owner[pixel])))


def away_loss(distance: Tensor, relations: Relations) -> Tensor:
    """1 to what geometry parts from a click: mean of (1 - d)^2, distances (M, P), over pixels within reach that are ground, or
    that no way along surfaces leads to.
    """
    objects = distance[: len(relations.maps)]
    parted = (relations.of("surface") >= FAR) | relations.ground
    asked = (parted & (relations.of("straight") <= 1)).to(distance.dtype)
    return ((1 - objects) ** 2 * asked).sum() / asked.sum().clamp_min(1)
