# SPDX-License-Identifier: Apache-2.0
"""Losses of a training with masks for few of its sentences: teacher-student sampling, quality-driven weights, or a threshold.

3DResT, arXiv 2504.12599 (TSCS and QDW); the threshold is the usual way, as in RefTeacher's and FixMatch's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.methods.referring.batch import ReferringBatch, answered
from weakseg_ros.methods.referring.criterion import ReferredMask, choice_loss, referring_losses, sampling_loss
from weakseg_ros.methods.referring.settings import SemiSupervisedSettings
from weakseg_ros.methods.referring.teacher import AgreedMasks, agreement, quality_weighted_loss
from weakseg_ros.nets.heads.referring import MOST_LAYERS, Matched, ReferringHead


class SemiSupervised:
    """Losses of a student; the teacher is followed by its owner. `pool` are the pseudo-masks taken for labels."""

    def __init__(self, settings: SemiSupervisedSettings) -> None:
        self.settings = settings
        self.pool = AgreedMasks(settings.teacher)

    def labelled(
        self, student: ReferringHead, batch: ReferringBatch, pooled: Mapping[int, Tensor] | None = None, depth: int = MOST_LAYERS
    ) -> Tensor:
        """The loss on true masks; `pooled` are masks (S,) of those that come from the pool, by their place in the batch.

        What comes from the pool teaches neither the sampling scores, whose reference is not known, nor whether anything matches.
        """
        pooled = pooled or {}
        target, known = batch.target.clone(), torch.ones(len(batch.keys), dtype=torch.bool)
        for place, mask in pooled.items():
            target[place, : len(mask)] = mask.to(target.dtype)
            known[place] = False
        target, matched = target * batch.valid, batch.answered_by(student, depth)
        losses = referring_losses(layers_of(matched), target, batch.valid, self.settings.losses)
        total = torch.stack(list(losses.values())).sum()
        total = total + self.settings.choice_weight * choice_loss(layers_of(matched), target, batch.valid).mean()
        if known.any():
            total = total + known.float().mean() * self._only_known(matched, batch, known)
        return total

    def unlabelled(
        self,
        student: ReferringHead,
        teacher: ReferringHead,
        strong: ReferringBatch,
        weak: ReferringBatch,
        depth: int = MOST_LAYERS,
    ) -> Tensor:
        """The loss on pseudo-masks: the teacher sees the weak view, the student the strong one of the same sentences.

        Offers the pseudo-masks to the pool, too. An empty one agrees with none, and teaches nothing.
        """
        settings = self.settings
        with torch.no_grad():
            taught = weak.answered_by(teacher, depth)
        whole = answered(taught, weak.valid).float()
        matched = strong.answered_by(student, depth)
        agreed, pseudo = agreement(_as_logits(answered(matched, strong.valid)), _as_logits(whole), strong.sizes)
        inside = [settings.pooled_leave and key in self.pool for key in strong.keys]
        if settings.sampling:
            self.pool.offer(strong.keys, agreed, whole, weak.valid)
        quality = agreed if settings.weighting == "quality" else confident(taught, weak.valid, settings)
        quality = quality * (~torch.tensor(inside)).float()
        target = taught.masks[-1].sigmoid() * strong.valid if settings.soft else pseudo
        layers = layers_of(matched)
        chosen = (quality * choice_loss(layers, pseudo, strong.valid)).mean()
        masks = quality_weighted_loss(layers, target, strong.valid, quality, settings.losses)
        return settings.weight * (masks + settings.choice_weight * chosen)

    def _only_known(self, matched: Matched, batch: ReferringBatch, known: Tensor) -> Tensor:
        """What only true labels teach: which superpoints a sentence speaks of, and whether anything matches."""
        valid, settings = batch.valid[known], self.settings
        spoken_of = sampling_loss(matched.sampling[known], batch.reference[known] * valid, valid)
        present = F.binary_cross_entropy_with_logits(matched.present[known], batch.present[known])
        return settings.losses.sampling * spoken_of + settings.presence_weight * present


def _as_logits(mask: Tensor) -> Tensor:
    """A mask in the form of logits."""
    return torch.where(mask > 0, 1.0, -1.0)


def layers_of(matched: Matched) -> list[ReferredMask]:
    """The answers before the first layer and after each, all of which learn."""
    return [ReferredMask(logits, score) for logits, score in zip(matched.masks, matched.scores, strict=True)]


def confident(taught: Matched, valid: Tensor, settings: SemiSupervisedSettings) -> Tensor:
    """(B,) 1 where the teacher is surer of its mask than the threshold, else 0; all 0 where the weighting is 'none'.

    Its confidence is the mean probability inside its answer; an empty one has none.
    """
    if settings.weighting == "none":
        return torch.zeros(len(valid))
    probability = taught.masks[-1].sigmoid() * valid
    inside = answered(taught, valid).float()
    confidence = (probability * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
    return (confidence >= settings.threshold).float()
