# SPDX-License-Identifier: Apache-2.0
"""Validation over points at full resolution, through the projection and lift that the robot uses."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from weakseg_ros.batches.batches import InputRule
from weakseg_ros.data.scan_sets import ScanSet, Subset, readable
from weakseg_ros.errors import DataError
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.lift import lift
from weakseg_ros.points.projection import RangeSpec, network_input, project

log = logging.getLogger(__name__)


@torch.no_grad()
def predict(net: nn.Module, cloud: Cloud, spec: RangeSpec, rule: InputRule) -> NDArray[np.uint8]:
    """The class of each of the N points, 0 where a point has no pixel. The net must be in eval mode."""
    view = project(cloud, spec)
    image = torch.from_numpy(network_input(cloud, view, rule.channels, rule.mean, rule.std))[None]  # (1, C, H, W)
    device = next(net.parameters()).device
    logits = net(image.to(device, memory_format=torch.channels_last)).logits
    class_image = (logits[0, 1:].argmax(dim=0) + 1).to(torch.uint8).cpu().numpy()  # (H, W)
    return lift(class_image, view, 0)


def validate(
    net: nn.Module, scans: ScanSet, spec: RangeSpec, rule: InputRule, rank: int = 0, world: int = 1, limit: int = 0
) -> ConfusionMatrix:
    """Confusion over the scans of process `rank` of `world`; at most `limit` scans in all, evenly spread (0 = all)."""
    confusion = ConfusionMatrix(scans.labels.num_classes)
    was_training = net.training
    net.eval()
    for index in _chosen(scans, limit)[rank::world]:
        scan = scans[index]
        if scan.class_id is not None:
            confusion.add(predict(net, scan.cloud, spec, rule), scan.class_id)
    net.train(was_training)
    return confusion


def labelled_only(scans: ScanSet, limit: int = 0) -> ScanSet | None:
    """Those of the scans that `validate` will read which have a labelled point; None where none has, and a sentence on it.

    Raises DataError where one is damaged, before a training is lost to it.
    """
    problems: list[str] = []
    chosen = Subset(scans, _chosen(scans, limit))
    labelled = [i for i, scan in readable(chosen, problems) if scan.class_id is not None and scan.class_id.any()]
    if problems:
        raise DataError(f"{scans.name}: {len(problems)} of the validation scans cannot be read; the first: {problems[0]}")
    if len(labelled) == len(chosen):
        return scans
    if not labelled:
        log.warning(
            "%s: the %d validation scans have no labels, so nothing is validated and the last weights are exported; name "
            "scans with labels by --val-data, --val-split or --val-sequences, or label some of these",
            scans.name,
            len(chosen),
        )
        return None
    without = len(chosen) - len(labelled)
    log.warning("%s: %d of the %d validation scans have no label and are left out", scans.name, without, len(chosen))
    return Subset(chosen, labelled, scans.name)


def _chosen(scans: ScanSet, limit: int) -> list[int]:
    """The numbers of the scans to validate on."""
    count = min(len(scans), limit) if limit else len(scans)
    numbers: list[int] = np.linspace(0, len(scans) - 1, count).round().astype(int).tolist()
    return numbers
