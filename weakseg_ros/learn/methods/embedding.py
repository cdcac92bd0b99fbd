# SPDX-License-Identifier: Apache-2.0
"""Embeddings of pixels from a net's encoder maps, for methods that compare pixels with prototypes.

The embedding has half the image's rows and columns. A training needs it at some pixels only, so it is interpolated
there, and never over the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.learn.nets import NetOutput

_LEAKY_SLOPE = 0.01


class Projector(nn.Module):
    """All encoder maps at half resolution -> 1x1 convolution, BatchNorm, LeakyReLU, 1x1 convolution -> unit length.

    COARSE3D (BMVC 2022), section 3.2. `channels` are those of the maps; `hidden` 0 takes as many as they have together,
    as published. A map without gradient (`detached`) leaves the training of the encoder to the other losses.
    """

    def __init__(self, channels: Sequence[int], dim: int = 256, hidden: int = 0, detached: bool = False) -> None:
        super().__init__()
        hidden = hidden or sum(channels)
        self.detached = detached
        self.mix = nn.Conv2d(sum(channels), hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.out = nn.Conv2d(hidden, dim, 1)

    def forward(self, net_output: NetOutput) -> Tensor:
        """(B, D, ceil(H/2), ceil(W/2)) of an H x W image, of length 1 over D, float32."""
        size = [-(-side // 2) for side in net_output.logits.shape[-2:]]
        maps = [stage.detach() if self.detached else stage for stage in net_output.stages]
        resized = [F.interpolate(m, size=size, mode="bilinear", align_corners=True) for m in maps]
        mixed = F.leaky_relu(self.norm(self.mix(torch.cat(resized, dim=1))), _LEAKY_SLOPE)
        return F.normalize(self.out(mixed).float(), dim=1)


def at_all_pixels(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, D, h, w) enlarged to (B, D, H, W); no longer of length 1 between the pixels it comes from."""
    return F.interpolate(embedding, size=size, mode="bilinear", align_corners=True)


def at_some_pixels(embedding: Tensor, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """What `at_all_pixels` has at the flat indices (n,) into B * H * W, without making the rest: (n, D)."""
    rows, columns = embedding.shape[-2:]
    height, width = size
    image, row, column = pixels // (height * width), pixels // width % height, pixels % width
    above, below, lower = _neighbours(row, height, rows)
    left, right, righter = _neighbours(column, width, columns)
    corners = torch.stack((above * columns + left, above * columns + right, below * columns + left, below * columns + right), 1)
    upper, lefter = 1.0 - lower, 1.0 - righter
    shares = torch.stack((upper * lefter, upper * righter, lower * lefter, lower * righter), 1)
    table = embedding.permute(0, 2, 3, 1).flatten(0, 2)  # (B * h * w, D)
    return F.embedding_bag(corners + (image * rows * columns)[:, None], table, per_sample_weights=shares, mode="sum")


def _neighbours(position: Tensor, full: int, small: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two lines of the small map beside a line of the full one, and the share of the second (align_corners)."""
    place = position.float() * ((small - 1) / max(full - 1, 1))
    first = place.long().clamp_max(small - 1)
    return first, (first + 1).clamp_max(small - 1), place - first
