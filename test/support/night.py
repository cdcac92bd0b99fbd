# SPDX-License-Identifier: Apache-2.0
"""A toy world of which a model knows the day, and a person clicks the night."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.retrain.config import RetrainConfig
from weakseg_ros.improve.retrain.gate import GateConfig
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

NAMES = ("unlabelled", "low", "dark", "bright")
LABELS = LabelMap("toy", tuple(LabelClass(i, name, (i, i, i), False, (i * 10,)) for i, name in enumerate(NAMES)))
SPEC = RangeSpec(16, 48, fov_up_deg=15.0, fov_down_deg=-15.0)
POINTS = 1200
KEYS = [f"{i:06d}" for i in range(8)]
"""frames that are clicked; two more are not"""


def scan_of(rng: np.random.Generator, night: bool) -> tuple[Any, NDArray[np.uint32]]:
    """What is high is dark or bright; by night the bright is nearly as dark as the dark by day."""
    direction = rng.normal(size=(POINTS, 3)) * (1, 1, 0.15)
    xyz = direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(3, 40, (POINTS, 1))
    class_id = np.where(direction[:, 2] < 0, 1, np.where(direction[:, 1] > 0, 2, 3))
    values = (0, 0.4, 0.1, 0.45) if night else (0, 0.6, 0.3, 0.9)
    intensity = np.choose(class_id, values) + rng.normal(0, 0.02, POINTS)
    return make_cloud(xyz, np.clip(intensity, 0, 1)), (class_id * 10).astype(np.uint32)


def write(folder: Path, count: int, night: bool, seed: int, labelled: bool = True) -> Path:
    rng = np.random.default_rng(seed)
    with ScanWriter(folder, LABELS, SPEC, source="test", seed=seed, intensity_full_scale=1.0) as writer:
        for _ in range(count):
            cloud, label = scan_of(rng, night)
            writer.write(cloud, label if labelled else None)
    return folder


def click(folder: Path, truth: Path, keys: Sequence[str], per_frame: int = 40, wrong: bool = False) -> None:
    """A person clicks some points of frames, rightly or naming the next class."""
    store, scans = ClickStore(folder, LABELS), open_scans(truth)
    for key in keys:
        class_id = scans[list(scans.keys).index(key)].class_id
        chosen = np.random.default_rng(int(key)).choice(POINTS, per_frame, replace=False)
        for k in (1, 2, 3):
            points = chosen[class_id[chosen] == k]
            if len(points):
                store.add(key, points, k % 3 + 1 if wrong else k)


def settings(place: Path, **changes: Any) -> RetrainConfig:
    small = RetrainConfig(
        frames=place / "log",
        bundle=str(place / "models" / "toy"),
        models=place / "models",
        out=place / "run",
        steps=60,
        learning_rate=5e-3,
        # one core that others use, too, measures no latency
        gate=GateConfig(latency_ratio=50.0, class_points=200),
    )
    return dataclasses.replace(small, **changes)


def iou_at_night(world: Path, bundle: Bundle) -> float:
    from weakseg_ros.improve.retrain.gate import score

    scans = open_scans(world / "night")
    segmenter = Segmenter(bundle)
    try:
        return float(score(segmenter, (scans[i] for i in range(len(scans)))).confusion.miou)
    finally:
        segmenter.close()
