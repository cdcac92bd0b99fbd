# SPDX-License-Identifier: Apache-2.0
"""A tiny bundle with a referring head that always finds something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import optional
from support.built import built_once
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, NetRule
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

CLASSES = ("nothing", "road", "pole", "car", "person")
LABELS = LabelMap("five", tuple(LabelClass(i, name, (i, 0, 0), i > 2, (i,)) for i, name in enumerate(CLASSES)))
WORDS = "the car left person"


def told_bundle(factory: pytest.TempPathFactory) -> Bundle:
    """Random weights; its vocabulary is WORDS. Read it, do not change it."""
    return Bundle.load(built_once(factory, "told", _export) / "told")


def _export(folder: Path) -> Bundle:
    torch = optional("torch")
    optional("onnx")
    from weakseg_ros.deploy.engines.torch import rules_of
    from weakseg_ros.nets.heads.head import Heads
    from weakseg_ros.nets.heads.referring import ReferringHead
    from weakseg_ros.nets.light import LightNet
    from weakseg_ros.train.export import export_bundle

    torch.manual_seed(0)
    net = LightNet(5, LABELS.num_classes, width=16)
    torch.nn.init.normal_(net.classifier.weight, std=5.0)
    heads = Heads([ReferringHead.behind(net, LABELS.num_classes, WORDS, width=16, layers=2, parts=2)])
    torch.nn.init.constant_(heads.each[0].presence[-1].bias, 5.0)  # type: ignore[union-attr]
    channels = ("range", "x", "y", "z", "intensity")
    spec = plain_spec(RangeSpec(height=17, width=65, fov_up_deg=15.0, fov_down_deg=-25.0), channels, IntensityRule(False))
    info = BundleInfo(name="told", input=spec, labels=LABELS, net=NetRule("light", {"width": 16}), heads=rules_of(heads))
    images = np.random.default_rng(0).normal(size=(2, 5, 17, 65)).astype(np.float32)
    return export_bundle(net.eval(), info, folder / "told", images, heads=heads.eval())


def cloud_around(seed: int = 1) -> Cloud:
    """Points at random distances in every pixel of the bundle's image."""
    azimuth, inclination = np.meshgrid(np.linspace(-3.1, 3.1, 65), np.radians(np.linspace(14, -24, 17)))
    ranges = np.random.default_rng(seed).uniform(4, 30, azimuth.shape)
    xyz = np.stack([np.cos(inclination) * np.cos(azimuth), np.cos(inclination) * np.sin(azimuth), np.sin(inclination)])
    return make_cloud((ranges * xyz).reshape(3, -1).T.astype(np.float32), np.zeros(azimuth.size, np.float32))
