# SPDX-License-Identifier: Apache-2.0
"""The traverse distance beside PSPS's, transport beside Point2Mask's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from weakseg_ros.weak.traverse import edge_cost, neighbour_difference, traverse_distance

Arrays = Mapping[str, np.ndarray]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
_TINY = 1e-8  # an object without supply, or a pixel without demand, takes no part


def check_transport(arrays: Arrays) -> None:
    cost, supply, demand = arrays["cost"], arrays["mu"], arrays["nu"]
    for epsilon, ending in ((float(arrays["eps"]), ""), (0.1, "_eps0p1")):
        plan, distance = transport_plan(cost, supply, demand, epsilon, int(arrays["max_iter"]))
        # the official code rounds to float32 before it divides by epsilon
        np.testing.assert_allclose(plan, arrays[f"transport{ending}"], atol=2e-4 if epsilon < 0.01 else 1e-5)
        np.testing.assert_allclose(distance, arrays[f"distance{ending}"], rtol=1e-5)


def check_traverse(arrays: Arrays) -> None:
    probs, features, edges = arrays["prob"][0], arrays["feat"][0], arrays["edge"][0]
    for image, kind, name in ((probs, "l1", "prob_l1"), (features, "dot", "feat_dot"), (features, "l2", "feat_l2")):
        np.testing.assert_allclose(neighbour_difference(image, kind), arrays[f"diff_{name}"][0], **CLOSE, err_msg=name)
    np.testing.assert_allclose(neighbour_difference(edges, "max"), arrays["diff_edge_max"][0], **CLOSE)
    cost = edge_cost(probs, features, edges, float(arrays["lambda_bond"]), float(arrays["lambda_feat"]))
    np.testing.assert_allclose(cost, arrays["edge_cost"][0], **CLOSE)
    distance = traverse_distance(cost, arrays["points_rc"])
    np.testing.assert_allclose(distance, arrays["distance"], **CLOSE)
    np.testing.assert_array_equal(distance.argmin(axis=0), arrays["nearest_instance"])


def transport_plan(
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


CHECKS = {"ot_sinkhorn": check_transport, "traverse_distance": check_traverse}
