# SPDX-License-Identifier: Apache-2.0
"""Is a cloud's intensity distributed as that of the training data, and would a factor make it so?

Every tool that compares, stores or advises goes through the functions here, so that they say the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
USUAL_FULL_SCALES = (1.0, 100.0, 255.0, 4095.0, 65535.0)
"""largest values of usual drivers: a factor is mostly the quotient of two of them"""
NEAR = 3.0
"""how far from the measured factor a usual one may lie"""
POOR_FIT = 0.4
"""below this the distributions are not alike; other sensors on the right scale have 0.5 and more"""
SAME = 1e-6
"""values that differ by less, relatively, are one"""
RANKED = 8192
FEWEST_LEVELS = 4
ABSENT_RANK = 0.5
"""the rank of every point of a cloud without intensity"""
BETTER_BY = 0.1
"""a factor is advised where it brings the distributions to POOR_FIT at least, and nearer by this much"""


def quantiles(values: NDArray[np.float32]) -> dict[float, float]:
    """The values at QUANTILES; empty without values."""
    return {q: float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)} if len(values) else {}


def intensity_fit(values: NDArray[np.float32], trained: Mapping[float, float], factor: float = 1.0) -> float:
    """How alike the two distributions are, 0 to 1: one minus the largest difference of their cumulative shares.

    `values` (N,) are multiplied by `factor`; `trained` are values by quantile. 1 where either is unknown.
    """
    if not len(values) or not trained:
        return 1.0
    ordered = np.sort(values.astype(np.float64) * factor)
    places = np.array(list(trained.values()))
    below = np.searchsorted(ordered, places * (1 - SAME), "left") / len(ordered)
    up_to = np.searchsorted(ordered, places * (1 + SAME), "right") / len(ordered)
    wanted = np.array(list(trained))
    # a value that many points share spans an interval of shares: the distance is to its nearest end
    distance = np.maximum(np.maximum(below - wanted, wanted - up_to), 0.0)
    return float(1.0 - distance.max())


def suggest_factor(
    values: NDArray[np.float32], trained: Mapping[float, float], full_scale: float, current: float = 1.0
) -> float | None:
    """The factor on (N,) `values` that makes them more like the training data than the `current` one, or None where none does.

    Tried are the quotients of usual full scales and the quotient of the two distributions; what is returned was checked to
    bring `intensity_fit` up.
    """
    measured = _quotient(values, trained)
    if measured is None:
        return None
    usual = [full_scale / other for other in USUAL_FULL_SCALES if full_scale]
    near = [factor for factor in usual if 1 / NEAR < factor / measured < NEAR]
    enough = max(POOR_FIT, intensity_fit(values, trained, current) + BETTER_BY)
    fits = {factor: intensity_fit(values, trained, factor) for factor in [*near, float(f"{measured:.2g}")]}
    helpful = [factor for factor in near if fits[factor] >= enough] or [factor for factor in fits if fits[factor] >= enough]
    return max(helpful, key=fits.__getitem__, default=None)


def _quotient(values: NDArray[np.float32], trained: Mapping[float, float]) -> float | None:
    """The typical quotient of the training data's quantiles and the values' own, where both are above 0."""
    own = quantiles(values)
    logs = [math.log(trained[q] / own[q]) for q in (0.5, 0.75, 0.95) if trained.get(q, 0.0) > 0 and own.get(q, 0.0) > 0]
    return math.exp(float(np.median(logs))) if logs else None


def intensity_ranks(values: NDArray[np.float32], present: bool = True) -> NDArray[np.float32]:
    """The share of (N,) values below each, 0 to 1, equal ones sharing the middle of theirs; all ABSENT_RANK where there are none.

    Ranks are taken among at most RANKED of the values, evenly spaced, which is what a large cloud's cost. Values that take
    fewer than FEWEST_LEVELS levels say nothing of materials and count as absent.
    """
    sample, counts = np.unique(values[:: max(1, len(values) // RANKED)], return_counts=True)
    if not present or len(sample) < FEWEST_LEVELS:
        return np.full(len(values), ABSENT_RANK, np.float32)
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()
    return np.asarray(np.interp(values, sample, middle), np.float32)
