# SPDX-License-Identifier: Apache-2.0
"""A running average of a net's weights: a smoother net than the last step's, at no cost when deployed."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

from torch import nn

from weakseg_ros.methods.mean_teacher import follow

Net = TypeVar("Net", bound=nn.Module)


class WeightAverage(Generic[Net]):
    """`net` follows another net: average <- d average + (1 - d) current, with d = min(decay, (1 + t) / (10 + t)).

    BatchNorm's running statistics are averaged as well, counters are copied. decay 0 makes it a plain copy.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self.net: Net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay

    def follow(self, net: nn.Module, step: int) -> None:
        """Move towards `net` after its step number `step` (counted from 0)."""
        follow(self.net, net, min(self.decay, (1 + step) / (10 + step)))
