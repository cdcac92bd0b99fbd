# SPDX-License-Identifier: Apache-2.0
"""What a point net needs to know about points before it computes: random sub-clouds, neighbours, nearest kept points.

All clouds of a batch lie one after the other in the same arrays, so no cloud is padded; indices never lead from one cloud
into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

REDUCTION = 4
"""each level keeps one point in so many"""


@dataclass(frozen=True)
class Level:
    """One density of the batch's clouds, P points in all."""

    xyz: Tensor
    """(P, 3) f32"""
    neighbours: Tensor
    """(P, k) i64 the k nearest points of the same cloud, itself first; the nearest one again where a cloud has fewer"""
    kept: Tensor
    """(P',) i64 which points the next sparser level keeps"""
    nearest_kept: Tensor
    """(P,) i64 for each point the nearest one of the next sparser level, counted there"""

    def to(self, device: torch.device) -> Level:
        """The same on a device."""
        return Level(*(getattr(self, name).to(device) for name in ("xyz", "neighbours", "kept", "nearest_kept")))


def pyramid(
    clouds: Sequence[NDArray[np.float32]], seeds: Sequence[int], points: int, neighbours: int, depth: int, threads: int = 1
) -> tuple[list[Level], Tensor, Tensor]:
    """Levels from dense to sparse, which points the densest has, and the nearest of them for each point of the clouds.

    `clouds` are (P_i, 3), metres, some perhaps empty, each with the seed of its random draw. The densest level has at most
    `points` of each cloud, every further one a quarter of them, but never fewer than `neighbours` where there are so many.
    """
    parts: list[list[Level]] = []
    sampled, nearest = [], []
    dense_offset, offsets = 0, np.zeros(depth + 1, np.int64)
    for cloud, seed in zip(clouds, seeds, strict=True):
        if not len(cloud):
            continue
        order = np.random.default_rng(seed).permutation(len(cloud))[:points]
        levels, tree = _levels(cloud[order], neighbours, depth, offsets, threads)
        parts.append(levels)
        sampled.append(order + dense_offset)
        nearest.append(tree.query(cloud, workers=threads)[1] + offsets[0])
        dense_offset += len(cloud)
        offsets += np.array([*(len(level.xyz) for level in levels), len(levels[-1].kept)])
    whole = [_join(same) for same in zip(*parts, strict=True)]
    return whole, torch.from_numpy(np.concatenate(sampled)), torch.from_numpy(np.concatenate(nearest))


def _levels(
    cloud: NDArray[np.float32], neighbours: int, depth: int, offsets: NDArray[np.int64], threads: int
) -> tuple[list[Level], cKDTree]:
    """The levels of one cloud in random order, its indices counted from `offsets`; and the search tree of the densest."""
    levels, tree = [], _tree(cloud)
    first = tree
    for number in range(depth):
        count = len(cloud)
        kept = np.arange(max(count // REDUCTION, min(count, neighbours)))  # the order is random, so its head is a random draw
        near = tree.query(cloud, k=np.arange(1, neighbours + 1), workers=threads)[1]
        near = np.where(near == count, near[:, :1], near)  # fewer points than neighbours
        sparser = _tree(cloud[kept])
        nearest = sparser.query(cloud, workers=threads)[1]
        indices = (near + offsets[number], kept + offsets[number], nearest + offsets[number + 1])
        levels.append(Level(torch.from_numpy(cloud), *map(torch.from_numpy, indices)))
        cloud, tree = cloud[kept], sparser
    return levels, first


def _tree(cloud: NDArray[np.float32]) -> cKDTree:
    return cKDTree(cloud, compact_nodes=False, balanced_tree=False)  # quicker to build, and asked only once or twice


def _join(parts: Sequence[Level]) -> Level:
    names = ("xyz", "neighbours", "kept", "nearest_kept")
    return Level(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
