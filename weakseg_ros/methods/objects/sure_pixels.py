# SPDX-License-Identifier: Apache-2.0
"""What surely belongs to a click by rule: the pixels from which a learned distance learns how far an object reaches."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.methods.objects.relations import FAR, Relations
from weakseg_ros.methods.settings import SurePixelSettings


@torch.no_grad()
def with_sure_pixels(anchors: ClickAnchors, relations: Relations, probs: Tensor, settings: SurePixelSettings) -> ClickAnchors:
    """The anchors with all pixels that surely belong to one: probabilities (P, K) of the P pixels."""
    surface = relations.of("surface")  # (T, P)
    if not len(surface):
        return anchors
    nearest = surface.topk(min(2, len(surface)), dim=0, largest=False)
    owner, reach = nearest.indices[0], nearest.values[0]
    sure = reach <= settings.sure_reach
    if len(surface) > 1:
        sure &= nearest.values[1] - reach >= settings.sure_margin
    sure &= probs.gather(1, anchors.classes[owner][:, None])[:, 0] >= settings.sure_prob
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
