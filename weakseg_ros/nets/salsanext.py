# SPDX-License-Identifier: Apache-2.0
"""SalsaNext (Cortinhal et al., ISVC 2020): residual dilated blocks, pixel-shuffle decoder.

At width 32 and 20 classes it has the 6,711,572 parameters of the published network and gives the same outputs for the
same weights. Every block is convolution, LeakyReLU, BatchNorm in that order, as published.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.output import NetOutput

_DOWNSAMPLING = 16
_DROPOUT = 0.2


class SalsaNext(nn.Module):
    """SalsaNext (ISVC 2020): dilated residual blocks and a pixel-shuffle decoder, for GPUs.

    Range image (B, C, H, W) -> NetOutput; any H and W.
    `width` is the number of channels at full resolution: 32 as published, 16 half, 8 a quarter. H and W are padded with
    zeros at the bottom and right to multiples of 16 inside `forward`, and all outputs are cropped back. Raises
    ConfigError for an odd width.
    """

    def __init__(self, channels: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ConfigError(f"net_width: {width} does not fit net 'salsanext'; use an even number (32 as published)")
        w = width
        self.feature_channels = w
        self.stage_channels = (2 * w, 4 * w, 8 * w, 8 * w)
        self.context = nn.Sequential(_Context(channels, w), _Context(w, w), _Context(w, w))
        self.encoder = nn.ModuleList([_Down(w, 2 * w, 0.0), _Down(2 * w, 4 * w), _Down(4 * w, 8 * w), _Down(8 * w, 8 * w)])
        self.bottom = _Down(8 * w, 8 * w)
        self.decoder = nn.ModuleList(
            [_Up(8 * w, 8 * w, 4 * w), _Up(4 * w, 8 * w, 4 * w), _Up(4 * w, 4 * w, 2 * w), _Up(2 * w, 2 * w, w, 0.0)]
        )
        self.classifier = nn.Conv2d(w, num_classes, 1)

    def forward(self, image: Tensor) -> NetOutput:
        height, width = image.shape[-2:]
        x = self.context(F.pad(image, (0, -width % _DOWNSAMPLING, 0, -height % _DOWNSAMPLING)))
        stages = []
        for down in cast(Iterable[_Down], self.encoder):
            full = down(x)
            stages.append(full)  # before pooling, as the decoder joins it
            x = F.avg_pool2d(down.dropout(full), 3, stride=2, padding=1)
        x = self.bottom.dropout(self.bottom(x))  # (B, 8w, H/16, W/16)
        for up, skip in zip(self.decoder, reversed(stages), strict=True):
            x = up(x, skip)
        x = x[..., :height, :width]
        cropped = tuple(s[..., : -(-height // 2**i), : -(-width // 2**i)] for i, s in enumerate(stages))
        return NetOutput(logits=self.classifier(x), features=x, stages=cropped)


class _Context(nn.Module):
    """A 1x1 shortcut beside a 3x3 and a dilated 3x3."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.shortcut = _shortcut(channels_in, channels)
        self.near = _conv(channels, channels)
        self.far = _conv(channels, channels, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        out: Tensor = shortcut + self.far(self.near(shortcut))
        return out


class _Dilated(nn.Module):
    """3x3, dilated 3x3 and dilated 2x2 in a row (fields of view 3, 7 and 9), fused by a 1x1."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.near = _conv(channels_in, channels)
        self.far = _conv(channels, channels, dilation=2)
        self.farther = _conv(channels, channels, kernel=2, dilation=2)
        self.fuse = _conv(3 * channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x)
        far = self.far(near)
        out: Tensor = self.fuse(torch.cat((near, far, self.farther(far)), dim=1))
        return out


class _Down(nn.Module):
    """Dilated block with a shortcut; the caller drops out and pools, since the decoder wants the map before both."""

    def __init__(self, channels_in: int, channels: int, dropout: float = _DROPOUT) -> None:
        super().__init__()
        self.shortcut = _shortcut(channels_in, channels)
        self.block = _Dilated(channels_in, channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.block(x)
        return out


class _Up(nn.Module):
    """Pixel shuffle to twice the size, the encoder's map beside it, then a dilated block."""

    def __init__(self, channels_in: int, channels_skip: int, channels: int, dropout: float = _DROPOUT) -> None:
        super().__init__()
        self.block = _Dilated(channels_in // 4 + channels_skip, channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.dropout(F.pixel_shuffle(x, 2))
        out: Tensor = self.dropout(self.block(self.dropout(torch.cat((x, skip), dim=1))))
        return out


def _shortcut(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1), nn.LeakyReLU())


def _conv(channels_in: int, channels: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(channels_in, channels, kernel, dilation=dilation, padding=padding)
    return nn.Sequential(conv, nn.LeakyReLU(), nn.BatchNorm2d(channels))
