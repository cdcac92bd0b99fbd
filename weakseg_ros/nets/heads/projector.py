# SPDX-License-Identifier: Apache-2.0
"""Embeddings of pixels from a net's encoder maps, for what compares pixels with prototypes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.nets.output import NetOutput

_LEAKY_SLOPE = 0.01


class Projector(nn.Module):
    """All encoder maps at half resolution -> 1x1 convolution, BatchNorm, LeakyReLU, 1x1 convolution.

    COARSE3D (BMVC 2022), section 3.2. `channels` are those of the maps; `hidden` 0 takes as many as they have together,
    as published. Maps without gradient (`detached`) leave the training of the encoder to the other losses.
    """

    def __init__(self, channels: Sequence[int], dim: int = 256, hidden: int = 0, detached: bool = False) -> None:
        super().__init__()
        hidden = hidden or sum(channels)
        self.channels, self.detached = tuple(channels), detached
        self.mix = nn.Conv2d(sum(channels), hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.out = nn.Conv2d(hidden, dim, 1)

    def forward(self, net_output: NetOutput, size: tuple[int, ...] = ()) -> Tensor:
        """(B, D, *size); only the direction of each pixel's vector counts. `size` () is (ceil(H/2), ceil(W/2))."""
        size = size or coarser(net_output.logits.shape[-2:], (2, 2))
        maps = [stage.detach() if self.detached else stage for stage in net_output.stages]
        mixed = self.norm(self._mix(maps, size))
        embedding: Tensor = self.out(F.leaky_relu(mixed, _LEAKY_SLOPE))
        return embedding

    def _mix(self, maps: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """The first convolution of all maps, resized and put together; the coarse ones are mixed before they are enlarged.

        Both orders give the same, as resizing is linear and its weights sum to 1; mixing costs less where pixels are few.
        """
        parts = list(zip(maps, torch.split(self.mix.weight, list(self.channels), dim=1), strict=True))
        coarse = [m[0, 0].numel() < size[0] * size[1] for m in maps]
        groups = [([m], w) for (m, w), later in zip(parts, coarse, strict=True) if later]
        fine = [(resize(m, size), w) for (m, w), later in zip(parts, coarse, strict=True) if not later]
        if fine:
            groups.insert(0, ([m for m, _ in fine], torch.cat([w for _, w in fine], dim=1)))
        biases = [self.mix.bias, *[None] * (len(groups) - 1)]  # added once, where it costs least
        mixed = [F.conv2d(torch.cat(ms, dim=1), w, bias) for (ms, w), bias in zip(groups, biases, strict=True)]
        return functools.reduce(torch.add, [resize(m, size) for m in mixed])


def coarser(size: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """The size of an image of every so many rows and columns. One row is a list of points, whose neighbours are no neighbours."""
    return tuple(size) if size[0] == 1 else tuple(-(-side // step) for side, step in zip(size, stride, strict=True))


def resize(values: Tensor, size: Sequence[int]) -> Tensor:
    """(B, D, h, w) enlarged or reduced to `size`, corners upon corners."""
    if values.shape[-2:] == tuple(size):
        return values
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=True)
