# SPDX-License-Identifier: Apache-2.0
"""Objects from one click each: a learnable distance next to the semantic losses, and pseudo masks from it at every step.

Stage one of EPLD (ECCV 2024), adapted to range images: anchors from the clicks, a distance branch renewed in rounds,
losses at the labelled pixels, and a geometric prior, without which one click could not spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weakseg_ros.config import setting
from weakseg_ros.deploy.grouping import OTHER_RADIUS_M, object_radii_m
from weakseg_ros.learn.batches import Batch
from weakseg_ros.learn.instance.anchors import Anchors, anchors_of
from weakseg_ros.learn.instance.branch import BranchSettings, DistanceBranch
from weakseg_ros.learn.instance.distance_losses import assignment_loss, regression_loss, surface_pairs, tie_loss
from weakseg_ros.learn.instance.pseudo import PseudoLabels, PseudoSettings, estimate
from weakseg_ros.learn.losses import class_probabilities
from weakseg_ros.learn.methods.supervised import Supervised, SupervisedSettings
from weakseg_ros.learn.nets import NetOutput
from weakseg_ros.points.labels import LabelMap

_DILATIONS = ((1, 0.35), (2, 0.65))
"""pixels between tied neighbours, and the weight of such pairs, as in the colour prior of PSPS and Point2Mask"""


@dataclass(frozen=True)
class PointPanopticSettings(SupervisedSettings, BranchSettings, PseudoSettings):
    """Labels are drawn with protocol `per_instance`: each labelled pixel of a thing is one object's click."""

    distance_weight: float = setting(1.0, 0.0, 100.0)
    """weight of the distances at labelled pixels"""
    assignment_weight: float = setting(1.0, 0.0, 100.0)
    """weight of sharing labelled pixels out among the anchors"""
    tie_weight: float = setting(3.0, 0.0, 100.0)
    """weight of the geometric prior: neighbours on one surface belong together"""
    tie_gap_m: float = setting(0.3, 0.0, 100.0)
    """farther apart than this, neighbours are not tied"""
    tie_gap_share: float = setting(0.02, 0.0, 1.0)
    """the same as a share of the range, where that is more"""
    tie_pairs: int = setting(20000, 1)
    """pairs of neighbours drawn from each scan at each step"""
    max_clicks: int = setting(300, 1)
    """of more clicks in a scan, so many are drawn at each step"""

    def __post_init__(self) -> None:
        SupervisedSettings.__post_init__(self)
        BranchSettings.__post_init__(self)


class PointPanoptic(Supervised):
    """The supervised losses, and `distance`, `assignment` and `tie`; the branch is for training and labelling only.

    Until `use_labels` says otherwise, every class is one of things.
    """

    Settings = PointPanopticSettings  # type: ignore[assignment]
    settings: PointPanopticSettings
    things: Tensor
    radius_m: Tensor

    def __init__(self, settings: PointPanopticSettings, net: nn.Module, class_counts: Tensor) -> None:
        super().__init__(settings, net, class_counts)
        things = torch.arange(len(class_counts)) > 0
        self.register_buffer("things", things)
        width: int = net.feature_channels  # type: ignore[assignment]
        self.register_buffer("radius_m", things * OTHER_RADIUS_M)
        self.branch = DistanceBranch(width, len(class_counts), settings)

    def use_labels(self, labels: LabelMap) -> None:
        """Learn which classes have objects, and how large those are."""
        self.things.copy_(torch.from_numpy(labels.things))
        self.radius_m.copy_(torch.from_numpy(object_radii_m(labels)))

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """Those of `supervised`; `distance`, `assignment` and `tie` summed over the rounds, mean over the scans."""
        none = out.features.sum() * 0.0
        sums = {"distance": none, "assignment": none, "tie": none}
        for scan in self._scans(batch, out):
            for name, value in self._scan_losses(scan).items():
                sums[name] = sums[name] + value / len(batch.mask)
        return super().losses(batch, out, progress) | sums

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch, out: NetOutput) -> list[PseudoLabels]:
        """For each scan that has labels, what its pixels (those of the mask, in order) are taken for now."""
        found = []
        for scan in self._scans(batch, out):
            distance = self._distances(scan)[-1]
            found.append(estimate(distance, scan.xyz, scan.probs, scan.anchors, self.radius_m, self.settings))
        return found

    def _scans(self, batch: Batch, out: NetOutput) -> Iterator[_ScanPixels]:
        """The scans of a batch that have a label, as their P pixels that hold a point."""
        probs = class_probabilities(out.logits)
        for i, mask in enumerate(batch.mask):
            anchors = anchors_of(batch.labels[i][mask], self.things, self.settings.max_clicks)
            if len(anchors):
                features = out.features[i].permute(1, 2, 0)[mask].float()  # (P, D)
                xyz = features.new_zeros(len(features), 3) if batch.xyz is None else batch.xyz[i].permute(1, 2, 0)[mask]
                yield _ScanPixels(mask, anchors, features, xyz, probs[i].permute(1, 2, 0)[mask])

    def _distances(self, scan: _ScanPixels) -> list[Tensor]:
        with torch.autocast(scan.features.device.type, enabled=False):  # half precision blurs the borders between objects
            distances: list[Tensor] = self.branch(scan.features, scan.xyz, scan.probs, scan.anchors)
            return distances

    def _scan_losses(self, scan: _ScanPixels) -> dict[str, Tensor]:
        settings = self.settings
        distances = self._distances(scan)
        temperature = settings.share_temperature
        distance = torch.stack([regression_loss(d, scan.anchors) for d in distances]).sum()
        assignment = torch.stack([assignment_loss(d, scan.anchors, temperature) for d in distances]).sum()
        tie = distance * 0.0
        for dilation, weight in _DILATIONS if settings.tie_weight else ():
            pairs = surface_pairs(scan.xyz, scan.mask, dilation, settings.tie_gap_m, settings.tie_gap_share, settings.tie_pairs)
            tie = tie + weight * torch.stack([tie_loss(d, pairs, temperature) for d in distances]).sum()
        return {
            "distance": settings.distance_weight * distance,
            "assignment": settings.assignment_weight * assignment,
            "tie": settings.tie_weight * tie,
        }


@dataclass(frozen=True)
class _ScanPixels:
    """One scan of a batch, the P pixels of its (H, W) mask in order."""

    mask: Tensor
    anchors: Anchors
    features: Tensor
    """(P, D)"""
    xyz: Tensor
    """(P, 3) m"""
    probs: Tensor
    """(P, K)"""
