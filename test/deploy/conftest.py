# SPDX-License-Identifier: Apache-2.0
"""One small bundle, really exported from a random LightNet, for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import optional
from support.built import built_once
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, NetRule
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec


def split_input(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with those of the input gathered as the bundle has them."""
    geometry, *told = (facts.pop(key) for key in ("spec", "channels", "mean", "std", "intensity"))
    return {
        **facts,
        "input": InputSpec(geometry=geometry, **dict(zip(("channels", "mean", "std", "intensity"), told, strict=True))),
    }


def make_info(**changes: object) -> BundleInfo:
    classes = tuple(LabelClass(i, f"class {i}", (i * 40, 0, 0), False, (i * 10,)) for i in range(5))
    base = {
        "name": "tiny",
        "spec": RangeSpec(height=16, width=64, fov_up_deg=15.0, fov_down_deg=-25.0, max_range_m=80.0),
        "channels": ("range", "x", "y", "z", "intensity"),
        "mean": (10.0, 0.0, 0.0, -1.0, 0.2),
        "std": (10.0, 10.0, 10.0, 1.0, 0.2),
        "labels": LabelMap("five", classes),
        "net": NetRule("light", {"width": 16}),
        "temperature": 1.4,
        "intensity": IntensityRule(required=True, full_scale=1.0),
    }
    return BundleInfo(**split_input({**base, **changes}))


def export(folder: Path, info: BundleInfo) -> Bundle:
    optional("onnxruntime")
    torch = optional("torch")
    from weakseg_ros.nets.light import LightNet
    from weakseg_ros.train.export import export_bundle

    torch.manual_seed(0)
    net = LightNet(len(info.input.channels), info.labels.num_classes, **info.net.kwargs)
    torch.nn.init.normal_(net.classifier.weight, std=5.0)  # fresh features are small; several classes shall win
    images = (
        np.random.default_rng(0)
        .normal(size=(3, len(info.input.channels), info.input.geometry.height, info.input.geometry.width))
        .astype(np.float32)
    )
    return export_bundle(net, info, folder, images)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Read it, do not change it."""
    return Bundle.load(built_once(tmp_path_factory, "tiny", lambda folder: export(folder / "tiny", make_info())) / "tiny")


@pytest.fixture
def copied_bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "tiny"))
