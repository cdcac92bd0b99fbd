# SPDX-License-Identifier: Apache-2.0
"""ERDA: dense soft pseudo-labels on every unlabelled point, with gradients into both sides.

Tang et al., All Points Matter: Entropy-Regularized Distribution Alignment for Weakly-supervised 3D Segmentation,
NeurIPS 2023. Next to the supervised losses stands alpha * mean(lambda H(p) + DA(p, q)), where q is the net's softmax and
p the softmax of cosines between a projected feature and one momentum prototype a class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.batches.batches import Batch
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.methods.regime import erda_in_regime
from weakseg_ros.methods.settings import Alignment, ErdaSettings
from weakseg_ros.nets.output import NetOutput

_SMALLEST_PROBABILITY = 1e-12
_MOSTLY_LABELLED = 0.5
_LEAKY_SLOPE = 0.2
_NORM_EPSILON, _NORM_MOMENTUM = 1e-6, 0.01


class Erda(Method):
    """ERDA (NeurIPS 2023): soft pseudo-labels from class prototypes at every unlabelled pixel."""

    Settings = ErdaSettings

    def __init__(self, settings: ErdaSettings, task: Task) -> None:
        super().__init__(settings, task)
        self.settings = settings = erda_in_regime(settings, task)
        width, counts = task.net.feature_channels, task.class_counts
        self.labeller = PseudoLabeller(
            int(width),  # type: ignore[arg-type]
            len(counts) - 1,
            momentum=settings.momentum,
            temperature=settings.temperature,
            start=settings.prototype_start,
            official_reset=settings.official_reset,
        )
        labelled_share = 1.0 - float(counts[0]) / max(float(counts.sum()), 1.0)
        everywhere = settings.pseudo_points == "auto" and labelled_share > _MOSTLY_LABELLED
        self.everywhere = everywhere or settings.pseudo_points == "all"

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """`alignment`, over the points that have a pseudo-label; projection and prototypes are for training only.

        A label that was carried there counts as much of a label as its weight says, and for the rest of 1 as none.
        """
        valid = self._points(batch)  # (P,)
        classes = batch.labels.flatten()[valid] - 1  # (P,), -1 = unlabelled
        sure = None if batch.weights is None else batch.weights.flatten()[valid]  # (P,)
        with torch.autocast(valid.device.type, enabled=False):  # a half-precision cosine is too coarse for so flat a softmax
            soft = self.labeller(at_pixels(out.features, valid).float(), classes, sure)  # (P, K-1)
            logits = at_pixels(out.logits, valid)[:, 1:]
            loss = alignment_loss(soft, logits, self.settings.alignment, self.settings.entropy_weight)
        unlabelled = (classes < 0).to(loss.dtype) if sure is None else 1.0 - sure
        counts = torch.ones_like(loss) if self.everywhere else unlabelled
        return {"alignment": self.settings.weight * (loss * counts).sum() / counts.sum().clamp_min(1.0)}

    def _points(self, batch: Batch) -> Tensor:
        """Flat indices of the points to look at: the labelled, and of the others all or a random share."""
        looked_at = batch.mask
        if self.settings.pseudo_share < 1.0:
            drawn = torch.rand(batch.mask.shape, device=batch.mask.device) < self.settings.pseudo_share
            looked_at = looked_at & (drawn | (batch.labels > 0))
        return looked_at.flatten().nonzero()[:, 0]


class PseudoLabeller(nn.Module):
    """Soft pseudo-labels from momentum prototypes: p = softmax(cos(g(f), mu) / temperature), the paper's section 3.3.

    `dim` is the width of the features, `classes` counts the classes without 0. `projected` puts g, two layers without a
    change of width, before the cosine; without it g is the identity.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        momentum: float = 0.999,
        temperature: float = 1.0,
        start: Literal["zeros", "xavier"] = "zeros",
        official_reset: bool = False,
        projected: bool = True,
    ) -> None:
        super().__init__()
        self.momentum, self.temperature, self.official_reset = momentum, temperature, official_reset
        self.project: nn.Module = nn.Identity()
        if projected:
            norm = nn.BatchNorm1d(dim, eps=_NORM_EPSILON, momentum=_NORM_MOMENTUM)
            layers = (nn.Linear(dim, dim, bias=False), norm, nn.LeakyReLU(_LEAKY_SLOPE), nn.Linear(dim, dim))
            self.project = nn.Sequential(*layers)
        prototypes = torch.zeros(classes, dim)
        if start == "xavier":
            nn.init.xavier_uniform_(prototypes)
        self.prototypes: Tensor
        self.register_buffer("prototypes", prototypes)

    def forward(self, features: Tensor, classes: Tensor, weights: Tensor | None = None) -> Tensor:
        """Features (P, D) and class indices (P,), -1 = unlabelled -> p (P, K-1), with gradients into the features.

        While training the prototypes move first, so that a step uses its own labels, each with its weight (P,), None = 1.
        """
        embedded = self.project(features)
        if self.training:
            self._move_prototypes(embedded.detach(), classes, weights)
        unit = F.normalize(embedded, dim=1, eps=_SMALLEST_PROBABILITY**0.5)
        centres = F.normalize(self.prototypes, dim=1, eps=_SMALLEST_PROBABILITY**0.5)
        return torch.softmax(unit @ (centres / self.temperature).T, dim=1)

    @torch.no_grad()
    def _move_prototypes(self, embedded: Tensor, classes: Tensor, weights: Tensor | None) -> None:
        """mu_k <- m mu_k + (1 - m) mean of class k, over all processes, for the classes that the batch holds."""
        labelled = classes >= 0
        weight = embedded.new_ones(int(labelled.sum())) if weights is None else weights[labelled].to(embedded.dtype)
        sums = torch.zeros_like(self.prototypes).index_add_(0, classes[labelled], embedded[labelled] * weight[:, None])
        counts = torch.bincount(classes[labelled], weight, minlength=len(sums)).to(sums.dtype)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
            torch.distributed.all_reduce(counts)
        present = counts[:, None] > 0
        means = sums / counts.clamp_min(_SMALLEST_PROBABILITY)[:, None]
        moved = self.momentum * self.prototypes + (1.0 - self.momentum) * means
        absent = torch.zeros_like(moved) if self.official_reset else self.prototypes
        self.prototypes.copy_(torch.where(present, moved, absent))


