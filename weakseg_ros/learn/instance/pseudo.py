# SPDX-License-Identifier: Apache-2.0
"""Pseudo labels: from distances to the clicks to masks that a panoptic head can learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.learn.instance.anchors import Anchors


@dataclass(frozen=True)
class PseudoSettings:
    """Which pixels a click may claim."""

    same_class: bool = True
    """only pixels whose likeliest class is the click's"""
    radius_gate: bool = True
    """only pixels within reach of the click"""
    reach: float = setting(1.4, 0.1, 10.0)
    """this far, in radii of the click's class"""
    min_prob: float = setting(0.5, 0.0, 1.0)
    """a pixel of less probability has no class"""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class PseudoLabels:
    """What the P pixels of a scan are taken for."""

    instance: Tensor
    """(P,) i64 1..T, the number of the click in `Anchors.clicks` plus one; 0 = none"""
    class_id: Tensor
    """(P,) i64, 0 = not sure enough to teach"""


@torch.no_grad()
def estimate(
    distance: Tensor, xyz: Tensor, probs: Tensor, anchors: Anchors, radius_m: Tensor, settings: PseudoSettings
) -> PseudoLabels:
    """Share the pixels out: distances (M, P) 0..1, places (P, 3) m, class probabilities (P, K), radii (K,) m.

    A pixel goes to the object of the largest (1 - distance) * probability of the object's class, among the classes that
    the scan's labels hold; clicks belong to their objects, whatever the score says.
    """
    present = torch.zeros(probs.shape[1], dtype=torch.bool, device=probs.device)
    present[anchors.classes] = True
    known = probs * present
    best, likeliest = known.max(dim=1)
    class_id = torch.where(best >= settings.min_prob, likeliest, 0)
    class_id[anchors.pixel] = anchors.classes[anchors.owner]
    instance = torch.zeros(len(probs), dtype=torch.long, device=probs.device)
    objects = int(anchors.things.sum())
    if objects:
        classes, clicks = anchors.classes[:objects], anchors.clicks
        score = (1 - distance[:objects]) * known.T[classes]  # (T, P)
        if settings.same_class:
            score = score.masked_fill(likeliest != classes[:, None], 0.0)
        if settings.radius_gate:
            far = torch.cdist(xyz[clicks], xyz) > settings.reach * radius_m[classes][:, None]
            score = score.masked_fill(far, 0.0)
        value, winner = score.max(dim=0)
        thing = torch.zeros_like(present)
        thing[classes] = True
        instance = torch.where((value > 0) & thing[likeliest], winner + 1, 0)
        instance[clicks] = torch.arange(1, objects + 1, device=clicks.device)
    return PseudoLabels(instance, class_id)
