# SPDX-License-Identifier: Apache-2.0
"""COARSE3D: contrast of pixels with class prototypes, where labels are few.

Li et al., COARSE3D: Class-Prototypes for Contrastive Learning in Weakly-Supervised 3D Point Cloud Segmentation,
BMVC 2022. Next to the supervised losses stands an InfoNCE loss between anchors, pixels with a label or a sure guess, and
a memory of prototypes that the labelled pixels move.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.batches.batches import Batch
from weakseg_ros.methods.confident_pixels import ContrastAnchors, draw_anchors, entropy, select_pseudo_labels, select_ratio
from weakseg_ros.methods.embedding import at_some_pixels
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.methods.prototypes import PixelBank, PrototypeBank
from weakseg_ros.methods.regime import coarse3d_in_regime
from weakseg_ros.methods.settings import Coarse3dSettings, Reduction
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.heads.novelty import NoveltyHead
from weakseg_ros.nets.heads.projector import Projector
from weakseg_ros.nets.output import NetOutput

_NO_LOG_OF_ZERO = 1e-6
_NO_DIVISION_BY_ZERO = 1e-30


class Coarse3d(Method):
    """COARSE3D (BMVC 2022): contrasts confident pixels with class prototypes; adds a novelty score to the bundle."""

    Settings = Coarse3dSettings

    def __init__(self, settings: Coarse3dSettings, task: Task) -> None:
        super().__init__(settings, task)
        self.settings = settings = coarse3d_in_regime(settings, task)
        channels: tuple[int, ...] = task.net.stage_channels  # type: ignore[assignment]
        self.projector = Projector(channels, settings.embedding, settings.projector_width, settings.detach_stages)
        classes = len(task.class_counts) - 1
        self.bank: PrototypeBank | PixelBank
        if settings.memory == "pixels":
            self.bank = PixelBank(classes, settings.memory_pixels // classes, settings.embedding)
        else:
            self.bank = PrototypeBank(settings, classes, settings.embedding)

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """`contrast`, which is 0 during the warm-up."""
        waits = progress < self.settings.warmup or not self.settings.weight
        contrast = self._nothing() if waits else self.settings.weight * self._contrast(batch, out, progress)
        return {"contrast": contrast}

    def deployable(self) -> Heads | None:
        """See Method.deployable; nothing without `novelty`, or where the memory holds pixels."""
        if not self.settings.novelty or not self.settings.weight or isinstance(self.bank, PixelBank):
            return None
        return Heads([NoveltyHead(self.projector, self.bank)])

    def _contrast(self, batch: Batch, out: NetOutput, progress: float) -> Tensor:
        """Move the memory with this batch's labels, then compare the anchors with it; statistics in float32."""
        settings, size = self.settings, (batch.mask.shape[-2], batch.mask.shape[-1])
        batch = some_labels(batch)
        embedding = self.projector(out)
        with torch.autocast(embedding.device.type, enabled=False):
            if self.training:
                labelled = (batch.labels > 0).flatten().nonzero()[:, 0]
                at_labels = at_some_pixels(embedding.detach(), labelled, size)
                self.bank.follow(at_labels, batch.labels.flatten()[labelled] - 1)
            anchors = self._anchors(batch, out.probabilities.detach(), progress)
            if not len(anchors.pixels):
                return self._nothing()
            return contrast_loss(
                at_some_pixels(embedding, anchors.pixels, size),
                anchors.classes - 1,
                self.bank.keys,
                anchors.times,
                settings.temperature,
                settings.base_temperature,
                settings.reduction,
            )

    @torch.no_grad()
    def _anchors(self, batch: Batch, probs: Tensor, progress: float) -> ContrastAnchors:
        uncertainty, ratio = entropy(probs), select_ratio(progress, self.settings.pseudo_epochs)
        labels = select_pseudo_labels(probs, uncertainty, batch.labels, batch.mask, ratio, not self.settings.published)
        by_entropy = self.settings.anchor_draw == "entropy"
        return draw_anchors(labels, batch.mask, uncertainty, probs.shape[1], self.settings.anchors, by_entropy)

    def _nothing(self) -> Tensor:
        """A loss of 0 that names every parameter: distributed training waits for a gradient of each."""
        return torch.stack([parameter.sum() for parameter in self.projector.parameters()]).sum() * 0.0


def some_labels(batch: Batch) -> Batch:
    """The batch with all given labels and some of those that were carried there: each stays with its weight as the chance."""
    if batch.weights is None:
        return batch
    return dataclasses.replace(batch, labels=torch.where(torch.rand_like(batch.weights) < batch.weights, batch.labels, 0))


def contrast_loss(
    anchors: Tensor,
    classes: Tensor,
    keys: Tensor,
    times: Tensor | None = None,
    temperature: float = 0.07,
    base_temperature: float = 0.07,
    reduction: Reduction = "mean_log",
) -> Tensor:
    """InfoNCE between anchors (n, D) of classes (n,), 0-based, and prototypes (C, K, D): a mean over the anchors.

    An anchor counts `times` (n,). With logits l = cos / temperature, positives the K prototypes of the anchor's class and
    negatives all others: `mean_log` is the mean over the positives of log(exp l + sum over negatives) - l, as in the
    released code; `log_sum` is -log of the positives' share of the softmax over all. Times temperature / base.
    The gradient runs into the anchors, once; the prototypes are constants.
    """
    unit, centres = F.normalize(anchors, dim=1), F.normalize(keys, dim=2)
    with torch.no_grad():
        logits = (unit @ centres.flatten(0, 1).T / temperature).view(len(anchors), *keys.shape[:2])
        loss, slope = _info_nce(logits, classes, reduction)
        share = torch.ones_like(loss) if times is None else times.to(loss.dtype)
        share *= temperature / base_temperature / share.sum()
        slope = (slope.flatten(1) @ centres.flatten(0, 1)) * (share / temperature)[:, None]  # (n, D)
        value = (loss * share).sum()
    linear = (unit * slope).sum()  # has the loss's gradient
    return value + (linear - linear.detach())


def _info_nce(logits: Tensor, classes: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """Loss (n,) and its derivative (n, C, K) by the logits (n, C, K), in whose memory it is written.

    Autograd would keep a dozen arrays of this size, the largest of a training step.
    """
    rows = torch.arange(len(logits), device=logits.device)
    logits.sub_(logits.amax(dim=(1, 2), keepdim=True))
    positive = logits[rows, classes]  # (n, K), a copy
    shares = logits.exp_()
    near = shares[rows, classes]  # (n, K)
    masses = shares.sum(dim=2)
    masses[rows, classes] = 0.0
    negative = masses.sum(dim=1, keepdim=True)  # (n, 1)
    if reduction == "mean_log":
        total = near + negative + _NO_LOG_OF_ZERO
        loss = (torch.log(total) - positive).mean(dim=1)
        away, closer = (1.0 / total).mean(dim=1), (near / total - 1.0) / near.shape[1]
    else:
        mass = near.sum(dim=1, keepdim=True).clamp_min(_NO_DIVISION_BY_ZERO)
        loss = torch.log1p(negative / mass)[:, 0]
        away, closer = 1.0 / (mass + negative)[:, 0], near / (mass + negative) - near / mass
    slope = shares.mul_(away[:, None, None])
    slope[rows, classes] = closer
    return loss, slope
