# SPDX-License-Identifier: Apache-2.0
"""Pseudo labels: from distances to the clicks to masks that a panoptic head can learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.methods.objects.relations import Relations
from weakseg_ros.methods.settings import PseudoSettings


@dataclass(frozen=True)
class PseudoLabels:
    """What the P pixels of a scan are taken for."""

    instance: Tensor
    """(P,) i64 1..T, the number of the object among the anchors plus one; 0 = none"""
    class_id: Tensor
    """(P,) i64, 0 = not sure enough to teach"""
    outside: Tensor
    """(P,) bool, True where surely no object is, whatever the class"""


@torch.no_grad()
def estimate(
    distance: Tensor,
    relations: Relations,
    probs: Tensor,
    anchors: ClickAnchors,
    things: Tensor,
    settings: PseudoSettings,
) -> PseudoLabels:
    """Share the pixels out: distances (M, P) 0..1, how the pixels lie to the clicks, class probabilities (P, K), `things` (K,).

    A pixel goes to the anchor of the largest (1 - distance) * probability of the anchor's class to the power `class_power`,
    to no object where that is stuff. Outside the objects its class is that of the likeliest stuff, among stuff alone where
    `all_clicked`; only classes that the scan's labels hold count. Labelled pixels belong to their anchors, whatever the
    scores say.
    """
    if not len(anchors):
        nothing = torch.zeros(len(probs), dtype=torch.long, device=probs.device)
        return PseudoLabels(nothing, nothing, nothing > 0)
    score = (1 - distance) * probs.T[anchors.classes] ** settings.class_power  # (M, P)
    if settings.rivals == "class":
        score = score.masked_fill(_likeliest(probs, anchors) != anchors.classes[:, None], 0.0)
    closed = relations.ground if settings.without_ground else torch.zeros_like(relations.ground)
    if settings.radius_gate:
        closed = closed | (relations.of("straight") > 1)
    score[anchors.things] = score[anchors.things].masked_fill(closed, 0.0)
    value, winner = score.max(dim=0)
    winner[anchors.pixel], value[anchors.pixel] = anchors.owner, 1.0
    number = torch.where(anchors.things, anchors.things.cumsum(dim=0), 0)
    instance = torch.where(value > 0, number[winner], 0)
    class_id = _stuff_class(probs, anchors, things, settings)
    class_id[anchors.pixel] = anchors.classes[anchors.owner]
    class_id = torch.where(instance > 0, anchors.classes[winner], class_id)
    return PseudoLabels(instance, class_id, (instance == 0) & bool(settings.all_clicked))


def _likeliest(probs: Tensor, anchors: ClickAnchors) -> Tensor:
    """(P,) the likeliest of the classes that have a label."""
    present = torch.zeros_like(probs[0])
    present[anchors.classes] = 1.0
    return (probs * present).argmax(dim=1)


def _stuff_class(probs: Tensor, anchors: ClickAnchors, things: Tensor, settings: PseudoSettings) -> Tensor:
    """(P,) the stuff class of each pixel, 0 = unsure; unless all was clicked, what looks like a clicked class is unsure too."""
    labelled = torch.zeros_like(things)
    labelled[anchors.classes[~anchors.things]] = True
    best, stuff = (probs * labelled).max(dim=1)
    if settings.all_clicked:
        unsure = best < settings.min_prob * probs[:, ~things].sum(dim=1)
    else:
        unsure = (best < settings.min_prob) | things[_likeliest(probs, anchors)]
    return torch.where(unsure, 0, stuff)
