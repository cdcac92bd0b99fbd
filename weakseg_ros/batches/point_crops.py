# SPDX-License-Identifier: Apache-2.0
"""Batches for networks on points: crops that cover the training scans evenly, as RandLA-Net draws them.

Everything random is a function of (seed, step, process) here, too. The possibilities begin anew in each round, in which every
place is seen a few times, so that a resumed run need not repeat what went before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from weakseg_ros.batches.augment import colors_lost, moved_crop, varied_intensity
from weakseg_ros.batches.batches import Batch, TrainingSource
from weakseg_ros.deploy.frontends.points_numpy import crop_planes, crop_tensors, thin
from weakseg_ros.deploy.frontends.range_numpy import put_upright
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.points.crops import Possibilities, nearest_points
from weakseg_ros.progress import Progress

JITTER_M = 0.35
"""standard deviation of a crop's middle around the point that was seen least, as published"""
PASSES = 4
"""how often the points of all scans could be seen in a round; once would leave gaps, as crops overlap"""
CELL_BITS = 32
"""a crop's number is that of its scan and, below, that of the cell in its middle"""


@dataclass(frozen=True)
class Prepared:
    """A training scan as grid points."""

    columns: dict[str, NDArray[np.float32]]
    """(M,) raw channels by name"""
    labels: NDArray[np.uint8]
    """(M,) the most frequent label of each cell, 0 = none"""
    weights: NDArray[np.float32]
    """(M,) how much it counts"""
    tree: cKDTree


class PointCrops(TrainingSource):
    """Crops of the training scans, augmented. All scans are read once, for their possibilities; their grid points are kept."""

    def _set_up(self) -> None:
        assert self.told.points is not None, "what is told of points names their grid"
        self._points = self.told.points.points
        self._lock = Lock()
        self._round = lru_cache(maxsize=2)(self._draw_round)

    def of_step(self, step: int, batch_size: int, rank: int, world: int, seed: int) -> list[int]:
        """Which crops a process trains on in a step; rounds follow one another, each shared out over the processes."""
        first = (step * world + rank) * batch_size
        with self._lock:
            length = len(self._round(seed, 0))
            return [self._round(seed, n // length)[n % length] for n in range(first, first + batch_size)]

    def batch(self, spec: InputSpec, numbers: Iterable[int], rng: np.random.Generator) -> Batch:
        """The crops with these numbers as what a network of `spec` is given, all of them padded to the longest.

        A crop that is too short repeats some of its points, which teach nothing.
        """
        crops = [self._crop(number, rng) for number in numbers]
        longest = max(len(chosen) for _, chosen in crops)
        examples = [self._example(spec, prepared, chosen, longest, rng) for prepared, chosen in crops]
        tensors = {name: torch.from_numpy(np.stack([example[name] for example in examples])) for name in examples[0]}
        labels, mask, weights = (tensors.pop(name)[:, None] for name in ("labels", "mask", "weights"))
        image = tensors.pop("features")
        return Batch(
            image=image,
            labels=labels.long(),
            mask=mask,
            xyz=tensors["xyz_0"].transpose(1, 2)[:, :, None],
            weights=weights if self.weights else None,
            further=tuple(tensors.values()),
        )

    def _example(
        self, spec: InputSpec, prepared: Prepared, chosen: NDArray[np.intp], length: int, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        order = rng.permutation(length)  # the pyramid keeps the first points of each level
        again = np.append(chosen, rng.choice(chosen, length - len(chosen)))[order]
        own = order < len(chosen)
        planes = crop_planes(prepared.columns, again)
        moved_crop(planes, self.augment, rng)
        varied_intensity(planes, self.augment, self.told.intensity.absent, rng)
        colors_lost(planes, self.augment, rng)
        tensors = crop_tensors(planes, spec)
        return {**tensors, "labels": prepared.labels[again] * own, "mask": own, "weights": prepared.weights[again] * own}

    def _crop(self, number: int, rng: np.random.Generator) -> tuple[Prepared, NDArray[np.intp]]:
        prepared = self.prepared(number >> CELL_BITS)
        middle = prepared.tree.data[number & ((1 << CELL_BITS) - 1)]
        return prepared, nearest_points(prepared.tree, middle + rng.normal(0.0, JITTER_M, 3), self._points)

    def _draw_round(self, seed: int, number: int) -> list[int]:
        """The crops of one round, each where least was seen before."""
        scans = range(len(self))
        trees = [self.prepared(i).tree for i in Progress(scans, what="grid", unit="scan", shown=not number)]
        count = max(len(trees), -(-PASSES * sum(tree.n for tree in trees) // self._points))
        possibilities = Possibilities(trees, self._points, np.random.default_rng([seed, 3, number]))
        picks = (possibilities.next() for _ in range(count))
        return [(scan << CELL_BITS) | int(chosen[0]) for scan, chosen in picks]

    def prepared(self, i: int) -> Prepared:
        """The i-th scan's grid points, kept in memory where there is room."""
        return self._keep(i, lambda: self._prepare(i), _bytes_of)

    def _prepare(self, i: int) -> Prepared:
        cloud, labels, _, weight = self._read(i)
        upright, ground = put_upright(cloud, self.told)
        points = thin(upright, self.told, self.told.intensity.scale_of(cloud), ground)
        labels, weight = labels[points.usable], weight[points.usable]
        given, every = (points.grid.most_frequent(chosen) for chosen in (labels * (weight >= 1.0), labels))
        most = np.zeros(points.grid.count, np.float32)
        np.maximum.at(most, points.grid.cell_of_point, weight)
        return Prepared(points.columns, np.where(given > 0, given, every), most, cKDTree(points.xyz))


def _bytes_of(made: Prepared) -> int:
    return int(made.tree.n) * (4 * (len(made.columns) + 1) + 1 + 8 * 8)  # a tree holds copies and indices
