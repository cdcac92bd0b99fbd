# SPDX-License-Identifier: Apache-2.0
"""What a network on points is given: crops of a cloud that cover it evenly, each as a pyramid of neighbourhoods.

Hu et al., RandLA-Net: Efficient Semantic Segmentation of Large-Scale Point Clouds, CVPR 2020, and its supplement: points are
thinned by a grid, crops are taken where a possibility is lowest, and each level of the pyramid keeps a random part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

_SMALL_POSSIBILITY = 1e-3


@dataclass(frozen=True)
class PointsSpec:
    """Sets how a cloud becomes the points of a network."""

    grid_m: float = setting(0.04, 1e-3, 10.0)
    """Sets the edge length in metres of the grid that thins the points (0.001 to 10); each cell becomes one point."""
    points: int = setting(40_960, 16, 1 << 20)
    """Sets the number of points of a crop (16 to 1048576); a cloud with fewer points is a single crop."""
    neighbours: int = setting(16, 1, 128)
    """Sets the number of nearest neighbours of each point (1 to 128)."""
    ratios: tuple[int, ...] = (4, 4, 4, 4, 2)
    """Lists the downsampling ratio of each level of the net (2 or more each)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.ratios or min(self.ratios) < 2 or math.prod(self.ratios) > self.points:
            raise ConfigError(
                f"ratios: {list(self.ratios)} must contain numbers of 2 or more whose product is at most points ({self.points})"
            )


@dataclass(frozen=True)
class Level:
    """One density of a crop, P points in random order; the next level holds the first P' of them."""

    xyz: NDArray[np.float32]
    """(P, 3) m"""
    neighbours: NDArray[np.int32]
    """(P, k) the nearest points, itself first; the nearest one again where there are fewer"""
    pool: NDArray[np.int32]
    """(P', k) the neighbours of the points that the next level keeps"""
    nearest: NDArray[np.int32]
    """(P,) for each point the nearest one of the next level, counted there"""


def pyramid(xyz: NDArray[np.float32], spec: PointsSpec, threads: int = -1) -> list[Level]:
    """The levels of a crop (P, 3) in random order, from dense to sparse."""
    from scipy.spatial import cKDTree  # here, since a manual reads the settings above

    levels, tree = [], cKDTree(xyz, compact_nodes=False, balanced_tree=False)
    for ratio in spec.ratios:
        count = len(xyz)
        near = tree.query(xyz, k=np.arange(1, spec.neighbours + 1), workers=threads)[1]
        near = np.where(near == count, near[:, :1], near).astype(np.int32)
        kept = max(count // ratio, 1)
        sparser = cKDTree(xyz[:kept], compact_nodes=False, balanced_tree=False)
        nearest = sparser.query(xyz, workers=threads)[1].astype(np.int32)
        levels.append(Level(xyz, near, near[:kept], nearest))
        xyz, tree = xyz[:kept], sparser
    return levels


class Possibilities:
    """Where to crop next: at the point of some clouds that was seen least, those near a crop's middle counting more.

    `trees` are the clouds' points. All that follows depends on the generator alone.
    """

    def __init__(self, trees: Sequence[cKDTree], points: int, rng: np.random.Generator) -> None:
        self._trees, self._points, self._rng = trees, points, rng
        self._seen = [rng.random(tree.n) * _SMALL_POSSIBILITY for tree in trees]
        self._lowest = np.array([seen.min(initial=np.inf) for seen in self._seen])

    def next(self, jitter_m: float = 0.0) -> tuple[int, NDArray[np.intp]]:
        """(cloud, indices of its crop, the nearest to its middle first); the middle is moved at random by `jitter_m`."""
        cloud = int(self._lowest.argmin())
        tree, seen = self._trees[cloud], self._seen[cloud]
        middle = tree.data[seen.argmin()]
        if jitter_m:
            middle = middle + self._rng.normal(0.0, jitter_m, 3)
        chosen = nearest_points(tree, middle, self._points)
        far2 = np.sum((tree.data[chosen] - middle) ** 2, axis=1)
        seen[chosen] += np.square(1.0 - far2 / max(float(far2.max()), 1e-12)) + _SMALL_POSSIBILITY
        self._lowest[cloud] = seen.min()
        return cloud, chosen


def nearest_points(tree: cKDTree, middle: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The `count` points nearest to a place, the nearest first; all of them where there are fewer."""
    found = tree.query(middle, k=min(count, tree.n), workers=1)[1]
    return np.atleast_1d(found).astype(np.intp)


def covering_crops(xyz: NDArray[np.float32], points: int, passes: int = 1) -> NDArray[np.intp]:
    """(B, P) crops in which every one of the (M, 3) points is at least `passes` times, each crop in random order.

    A cloud of no more than `points` is one crop for each pass. The same cloud always has the same crops.
    """
    rng = np.random.default_rng(0)
    if len(xyz) <= points:
        return np.stack([rng.permutation(len(xyz)) for _ in range(max(passes, 1))])
    from scipy.spatial import cKDTree

    possibilities, times = Possibilities([cKDTree(xyz)], points, rng), np.zeros(len(xyz), np.intp)
    crops = []
    while times.min() < passes:
        _, chosen = possibilities.next()
        times[chosen] += 1
        crops.append(rng.permutation(chosen))
    return np.stack(crops)
