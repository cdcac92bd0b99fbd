# SPDX-License-Identifier: Apache-2.0
"""Validation over points at full resolution, through the projection and lift that the robot uses."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from weakseg_ros.data.scan_sets import ScanSet, Subset, readable
from weakseg_ros.deploy.frontends import Answers, FrontendSettings, answer, make_frontend
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.tensors import ANSWERS
from weakseg_ros.errors import DataError
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap

log = logging.getLogger(__name__)


class Predictor:
    """A net in training as the robot would run it: the same frontend, the same graph. The net must be in eval mode."""

    def __init__(self, net: nn.Module, spec: InputSpec, labels: LabelMap) -> None:
        self._graph, self._device = DeployGraph(net, labels.num_classes), next(net.parameters()).device
        self._graph.eval().to(self._device)
        self._frontend = make_frontend(spec, labels)
        self._frontend.settings = FrontendSettings(instances="none", allow_no_intensity=True)

    @torch.no_grad()
    def classes(self, cloud: Cloud) -> NDArray[np.uint8]:
        """The class of each of the N points, 0 where a point has no pixel."""
        inputs, view = self._frontend.encode(cloud)
        found: Segmentation = self._frontend.decode(answer(self._frontend, self._run, inputs, view), view)
        return found.class_id

    def _run(self, inputs: Answers) -> Answers:
        tensors = [torch.from_numpy(values).to(self._device) for values in inputs.values()]
        return dict(zip(ANSWERS, (value.cpu().numpy() for value in self._graph(*tensors)), strict=True))


def validate(net: nn.Module, scans: ScanSet, spec: InputSpec, rank: int = 0, world: int = 1, limit: int = 0) -> ConfusionMatrix:
    """Confusion over the scans of process `rank` of `world`; at most `limit` scans in all, evenly spread (0 = all)."""
    confusion = ConfusionMatrix(scans.labels.num_classes)
    was_training = net.training
    predictor = Predictor(net.eval(), spec, scans.labels)
    for index in _chosen(scans, limit)[rank::world]:
        scan = scans[index]
        if scan.class_id is not None:
            confusion.add(predictor.classes(scan.cloud), scan.class_id)
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
