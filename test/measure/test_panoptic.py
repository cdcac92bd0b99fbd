# SPDX-License-Identifier: Apache-2.0
"""Panoptic quality beside a count over sets of points, the rules one by one, and that counts add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.errors import DataError
from weakseg_ros.measure.panoptic import PanopticQuality, raw_labels
from weakseg_ros.points.labels import LabelClass, LabelMap

LABELS = LabelMap(
    "yard",
    (
        LabelClass(0, "none", (0, 0, 0), False, (0, 9)),
        LabelClass(1, "car", (1, 0, 0), True, (10, 252)),
        LabelClass(2, "person", (2, 0, 0), True, (30,)),
        LabelClass(3, "road", (3, 0, 0), False, (40, 60)),
    ),
)
CAR, MOVING_CAR, PERSON, ROAD, MARKING, IGNORED = 10, 252, 30, 40, 60, 9


def scan(*runs: tuple[int, int, int]) -> np.ndarray:
    """Raw labels from (raw class, instance, points)."""
    return np.concatenate([np.full(count, instance << 16 | raw, np.uint32) for raw, instance, count in runs])


def counts(quality: PanopticQuality) -> dict[str, list[int]]:
    return {name: getattr(quality, name).tolist() for name in ("tp", "fp", "fn")}


def by_sets(predicted: np.ndarray, truth: np.ndarray, min_points: int) -> tuple[list[int], list[int], list[int], list[float]]:
    """The definition, segment by segment, on sets of point numbers."""
    kept = [i for i, raw in enumerate(truth) if LABELS.to_class(truth[i : i + 1])[0] > 0]
    tp, fp, fn, total = [0] * 4, [0] * 4, [0] * 4, [0.0] * 4
    for k in range(1, 4):
        segments = []
        for raw in (predicted, truth):
            mine = [i for i in kept if LABELS.to_class(raw[i : i + 1])[0] == k]
            segments.append([{i for i in mine if raw[i] == name} for name in sorted({int(raw[i]) for i in mine})])
        ours, theirs = segments
        matched_ours, matched_theirs = set(), set()
        for a, mine in enumerate(ours):
            for b, true in enumerate(theirs):
                iou = len(mine & true) / len(mine | true)
                if iou > 0.5:
                    tp[k] += 1
                    total[k] += iou
                    matched_ours.add(a)
                    matched_theirs.add(b)
        fp[k] += sum(len(s) >= min_points for a, s in enumerate(ours) if a not in matched_ours)
        fn[k] += sum(len(s) >= min_points for b, s in enumerate(theirs) if b not in matched_theirs)
    return tp, fp, fn, total


@given(st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(0, 6), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=80)
def test_counts_are_those_of_the_definition(seed: int, count: int, min_points: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    names = scan(*((raw, i, 1) for raw in (0, IGNORED, CAR, MOVING_CAR, PERSON, ROAD, MARKING) for i in (0, 1)))
    truth = rng.choice(names, count)
    predicted = np.where(rng.random(count) < noise, rng.choice(names, count), truth)
    quality = PanopticQuality(LABELS, min_points)
    quality.add(predicted, truth)
    tp, fp, fn, total = by_sets(predicted, truth, min_points)
    assert counts(quality) == {"tp": tp, "fp": fp, "fn": fn}
    np.testing.assert_allclose(quality.iou_sum, total, atol=1e-12)


def test_half_is_no_match_and_small_segments_cost_nothing() -> None:
    quality = PanopticQuality(LABELS, min_points=5)
    quality.add(scan((CAR, 1, 8), (ROAD, 0, 8)), scan((CAR, 1, 16)))
    assert counts(quality) == {"tp": [0, 0, 0, 0], "fp": [0, 1, 0, 1], "fn": [0, 1, 0, 0]}
    small = PanopticQuality(LABELS, min_points=17)
    small.add(scan((CAR, 1, 8), (ROAD, 0, 8)), scan((CAR, 1, 16)))
    assert counts(small) == {"tp": [0] * 4, "fp": [0] * 4, "fn": [0] * 4}


def test_a_match_counts_however_small_it_is() -> None:
    quality = PanopticQuality(LABELS, min_points=50)
    quality.add(scan((PERSON, 7, 3)), scan((PERSON, 2, 3)))
    assert quality.tp.tolist() == [0, 0, 1, 0]
    assert quality.pq[2] == pytest.approx(1.0)


def test_segments_are_cut_where_the_truth_is_unknown() -> None:
    quality = PanopticQuality(LABELS, min_points=1)
    quality.add(scan((CAR, 1, 30)), scan((CAR, 1, 10), (IGNORED, 0, 20)))
    assert quality.sq[1] == pytest.approx(1.0)
    assert counts(quality) == {"tp": [0, 1, 0, 0], "fp": [0] * 4, "fn": [0] * 4}


def test_raw_classes_that_the_map_merges_stay_two_segments() -> None:
    quality = PanopticQuality(LABELS, min_points=1)
    quality.add(scan((ROAD, 0, 100)), scan((ROAD, 0, 80), (MARKING, 0, 20)))
    assert counts(quality) == {"tp": [0, 0, 0, 1], "fp": [0] * 4, "fn": [0, 0, 0, 1]}
    assert quality.confusion.iou[3] == pytest.approx(1.0)


def test_the_same_number_under_another_class_is_another_object() -> None:
    quality = PanopticQuality(LABELS, min_points=1)
    quality.add(scan((CAR, 1, 10), (PERSON, 1, 10)), scan((CAR, 1, 10), (PERSON, 1, 10)))
    assert quality.tp.tolist() == [0, 1, 1, 0]
    figures = quality.summary()
    assert figures["pq_things"] == pytest.approx(1.0)
    assert figures["pq_stuff"] == 0
    assert figures["pq"] == pytest.approx(2 / 3)
    assert figures["pq_dagger"] == pytest.approx(2 / 3)


def test_answers_become_raw_labels_whose_stuff_is_one_segment() -> None:
    class_id = np.array([0, 1, 1, 2, 3, 3], np.uint8)
    instance_id = np.array([5, 1, 65535, 2, 7, 8], np.uint16)
    assert raw_labels(LABELS, class_id, instance_id).tolist() == [0, 1 << 16 | 10, 65535 << 16 | 10, 2 << 16 | 30, 40, 40]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(deadline=None, max_examples=20)
def test_scans_add_up_over_processes_and_files(seed: int, scans: int) -> None:
    rng = np.random.default_rng(seed)
    names = scan(*((raw, i, 1) for raw in (IGNORED, CAR, PERSON, ROAD) for i in (0, 1)))
    whole, parts = PanopticQuality(LABELS, 2), []
    for _ in range(scans):
        truth = rng.choice(names, 60)
        predicted = np.where(rng.random(60) < 0.3, rng.choice(names, 60), truth)
        part = PanopticQuality(LABELS, 2)
        part.add(predicted, truth)
        whole.add(predicted, truth)
        parts.append(PanopticQuality.from_mapping(LABELS, json.loads(json.dumps(part.to_mapping()))))
    total = sum(parts)
    assert counts(total) == counts(whole)
    np.testing.assert_allclose(total.iou_sum, whole.iou_sum, rtol=1e-12)
    assert total.summary() == pytest.approx(whole.summary())


def test_without_points_every_figure_is_0() -> None:
    quality = PanopticQuality(LABELS)
    quality.add(np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    assert set(quality.summary().values()) == {0.0}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="predictions for"):
        PanopticQuality(LABELS).add(np.zeros(2, np.uint32), np.zeros(3, np.uint32))
    with pytest.raises(DataError, match="do not add up"):
        PanopticQuality(LABELS, 30) + PanopticQuality(LABELS, 50)
    with pytest.raises(ValueError, match="negative"):
        PanopticQuality(LABELS, -1)
    with pytest.raises(ValueError, match="tp"):
        PanopticQuality.from_mapping(LABELS, {**PanopticQuality(LABELS).to_mapping(), "tp": [1]})
