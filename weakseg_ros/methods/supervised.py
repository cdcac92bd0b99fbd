# SPDX-License-Identifier: Apache-2.0
"""Supervised learning on whatever labels there are: focal loss plus Lovász-Softmax over the labelled pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from weakseg_ros.batches.batches import Batch
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.methods.settings import SupervisedSettings
from weakseg_ros.nets.losses import class_alpha, class_probabilities, class_weight, focal_loss, lovasz_softmax
from weakseg_ros.nets.output import NetOutput


class Supervised(Method):
    """Focal and Lovász-Softmax losses at the labelled pixels, as in COARSE3D; part of every method."""

    Settings = SupervisedSettings

    def __init__(self, settings: SupervisedSettings, task: Task) -> None:
        super().__init__(settings, task)
        self.settings = settings
        self.alpha: Tensor | None
        self.register_buffer("alpha", class_weights(task))

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """`focal` and `lovasz`, each present where its weight is not 0; summed over the heads of a net that has several."""
        by_head = [self._of_head(batch, probs) for probs in (out.probabilities, *map(class_probabilities, out.auxiliary))]
        return {name: torch.stack([losses[name] for losses in by_head]).sum() for name in by_head[0]}

    def _of_head(self, batch: Batch, probs: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.settings.focal_weight:
            focal = focal_loss(probs, batch.labels, self.alpha, self.settings.gamma, weights=batch.weights)
            losses["focal"] = self.settings.focal_weight * focal
        if self.settings.lovasz_weight:
            losses["lovasz"] = self.settings.lovasz_weight * lovasz_softmax(probs, batch.labels, weights=batch.weights)
        return losses


def class_weights(task: Task) -> Tensor | None:
    """(K,) the factor of each class in a focal loss, from how often it is labelled; None where all classes count alike.

    They do where nothing is labelled at all, too.
    """
    labelled = task.class_counts.clone()
    labelled[0] = 0
    if not task.supervised.class_weights or not labelled.any():
        return None
    if task.supervised.class_weight_rule == "inverse":
        weight = class_weight(labelled / labelled.sum()).float()
        return torch.where(torch.arange(len(weight)) > 0, weight, 0.0)
    return class_alpha(labelled).float()
