# SPDX-License-Identifier: Apache-2.0
"""RangeNet-21 and -53 (Milioto et al., IROS 2019): a Darknet encoder that halves the width alone, and its mirror image.

At width 32 and 20 classes they have the 24,712,980 and 50,377,364 parameters of the published networks and give the same
outputs for the same weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.nets.settings import RangeNetSettings

BLOCKS = {21: (1, 1, 2, 2, 1), 53: (1, 2, 8, 8, 4)}
"""residual blocks of each encoder stage, by the number of layers"""
DROPOUT = 0.01
_DOWNSAMPLING = 32
_NORM_MOMENTUM = 0.01
_SLOPE = 0.1


class RangeNet(nn.Module):
    """Range image (B, C, H, W) -> NetOutput; any H and W.

    `width` is the number of channels at full resolution, 32 as published. W is padded with zeros on the right to a
    multiple of 32 inside `forward`, and every map that leaves it is cropped back. With `detach_skips` no gradient runs
    through the skips, as published; the encoder then learns through its coarsest map only.
    Raises ConfigError for a width below 2.
    """

    layers: ClassVar[int]

    def __init__(self, channels: int, num_classes: int, width: int = 32, detach_skips: bool = False) -> None:
        super().__init__()
        if width < 2:
            raise ConfigError(f"net_width: {width} does not fit net 'rangenet{self.layers}'; use 2 or more (32 as published)")
        widths = [width << i for i in range(len(BLOCKS[self.layers]) + 1)]
        steps = list(itertools.pairwise(widths))
        self.detach_skips = detach_skips
        self.feature_channels = width
        self.stage_channels = tuple(widths[:4])
        self.stem = conv(channels, width)
        self.encoder = nn.ModuleList(_Down(*step, count) for step, count in zip(steps, BLOCKS[self.layers], strict=True))
        self.decoder = nn.ModuleList(Up(coarse, fine) for fine, coarse in reversed(steps))
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> NetOutput:
        width = image.shape[-1]
        x = self.stem(F.pad(image, (0, -width % _DOWNSAMPLING)))
        skips = []
        for down in self.encoder:
            skips.append(x)
            x = self.dropout(down(x))  # the last is (B, 32w, H, W/32)
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            x = up(x) + (skip.detach() if self.detach_skips else skip)
        x = self.dropout(x)
        logits = self.classifier(self.dropout(x))
        return NetOutput(logits=logits[..., :width], features=x[..., :width], stages=over_image(skips[:4], width))


class RangeNet21(RangeNet):
    """RangeNet-21 (IROS 2019): Darknet encoder that downsamples only the width, with 7 residual blocks."""

    Settings = RangeNetSettings
    layers = 21


class RangeNet53(RangeNet):
    """RangeNet-53 (IROS 2019): Darknet encoder that downsamples only the width, with 23 residual blocks."""

    Settings = RangeNetSettings
    layers = 53


class Residual(nn.Module):
    """A 1x1 and a 3x3 convolution beside an identity; added after the activation."""

    def __init__(self, channels: int, channels_between: int) -> None:
        super().__init__()
        self.inner = conv(channels, channels_between, kernel=1)
        self.outer = conv(channels_between, channels)

    def forward(self, x: Tensor) -> Tensor:
        refined: Tensor = self.outer(self.inner(x))
        return x + refined


class _Down(nn.Sequential):
    """Halve the width, then refine."""

    def __init__(self, channels_in: int, channels: int, blocks: int) -> None:
        super().__init__(conv(channels_in, channels, stride=2), *(Residual(channels, channels_in) for _ in range(blocks)))


class Up(nn.Sequential):
    """Double the width (or keep it, with `factor` 1), then refine once."""

    def __init__(self, channels_in: int, channels: int, factor: int = 2) -> None:
        enlarge: nn.Module
        if factor == 2:
            enlarge = nn.ConvTranspose2d(channels_in, channels, (1, 4), stride=(1, 2), padding=(0, 1))
        else:
            enlarge = nn.Conv2d(channels_in, channels, 3, padding=1)
        super().__init__(enlarge, _norm(channels), nn.LeakyReLU(_SLOPE), Residual(channels, channels_in))


def conv(channels_in: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution (strided along the width only), BatchNorm, LeakyReLU."""
    layer = nn.Conv2d(channels_in, channels, kernel, stride=(1, stride), padding=kernel // 2, bias=False)
    return nn.Sequential(layer, _norm(channels), nn.LeakyReLU(_SLOPE))


def over_image(stages: Sequence[Tensor], width: int) -> tuple[Tensor, ...]:
    """Maps of a padded image, each half as wide as the one before, cut to the columns that lie over the image's `width`."""
    return tuple(stage[..., : -(-width // 2**number)] for number, stage in enumerate(stages))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=_NORM_MOMENTUM)
