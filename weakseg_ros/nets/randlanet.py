# SPDX-License-Identifier: Apache-2.0
"""RandLA-Net, a network on points, written from the paper: Hu et al., RandLA-Net, CVPR 2020, section 3 and appendix."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.crops import PointsSpec

_SLOPE = 0.2
_DROPOUT = 0.5
_POSITION = 10
"""a point, its neighbour, their difference (3 each) and distance: the paper's eq. 1"""
_WIDEST = 5
"""levels of the published nets: four for outdoor scenes, five for indoor ones"""
_PARTS = 4
"""tensors that describe a level"""


class RandLaNet(nn.Module):
    """RandLA-Net (CVPR 2020): attention over the neighbours of each point and random downsampling, on points.

    Channels of P points (B, C, 1, P), and for each level `xyz` (B, P, 3) m, `neighbours` (B, P, k), `pool` (B, P', k) and
    `nearest` (B, P) of deploy/frontends/points_numpy.py -> NetOutput over the P points, an image of one row.
    `width` is the number of channels of the first encoder layer, a multiple of 4; 32 as published, and `layers` that of the
    levels: 4 as published outdoors, 5 indoors. A kept point takes the largest features of its neighbours, as in the
    published code.

    The encoder's maps are of fewer points each, so `stages` holds the decoder's features alone. Raises ConfigError for a
    width or layers that do not fit.
    """

    Settings = PointsSpec
    representation = "points"

    def __init__(self, channels: int, num_classes: int, width: int = 32, layers: int = 5) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ConfigError(f"net_width: {width} does not fit net 'randlanet'; use a multiple of 4 (32 as published)")
        if not 1 <= layers <= _WIDEST:
            raise ConfigError(f"ratios: net 'randlanet' has 1 to {_WIDEST} levels, and {layers} are given")
        self.feature_channels = width
        self.stage_channels = (width,)
        widths = [width // 4, *(width * factor for factor in (1, 4, 8, 16, 32)[:layers])]
        steps = list(itertools.pairwise(widths))
        self.start = _mlp(channels, widths[0])
        self.encoder = nn.ModuleList(_DilatedResidual(fine, coarse) for fine, coarse in steps)
        self.bottom = _mlp(widths[-1], widths[-1])
        skips = [widths[1], *widths[1:-1]]  # of the densest level the block's own output, of others what came from above
        ups = zip([widths[-1], *reversed(skips[1:])], reversed(skips), strict=True)
        self.decoder = nn.ModuleList(_mlp(coarse + skip, skip) for coarse, skip in ups)
        self.end = nn.Sequential(_mlp(width, 2 * width), _mlp(2 * width, width))
        self.dropout = nn.Dropout(_DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Tensor, *parts: Tensor) -> NetOutput:
        batch, points = features.shape[0], features.shape[-1]
        levels = [_Level.of(parts[at : at + _PARTS]) for at in range(0, len(parts), _PARTS)]
        x = self.start(features[:, :, 0].transpose(1, 2).flatten(0, 1))  # (B * P, D)
        skips: list[Tensor] = []
        for block, level in zip(self.encoder, levels, strict=True):
            seen = block(x, level)
            skips.append(x if skips else seen)
            x = seen[level.pool].amax(dim=1)  # (B * P', D)
        x = self.bottom(x)
        for merge, level, skip in zip(self.decoder, reversed(levels), reversed(skips), strict=True):
            x = merge(torch.cat((x.index_select(0, level.nearest), skip), dim=-1))  # nearest-neighbour upsampling
        x = self.end(x)
        out = x.view(batch, points, self.feature_channels).transpose(1, 2).unsqueeze(2)  # (B, D, 1, P)
        return NetOutput(logits=self.classifier(self.dropout(out)), features=out, stages=(out,))


@dataclass(frozen=True)
class _Level:
    """The points of one density of all crops, one crop after the other; indices count over all of them."""

    position: Tensor
    """(B * P, k, 10), see _POSITION"""
    neighbours: Tensor
    """(B * P, k)"""
    pool: Tensor
    """(B * P', k)"""
    nearest: Tensor
    """(B * P,) into the next level"""

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> _Level:
        """From `xyz`, `neighbours`, `pool` and `nearest` of each crop."""
        xyz, neighbours, pool, nearest = parts
        neighbours, pool = (_over_batch(index, xyz.shape[1]).flatten(0, 1) for index in (neighbours, pool))
        nearest = _over_batch(nearest, parts[2].shape[1]).flatten()
        return cls(_relative_position(xyz.flatten(0, 1), neighbours), neighbours, pool, nearest)


def _over_batch(index: Tensor, points: int) -> Tensor:
    """Indices (B, ...) into the points of each crop -> into those of all crops."""
    first = torch.arange(index.shape[0], device=index.device) * points
    return index + first.view(-1, *(1,) * (index.dim() - 1))


class _DilatedResidual(nn.Module):
    """Two rounds of looking at the neighbours, so that a point sees the neighbours' neighbours, beside a shortcut."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.narrow = _mlp(channels_in, quarter)
        self.encode = _mlp(_POSITION, quarter)
        self.near = _AttentivePooling(2 * quarter, quarter)
        self.encode_again = _mlp(quarter, quarter)
        self.far = _AttentivePooling(2 * quarter, 2 * quarter)
        self.widen = _mlp(2 * quarter, channels, activation=False)
        self.shortcut = _mlp(channels_in, channels, activation=False)
        self.activation = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor, level: _Level) -> Tensor:
        """(B * P, D) -> (B * P, D'); local spatial encoding is the paper's eq. 1."""
        shape = level.neighbours.shape
        place = self.encode(level.position.flatten(0, 1))  # (B * P * k, D'/4)
        inner = self.near(self.narrow(x)[level.neighbours], place.unflatten(0, shape))
        place = self.encode_again(place)
        inner = self.far(inner[level.neighbours], place.unflatten(0, shape))
        out: Tensor = self.activation(self.widen(inner) + self.shortcut(x))
        return out


class _AttentivePooling(nn.Module):
    """The paper's eq. 2 and 3: (P, k, D) of the neighbours beside (P, k, D) of their places -> (P, D')."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels_in, channels_in, bias=False)
        self.mix = _mlp(channels_in, channels)

    def forward(self, around: Tensor, place: Tensor) -> Tensor:
        around = torch.cat((around, place), dim=-1)
        out: Tensor = self.mix((around * self.score(around).softmax(dim=1)).sum(dim=1))
        return out


def _relative_position(xyz: Tensor, neighbours: Tensor) -> Tensor:
    """(P, 3), (P, k) -> (P, k, 10), see _POSITION."""
    there = xyz[neighbours]  # (P, k, 3)
    here = xyz[:, None].expand_as(there)
    offset = here - there
    return torch.cat((here, there, offset, offset.square().sum(dim=-1, keepdim=True).sqrt()), dim=-1)


def _mlp(channels_in: int, channels: int, activation: bool = True) -> nn.Sequential:
    """A layer shared by all points: (P, D) -> (P, D')."""
    layers = [nn.Linear(channels_in, channels, bias=False), nn.BatchNorm1d(channels)]
    return nn.Sequential(*layers, nn.LeakyReLU(_SLOPE)) if activation else nn.Sequential(*layers)
