# SPDX-License-Identifier: Apache-2.0
"""The hand-crafted rules: traverse distance beside relaxation, likely instances by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.weak.traverse import (
    NEIGHBOURS,
    edge_cost,
    neighbour_difference,
    traverse_distance,
)

seeds = st.integers(0, 2**32 - 1)


def by_relaxation(cost: np.ndarray, click: np.ndarray) -> np.ndarray:
    """Bellman and Ford: every step again until nothing gets cheaper."""
    height, width = cost.shape[1:]
    distance = np.full((height, width), np.inf)
    distance[tuple(click)] = 0
    for _ in range(height * width):
        for k, (down, right) in enumerate(NEIGHBOURS):
            for r in range(max(0, -down), min(height, height - down)):
                for c in range(max(0, -right), min(width, width - right)):
                    there = r + down, c + right
                    distance[there] = min(distance[there], distance[r, c] + cost[k, r, c])
    return distance


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
@settings(deadline=None, max_examples=25)
def test_traverse_distance_is_the_cheapest_way(seed: int, height: int, width: int, clicks: int) -> None:
    rng = np.random.default_rng(seed)
    cost = np.round(rng.random((8, height, width)), 1).astype(np.float32)  # ways of price 0 are among them
    points = np.stack([rng.integers(0, height, clicks), rng.integers(0, width, clicks)], axis=1)
    ours = traverse_distance(cost, points)
    assert ours.shape == (clicks, height, width)
    for distance, point in zip(ours, points, strict=True):
        np.testing.assert_allclose(distance, by_relaxation(cost, point), rtol=1e-5, atol=1e-6)


@given(seeds)
@settings(deadline=None, max_examples=20)
def test_permuted_clicks_permute_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.random((8, 5, 7)).astype(np.float32)
    points = np.stack([rng.integers(0, 5, 4), rng.integers(0, 7, 4)], axis=1)
    order = rng.permutation(4)
    assert np.array_equal(traverse_distance(cost, points)[order], traverse_distance(cost, points[order]))


def test_differences_by_hand() -> None:
    image = np.array([[[1.0, 0.0]], [[0.0, 3.0]]], np.float32)  # (2, 1, 2)
    right = NEIGHBOURS.index((0, 1))
    assert [neighbour_difference(image, kind)[right, 0, 0] for kind in ("l1", "l2", "dot", "max")] == [4, 10, 1, 3]
    assert [neighbour_difference(image, kind)[right, 0, 1] for kind in ("l1", "l2", "dot", "max")] == [3, 9, 1, 0]


def test_two_objects_part_at_the_edge_between_them() -> None:
    probs = np.zeros((3, 5, 12), np.float32)  # none, thing, stuff
    probs[1] = 0.9
    probs[2] = 0.1
    probs[:, :, 9:] = [[[0.0]], [[0.2]], [[0.8]]]
    edges = np.zeros((1, 5, 12), np.float32)
    edges[:, :, 3] = 1.0  # nearer to the first click
    features = np.ones((1, 5, 12), np.float32)
    clicks = np.array([[2, 1], [2, 8]])
    distance = traverse_distance(edge_cost(probs, features, edges, edge_weight=5.0), clicks)
    nearest = distance.argmin(axis=0)
    assert (nearest[1:4, :3] == 0).all()
    assert (nearest[1:4, 4:9] == 1).all()
