# SPDX-License-Identifier: Apache-2.0
"""The stages keep their place beside a peer that is timed in turn in the same run: ratios, never times."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from weakseg_ros.deploy.frontends.range_numpy import range_input
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.lift import lift
from weakseg_ros.points.projection import RangeSpec, project

SPEC = RangeSpec(height=64, width=1024)
POINTS = 60_000


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """(N, 4) f32, a scan with walls at all distances."""
    rng = np.random.default_rng(0)
    azimuth, inclination = rng.uniform(-np.pi, np.pi, POINTS), np.radians(rng.uniform(-24, 2, POINTS))
    direction = np.stack([np.cos(azimuth), np.sin(azimuth), np.tan(inclination)], 1)
    return np.column_stack([direction * rng.uniform(3, 60, (POINTS, 1)), rng.random(POINTS)]).astype(np.float32)


def test_project_and_image_are_not_slower_than_the_published_projection(bench_beside: ModuleType, points: np.ndarray) -> None:
    """Half as long on a quiet machine; the margin is for a busy one."""
    cloud = make_cloud(points[:, :3].copy(), points[:, 3].copy())
    channels = ("range", "x", "y", "z", "intensity")
    rule = InputSpec(geometry=SPEC, channels=channels, mean=(0.0,) * 5, std=(1.0,) * 5, intensity=IntensityRule(False))
    times = bench_beside.time_beside(
        lambda: range_input(cloud, project(cloud, SPEC), rule),
        {"peer": lambda: bench_beside.bonnetal_projection(points, SPEC)},
        9,
    )
    assert times["peer"] / times["ours"] > 0.8, times


def test_a_lift_costs_far_less_than_the_vote_over_probabilities(bench_beside: ModuleType, points: np.ndarray) -> None:
    view = project(make_cloud(points[:, :3].copy(), points[:, 3].copy()), SPEC)
    classes = np.ones((SPEC.height, SPEC.width), np.uint8)
    scores = np.random.default_rng(0).random((20, SPEC.height * SPEC.width), np.float32)
    times = bench_beside.time_beside(
        lambda: lift(classes, view, 0), {"peer": lambda: scores[:, view.pixel_of_point].argmax(0)}, 9
    )
    assert times["peer"] / times["ours"] > 3, times


def test_a_summary_keeps_what_the_other_benchmark_wrote(bench_beside: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "bench" / "summary.json"
    bench_beside.add_to_summary(file, {"ratio": {"decode": 3.0}, "machine": "a"})
    bench_beside.add_to_summary(file, {"frames_lost": 0, "machine": "b"})
    assert json.loads(file.read_text()) == {"ratio": {"decode": 3.0}, "machine": "b", "frames_lost": 0}


def test_a_ratio_that_has_fallen_is_one_sentence(bench_beside: ModuleType) -> None:
    found = {"lift": {"a": 3.0, "b": 0.9}, "decode": {"c": 1.0}}
    assert bench_beside.fallen(found, {"lift": {"a": 3.0}, "decode": {"c": 0.5}}) == []
    (said,) = bench_beside.fallen(found, {"lift": {"a": 2.0, "b": 1.0}})
    assert said == "lift: b takes 0.9 times as long as ours, but at least 1 times is expected"
