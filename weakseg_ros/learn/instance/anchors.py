# SPDX-License-Identifier: Apache-2.0
"""Anchors: what was clicked in a scan. One for each clicked object, one for each stuff class that has a label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Anchors:
    """M anchors of a scan of P pixels, and the L labelled pixels they stand on."""

    classes: Tensor
    """(M,) i64 class id of each"""
    things: Tensor
    """(M,) bool, True for a clicked object, False for a stuff class"""
    pixel: Tensor
    """(L,) i64 labelled pixel, 0..P-1; an object has one, its click"""
    owner: Tensor
    """(L,) i64 the anchor that each of them belongs to"""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def clicks(self) -> Tensor:
        """(T,) the pixels of the T clicked objects, which come first among the anchors."""
        return self.pixel[self.things[self.owner]]

    def mean(self, values: Tensor) -> Tensor:
        """Mean of (P, D) values over the labelled pixels of each anchor: (M, D)."""
        sums = values.new_zeros(len(self), values.shape[1]).index_add_(0, self.owner, values[self.pixel])
        count = torch.bincount(self.owner, minlength=len(self)).clamp_min(1)
        return sums / count[:, None].to(sums.dtype)


def anchors_of(labels: Tensor, things: Tensor, max_clicks: int = 300) -> Anchors:
    """The anchors of a scan's sparse labels: class ids (P,), 0 = none, and which of the K classes are things.

    Every labelled pixel of a thing is the click of an object of its own: draw the labels with `per_instance`. Of more
    than `max_clicks` clicks a random choice is taken (torch's generator), which bounds the memory.
    """
    pixel = labels.nonzero()[:, 0]
    is_click = things[labels[pixel]]
    clicks, rest = pixel[is_click], pixel[~is_click]
    if len(clicks) > max_clicks:
        clicks = clicks[torch.randperm(len(clicks), device=clicks.device)[:max_clicks].sort()[0]]
    stuff, owner = torch.unique(labels[rest], return_inverse=True)
    number = torch.arange(len(clicks), device=labels.device)
    return Anchors(
        classes=torch.cat((labels[clicks], stuff)),
        things=torch.arange(len(clicks) + len(stuff), device=labels.device) < len(clicks),
        pixel=torch.cat((clicks, rest)),
        owner=torch.cat((number, owner + len(clicks))),
    )
