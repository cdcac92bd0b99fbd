# SPDX-License-Identifier: Apache-2.0
"""The head for the robot: each pixel says how near its object's centre lies, and which way. A few convolutions, no search.

After Cheng et al., Panoptic-DeepLab, CVPR 2020; in metres and along the ray instead of pixels, as range images need it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from weakseg_ros.nets.heads.head import Head
from weakseg_ros.nets.output import NetOutput

_OFFSET_UNIT_M = 4.0
"""what an answer of 1 means: about the largest offset of a car"""


class CentreHead(Head):
    """Heat and offset of each pixel, from the net's last map of `features` channels; `deploy.grouping` makes objects of them."""

    name: ClassVar[str] = "centres"
    outputs: ClassVar[tuple[str, ...]] = ("centre", "offset")

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(_conv(features, width, 1), _conv(width, width, 2), nn.Conv2d(width, 3, 1))

    @classmethod
    def behind(cls, net: nn.Module, num_classes: int, width: int) -> CentreHead:
        """See Head.behind."""
        return cls(net.feature_channels, width)  # type: ignore[arg-type]

    @property
    def kwargs(self) -> dict[str, Any]:
        """See Head.kwargs."""
        return {"width": self.width}

    def forward(self, out: NetOutput) -> tuple[Tensor, Tensor]:
        """Heat (B, H, W) 0..1, and offset (B, 2, H, W) in m, away from the sensor and to the left along the pixel's azimuth."""
        answer = self.layers(out.features)
        return answer[:, 0].sigmoid(), answer[:, 1:] * _OFFSET_UNIT_M


def _conv(channels_in: int, channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
