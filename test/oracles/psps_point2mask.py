# SPDX-License-Identifier: Apache-2.0
"""The traverse distance beside PSPS's, transport beside Point2Mask's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from weakseg_ros.methods.objects.transport import sinkhorn
from weakseg_ros.weak.traverse import edge_cost, neighbour_difference, traverse_distance

Arrays = Mapping[str, np.ndarray]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def check_transport(arrays: Arrays) -> None:
    cost, supply, demand = arrays["cost"], arrays["mu"], arrays["nu"]
    for epsilon, ending in ((float(arrays["eps"]), ""), (0.1, "_eps0p1")):
        plan, distance = sinkhorn(cost, supply, demand, epsilon, int(arrays["max_iter"]))
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


CHECKS = {"ot_sinkhorn": check_transport, "traverse_distance": check_traverse}