def alignment_loss(p: Tensor, logits: Tensor, alignment: Alignment = "kl", entropy_weight: float = 1.0) -> Tensor:
    """lambda H(p) + DA(p, q) for each point: p (P, K) and logits z (P, K) with q = softmax(z) -> (P,).

    DA is KL(p||q), KL(q||p), KL(p||m) + KL(q||m) with m = (p + q) / 2 (as released: twice the usual JS), or
    sum (p - q)^2 / 2. Gradients run into both sides. With lambda 1 and `kl` this is -sum p log q (the paper's eq. 5).
    """
    logits = logits.float()
    if alignment == "kl" and entropy_weight == 1.0:
        return -(p * F.log_softmax(logits, dim=1)).sum(dim=1)
    distance = _DISTANCES[alignment](p, torch.softmax(logits, dim=1))
    return distance - entropy_weight * torch.xlogy(p, p).sum(dim=1) if entropy_weight else distance


def at_pixels(values: Tensor, pixels: Tensor) -> Tensor:
    """(B, D, H, W) at the flat indices (P,) into B * H * W: (P, D)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, pixels)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return torch.xlogy(p, p / q.clamp_min(_SMALLEST_PROBABILITY)).sum(dim=1)


_DISTANCES: dict[Alignment, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": _kl,
    "reversed_kl": lambda p, q: _kl(q, p),
    "js": lambda p, q: _kl(p, (p + q) / 2) + _kl(q, (p + q) / 2),
    "mse": lambda p, q: 0.5 * ((p - q) ** 2).sum(dim=1),
}
