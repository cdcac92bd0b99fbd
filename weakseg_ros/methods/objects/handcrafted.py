# SPDX-License-Identifier: Apache-2.0
"""Distances that nothing is learned for, on the scale of the learned ones: what those have to beat, in the same training."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.methods.objects.relations import FAR, Relations
from weakseg_ros.weak.traverse import edge_cost, traverse_distance

Rule = Literal["euclidean", "surface", "traverse"]

_TO_STUFF = 0.6
"""a hand-crafted distance knows no stuff; so much, so that near a click the object is believed and far away the class"""
_STRIDE = 2
"""ways are sought on every other row and column"""
_EDGE_SHARE = 0.05
"""a step of the range by this share is an edge"""


def hand_distance(
    rule: Rule, relations: Relations, anchors: ClickAnchors, features: Tensor, probs: Tensor, xyz: Tensor, mask: Tensor
) -> Tensor:
    """(M, P) 0..1 from the anchors to the pixels of a (H, W) mask: features (P, D), probabilities (P, K), places (P, 3) m.

    `euclidean` and `surface` in reaches; `traverse` as PSPS measures it, over the largest of all.
    """
    if rule == "traverse":
        objects = _traverse(anchors, features, probs, xyz, mask)
    else:
        objects = (relations.of("straight" if rule == "euclidean" else "surface") / FAR).clamp_max(1.0)
    stuff = objects.new_full((len(anchors) - len(objects), objects.shape[1]), _TO_STUFF)
    return torch.cat((objects, stuff))


def _traverse(anchors: ClickAnchors, features: Tensor, probs: Tensor, xyz: Tensor, mask: Tensor) -> Tensor:
    """(T, P) price of the cheapest way over the image, 0..1."""
    clicks, width = anchors.clicks, mask.shape[1]
    objects = int(anchors.things.sum())
    if not objects:
        return features.new_zeros(0, len(features))
    unit = F.normalize(features.detach(), dim=1)
    planes = [_image(values, mask)[:, ::_STRIDE, ::_STRIDE].cpu().numpy() for values in (probs, unit, xyz.norm(dim=1)[:, None])]
    cost = edge_cost(planes[0], planes[1], _edges(planes[2]))
    at = mask.flatten().nonzero()[:, 0]
    row, col = at // width // _STRIDE, at % width // _STRIDE
    starts = torch.stack((row[clicks], col[clicks]), dim=1).cpu().numpy()
    price = torch.from_numpy(traverse_distance(cost, starts)).to(features.device)[:, row, col]  # (C, P)
    nearest = price.new_full((objects, price.shape[1]), torch.inf)
    nearest = nearest.scatter_reduce(0, anchors.click_owner[:, None].expand_as(price), price, "amin")
    farthest = nearest[nearest.isfinite()].max().clamp_min(1e-6)
    return (nearest / farthest).clamp_max(1.0)


def _image(values: Tensor, mask: Tensor) -> Tensor:
    """(D, H, W) of the values (P, D) of the pixels of a mask, 0 elsewhere."""
    image = values.new_zeros(*mask.shape, values.shape[1])
    image[mask] = values.detach()
    return image.permute(2, 0, 1)


def _edges(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1, H, W) 1 where the range (1, H, W) steps to a neighbour's."""
    near = np.maximum(distance[0], 1.0)
    edges: NDArray[np.float32] = np.zeros_like(near)
    edges[:-1] = np.abs(np.diff(near, axis=0)) > _EDGE_SHARE * near[:-1]
    edges[:, :-1] = np.maximum(edges[:, :-1], np.abs(np.diff(near, axis=1)) > _EDGE_SHARE * near[:, :-1])
    return edges[None]
