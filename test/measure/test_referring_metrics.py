# SPDX-License-Identifier: Apache-2.0
"""Figures of answered expressions, each counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from weakseg_ros.data.expressions import Expression
from weakseg_ros.errors import DataError
from weakseg_ros.measure.referring import ReferringTally, mask_iou, truth_of


def mask(*points: int) -> np.ndarray:
    return np.isin(np.arange(8), points)


def tally() -> ReferringTally:
    found = ReferringTally()
    found.add("unique", mask(0, 1, 2, 3), mask(0, 1, 2, 3))  # 4 / 4
    found.add("unique", mask(0, 1), mask(0, 1, 2, 3))  # 2 / 4: not above one half
    found.add("multiple", mask(0, 1, 2), mask(2, 3, 4, 5))  # 1 / 6
    found.add("multiple", mask(), mask(1))  # 0
    found.add("multiple", mask(1, 2, 3), mask(2, 3))  # 2 / 3
    for answer in (mask(), mask(4), mask(), mask(0, 7)):
        found.add("none", answer, mask())
    return found


def test_figures_counted_by_hand():
    figures = tally().figures()
    assert figures["miou"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 0 + 2 / 3) / 5, abs=1e-6)
    assert figures["unique_miou"] == pytest.approx(0.75, abs=1e-6)
    assert figures["multiple_miou"] == pytest.approx((1 / 6 + 2 / 3) / 3, abs=1e-6)
    assert (figures["acc25"], figures["acc50"]) == (3 / 5, 2 / 5)
    assert (figures["unique_acc25"], figures["unique_acc50"]) == (1.0, 0.5)
    assert (figures["multiple_acc25"], figures["multiple_acc50"]) == (1 / 3, 1 / 3)
    assert figures["false_positive_rate"] == 0.5
    assert (figures["expressions"], figures["unique_expressions"], figures["negatives"]) == (5, 2, 4)


def test_tallies_add_up():
    both = (tally() + tally()).figures()
    assert both["expressions"] == 10
    assert both["miou"] == pytest.approx(tally().figures()["miou"])


def test_a_figure_over_nothing_is_no_number():
    figures = ReferringTally().figures()
    assert np.isnan([figures["miou"], figures["unique_acc25"], figures["false_positive_rate"]]).all()


def test_the_truth_is_the_points_of_the_targets():
    instances = np.array([0, 3, 3, 0, 7, 9], np.uint16)
    assert truth_of(Expression("0", "the car", (3, 9), "multiple", 0), instances).tolist() == [0, 1, 1, 0, 0, 1]
    assert not truth_of(Expression("0", "the bus", (), "none", 0), instances).any()


def test_masks_of_two_scans_are_refused():
    assert mask_iou(mask(), mask()) == 0
    with pytest.raises(DataError, match="over the scan's points"):
        mask_iou(mask(1), np.zeros(3, bool))
