# SPDX-License-Identifier: Apache-2.0
"""The simulated person: keeps to the budget, errs as often as told, and clicks are on disk as a real person's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from support import load_file
from weakseg_ros.data.frame_log import FrameRecord, Suggestion
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.clicks import ClickStore, clicked_scans
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

simulated = load_file(Path(__file__).resolve().parents[2] / "bench" / "simulated_annotator.py")
Annotator, AnnotatorConfig = simulated.Annotator, simulated.AnnotatorConfig
annotate, truth_by_source = simulated.annotate, simulated.truth_by_source

LABELS = LabelMap(
    "four", tuple(LabelClass(i, name, (i, i, i), i == 3, (i * 10,)) for i, name in enumerate(("none", "a", "b", "c")))
)
N = 400


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Scans with their truth, in which the last fifth of the points has no class."""
    rng = np.random.default_rng(0)
    with ScanWriter(tmp_path / "log", LABELS, RangeSpec(16, 64), source="test", seed=0, intensity_full_scale=1.0) as writer:
        for i in range(3):
            raw = (rng.integers(1, 4, N) * 10).astype(np.uint32)
            raw[raw == 30] |= 7 << 16
            raw[4 * N // 5 :] = 0
            writer.write(make_cloud(rng.normal(size=(N, 3)) * 10 + 20, rng.random(N), stamp_ns=100 + i), raw)
    return tmp_path / "log"


@pytest.fixture
def unlabelled(log: Path, tmp_path: Path) -> Path:
    """The same scans as a robot logs them: without labels."""
    return Path(shutil.copytree(log, tmp_path / "unlabelled", ignore=shutil.ignore_patterns("labels")))


def record(key: str, points: list[int], source_key: str = "") -> FrameRecord:
    facts = {"height": 1, "width": N, "ring_is_row": False, "intensity_field": "intensity", "intensity_full_scale": 1.0}
    origin = {"sensor": "", "bundle": "", "bundle_hash": "", "score": 1.0, "reason": "uncertain", "source_key": source_key}
    suggestions = tuple(Suggestion(point, 1.0, "") for point in points)
    return FrameRecord(key=key, stamp_ns=100 + int(key), frame_id="", suggestions=suggestions, **facts, **origin)


def test_clicks_are_right_and_within_the_budget(log: Path, unlabelled: Path) -> None:
    scans, store = open_scans(log), ClickStore(unlabelled, LABELS)
    frames = [record(key, list(range(0, N, 7))) for key in scans.keys]
    spent = annotate(frames, truth_by_source(scans), store, AnnotatorConfig(clicks=15, clicks_per_frame=10))
    assert dataclasses.astuple(spent) == (15, 0, 0, 2)
    assert [store.count(key) for key in scans.keys] == [10, 5, 0]
    clicked = clicked_scans(unlabelled, LABELS)
    for i, key in enumerate(clicked.keys):
        scan, truth = clicked[i], scans[int(key)]
        known = scan.class_id > 0
        np.testing.assert_array_equal(np.flatnonzero(known), np.arange(0, N, 7)[: known.sum()])
        np.testing.assert_array_equal(scan.class_id[known], truth.class_id[known])
        np.testing.assert_array_equal(scan.instance_id[known], np.where(truth.class_id[known] == 3, 7, 0))


def test_a_point_that_nobody_can_name_costs_nothing(log: Path, unlabelled: Path) -> None:
    scans, store = open_scans(log), ClickStore(unlabelled, LABELS)
    annotator = Annotator(store, AnnotatorConfig(clicks=100, clicks_per_frame=4))
    assert annotator.label("000000", [N - 1, N - 2, 0, 1, N - 3, 2], scans[0]) == 3
    assert dataclasses.astuple(annotator.spent) == (3, 0, 3, 1)


def test_mistakes_come_as_often_as_told_and_repeat_with_the_seed(log: Path, unlabelled: Path) -> None:
    scans = open_scans(log)
    frames = [record(key, list(range(300))) for key in scans.keys]

    def run(name: str, seed: int) -> tuple[int, list[np.ndarray]]:
        store = ClickStore(unlabelled, LABELS, name)
        config = AnnotatorConfig(clicks=600, clicks_per_frame=300, error_rate=0.2, seed=seed)
        spent = annotate(frames, truth_by_source(scans), store, config)
        classes = [store.labelled(key)[0] for key in scans.keys]
        wrong = sum(int((c[c > 0] != scans[i].class_id[c > 0]).sum()) for i, c in enumerate(classes))
        assert wrong == spent.wrong
        return wrong, classes

    (wrong, first), (_, again), (_, other) = run("first", 1), run("again", 1), run("other", 2)
    assert 80 < wrong < 160
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_the_truth_is_found_by_source_or_stamp_and_must_fit(log: Path) -> None:
    scans = open_scans(log)
    find = truth_by_source(scans)
    assert find(record("000001", [])).key == "000001"
    assert find(record("000000", [], source_key="000002")).key == "000002"
    with pytest.raises(DataError, match="give the data that the log was made from"):
        find(record("000009", []))
    store = ClickStore(log, LABELS)
    short = dataclasses.replace(scans[0], class_id=scans[0].class_id[:-1])
    with pytest.raises(DataError, match="has 400 points, its truth has 399 labels"):
        Annotator(store, AnnotatorConfig()).label("000000", [0], short)
