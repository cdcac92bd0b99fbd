# SPDX-License-Identifier: Apache-2.0
"""The time along stamps, where clocks are set, stand still or start late."""

from __future__ import annotations

import pytest

from weakseg_ros.data.steady_time import SteadyTime

T = 1_700_000_000 * 10**9


def times(stamps_s: list[float], **settings: bool) -> list[float]:
    clock = SteadyTime(**settings)
    return [round(clock.at(round(stamp * 1e9)), 6) for stamp in stamps_s]


@pytest.mark.parametrize(
    ("stamps_s", "expected"),
    [
        ([5, 5.2, 5.4, 65.4], [0, 0.2, 0.4, 60.4]),
        ([0, 0, 1.7e9, 1.7e9 + 0.2, 1.7e9 + 0.4], [0, 0, 0.1, 0.3, 0.5]),
        ([100, 100.5, 7, 7.5], [0, 0.5, 1.0, 1.5]),
        ([3600, 7200, 10801], [0, 3600, 7200]),
        ([1, 1, 1], [0, 0, 0]),
    ],
)
def test_a_step_that_is_no_pause_counts_as_the_one_before_it(stamps_s: list[float], expected: list[float]) -> None:
    assert times(stamps_s) == expected


def test_repeated_stamps_count_where_asked_for() -> None:
    assert times([0, 0, 0, 0.5, 0.5], repeats_count=True) == [0, 0.1, 0.2, 0.7, 1.2]
