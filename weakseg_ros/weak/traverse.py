# SPDX-License-Identifier: Apache-2.0
"""The traverse distance: how much an image changes along the easiest way from a click to each pixel.

The hand-crafted rule of PSPS (Fan et al., Pointly-Supervised Panoptic Segmentation, ECCV 2022): what lies between a
pixel and its clicked point tells more than how far apart they are.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(rows down, columns to the right) of the eight neighbours, row by row"""

Difference = Literal["l1", "l2", "dot", "max"]


def neighbour_difference(image: NDArray[np.float32], kind: Difference) -> NDArray[np.float32]:
    """How each pixel of a (C, H, W) image differs from its eight neighbours: (8, H, W), in the order of `NEIGHBOURS`.

    `l1` sum of absolute differences; `l2` sum of their squares; `dot` 1 - product (for features of length 1); `max` the
    neighbour's largest channel, for an image of edges. Outside the image everything is 0.
    """
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    shifted = (padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] for down, right in NEIGHBOURS)
    return np.stack([_difference(image, other, kind) for other in shifted])


def _difference(image: NDArray[np.float32], other: NDArray[np.float32], kind: Difference) -> NDArray[Any]:
    if kind == "max":
        return np.asarray(other.max(axis=0))
    if kind == "dot":
        return np.asarray(1 - (image * other).sum(axis=0))
    return np.asarray((np.abs(other - image) if kind == "l1" else (other - image) ** 2).sum(axis=0))


def edge_cost(
    probs: NDArray[np.float32],
    features: NDArray[np.float32],
    edges: NDArray[np.float32],
    edge_weight: float = 0.1,
    feature_weight: float = 0.1,
) -> NDArray[np.float32]:
    """The price of each step to a neighbour, (8, H, W): change of class, an object's edge ahead, and change of feature.

    Class probabilities (K, H, W), features (D, H, W) of length 1, edge strength (1, H, W). Defaults as published.
    """
    change = neighbour_difference(probs, "l1")
    ahead = neighbour_difference(edges, "max")
    unlike = np.maximum(neighbour_difference(features, "dot"), 0)
    return change + np.float32(edge_weight) * ahead + np.float32(feature_weight) * unlike


def traverse_distance(cost: NDArray[np.float32], clicks: NDArray[np.integer]) -> NDArray[np.float32]:
    """Price of the cheapest way from each click (row, col), (M, 2), to every pixel: steps (8, H, W) -> (M, H, W).

    `cost[k, r, c]` is what the step from pixel (r, c) to its k-th neighbour costs, 0 or more; no way leads outside.
    """
    height, width = cost.shape[1:]
    pixel = np.arange(height * width).reshape(height, width)
    starts, ends, prices = [], [], []
    for (down, right), price in zip(NEIGHBOURS, cost, strict=True):
        rows = slice(max(0, -down), height - max(0, down))
        cols = slice(max(0, -right), width - max(0, right))
        starts.append(pixel[rows, cols].ravel())
        ends.append(starts[-1] + down * width + right)
        prices.append(price[rows, cols].ravel())
    ways = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.concatenate(prices), ways), shape=(pixel.size, pixel.size)).tocsr()
    sources = np.asarray(clicks, np.int64) @ np.array([width, 1])
    distance: NDArray[Any] = dijkstra(graph, indices=sources)
    return distance.reshape(-1, height, width).astype(np.float32)
