# SPDX-License-Identifier: Apache-2.0
"""Objects seen from above, and which of one scan are which of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from weakseg_ros.deploy.boxes import ObjectPoints, rows_of

SAMPLE = 64
"""points of an object that are compared from scan to scan"""
NEARNESS = 0.3
"""worth of two middles on one spot, beside an overlap of 0..1"""
SQUARE_BITS, OBJECT_BITS = 24, 14
"""one number holds a square's two coordinates and an object"""
Places = NDArray[np.float64]


@dataclass(frozen=True)
class Outlines:
    """M objects from above, in metres: their extents along the axes of the frame, and a sample of their points."""

    kind: NDArray[np.int64]
    """(M,) objects of different kinds are never the same"""
    low: Places
    """(M, 2) least x and y"""
    high: Places
    """(M, 2) greatest x and y"""
    points: Places
    """(S, 2) x and y, object by object"""
    count: NDArray[np.int64]
    """(M,) how many of the points belong to each"""
    size: NDArray[np.int64]
    """(M,) how many points each object has in its cloud"""

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def owner(self) -> NDArray[np.int64]:
        """(S,) number 0..M-1 of each point's object."""
        return np.repeat(np.arange(len(self)), self.count)

    @property
    def middle(self) -> Places:
        """(M, 2) of the extents."""
        return (self.low + self.high) / 2

    def moved(self, shift: Places) -> Outlines:
        """Each object elsewhere, by its `shift` (M, 2)."""
        points = self.points + np.repeat(shift, self.count, axis=0)
        return dataclasses.replace(self, low=self.low + shift, high=self.high + shift, points=points)

    def chosen(self, which: NDArray[np.int64]) -> Outlines:
        """The objects of these numbers, in this order."""
        points = self.points[rows_of(self.count, which)]
        return Outlines(self.kind[which], self.low[which], self.high[which], points, self.count[which], self.size[which])

    def followed_by(self, others: Outlines) -> Outlines:
        """These objects, then the others."""
        names = [field.name for field in dataclasses.fields(self)]
        return Outlines(*(np.concatenate([getattr(self, name), getattr(others, name)]) for name in names))


def no_outlines() -> Outlines:
    """No object at all."""
    nothing, nowhere = np.zeros(0, np.int64), np.zeros((0, 2))
    return Outlines(nothing, nowhere, nowhere, nowhere, nothing, nothing)


def outlines_of(objects: ObjectPoints, kind: NDArray[np.int64], pose: NDArray[np.float64]) -> Outlines:
    """The objects of a cloud from above, in the frame that `pose` (4, 4) leads to from the sensor's."""
    if not len(objects):
        return no_outlines()
    turn = pose[:2, :3].astype(np.float32)  # coordinates of the frame may be large, those around the sensor are not
    x, y = turn @ objects.xyz
    start, place = objects.start, pose[:2, 3]
    low = np.stack([np.minimum.reduceat(side, start) for side in (x, y)], axis=1) + place
    high = np.stack([np.maximum.reduceat(side, start) for side in (x, y)], axis=1) + place
    sample, count = objects.sample(SAMPLE)
    return Outlines(kind, low, high, np.stack([x[sample], y[sample]], axis=1) + place, count, objects.count)


def displacement(before: Outlines, after: Outlines) -> Places:
    """(M, 2) how far each object has moved, pair by pair.

    What comes into view makes an object grow on one side; only what moves on both sides alike has moved.
    """
    low, high = after.low - before.low, after.high - before.high
    smaller = np.where(np.abs(low) < np.abs(high), low, high)
    return np.where(low * high > 0, smaller, 0.0)


def associate(expected: Outlines, found: Outlines, reach_m: Places, trust: Places, cells_m: Sequence[float]) -> NDArray[np.int64]:
    """(M,) for each found object the number of the expected one that it is, each at most once; -1 = none.

    Two may be one where they are of a kind and their points share squares of one of the sizes `cells_m`, or their extents
    lie within `reach_m` (T,) of each other. A pair is worth its mean overlap by these squares (small ones tell neighbours
    apart, large ones forgive that an object was expected a little off), some nearness, and the `trust` (T,) in the
    expected one; the assignment of most worth is taken, where one good pair outweighs two poor ones.
    """
    match = np.full(len(found), -1, np.int64)
    if not len(expected) or not len(found):
        return match
    overlap = np.mean([_overlap(expected, found, cell_m) for cell_m in cells_m], axis=0)
    gap = np.maximum(expected.low[:, None] - found.high[None], found.low[None] - expected.high[:, None])
    apart = np.linalg.norm(np.maximum(gap, 0.0), axis=2)
    distance = np.linalg.norm(expected.middle[:, None] - found.middle[None], axis=2)
    possible = (expected.kind[:, None] == found.kind[None]) & ((overlap > 0) | (apart <= reach_m[:, None]))
    worth = np.where(possible, overlap + NEARNESS / (1.0 + distance) + trust[:, None], 0.0) ** 2
    left, right = linear_sum_assignment(worth, maximize=True)
    taken = worth[left, right] > 0
    match[right[taken]] = left[taken]
    return match


def _overlap(expected: Outlines, found: Outlines, cell_m: float) -> Places:
    """(T, M) intersection over union of the objects' points: those in squares of the other are shared, 0..1.

    Sizes count, so that a crumb of an object is not taken for the whole.
    """
    squares = np.floor(np.concatenate([expected.points, found.points]) / cell_m).astype(np.int64)
    squares -= squares.min(axis=0)
    square = squares[:, 0] << SQUARE_BITS | squares[:, 1]
    before, before_object, before_points = _occupied(square[: len(expected.points)], expected)
    after, after_object, after_points = _occupied(square[len(expected.points) :], found)
    first = np.searchsorted(before, after)
    meetings = np.searchsorted(before, after, side="right") - first
    right = np.repeat(np.arange(len(after)), meetings)
    left = np.arange(len(right)) + np.repeat(first - np.cumsum(meetings) + meetings, meetings)
    pair = before_object[left] * len(found) + after_object[right]
    shape = (len(expected), len(found))
    covered, covering = (
        np.bincount(pair, weights=points, minlength=shape[0] * shape[1]).reshape(shape)
        for points in (before_points[left], after_points[right])
    )
    size_before, size_after = expected.size[:, None], found.size[None]
    shared = np.minimum(covered * size_before / expected.count[:, None], covering * size_after / found.count[None])
    overlap: Places = shared / (size_before + size_after - shared)
    return overlap


def _occupied(square: NDArray[np.int64], outlines: Outlines) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The squares of the objects' points, ascending, each with an object there and how many of its points: (Q,) each."""
    entry, points = np.unique(square << OBJECT_BITS | outlines.owner, return_counts=True)
    return entry >> OBJECT_BITS, entry & ((1 << OBJECT_BITS) - 1), points
