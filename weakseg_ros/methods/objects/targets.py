# SPDX-License-Identifier: Apache-2.0
"""What a panoptic head is taught: objects and classes as images, true ones or pseudo labels, and either head's losses on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch
from weakseg_ros.methods.objects.centre_losses import centre_losses
from weakseg_ros.methods.objects.matching import query_head_losses
from weakseg_ros.methods.objects.pseudo_masks import PseudoLabels
from weakseg_ros.methods.settings import QuerySettings
from weakseg_ros.nets.heads.centres import CentreHead
from weakseg_ros.nets.heads.queries import QueryHead
from weakseg_ros.nets.output import NetOutput

_SMALLEST_PROB = 1e-6


@dataclass(frozen=True)
class Targets:
    """Objects and classes of a batch."""

    instances: Tensor
    """(B, H, W) i64, 0 = none; no number stands in two scans"""
    class_id: Tensor
    """(B, H, W) i64, 0 = unknown"""
    outside: Tensor
    """(B, H, W) bool, True where surely no object is"""


def true_targets(batch: Batch, things: Tensor) -> Targets:
    """What the labels themselves say; `things` (K,). Without instances no pixel belongs to an object."""
    instances = torch.zeros_like(batch.labels) if batch.instances is None else batch.instances
    apart = instances * len(things) + batch.labels  # the same number may stand for objects of two classes
    objects = torch.where((instances > 0) & things[batch.labels], apart, 0)
    return Targets(objects, batch.labels, (batch.labels > 0) & ~things[batch.labels])


def pseudo_targets(batch: Batch, found: Iterable[tuple[int, PseudoLabels]]) -> Targets:
    """The pseudo labels of some scans of a batch, each with its number; the other scans keep their labels, without objects."""
    instances, class_id, outside = torch.zeros_like(batch.labels), batch.labels.clone(), torch.zeros_like(batch.mask)
    count = 0
    for i, labels in found:
        mask = batch.mask[i]
        instances[i][mask] = torch.where(labels.instance > 0, labels.instance + count, 0)
        labelled = batch.labels[i][mask]
        class_id[i][mask] = torch.where(labelled > 0, labelled, labels.class_id)
        outside[i][mask] = labels.outside & (labelled == 0)
        count += int(labels.instance.max()) if len(labels.instance) else 0
    return Targets(instances, class_id, outside)


def outside_loss(probs: Tensor, targets: Targets, things: Tensor) -> Tensor:
    """-log of the probability of being stuff, mean over the pixels outside all objects whose class is unknown.

    Probabilities (B, K, H, W), `things` (K,). Those whose class is known are taught that one.
    """
    asked = targets.outside & (targets.class_id == 0)
    if not asked.any():
        return probs.sum() * 0.0
    of_things = probs[:, things].sum(dim=1)[asked]
    return -(1 - of_things).clamp_min(_SMALLEST_PROB).log().mean()


def head_losses(
    head: nn.Module, batch: Batch, out: NetOutput, targets: Targets, things: Tensor, radius_m: Tensor, settings: QuerySettings
) -> dict[str, Tensor]:
    """The losses of a CentreHead or a QueryHead by name; `things` and `radius_m` (K,) by class."""
    if isinstance(head, QueryHead):
        return query_head_losses(head.every_answer(out), targets.instances, targets.class_id, things, settings)
    assert isinstance(head, CentreHead)
    xyz = torch.zeros_like(batch.image[:, :3]) if batch.xyz is None else batch.xyz
    return centre_losses(head(out), targets.instances, xyz, radius_m[targets.class_id])
