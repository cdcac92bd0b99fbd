# SPDX-License-Identifier: Apache-2.0
"""Points that a model is silent on are wrong answers, unless they are asked to be left out; no praise where they are many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
from weakseg_ros.points.cloud import make_cloud

ROAD, BUILDING = 40, 50
INSIDE, BEYOND = 60, 40


@pytest.fixture(scope="module")
def taller(known_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 points a scan, 40 of them above the upper edge (20 deg) of the known model's image; what it answers is right."""
    folder = tmp_path_factory.mktemp("taller") / "scans"
    inclination = np.radians(np.concatenate([np.linspace(-18, 18, INSIDE), np.linspace(30, 50, BEYOND)]))
    azimuth = np.radians(np.linspace(-170, 170, INSIDE + BEYOND))
    away = np.cos(inclination)
    xyz = 10.0 * np.stack([away * np.cos(azimuth), away * np.sin(azimuth), np.sin(inclination)], axis=1)
    raw = np.where(inclination < 0, ROAD, BUILDING).astype(np.uint32)
    options: dict[str, Any] = {"source": "test", "seed": 0, "intensity_full_scale": 1.0}
    with ScanWriter(folder, known_bundle.labels, known_bundle.info.input.geometry, **options) as writer:
        writer.write(make_cloud(xyz, np.ones(len(xyz))), raw)
        writer.write(make_cloud(xyz, np.ones(len(xyz))))
    return folder


def test_a_point_without_an_answer_is_wrong(
    taller: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weakseg(["evaluate", str(taller), "--bundle", str(known_bundle.folder), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "2 scans (1 of them with labels), " in said
    assert "60.0% of the points right (40.0% get no class)" in said
    report = re.sub(r"<[^>]+>", " ", (tmp_path / "report.html").read_text())
    assert "A good model for these scans" not in report
    assert "40 % of the labelled points get no class" in report
    assert "40 % of its points lie outside the model&#39;s range image" in report


def test_points_without_an_answer_are_left_out_where_that_was_asked_for(
    taller: Path, known_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(taller), "--bundle", str(known_bundle.folder), "--out", str(tmp_path), "--unanswered", "left_out"]
    assert weakseg(words) == 0
    assert "100.0% of the answered points right (40.0% get no class)" in capsys.readouterr().out


def test_the_figures_by_hand(taller: Path, known_bundle: Bundle, tmp_path: Path) -> None:
    _, wrong = evaluate(EvaluateConfig(data=taller, bundle=str(known_bundle.folder), out=tmp_path / "a"))
    assert (wrong["accuracy"], wrong["accuracy_of_answered"], wrong["unanswered_share"]) == (0.6, 1.0, 0.4)
    assert wrong["class_iou"] == {"road": 1.0, "building": round(30 / 70, 4), "car": 0.0}
    _, out = evaluate(EvaluateConfig(data=taller, bundle=str(known_bundle.folder), out=tmp_path / "b", unanswered="left_out"))
    assert out["accuracy"] == 1.0
    assert out["class_iou"] == {"road": 1.0, "building": 1.0, "car": 0.0}
