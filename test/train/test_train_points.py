# SPDX-License-Identifier: Apache-2.0
"""A net on points through the verbs: trained with the methods that take it, resumed, exported to ONNX, and refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support import optional

torch = optional("torch")
optional("onnx")
from weakseg_ros.batches.point_crops import CELL_BITS, PointCrops
from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.data.scan_sets import Subset
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import BundleError, ConfigError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.commands import export_main
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.experience_replay import ReplayCrops
from weakseg_ros.train.finetune import ModelScans, export_refined, refine
from weakseg_ros.train.train import train
from weakseg_ros.weak.protocols import SparseConfig

LABELS = LabelMap("two", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i * 10,)) for i in range(3)))
POINTS = PointsSpec(grid_m=0.3, points=200, neighbours=6, ratios=(4, 2))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points") / "rooms"
    rng = np.random.default_rng(0)
    with ScanWriter(folder, LABELS, RangeSpec(8, 32), source="test", seed=0, intensity_full_scale=1.0) as writer:
        for _ in range(4):
            floor = np.column_stack([rng.uniform(-3, 3, (700, 2)), rng.normal(0, 0.02, 700)])
            wall = np.column_stack([np.full(500, 3.0), rng.uniform(-3, 3, 500), rng.uniform(0, 2.5, 500)])
            raw = np.repeat([10, 20], [700, 500]).astype(np.uint32)
            writer.write(make_cloud(np.concatenate([floor, wall]) - np.array([0.0, 0.0, 1.0]), rng.random(1200)), raw)
    return folder


def config_of(rooms: Path, out: Path, **changes: object) -> TrainConfig:
    facts = {
        "net": "randlanet", "net_width": 8, "randlanet": POINTS, "channels": ("x", "y", "z", "height", "intensity"),
        "steps": 3, "warmup_steps": 1, "batch_size": 2, "validate_every": 0, "log_every": 1, "accelerator": "cpu",
        "schedule": "exponential", "clip_norm": 100.0, "average_decay": 0.0,
    }  # fmt: skip
    return TrainConfig(data=rooms, out=out, **{**facts, **changes})


@pytest.fixture(scope="module")
def run(rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    draw = SparseConfig(protocol="per_class", ratio=0.1, grid_m=0.3)
    train(config_of(rooms, out, method="erda+coarse3d", draw=draw, steps=12, learning_rate=1e-2))
    return out


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "points"
    assert export_main([str(run), "--out", str(folder)]) == 0
    return Bundle.load(folder)


def test_its_bundle_answers_alike_in_torch_and_onnxruntime(bundle: Bundle, rooms: Path) -> None:
    assert bundle.info.parity["class_agreement"] >= 0.999
    assert bundle.info.input.points == POINTS
    assert "points of a 0.3 m grid" in (bundle.folder / "MODEL_CARD.md").read_text()
    cloud = open_scans(rooms)[3].cloud
    engines = [Segmenter(bundle, engine, watch="never") for engine in ("torch", "onnxruntime")]
    ours, theirs = (segmenter.run(cloud) for segmenter in engines)
    assert (ours.class_id > 0).all()
    assert np.mean(ours.class_id == theirs.class_id) >= 0.999
    np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-3)
    assert ours.novelty is not None  # COARSE3D's head, on points too


def test_any_number_of_points_is_answered(bundle: Bundle) -> None:
    segmenter = Segmenter(bundle, "onnxruntime")
    for count in (0, 1, 7, 900):
        cloud = make_cloud(np.random.default_rng(count).uniform(-3, 3, (count, 3)).astype(np.float32), np.ones(count))
        answer = segmenter.run(cloud)
        assert (answer.class_id > 0).all()
        assert len(answer.class_id) == count


def test_its_losses_fall(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["supervised.focal"] + row["supervised.lovasz"] for row in rows if "loss" in row]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert {"erda.alignment", "coarse3d.contrast"} <= rows[0].keys()


def test_a_resumed_training_goes_on_as_if_it_had_never_stopped(rooms: Path, tmp_path: Path) -> None:
    whole = train(config_of(rooms, tmp_path / "whole"))
    train(config_of(rooms, tmp_path / "parts"), stop_at=2)
    parts = train(TrainConfig(out=tmp_path / "parts", resume=True, accelerator="cpu"))
    ours, theirs = whole.load_last()[0]["net"], parts.load_last()[0]["net"]
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=0)


def test_retraining_goes_on_from_its_weights_beside_old_scans(bundle: Bundle, rooms: Path, tmp_path: Path) -> None:
    scans = open_scans(rooms)
    new, known = (ModelScans(Subset(scans, part), bundle.info) for part in ([0], [1, 2, 3]))
    config = config_of(rooms, tmp_path / "run", batch_size=4, steps=2, method="supervised")
    refined = refine(bundle, new, known, config, 0.5)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"new_supervised.focal", "replay_supervised.focal"} <= rows[0].keys()
    made = export_refined(refined, bundle, known, tmp_path / "again", {}, "weakseg retrain")
    assert made.info.input == bundle.info.input
    assert made.info.parity["class_agreement"] >= 0.999
    assert made.content_hash != bundle.content_hash


def test_a_batch_of_two_kinds_has_the_new_crops_first(bundle: Bundle, rooms: Path) -> None:
    scans, info = open_scans(rooms), bundle.info
    parts = [
        PointCrops(Subset(scans, part), lambda scan: scan.class_id, info.input.geometry, AugmentConfig(), told=info.input)
        for part in ([0], [1, 2])
    ]
    both = ReplayCrops(*parts, new_per_batch=1)
    numbers = both.of_step(0, 3, 0, 1, 1)
    assert [number >> CELL_BITS for number in numbers][:1] == [0]
    assert {number >> CELL_BITS for number in numbers[1:]} <= {1, 2}
    batch = both.batch(info.input, numbers, np.random.default_rng(0))
    assert len(batch.image) == len(batch.further[0]) == 3
    np.testing.assert_array_equal(both.points(2)[0].xyz, scans[2].cloud.xyz)


def test_what_needs_an_image_is_refused_in_words(rooms: Path, tmp_path: Path, bundle: Bundle) -> None:
    for method in ("consistency", "point_panoptic"):
        with pytest.raises(ConfigError, match=f"'{method}' needs a net on range images"):
            train(config_of(rooms, tmp_path / method, method=method))
    with pytest.raises(BundleError, match="is a network on points, and other arithmetic supports networks on range images only"):
        bundle.info.refuse_points("other arithmetic")
