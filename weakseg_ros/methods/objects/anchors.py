# SPDX-License-Identifier: Apache-2.0
"""ClickAnchors: what was clicked in a scan. One for each clicked object, one for each stuff class that has a label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClickAnchors:
    """M anchors of a scan of P pixels, and the L labelled pixels they stand on."""

    classes: Tensor
    """(M,) i64 class id of each"""
    things: Tensor
    """(M,) bool, True for a clicked object, False for a stuff class"""
    pixel: Tensor
    """(L,) i64 labelled pixel, 0..P-1; those of an object are its clicks"""
    owner: Tensor
    """(L,) i64 the anchor that each of them belongs to"""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def clicks(self) -> Tensor:
        """(C,) the clicked pixels of the T objects, which come first among the anchors; most have one."""
        return self.pixel[self.things[self.owner]]

    @property
    def click_owner(self) -> Tensor:
        """(C,) the object of each click, 0..T-1."""
        return self.owner[self.things[self.owner]]

    def mean(self, values: Tensor) -> Tensor:
        """Mean of (P, D) values over the labelled pixels of each anchor: (M, D)."""
        sums = values.new_zeros(len(self), values.shape[1]).index_add_(0, self.owner, values[self.pixel])
        count = torch.bincount(self.owner, minlength=len(self)).clamp_min(1)
        return sums / count[:, None].to(sums.dtype)


def click_anchors(labels: Tensor, things: Tensor, max_clicks: int = 300, instances: Tensor | None = None) -> ClickAnchors:
    """The anchors of a scan's sparse labels: class ids (P,), 0 = none, and which of the K classes are things.

    Every labelled pixel of a thing is the click of an object of its own, or, where `instances` (P,) gives it a number above
    0, of the object with that number and class. Of more than `max_clicks` clicks a random choice is taken (torch's
    generator), which bounds the memory: of every object one, as far as that goes, before any has two.
    """
    pixel = labels.nonzero()[:, 0]
    is_click = things[labels[pixel]]
    clicks, rest = pixel[is_click], pixel[~is_click]
    if len(clicks) > max_clicks:
        clicks = clicks[torch.randperm(len(clicks), device=clicks.device)]
        first, _ = _objects(clicks, labels, instances, len(things))
        again = torch.ones_like(clicks)
        again[first] = 0
        clicks = clicks[again.argsort(stable=True)[:max_clicks]].sort()[0]
    first, click_owner = _objects(clicks, labels, instances, len(things))
    stuff, owner = torch.unique(labels[rest], return_inverse=True)
    return ClickAnchors(
        classes=torch.cat((labels[clicks[first]], stuff)),
        things=torch.arange(len(first) + len(stuff), device=labels.device) < len(first),
        pixel=torch.cat((clicks, rest)),
        owner=torch.cat((click_owner, owner + len(first))),
    )


def _objects(clicks: Tensor, labels: Tensor, instances: Tensor | None, classes: int) -> tuple[Tensor, Tensor]:
    """The first click of each object, in their order, and the object of each click, (C,)."""
    own = torch.arange(len(clicks), device=clicks.device)
    if instances is None or not len(clicks):
        return own, own
    number = instances[clicks]
    name = torch.where(number > 0, number * classes + labels[clicks], -1 - own)
    _, of_click = torch.unique(name, return_inverse=True)
    first = own.new_full((int(of_click.max()) + 1,), len(clicks)).scatter_reduce(0, of_click, own, "amin")
    order = first.argsort()
    return first[order], order.argsort()[of_click]
