# SPDX-License-Identifier: Apache-2.0
"""What the centre head is trained by: the heat around each object's centre, and the way from each pixel to it."""

from __future__ import annotations

import torch
from torch import Tensor

_HOT_SHARE = 0.4
"""standard deviation of the heat around a centre, in radii of the class"""
_SMALLEST_RANGE_M = 1e-3


def centre_losses(answer: tuple[Tensor, Tensor], instances: Tensor, xyz: Tensor, radius_m: Tensor) -> dict[str, Tensor]:
    """`centre` (squared error of the heat) and `offset` (absolute error over the radius) at the pixels of objects.

    `instances` (B, H, W) 0 = none, no number in two scans; `xyz` (B, 3, H, W) m; `radius_m` (B, H, W) of each pixel's class.
    A centre is the mean of its object's points, seen from above. A pixel of an object of n counts 1 / sqrt(n), so that small
    objects are not lost beside large ones.
    """
    heat, offset = answer[0].float(), answer[1].float()
    inside = instances > 0
    if not inside.any():
        return {"centre": heat.sum() * 0.0, "offset": offset.sum() * 0.0}
    place, radius = xyz.permute(0, 2, 3, 1)[inside][:, :2], radius_m[inside].clamp_min(_SMALLEST_RANGE_M)  # (P, 2), (P,)
    _, number, size = torch.unique(instances[inside], return_inverse=True, return_counts=True)
    centre = place.new_zeros(len(size), 2).index_add_(0, number, place) / size[:, None]
    wanted = centre[number] - place  # (P, 2)
    hot = torch.exp(-(wanted**2).sum(dim=1) / (2 * (_HOT_SHARE * radius) ** 2))
    weight = size[number].to(place.dtype).rsqrt()
    weight = weight / weight.sum()
    wrong = (offset.permute(0, 2, 3, 1)[inside] - along_ray(wanted, place)).abs().sum(dim=1) / radius
    return {"centre": (weight * (heat[inside] - hot) ** 2).sum(), "offset": (weight * wrong).sum()}


def along_ray(vector: Tensor, place: Tensor) -> Tensor:
    """(P, 2) vectors in x and y, as how far they lead away from the sensor and to the left, seen from places (P, 2)."""
    ahead = place / place.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_RANGE_M)
    left = torch.stack((-ahead[:, 1], ahead[:, 0]), dim=1)
    return torch.stack(((vector * ahead).sum(dim=1), (vector * left).sum(dim=1)), dim=1)
