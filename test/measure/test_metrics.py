# SPDX-License-Identifier: Apache-2.0
"""Confusion matrix beside scikit-learn's, figures by hand, and that counts add up in any order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score

from weakseg_ros.errors import DataError
from weakseg_ros.measure.metrics import Calibration, ConfusionMatrix

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, count: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, count).astype(np.uint8)
    predicted = np.where(rng.random(count) < 0.6, truth, rng.integers(0, num_classes, count)).astype(np.uint8)
    return predicted, truth


@given(seeds, st.integers(0, 500), st.sampled_from([2, 3, 20, 255]))
@settings(deadline=None, max_examples=30)
def test_counts_are_those_of_scikit_learn(seed: int, count: int, num_classes: int) -> None:
    predicted, truth = drawn(seed, count, num_classes)
    ours = ConfusionMatrix(num_classes)
    ours.add(predicted, truth)
    if count:
        theirs = confusion_matrix(truth, predicted, labels=range(num_classes))
        assert np.array_equal(ours.counts.T, theirs)
        kept = truth > 0
        if kept.any():
            expected = jaccard_score(truth[kept], predicted[kept], labels=range(num_classes), average=None, zero_division=0)
            np.testing.assert_allclose(ours.iou, expected, atol=1e-12)
    assert ours.counts.sum() == count


@given(seeds, st.integers(0, 300), st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_scans_add_up_however_they_are_shared_out(seed: int, count: int, parts: int) -> None:
    predicted, truth = drawn(seed, count, 6)
    whole = ConfusionMatrix(6)
    whole.add(predicted, truth)
    pieces = []
    for mine in np.array_split(np.random.default_rng(seed).permutation(count), parts):
        piece = ConfusionMatrix(6)
        piece.add(predicted[mine], truth[mine])
        pieces.append(ConfusionMatrix(6, json.loads(json.dumps(piece.counts.tolist()))))
    total = sum(pieces)
    assert np.array_equal(total.counts, whole.counts)
    assert total.miou == whole.miou


def test_sum_leaves_its_parts_alone() -> None:
    part = ConfusionMatrix(2)
    total = sum([part])
    total.add(np.array([1]), np.array([1]))
    assert part.counts.sum() == 0


def test_figures_by_hand() -> None:
    #                 truth: 0  1  2  3
    counts = np.array([[9, 4, 0, 0], [7, 6, 2, 0], [5, 0, 8, 0], [3, 0, 0, 0]])
    confusion = ConfusionMatrix(4, counts)
    np.testing.assert_allclose(confusion.iou, [0, 6 / 12, 8 / 10, 0], atol=1e-12)
    assert confusion.miou == pytest.approx((0.5 + 0.8 + 0) / 3)
    assert confusion.miou_present == pytest.approx(0.65)
    assert confusion.restricted([2]) == pytest.approx(0.8)
    assert confusion.restricted([]) == 0
    assert confusion.accuracy == pytest.approx(14 / 16)  # the four left at 0 are not in the denominator
    np.testing.assert_allclose(confusion.precision, [0, 6 / 8, 1, 0], atol=1e-12)
    np.testing.assert_allclose(confusion.recall, [0, 6 / 10, 8 / 10, 0], atol=1e-12)


def test_unlabelled_predictions_cost_under_the_apis_rule_and_not_under_the_trainers() -> None:
    confusion = ConfusionMatrix(3)
    confusion.add(np.array([1, 0, 2, 2]), np.array([1, 1, 2, 0]))
    assert confusion.miou == pytest.approx(0.75)
    assert confusion.trainer_rule().miou == pytest.approx(1.0)
    assert confusion.counts[0, 1] == 1


def test_without_points_every_figure_is_0() -> None:
    empty = ConfusionMatrix(5)
    assert (empty.miou, empty.miou_present, empty.accuracy) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("predicted", "truth", "text"),
    [
        ([0, 3], [0, 1], "predicted class ids 0..3 are outside 0..2"),
        ([0, 1], [-1, 1], "true class ids -1..1"),
        ([0, 1], [1], r"\(2,\) predictions for \(1,\) labels"),
    ],
)
def test_ids_that_do_not_fit_are_refused(predicted: list[int], truth: list[int], text: str) -> None:
    with pytest.raises(DataError, match=text):
        ConfusionMatrix(3).add(np.array(predicted), np.array(truth))


@pytest.mark.parametrize("counts", [np.zeros((2, 2), int), np.zeros((3, 3)), -np.ones((3, 3), int)])
def test_counts_of_something_else_are_refused(counts: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        ConfusionMatrix(3, counts)
    with pytest.raises(ValueError, match="expected"):
        ConfusionMatrix(3) + ConfusionMatrix(4)


def test_calibration_error_by_hand() -> None:
    calibration = Calibration(num_bins=4)
    calibration.add(np.array([0.9, 0.8, 0.8, 0.3, 0.0]), np.array([True, True, False, False, False]))
    assert calibration.counts.tolist() == [1, 1, 0, 3]
    assert calibration.correct.tolist() == [0, 0, 0, 2]
    assert calibration.ece == pytest.approx((abs(2.5 - 2) + 0.3 + 0) / 5)


def test_confidence_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.random(200_000).astype(np.float32)
    honest, boastful = Calibration(), Calibration()
    honest.add(confidence, rng.random(confidence.size) < confidence)
    boastful.add(confidence, rng.random(confidence.size) < confidence - 0.2)
    assert honest.ece < 0.01
    assert 0.15 < boastful.ece < 0.2


@given(seeds, st.integers(0, 200))
@settings(deadline=None, max_examples=30)
def test_calibrations_add_up_and_survive_a_file(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, correct = rng.random(count), rng.random(count) < 0.5
    whole, first, second = Calibration(), Calibration(), Calibration()
    whole.add(confidence, correct)
    first.add(confidence[: count // 3], correct[: count // 3])
    second.add(confidence[count // 3 :], correct[count // 3 :])
    total = Calibration.from_mapping(json.loads(json.dumps((first + second).to_mapping())))
    assert np.array_equal(total.counts, whole.counts)
    assert np.array_equal(total.correct, whole.correct)
    assert total.ece == pytest.approx(whole.ece)


def test_calibration_refuses_what_is_not_a_confidence() -> None:
    for confidence in ([1.2, 0.5], [-0.1, 0.5], [float("nan"), 0.5]):
        with pytest.raises(DataError, match=r"outside 0\.\.1"):
            Calibration().add(np.array(confidence), np.array([True, False]))
    with pytest.raises(DataError, match="confidences for"):
        Calibration().add(np.array([0.5]), np.array([True, False]))
    with pytest.raises(ValueError, match="bins"):
        Calibration(3) + Calibration(4)
    with pytest.raises(ValueError, match="correct"):
        Calibration.from_mapping({"counts": [1, 2], "confidence_sum": [0.5, 0.5], "correct": 1})
