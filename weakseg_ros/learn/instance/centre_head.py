# SPDX-License-Identifier: Apache-2.0
"""The head for the robot: each pixel says how near its object's centre lies, and which way. A few convolutions, no search.

After Cheng et al., Panoptic-DeepLab, CVPR 2020; in metres and along the ray instead of pixels, as range images need it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weakseg_ros.learn.nets import NetOutput

_OFFSET_UNIT_M = 4.0
"""what an answer of 1 means: about the largest offset of a car"""
_HOT_SHARE = 0.4
"""standard deviation of the heat around a centre, in radii of the class"""
_SMALLEST_RANGE_M = 1e-3


class CentreHead(nn.Module):
    """Heat and offset of each pixel, from the net's last map of `features` channels; `deploy.grouping` makes objects of them."""

    outputs = ("centre", "offset")

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv(features, width, 1), _conv(width, width, 2), nn.Conv2d(width, 3, 1))

    def forward(self, out: NetOutput) -> tuple[Tensor, Tensor]:
        """Heat (B, H, W) 0..1, and offset (B, 2, H, W) in m, away from the sensor and to the left along the pixel's azimuth."""
        answer = self.layers(out.features)
        return answer[:, 0].sigmoid(), answer[:, 1:] * _OFFSET_UNIT_M


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


def _conv(channels_in: int, channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
