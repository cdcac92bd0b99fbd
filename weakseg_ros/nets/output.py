# SPDX-License-Identifier: Apache-2.0
"""What every backbone returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from weakseg_ros.nets.losses import class_probabilities


@dataclass(frozen=True)
class NetOutput:
    """What every backbone returns."""

    logits: Tensor
    """(B, K, H, W); K counts class 0, whose logit is never trained and never predicted"""
    features: Tensor
    """(B, D, H, W) last decoder map, before the classifier"""
    stages: tuple[Tensor, ...] = ()
    """encoder maps (B, D_i, H_i, W_i) from fine to coarse, each over the image's pixels, for methods that pool several scales"""
    auxiliary: tuple[Tensor, ...] = ()
    """(B, K, H, W) logits of further heads on coarser maps, enlarged to the image; trained with the labels, never deployed"""

    @cached_property
    def probabilities(self) -> Tensor:
        """(B, K, H, W) `class_probabilities` of the logits, computed once for all losses."""
        return class_probabilities(self.logits)
