# SPDX-License-Identifier: Apache-2.0
"""The vote of pixels around a pixel that are at its range: a network's single mistakes are outvoted, and points that are hidden
behind the owner of their pixel get the class of what is as far away as they are.

RangeNet++ lets each point ask the nearest pixels of a small window (see lift.knn_vote). Here each pixel asks once, whatever
number of points it holds, and along eight directions, so that a reach of six pixels costs no more than a window of five by five.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.lift import lift, range_image
from weakseg_ros.points.projection import RangeView

STEPS = (1, 2, 4, 6)
"""how far away in pixels the voters are, in each direction"""
NEAR_M, NEAR_SHARE = 0.2, 0.02
"""a pixel votes if its range differs by at most so many metres and this share of the range"""
OFFSETS = tuple((step * row, step * col) for step in STEPS for row in (-1, 0, 1) for col in (-1, 0, 1) if (row, col) != (0, 0))


class _Padded(NamedTuple):
    """Both images with a border of STEPS[-1] pixels, so that no voter lies outside; empty pixels at infinity."""

    classes: NDArray[np.uint8]
    ranges: NDArray[np.float32]

    def place_of(self, pixels: NDArray[np.integer], width: int) -> NDArray[np.intp]:
        """The flat index of flat pixels of an image of that width."""
        row, col = np.divmod(pixels.astype(np.intp), width)
        place: NDArray[np.intp] = (row + STEPS[-1]) * self.classes.shape[1] + col + STEPS[-1]
        return place


def image_vote(class_image: NDArray[np.uint8], view: RangeView, full_circle: bool) -> NDArray[np.uint8]:
    """The class of each point, (N,), from an (H, W) image with 0 where no class is; 0 for points without a pixel.

    The class with most votes wins. The pixel's own class has a vote and wins every tie; among others the smaller id does.
    Over a full circle the voters reach across the rear.
    """
    ranges = range_image(view)
    ranges[ranges < 0] = np.inf
    padded = _padded(class_image, ranges, full_circle)
    contested = _contested(class_image, padded.classes)
    width = class_image.shape[1]

    asks = np.flatnonzero(contested & np.isfinite(ranges))
    own = class_image.ravel()[asks]
    voted = class_image.copy()
    voted.ravel()[asks] = _most_votes(padded, padded.place_of(asks, width), ranges.ravel()[asks], own, own_votes=True)
    out = lift(voted, view, 0)

    of_owner, at_contested = lift(ranges, view, np.nan), lift(contested, view, 0)
    hidden = np.flatnonzero((view.range_of_point - of_owner > _near(view.range_of_point)) & at_contested)
    pixels = view.pixel_of_point[hidden]
    own = class_image.ravel()[pixels]
    out[hidden] = _most_votes(padded, padded.place_of(pixels, width), view.range_of_point[hidden], own, own_votes=False)
    return out


def _near(ranges: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(NEAR_M) + np.float32(NEAR_SHARE) * ranges


def _padded(classes: NDArray[np.uint8], ranges: NDArray[np.float32], full_circle: bool) -> _Padded:
    ends, sides = ((STEPS[-1],) * 2, (0, 0)), ((0, 0), (STEPS[-1],) * 2)
    classes = np.pad(classes, ends)
    ranges = np.pad(ranges, ends, constant_values=np.inf)
    if full_circle:
        return _Padded(np.pad(classes, sides, mode="wrap"), np.pad(ranges, sides, mode="wrap"))
    return _Padded(np.pad(classes, sides), np.pad(ranges, sides, constant_values=np.inf))


def _contested(classes: NDArray[np.uint8], padded: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) whether a voter has another class: elsewhere the result is known without a count."""
    rows, cols = classes.shape
    contested, other = np.zeros(classes.shape, np.bool_), np.empty(classes.shape, np.bool_)
    for row, col in OFFSETS:
        voter = padded[STEPS[-1] + row :, STEPS[-1] + col :][:rows, :cols]
        np.not_equal(voter, classes, out=other)
        other &= voter != 0
        contested |= other
    return contested


def _most_votes(
    padded: _Padded, at: NDArray[np.intp], ranges: NDArray[np.float32], own: NDArray[np.uint8], own_votes: bool
) -> NDArray[np.uint8]:
    """(P,) the class with most votes at flat places of the padded images, asked at these ranges; `own` where nobody votes."""
    kinds, count = int(padded.classes.max(initial=0)) + 1, len(at)
    votes, column = np.zeros((kinds, count), np.uint8), np.arange(count)
    votes[own, column] = own_votes
    counts, row_of = votes.reshape(-1), np.arange(kinds) * count
    rows, image, width = row_of.take(padded.classes.ravel()), padded.ranges.ravel(), padded.classes.shape[1]
    near = _near(ranges)
    for down, right in OFFSETS:
        voter = at + (down * width + right)
        off = image.take(voter)
        off -= ranges
        is_near = np.abs(off, out=off) <= near
        ballot = rows.take(voter)
        ballot *= is_near  # those at other ranges vote for class 0
        ballot += column
        counts[ballot] += 1  # each column once, so no vote is lost
    votes[0] = 0
    most, winner = votes.max(axis=0), np.zeros_like(own)
    for kind in range(kinds - 1, 0, -1):
        winner[votes[kind] == most] = kind
    return np.where(votes[own, column] == most, own, winner)  # own also where nobody votes
