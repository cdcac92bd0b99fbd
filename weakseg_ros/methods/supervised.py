# SPDX-License-Identifier: Apache-2.0
"""Supervised learning on whatever labels there are: focal loss plus Lovász-Softmax over the labelled pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch
from weakseg_ros.config import check_ranges, setting
from weakseg_ros.methods.method import Method
from weakseg_ros.nets.losses import class_alpha, class_probabilities, focal_loss, lovasz_softmax
from weakseg_ros.nets.output import NetOutput


@dataclass(frozen=True)
class SupervisedSettings:
    """`gamma` 0 with `class_weights` off and `lovasz_weight` 0 is plain cross-entropy."""

    focal_weight: float = setting(1.0, 0.0, 100.0)
    """weight of the focal loss"""
    lovasz_weight: float = setting(1.0, 0.0, 100.0)
    """weight of Lovász-Softmax"""
    gamma: float = setting(2.0, 0.0, 10.0)
    """exponent of the focal loss: how much pixels that are already right count less"""
    class_weights: bool = True
    """weigh rare classes higher in the focal loss, from the counts of the labels trained on"""

    def __post_init__(self) -> None:
        check_ranges(self)


class Supervised(Method):
    """The losses of COARSE3D's supervised part (BMVC 2022), on the classes that can be predicted."""

    Settings = SupervisedSettings

    def __init__(self, settings: SupervisedSettings, net: nn.Module, class_counts: Tensor) -> None:
        super().__init__(settings, net, class_counts)
        self.settings = settings
        labelled = class_counts.clone()
        labelled[0] = 0
        self.alpha: Tensor | None
        self.register_buffer("alpha", class_alpha(labelled).float() if settings.class_weights else None)

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """`focal` and `lovasz`, each present where its weight is not 0; summed over the heads of a net that has several."""
        by_head = [self._of_head(batch, probs) for probs in (out.probabilities, *map(class_probabilities, out.auxiliary))]
        return {name: torch.stack([losses[name] for losses in by_head]).sum() for name in by_head[0]}

    def _of_head(self, batch: Batch, probs: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.settings.focal_weight:
            losses["focal"] = self.settings.focal_weight * focal_loss(probs, batch.labels, self.alpha, self.settings.gamma)
        if self.settings.lovasz_weight:
            losses["lovasz"] = self.settings.lovasz_weight * lovasz_softmax(probs, batch.labels)
        return losses
