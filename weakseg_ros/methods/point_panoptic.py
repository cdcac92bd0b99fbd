# SPDX-License-Identifier: Apache-2.0
"""Objects from one click each: a learnable distance gives pseudo masks at every step, and a panoptic head learns from them.

Li, Fan and Zhang, EPLD: point-supervised panoptic segmentation, ECCV 2024, adapted to range images. Stage one: anchors from
the clicks, a distance branch renewed in rounds, losses at the labelled pixels and where geometry leaves no doubt, and ties
between neighbours on one surface. Stage two: pseudo labels from the distances teach the head and the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch
from weakseg_ros.deploy.grouping import object_radii_m
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.methods.objects.anchors import ClickAnchors, click_anchors
from weakseg_ros.methods.objects.distance_branch import DistanceBranch
from weakseg_ros.methods.objects.distance_losses import assignment_loss, regression_loss, surface_pairs, tie_loss
from weakseg_ros.methods.objects.handcrafted import hand_distance
from weakseg_ros.methods.objects.pseudo_masks import PseudoLabels, estimate
from weakseg_ros.methods.objects.relations import Relations, relate
from weakseg_ros.methods.objects.sure_pixels import away_loss, with_sure_pixels
from weakseg_ros.methods.objects.targets import Targets, head_losses, outside_loss, pseudo_targets, true_targets
from weakseg_ros.methods.settings import PointPanopticSettings
from weakseg_ros.methods.supervised import class_weights
from weakseg_ros.nets.heads.centres import CentreHead
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.heads.queries import QueryHead
from weakseg_ros.nets.losses import focal_loss
from weakseg_ros.nets.output import NetOutput

_DILATIONS = ((1, 0.35), (2, 0.65))
"""pixels between tied neighbours, and the weight of such pairs, as in the colour prior of PSPS and Point2Mask"""


class PointPanoptic(Method):
    """Point-supervised panoptic segmentation (EPLD, ECCV 2024): pseudo masks by a learned distance train a panoptic head.

    The losses of the distance branch, and from stage two on `pseudo` and those of the head. The branch is for training and
    labelling only. A pseudo-label's class teaches as a label does: with the focal loss of the supervised part.
    """

    Settings = PointPanopticSettings
    why_no_points = "it measures distances between neighbouring pixels"
    reads_instances = True
    things: Tensor
    radius_m: Tensor

    def __init__(self, settings: PointPanopticSettings, task: Task) -> None:
        super().__init__(settings, task)
        if settings.all_clicked is None:
            settings = replace(settings, all_clicked=task.protocol == "per_instance")
        self.settings, self.gamma = settings, task.supervised.gamma
        classes = len(task.class_counts)
        self.alpha: Tensor | None
        self.register_buffer("alpha", class_weights(task), persistent=False)
        self.register_buffer("things", torch.from_numpy(task.labels.things))
        self.register_buffer("radius_m", torch.from_numpy(object_radii_m(task.labels)))
        width: int = task.net.feature_channels  # type: ignore[assignment]
        stages: tuple[int, ...] = task.net.stage_channels  # type: ignore[assignment]
        learned = settings.distance == "learned" and not settings.truth_instances
        self.branch = DistanceBranch(width, classes, settings) if learned else None
        self.head = QueryHead(width, stages, classes, settings) if settings.head == "query" else CentreHead(width)

    def deployable(self) -> Heads | None:
        """The head."""
        return Heads([self.head])

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """Those of the distances, summed over the rounds, mean over the scans; of pseudo-labels' classes, and of the head.

        In stage one nothing comes from pseudo labels, and true instances teach from the start.
        """
        settings = self.settings
        if settings.truth_instances:
            return self._taught(batch, out, true_targets(batch, self.things), 1.0)
        share = min(max((progress - settings.stage_one) / max(settings.stage_ramp, 1e-6), 0.0), 1.0)
        scans = list(self._scans(batch, out)) if self.branch is not None or share else []
        losses = {} if self.branch is None else self._distance_losses(scans, len(batch.mask))
        if not share:
            return losses | {"head": _nothing(self.head)}
        targets = pseudo_targets(batch, ((scan.number, self._estimate(scan)) for scan in scans))
        wrong = settings.pseudo_weight * focal_loss(out.probabilities, targets.class_id, self.alpha, self.gamma)
        wrong = wrong + settings.outside_weight * outside_loss(out.probabilities, targets, self.things)
        return losses | self._taught(batch, out, targets, share) | {"pseudo": share * wrong}

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch, out: NetOutput) -> list[PseudoLabels]:
        """For each scan that has labels, what its pixels (those of the mask, in order) are taken for now."""
        return [self._estimate(scan) for scan in self._scans(batch, out)]

    def _taught(self, batch: Batch, out: NetOutput, targets: Targets, share: float) -> dict[str, Tensor]:
        losses = head_losses(self.head, batch, out, targets, self.things, self.radius_m, self.settings)
        return {name: share * self.settings.head_weight * value for name, value in losses.items()}

    def _scans(self, batch: Batch, out: NetOutput) -> Iterator[_ScanPixels]:
        """The scans of a batch that have a label, as their P pixels that hold a point."""
        for i, mask in enumerate(batch.mask):
            objects = None if batch.instances is None else batch.instances[i][mask]
            anchors = click_anchors(batch.labels[i][mask], self.things, self.settings.max_clicks, objects)
            if len(anchors):
                features = out.features[i].permute(1, 2, 0)[mask].float()  # (P, D)
                features = torch.lerp(features.detach(), features, self.settings.branch_gradient)
                xyz = features.new_zeros(len(features), 3) if batch.xyz is None else batch.xyz[i].permute(1, 2, 0)[mask]
                relations = relate(xyz, mask, anchors, self.settings.reach * self.radius_m)
                probs = out.probabilities[i].permute(1, 2, 0)[mask]
                yield _ScanPixels(i, mask, anchors, features, xyz, probs, relations, self.branch)

    def _estimate(self, scan: _ScanPixels) -> PseudoLabels:
        if self.settings.distance == "learned":
            distance = scan.distances[-1].detach()
        else:
            place = scan.features, scan.probs, scan.xyz, scan.mask
            distance = hand_distance(self.settings.distance, scan.relations, scan.anchors, *place)
        return estimate(distance, scan.relations, scan.probs, scan.anchors, self.things, self.settings)

    def _distance_losses(self, scans: list[_ScanPixels], count: int) -> dict[str, Tensor]:
        sums = {"distance": _nothing(self.branch), "assignment": _nothing(self.branch), "tie": _nothing(self.branch)}
        sums["sure_pixels"] = sums["tie"]
        for scan in scans:
            for name, value in self._of_scan(scan).items():
                sums[name] = sums[name] + value / count
        return sums

    def _of_scan(self, scan: _ScanPixels) -> dict[str, Tensor]:
        settings, distances = self.settings, scan.distances
        temperature = settings.share_temperature
        losses = self._at_pixels(distances, scan.anchors)
        if settings.sure_weight:
            sure = with_sure_pixels(scan.anchors, scan.relations, scan.probs.detach(), settings)
            away = torch.stack([away_loss(d, scan.relations) for d in distances]).sum()
            losses["sure_pixels"] = settings.sure_weight * torch.stack([away, *self._at_pixels(distances, sure).values()]).sum()
        if settings.tie_weight:
            ties = []
            for dilation, weight in _DILATIONS:
                limits = settings.tie_gap_m, settings.tie_gap_share, settings.tie_pairs
                pairs = surface_pairs(scan.xyz, scan.mask, dilation, *limits)
                ties += [weight * tie_loss(d, pairs, temperature) for d in distances]
            losses["tie"] = settings.tie_weight * torch.stack(ties).sum()
        return losses

    def _at_pixels(self, distances: list[Tensor], anchors: ClickAnchors) -> dict[str, Tensor]:
        """`distance` and `assignment` at the pixels of the anchors, summed over the rounds."""
        settings = self.settings
        regression = torch.stack([regression_loss(d, anchors) for d in distances]).sum()
        assignment = torch.stack([assignment_loss(d, anchors, settings.share_temperature) for d in distances]).sum()
        return {"distance": settings.distance_weight * regression, "assignment": settings.assignment_weight * assignment}


@dataclass(frozen=True)
class _ScanPixels:
    """One scan of a batch, the P pixels of its (H, W) mask in order."""

    number: int
    mask: Tensor
    anchors: ClickAnchors
    features: Tensor
    """(P, D)"""
    xyz: Tensor
    """(P, 3) m"""
    probs: Tensor
    """(P, K)"""
    relations: Relations
    branch: DistanceBranch | None

    @cached_property
    def distances(self) -> list[Tensor]:
        """(M, P) learned distances before the first round and after each."""
        assert self.branch is not None
        with torch.autocast(self.features.device.type, enabled=False):  # half precision blurs the borders between objects
            found: list[Tensor] = self.branch(self.features, self.xyz, self.probs, self.anchors, self.relations)
            return found


def _nothing(module: nn.Module | None) -> Tensor:
    """A loss of 0 that names every parameter: distributed training waits for a gradient of each."""
    assert module is not None
    return torch.stack([parameter.sum() for parameter in module.parameters()]).sum() * 0.0
