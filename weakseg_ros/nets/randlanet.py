# SPDX-License-Identifier: Apache-2.0
"""RandLA-Net, a network on points, written from the paper: Hu et al., RandLA-Net, CVPR 2020, section 3 and appendix.

Its points are the pixels of the range image that hold one, so it learns and predicts wherever a range net does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.nets.point_pyramid import Level, pyramid

_SLOPE = 0.2
_DROPOUT = 0.5
_POSITION = 10
"""a point, its neighbour, their difference (3 each) and distance: the paper's eq. 1"""


class RandLaNet(nn.Module):
    """RandLA-Net (CVPR 2020): attention over the neighbours of each point and random downsampling; runs in torch only.

    Range image (B, C, H, W) whose first channels are range, x, y, z -> NetOutput; any H and W.
    `width` is the number of channels of the first encoder layer, a multiple of 4; 32 as published. Each image's pixels are
    thinned at random to `points`, every encoder layer keeps a quarter, each point looks at `neighbours`; a pixel that was
    left out answers as its nearest point does. Without training the draw is always the same. Empty pixels have features 0.
    Coordinates are needed in metres, so `set_normalisation` must be told the input's mean and std before training.

    An encoder layer has no map in image form, so `stages` holds the decoder's features alone. Raises ConfigError for a
    width, points or neighbours that do not fit, or fewer than four channels.
    """

    leading_channels = ("range", "x", "y", "z")
    why_no_onnx = "net 'randlanet' searches neighbours in a tree, which ONNX has no operator for"

    xyz_mean: Tensor
    xyz_std: Tensor

    def __init__(self, channels: int, num_classes: int, width: int = 32, points: int = 45_056, neighbours: int = 16) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ConfigError(f"net_width: {width} does not fit net 'randlanet'; use a multiple of 4 (32 as published)")
        if points < 1 or neighbours < 1 or points % 1 or neighbours % 1:
            raise ConfigError(f"points {points} and neighbours {neighbours} do not fit net 'randlanet'; use whole numbers from 1")
        if channels < len(self.leading_channels):
            raise ConfigError(f"channels: net 'randlanet' needs {', '.join(self.leading_channels)} first; {channels} given")
        self.points, self.neighbours = int(points), int(neighbours)
        self.feature_channels = width
        self.stage_channels = (width,)
        widths = [width // 4, width, 4 * width, 8 * width, 16 * width]
        self.start = _mlp(channels, widths[0])
        steps = list(itertools.pairwise(widths))
        self.encoder = nn.ModuleList(_DilatedResidual(fine, coarse) for fine, coarse in steps)
        self.bottom = _mlp(widths[-1], widths[-1])
        self.decoder = nn.ModuleList(_mlp(coarse + fine, fine) for fine, coarse in reversed(steps))
        self.end = nn.Sequential(_mlp(widths[0], 2 * width), _mlp(2 * width, width))
        self.dropout = nn.Dropout(_DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.register_buffer("xyz_mean", torch.zeros(3))
        self.register_buffer("xyz_std", torch.ones(3))

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Tell how the input was normalised: per channel, input = (metres - mean) / std."""
        self.xyz_mean.copy_(torch.tensor(mean[1:4]))
        self.xyz_std.copy_(torch.tensor(std[1:4]))

    def forward(self, image: Tensor) -> NetOutput:
        mask = (image != 0).any(dim=1)  # (B, H, W)
        inputs = image.permute(0, 2, 3, 1)[mask]  # (P, C), one image after the other
        features = image.new_zeros(*mask.shape, self.feature_channels)
        if len(inputs) > 1:  # a single point has no batch statistics
            at_points = self._points(inputs, mask.flatten(1).sum(dim=1).tolist())
            features = features.to(at_points.dtype)
            features[mask] = at_points
        features = features.permute(0, 3, 1, 2)
        return NetOutput(logits=self.classifier(self.dropout(features)), features=features, stages=(features,))

    def _points(self, inputs: Tensor, counts: list[int]) -> Tensor:
        """Features (P, w) of points whose inputs (P, C) lie image after image, `counts` of each."""
        xyz = (inputs[:, 1:4].float() * self.xyz_std + self.xyz_mean).detach()
        clouds = [cloud.numpy() for cloud in torch.split(xyz.cpu(), counts)]
        # One draw for all images, so that an image's answer never depends on its place in the batch.
        seed = int(torch.randint(2**31, ())) if self.training else 0
        levels, sampled, nearest = pyramid(
            clouds, [seed] * len(clouds), self.points, self.neighbours, len(self.encoder), torch.get_num_threads()
        )
        levels = [level.to(inputs.device) for level in levels]
        x = self.start(inputs[sampled.to(inputs.device)])
        skips = []
        for block, level in zip(self.encoder, levels, strict=True):
            skips.append(x)
            x = block(x, level)[level.kept]  # random sampling
        x = self.bottom(x)
        for merge, level, skip in zip(self.decoder, reversed(levels), reversed(skips), strict=True):
            x = merge(torch.cat((x[level.nearest_kept], skip), dim=-1))  # nearest-neighbour upsampling
        features: Tensor = self.end(x)
        return features[nearest.to(inputs.device)]


class _DilatedResidual(nn.Module):
    """Two rounds of looking at the neighbours, so that a point sees the neighbours' neighbours, beside a shortcut."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.narrow = _mlp(channels_in, channels // 4)
        self.near = _LocalAggregation(channels // 4, channels // 4)
        self.far = _LocalAggregation(channels // 4, channels // 2)
        self.widen = _mlp(channels // 2, channels, activation=False)
        self.shortcut = _mlp(channels_in, channels, activation=False)
        self.activation = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor, level: Level) -> Tensor:
        position = _relative_position(level)
        inner = self.far(self.near(self.narrow(x), level.neighbours, position), level.neighbours, position)
        out: Tensor = self.activation(self.widen(inner) + self.shortcut(x))
        return out


class _LocalAggregation(nn.Module):
    """Local spatial encoding (eq. 1) and attentive pooling (eq. 2 and 3): (P, D) -> (P, D')."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.encode = _mlp(_POSITION, channels_in)
        self.score = nn.Linear(2 * channels_in, 2 * channels_in, bias=False)
        self.mix = _mlp(2 * channels_in, channels)

    def forward(self, x: Tensor, neighbours: Tensor, position: Tensor) -> Tensor:
        encoded = self.encode(position.flatten(0, 1)).unflatten(0, neighbours.shape)  # (P, k, D)
        around = torch.cat((x[neighbours], encoded), dim=-1)  # (P, k, 2D)
        out: Tensor = self.mix((around * self.score(around).softmax(dim=1)).sum(dim=1))
        return out


def _relative_position(level: Level) -> Tensor:
    """(P, k, 10), see _POSITION."""
    there = level.xyz[level.neighbours]  # (P, k, 3)
    here = level.xyz[:, None].expand_as(there)
    offset = here - there
    return torch.cat((here, there, offset, offset.norm(dim=-1, keepdim=True)), dim=-1)


def _mlp(channels_in: int, channels: int, activation: bool = True) -> nn.Sequential:
    """A layer shared by all points: (P, D) -> (P, D')."""
    layers = [nn.Linear(channels_in, channels, bias=False), nn.BatchNorm1d(channels)]
    return nn.Sequential(*layers, nn.LeakyReLU(_SLOPE)) if activation else nn.Sequential(*layers)
