# SPDX-License-Identifier: Apache-2.0
"""Differences over seeds: what an interval says, and when it says nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from weakseg_ros.benchmark.paired import paired

FIGURES = st.dictionaries(st.integers(0, 9), st.floats(0.0, 1.0), min_size=2)


def test_a_difference_is_resolved_where_its_interval_leaves_zero_out() -> None:
    theirs = {1: 0.30, 2: 0.50, 3: 0.40, 4: 0.35, 5: 0.45}
    clear = paired({seed: value + 0.05 + 0.001 * seed for seed, value in theirs.items()}, theirs)
    assert clear is not None
    assert clear.resolved
    assert clear.words == "+5.3 [+5.1, +5.5]"
    chance = paired({seed: value + (0.05 if seed % 2 else -0.04) for seed, value in theirs.items()}, theirs)
    assert chance is not None
    assert not chance.resolved
    assert chance.words.endswith("], not resolved")


def test_one_seed_resolves_nothing_and_none_is_no_difference() -> None:
    single = paired({1: 0.9, 7: 0.1}, {1: 0.2, 3: 0.5})
    assert single is not None
    assert single.words == "+70.0, not resolved"
    assert math.isinf(single.high)
    assert single.to_mapping() == {"mean": 0.7, "low": None, "high": None, "seeds": 1, "resolved": False}
    assert paired({1: 0.9}, {2: 0.2}) is None


@given(FIGURES, FIGURES)
def test_the_interval_is_that_of_the_paired_t_test(ours: dict[int, float], theirs: dict[int, float]) -> None:
    common = sorted(set(ours) & set(theirs))
    found = paired(ours, theirs)
    if len(common) < 2 or len({ours[seed] - theirs[seed] for seed in common}) < 2:
        return
    assert found is not None
    expected = stats.ttest_rel([ours[seed] for seed in common], [theirs[seed] for seed in common]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
