# SPDX-License-Identifier: Apache-2.0
"""The whole chain at toy size: simulate, click, train, export, run the node over DDS, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import optional
from weakseg_ros.demo import DemoConfig, run_demo
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import DataError
from weakseg_ros.improve.log.frame_folder import open_frames

KEYS = {
    "miou",
    "class_iou",
    "latency_ms",
    "scans_in",
    "scans_out",
    "points_per_scan",
    "frames_logged",
    "train_s",
    "bundle",
    "engine",
    "seed",
    "init",
    "data_hash",
    "environment",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, own_domain: int) -> tuple[Path, dict[str, Any]]:
    """(folder, summary) of a demo of a few scans and steps, in a ROS domain of its own."""
    optional("torch")
    optional("onnxruntime")
    out = tmp_path_factory.mktemp("demo") / "run"
    patch = pytest.MonkeyPatch()
    patch.setenv("ROS_DOMAIN_ID", str(own_domain))
    toy = DemoConfig(out=out, streets=1, scans_per_street=3, test_scans_per_street=1, columns=128, label_ratio=0.01, steps=4)
    summary = run_demo(toy)
    patch.undo()
    return out, summary


def test_the_chain_ends_in_a_report_and_its_figures(demo: tuple[Path, dict[str, Any]]) -> None:
    out, summary = demo
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary.keys() >= KEYS
    assert summary["scans_in"] == summary["scans_out"] == 4
    assert summary["points_per_scan"] == 64 * 128
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"] <= summary["latency_ms"]["p99"]
    assert summary["miou"] == pytest.approx(sum(summary["class_iou"].values()) / len(summary["class_iou"]), abs=1e-3)
    assert summary["frames_logged"] == (len(open_frames(out / "log")) if summary["over_dds"] else 0)
    assert summary["frames_logged"] or not summary["over_dds"], "the first cloud is new to an empty log"
    report = (out / "report.html").read_text()
    assert "How this model was made" in report
    assert "vegetation" in report


def test_the_bundle_of_the_demo_is_a_bundle(demo: tuple[Path, dict[str, Any]]) -> None:
    _, summary = demo
    bundle = Bundle.load(summary["bundle"])
    assert bundle.num_classes - 1 == len(summary["class_iou"])
    assert bundle.info.provenance.label_ratio < 0.05


def test_the_node_says_what_the_segmenter_says(demo: tuple[Path, dict[str, Any]]) -> None:
    optional("rclpy")
    evaluation = json.loads((demo[0] / "evaluation" / "summary.json").read_text())
    assert evaluation["agreement_with_direct"]["share"] == 1.0
    assert evaluation["live"]["answered"] == 4


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(DataError, match="holds no demo"):
        run_demo(DemoConfig(out=tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "three years"
