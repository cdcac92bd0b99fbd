# SPDX-License-Identifier: Apache-2.0
"""Neighbours among chosen pixels, beside looking at every pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.points.neighbours import PixelNeighbours


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(9, 14), st.booleans(), st.integers(1, 3), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_each_pair_in_the_window_is_found_once(
    seed: int, height: int, width: int, full_circle: bool, rows: int, cols: int
) -> None:
    rng = np.random.default_rng(seed)
    at = np.flatnonzero(rng.random(height * width) < 0.6)
    near = PixelNeighbours(at, (height, width), full_circle, rows, cols)
    found = []
    for offset in near.half_window:
        other = near.at(*offset)
        found += [tuple(sorted((int(i), int(j)))) for i, j in enumerate(other) if j >= 0]
    expected = []
    for i, a in enumerate(at):
        for j, b in enumerate(at[i + 1 :], i + 1):
            down, right = b // width - a // width, abs(b % width - a % width)
            if full_circle:
                right = min(right, width - right)
            if down <= rows and right <= cols:
                expected.append((i, j))
    assert sorted(found) == expected
