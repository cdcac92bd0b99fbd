# SPDX-License-Identifier: Apache-2.0
"""Optimal transport between objects and pixels, as Point2Mask assigns pseudo masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

_TINY = 1e-8  # an object without supply, or a pixel without demand, takes no part


def sinkhorn(
    cost: NDArray[Any],
    supply: NDArray[Any],
    demand: NDArray[Any],
    epsilon: float = 1e-3,
    iterations: int = 80,
) -> tuple[NDArray[np.float64], float]:
    """The plan (M, P) that moves `supply` (M,) to `demand` (P,) at the least `cost` (M, P), and what it costs.

    Entropy-regularised with weight `epsilon`, in the logarithmic domain, so that no epsilon underflows; the rows' sums
    are exact, the columns' approach theirs with the iterations. Supply and demand shall have the same sum.
    Li et al., Point2Mask, ICCV 2023, section 3.3; Cuturi, Sinkhorn Distances, NIPS 2013.
    """
    exact = cost.astype(np.float64)
    log_supply, log_demand = np.log(supply + _TINY, dtype=np.float64), np.log(demand + _TINY, dtype=np.float64)
    of_row, of_column = np.zeros(len(supply)), np.zeros(len(demand))  # the dual variables
    for _ in range(iterations):
        of_column += epsilon * (log_demand - logsumexp(_scores(exact, of_row, of_column, epsilon), axis=0))
        of_row += epsilon * (log_supply - logsumexp(_scores(exact, of_row, of_column, epsilon), axis=1))
    plan = np.exp(_scores(exact, of_row, of_column, epsilon))
    return plan, float((plan * exact).sum())


def _scores(
    cost: NDArray[np.float64], of_row: NDArray[np.float64], of_column: NDArray[np.float64], epsilon: float
) -> NDArray[np.float64]:
    return (of_row[:, None] + of_column - cost) / epsilon
