# SPDX-License-Identifier: Apache-2.0
"""How good pseudo masks are: their IoU with the true objects, by class and near borders. For judging only, never for training."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg_ros.batches.batches import Batch, ScanImages, make_batch
from weakseg_ros.batches.settings import NO_AUGMENTATION
from weakseg_ros.config import load_yaml
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.objects.anchors import ClickAnchors, click_anchors
from weakseg_ros.methods.point_panoptic import PointPanoptic
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.run_folder import CONFIG, LABELS, SPEC, STATISTICS, RunFolder
from weakseg_ros.train.session import make_method, make_net
from weakseg_ros.train.survey import DataStatistics
from weakseg_ros.train.training_data import labels_of, open_data


@dataclass
class MaskQuality:
    """IoU of every clicked object, by the name of its class; objects of which nothing is seen but the click count too."""

    by_class: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    border: list[float] = field(default_factory=list)
    """of the pixels that lie beside the true object's border"""

    def add(self, name: str, found: Tensor, true: Tensor) -> None:
        """One object: found and true pixels (H, W)."""
        self.by_class[name].append(_iou(found, true))
        near = _border(true)
        self.border.append(_iou(found & near, true & near))

    @property
    def mean(self) -> float:
        """Over all objects."""
        values = [value for values in self.by_class.values() for value in values]
        return float(np.mean(values)) if values else 0.0

    def to_mapping(self) -> dict[str, Any]:
        """Plain figures for a JSON file."""
        return {
            "mean": round(self.mean, 4),
            "border": round(float(np.mean(self.border)), 4) if self.border else 0.0,
            "by_class": {name: round(float(np.mean(values)), 4) for name, values in self.by_class.items()},
            "objects": sum(map(len, self.by_class.values())),
        }


@torch.no_grad()
def judge_run(path: Path, count: int) -> MaskQuality:
    """The pseudo masks of a run of point_panoptic at its last checkpoint, on `count` of its training scans, without augmentation.

    Raises ConfigError for a run of another method.
    """
    config, statistics = load_yaml(TrainConfig, path / CONFIG), load_yaml(DataStatistics, path / STATISTICS)
    labels, spec = load_yaml(LabelMap, path / LABELS), load_yaml(RangeSpec, path / SPEC)
    net = make_net(config, statistics, labels.num_classes).eval()
    whole = make_method(config, net, statistics, labels).eval()
    method = whole.part(PointPanoptic)
    if method is None:
        raise ConfigError(f"{path}: method '{config.method}' has no pseudo masks; train point_panoptic")
    tensors, _, _ = RunFolder(path).load_last()
    net.load_state_dict(tensors["average"])
    whole.load_state(tensors["method"])
    scans, _ = open_data(replace(config, resume=False))
    sparse = ScanImages(scans, labels_of(config, scans), spec, NO_AUGMENTATION, 0.0, instances=True)
    dense = ScanImages(scans, lambda scan: scan.class_id, spec, NO_AUGMENTATION, 0.0, instances=True)
    quality, rule, rng = MaskQuality(), statistics.input_spec(spec), np.random.default_rng(0)
    for number in np.unique(np.linspace(0, len(scans) - 1, count).round().astype(int)).tolist():
        batch, truth = make_batch(rule, *sparse.draw([number], rng)), make_batch(rule, *dense.draw([number], rng))
        anchors = click_anchors(batch.labels[0][batch.mask[0]], method.things, instances=_in(batch))
        for labelled in method.pseudo_labels(batch, net(batch.image)):
            image = torch.zeros_like(truth.labels[0])
            image[batch.mask[0]] = labelled.instance
            _add_objects(quality, image, anchors, truth, labels)
    return quality


def _in(batch: Batch) -> Tensor:
    assert batch.instances is not None
    return batch.instances[0][batch.mask[0]]


def _add_objects(quality: MaskQuality, image: Tensor, anchors: ClickAnchors, truth: Batch, labels: LabelMap) -> None:
    """Each clicked object beside the true object that its click lies on."""
    assert truth.instances is not None
    true, at = truth.instances[0], truth.mask[0].nonzero()
    for number in range(int(anchors.things.sum())):
        row, col = at[anchors.pixel[anchors.owner == number][0]].tolist()
        if true[row, col] > 0:
            own = (true == true[row, col]) & (truth.labels[0] == truth.labels[0][row, col])
            quality.add(labels.names[int(anchors.classes[number])], image == number + 1, own)


def _iou(found: Tensor, true: Tensor) -> float:
    return float((found & true).sum() / (found | true).sum().clamp_min(1))


def _border(true: Tensor) -> Tensor:
    """Pixels with both the object and something else in their 3 x 3 neighbourhood."""
    image = true[None, None].float()
    return (F.max_pool2d(image, 3, 1, 1) > F.max_pool2d(-image, 3, 1, 1).neg())[0, 0]
