# SPDX-License-Identifier: Apache-2.0
"""LightNet: a residual U-Net that a CPU runs at more than 10 Hz on 64 x 2048.

What makes it fast on CPUs: convolution, BatchNorm, ReLU in that order, so that the norm folds into the convolution;
only 3x3 and 1x1 kernels; channels in multiples of 16; width halved before height; decoder maps are added, not
concatenated, and enlarged bilinearly.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.errors import ConfigError
from weakseg_ros.nets.output import NetOutput


class LightNet(nn.Module):
    """Residual U-Net of 3x3 and 1x1 convolutions, made for CPUs.

    Range image (B, C, H, W) -> NetOutput; any H and W, no padding needed.
    `width` is the number of channels of the first stage, a multiple of 16; 32 gives 1.3 M parameters and 13 GFLOP at
    64 x 2048. Full resolution has half as many (at least 16), since every channel there costs most. Strided maps are
    rounded up (ceil(H/2)), and the decoder enlarges each map to the size of the one it is added to, so a 16-row or
    40-row sensor works as it is. Raises ConfigError for another width.
    """

    def __init__(self, channels: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        if width < 16 or width % 16:
            raise ConfigError(f"net_width: {width} does not fit net 'light'; use a multiple of 16")
        w, fine = width, max(16, width // 32 * 16)
        self.feature_channels = fine
        self.stage_channels = (w, 2 * w, 4 * w, 4 * w)
        self.stem = _conv(channels, fine)
        self.narrow = _conv(fine, w, stride=(1, 2))
        self.encoder = nn.ModuleList([_stage(w, w, 1, 1), _stage(w, 2 * w, 1), _stage(2 * w, 4 * w, 2), _stage(4 * w, 4 * w, 2)])
        self.top = _conv(4 * w, 2 * w, kernel=1)
        self.decoder = nn.ModuleList(
            [_Join(4 * w, 2 * w, 2 * w), _Join(2 * w, 2 * w, w), _Join(w, w, fine), _Join(fine, fine, fine)]
        )
        self.classifier = nn.Conv2d(fine, num_classes, 1)

    def forward(self, image: Tensor) -> NetOutput:
        full = self.stem(image)  # (B, w/2, H, W)
        x = self.narrow(full)  # (B, w, H, W/2)
        stages = []
        for stage in self.encoder:
            x = stage(x)
            stages.append(x)  # the last is (B, 4w, H/8, W/16)
        x = self.top(x)
        for join, finer in zip(self.decoder, (stages[2], stages[1], stages[0], full), strict=True):
            x = join(x, finer)
        return NetOutput(logits=self.classifier(x), features=x, stages=tuple(stages))  # x is (B, w/2, H, W)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside an identity (or a strided 1x1 where the shape changes)."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _conv(channels_in, channels, stride=(stride, stride))
        self.second = _conv(channels, channels, activation=False)
        changes = stride != 1 or channels_in != channels
        self.skip = (
            _conv(channels_in, channels, kernel=1, stride=(stride, stride), activation=False) if changes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.skip(x))


class _Join(nn.Module):
    """Enlarge the coarse map to the finer one's size, add the finer one through a 1x1, and smooth by a 3x3."""

    def __init__(self, channels_finer: int, channels: int, channels_out: int) -> None:
        super().__init__()
        self.lateral = _conv(channels_finer, channels, kernel=1, activation=False)
        self.smooth = _conv(channels, channels_out)

    def forward(self, coarse: Tensor, finer: Tensor) -> Tensor:
        up = F.interpolate(coarse, size=finer.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.smooth(F.relu(up + self.lateral(finer)))
        return out


def _stage(channels_in: int, channels: int, blocks: int, stride: int = 2) -> nn.Sequential:
    """Residual blocks, the first one strided."""
    first = _Residual(channels_in, channels, stride)
    return nn.Sequential(first, *[_Residual(channels, channels) for _ in range(blocks - 1)])


def _conv(
    channels_in: int, channels: int, kernel: int = 3, stride: tuple[int, int] = (1, 1), activation: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if activation else nn.Sequential(*layers)
