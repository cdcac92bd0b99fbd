# SPDX-License-Identifier: Apache-2.0
"""SqueezeSegV3 (Xu et al., ECCV 2020): convolutions whose kernels depend on where in space a pixel's points lie.

At width 32, 20 classes and with its five heads it has the 9,247,140 (21 layers) or 25,959,588 (53) parameters of the
published network, and gives the same outputs for the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.nets.rangenet import BLOCKS, DROPOUT, Up, conv, over_image
from weakseg_ros.nets.settings import SqueezeSegSettings

_DOWNSAMPLING = 8
_NEIGHBOURS = 9


class SqueezeSegV3(nn.Module):
    """SqueezeSegV3 (ECCV 2020): spatially adaptive convolutions, weighted by x, y and z.

    Range image (B, C, H, W) whose first channels are range, x, y, z -> NetOutput; any H and W.
    `width` is the number of channels at full resolution, 32 as published; `layers` 21 or 53. W is padded with zeros on the
    right to a multiple of 8 inside `forward`, and every map that leaves it is cropped back. With `deep_supervision` four
    more heads on the coarser decoder maps give `NetOutput.auxiliary`, coarsest first. With `detach_skips` no gradient runs
    through the skips, as published. Raises ConfigError for a width below 2, another number of layers, or fewer than four
    channels.
    """

    Settings = SqueezeSegSettings
    leading_channels = ("range", "x", "y", "z")

    def __init__(
        self,
        channels: int,
        num_classes: int,
        width: int = 32,
        layers: int = 21,
        deep_supervision: bool = False,
        detach_skips: bool = False,
    ) -> None:
        super().__init__()
        if width < 2:
            raise ConfigError(f"net_width: {width} does not fit net 'squeezesegv3'; use 2 or more (32 as published)")
        if layers not in BLOCKS:
            raise ConfigError(f"layers: {layers} does not fit net 'squeezesegv3'; use 21 or 53")
        if channels < len(self.leading_channels):
            raise ConfigError(f"channels: net 'squeezesegv3' needs {', '.join(self.leading_channels)} first; {channels} given")
        w = width
        self.detach_skips = detach_skips
        self.feature_channels = w
        self.stage_channels = (w, 2 * w, 4 * w, 8 * w)
        self.stem = conv(channels, w)
        widths = (w, 2 * w, 4 * w, 8 * w, 8 * w)
        self.adaptive = nn.ModuleList(_AdaptiveStage(c, count) for c, count in zip(widths, BLOCKS[layers], strict=True))
        self.narrow = nn.ModuleList(conv(c, 2 * c, stride=2) for c in widths[:3])
        self.decoder = nn.ModuleList([Up(8 * w, 8 * w, 1), Up(8 * w, 8 * w, 1), Up(8 * w, 4 * w), Up(4 * w, 2 * w), Up(2 * w, w)])
        self.dropout = nn.Dropout2d(DROPOUT)
        coarse = (8 * w, 8 * w, 4 * w, 2 * w) if deep_supervision else ()
        self.coarse_classifiers = nn.ModuleList(nn.Conv2d(c, num_classes, 1) for c in coarse)
        self.classifier = nn.Conv2d(w, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> NetOutput:
        width = image.shape[-1]
        image = F.pad(image, (0, -width % _DOWNSAMPLING))
        bottom, skips = self._encode(image)
        maps, x = [], bottom
        for number, up in enumerate(self.decoder):
            x = up(x)
            if number >= 2:
                skip = skips[4 - number]
                x = x + (skip.detach() if self.detach_skips else skip)
            maps.append(x)
        maps = [self.dropout(x) for x in maps]
        coarse = zip(self.coarse_classifiers, maps[:-1], strict=False)
        auxiliary = [F.interpolate(head(self.dropout(x)), size=image.shape[-2:]) for head, x in coarse]  # nearest
        logits = self.classifier(self.dropout(maps[-1]))
        return NetOutput(
            logits=logits[..., :width],
            features=maps[-1][..., :width],
            stages=over_image([*skips, bottom], width),
            auxiliary=tuple(values[..., :width] for values in auxiliary),
        )

    def _encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest map (B, 8w, H, W/8), and the maps before each halving of the width, fine to coarse."""
        xyz, x, skips = image[:, 1:4], self.stem(image), []
        for number, adaptive in enumerate(self.adaptive):
            skip, x = x, adaptive(x, xyz)
            if number < len(self.narrow):
                skips.append(skip)
                x = self.narrow[number](x)
                size = (xyz.shape[-2], xyz.shape[-1] // 2)
                xyz = F.interpolate(xyz, size=size, mode="bilinear", align_corners=True)
            x = self.dropout(x)
        return x, skips


class _AdaptiveStage(nn.ModuleList):
    """Several adaptive convolutions at one resolution."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(_Adaptive(channels) for _ in range(count))

    def forward(self, x: Tensor, xyz: Tensor) -> Tensor:
        for block in self:
            x = block(x, xyz)
        return x


class _Adaptive(nn.Module):
    """Spatially-adaptive convolution: the 3x3 neighbourhood weighed by a map of its coordinates, then mixed (paper, eq. 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        unfolded = _NEIGHBOURS * channels
        self.attention = nn.Sequential(nn.Conv2d(3, unfolded, 7, padding=3), nn.BatchNorm2d(unfolded))
        self.mix = nn.Sequential(nn.Conv2d(unfolded, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.smooth = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor, xyz: Tensor) -> Tensor:
        weighed = neighbourhood(x) * torch.sigmoid(self.attention(xyz))
        mixed: Tensor = self.smooth(self.mix(weighed))
        return x + mixed


def neighbourhood(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 9C, H, W): each channel's 3x3 neighbours in row order, zero outside.

    The same as `F.unfold`, in slices, which every ONNX runtime has.
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    shifted = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack(shifted, dim=2).flatten(1, 2)
