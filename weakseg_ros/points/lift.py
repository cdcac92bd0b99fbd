# SPDX-License-Identifier: Apache-2.0
"""From the pixels of a range image back to every point, those hidden behind a nearer one included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.projection import RangeView

Scalar = TypeVar("Scalar", bound=np.generic)
Lift = Literal["pixel", "vote", "knn"]
"""how points get their class from an image of classes: that of their pixel, see `lift`; by a vote of the pixels around it that
are at their range, see image_vote; or by RangeNet++'s vote, see `knn_vote`"""
AskedLift = Literal["auto", "pixel", "vote", "knn"]
"""the same, as a user may ask for it: 'auto' is what the network was made for"""

BLOCK = 16384  # points voted on at a time: their lists stay in the cache
NOBODY = np.iinfo(np.int64).max
CLASS_BITS = np.int64(0xFFFFFFFF)


@dataclass(frozen=True)
class KnnSettings:
    """Sets the vote of RangeNet++: each point asks the pixels around its own that are nearest in range."""

    search: int = setting(5, 1, 25)
    """Sets the side length of the search window in pixels, an odd number (1 to 25)."""
    neighbours: int = setting(5, 1, 49)
    """Sets the number of pixels in the window that vote (1 to 49)."""
    sigma_px: float = setting(1.0, 1e-3, 100.0)
    """Sets the standard deviation in pixels of the Gaussian that favours pixels near the centre (0.001 to 100)."""
    cutoff_m: float = setting(1.0, 0.0)
    """Sets the largest weighted range difference in metres at which a pixel votes (0 or more); 0 lets every pixel vote."""
    hidden_m: float = setting(0.0, 0.0)
    """Sets how far in metres a point must lie behind the nearest point of its pixel to be voted on (0 or more); 0 votes on
    every point, which also smooths the result."""
    official: bool = False
    """Follows the published code, which does not wrap around at the rear, takes a range of 0 beyond the border, and returns
    class 1 where no pixel votes."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.search % 2 == 0:
            raise ConfigError(f"search: {self.search} is even, so the window has no centre; use {self.search + 1}")
        if self.neighbours > self.search**2:
            raise ConfigError(f"neighbours: {self.neighbours} do not fit into a window of {self.search} x {self.search}")


def lift(image: NDArray[Scalar], view: RangeView, fill: float) -> NDArray[Scalar]:
    """The value of each point's pixel, (N,), from an (H, W) image; `fill` for points without a pixel."""
    values = np.empty(image.size + 1, image.dtype)
    values[:-1] = image.ravel()
    values[-1] = fill
    return np.take(values, view.pixel_of_point, mode="wrap")  # -1 wraps to the last value


def range_image(view: RangeView) -> NDArray[np.float32]:
    """(H, W) range of the point that owns each pixel in m, -1 where none does."""
    ranges = np.append(view.range_of_point, np.float32(-1.0))
    return np.take(ranges, view.point_of_pixel, mode="wrap")


def knn_vote(
    class_image: NDArray[Scalar], view: RangeView, full_circle: bool, settings: KnnSettings | None = None
) -> NDArray[Scalar]:
    """The class of each point, (N,), by a vote of the pixels around its own; 0 for points without a pixel.

    `class_image` is (H, W) with 0 where no class is. A point hidden behind another one takes the class of what is as
    far away as itself (Milioto et al., RangeNet++, IROS 2019, algorithm 1). Over a full circle the window reaches
    across the rear, and where no pixel votes the point keeps the class of its pixel; `settings.official` does neither.
    """
    settings, ranges = settings or KnnSettings(), range_image(view)
    asks = view.pixel_of_point >= 0
    if settings.hidden_m > 0:
        asks &= view.range_of_point - lift(ranges, view, np.nan) >= settings.hidden_m
    out, at = lift(class_image, view, 0), np.flatnonzero(asks)
    out[at] = vote(class_image, ranges, view.range_of_point[at], view.pixel_of_point[at], full_circle, settings)
    return out


def vote(
    class_image: NDArray[Scalar],
    ranges: NDArray[np.float32],
    range_of_point: NDArray[np.float32],
    pixel_of_point: NDArray[np.int32],
    full_circle: bool,
    settings: KnnSettings,
) -> NDArray[Scalar]:
    """The vote of `knn_vote` on plain arrays: (H, W) classes and ranges (negative = empty), (P,) points that all have a pixel.

    Where every pixel of a window that may vote has the class of the centre the result is known, so only the other
    points are counted out: about a quarter of a street scan.
    """
    classes, ranges = _padded(class_image, ranges, full_circle, settings)
    own = class_image.ravel()[pixel_of_point]
    contested = np.flatnonzero(_contested(classes, ranges, settings).ravel()[pixel_of_point])
    row, col = np.divmod(pixel_of_point[contested], np.int32(class_image.shape[1]))
    corner = row.astype(np.intp) * classes.shape[1] + col
    for start in range(0, len(contested), BLOCK):
        block = contested[start : start + BLOCK]
        nearest = _nearest_classes(classes, ranges, corner[start : start + BLOCK], range_of_point[block], settings)
        fallback = np.ones_like(own[block]) if settings.official else own[block]
        own[block] = _most_frequent(nearest, fallback)
    return own


def _padded(
    classes: NDArray[Scalar], ranges: NDArray[np.float32], full_circle: bool, settings: KnnSettings
) -> tuple[NDArray[Scalar], NDArray[np.float32]]:
    """Both images with a border of half a window; empty pixels at infinity."""
    half = settings.search // 2
    above, beside = ((half, half), (0, 0)), ((0, 0), (half, half))
    outside = 0.0 if settings.official else np.inf
    classes = np.pad(classes, above)
    ranges = np.pad(np.where(ranges < 0, np.float32(np.inf), ranges), above, constant_values=outside)
    if full_circle and not settings.official:
        return np.pad(classes, beside, mode="wrap"), np.pad(ranges, beside, mode="wrap")
    return np.pad(classes, beside), np.pad(ranges, beside, constant_values=outside)


def _contested(classes: NDArray[Any], ranges: NDArray[np.float32], settings: KnnSettings) -> NDArray[np.bool_]:
    """(H, W) whether a window holds a class that may outvote its centre, or the centre has none."""
    silent = classes == 0
    if settings.cutoff_m > 0:
        silent |= np.isinf(ranges)
    half = settings.search // 2
    centre = classes[half : classes.shape[0] - half, half : classes.shape[1] - half]
    smallest = _over_windows(np.minimum, np.where(silent, np.iinfo(classes.dtype).max, classes), settings.search)
    largest = _over_windows(np.maximum, np.where(silent, 0, classes), settings.search)
    contested: NDArray[np.bool_] = (smallest < centre) | (largest > centre) | (centre == 0)
    return contested


def _over_windows(combine: np.ufunc, image: NDArray[Any], size: int) -> NDArray[Any]:
    """A minimum or maximum over each size x size window: along the columns, then along the rows."""
    rows, cols = image.shape[0] - size + 1, image.shape[1] - size + 1
    wide = image[:, :cols].copy()
    for shift in range(1, size):
        combine(wide, image[:, shift : shift + cols], out=wide)
    tall = wide[:rows].copy()
    for shift in range(1, size):
        combine(tall, wide[shift : shift + rows], out=tall)
    return tall


def _nearest_classes(
    classes: NDArray[Scalar],
    ranges: NDArray[np.float32],
    corner: NDArray[np.intp],
    range_of_point: NDArray[np.float32],
    settings: KnnSettings,
) -> list[NDArray[Scalar]]:
    """The classes of the nearest pixels of each window, `neighbours` arrays (P,); 0 = does not vote.

    Distance and class are packed into one integer, and the smallest are kept by passing each newcomer down a short
    sorted list: whole arrays at a time, without a sort. The centre is at distance 0 and always among them.
    """
    width = classes.shape[1]
    offsets = [row * width + col for row in range(settings.search) for col in range(settings.search)]
    weights = _weights(settings).ravel()
    centre = len(offsets) // 2
    kept: list[NDArray[np.int64]] = []
    spare = np.empty(len(corner), np.int64)
    for position in (*range(centre), *range(centre + 1, len(offsets))):
        pixel = corner + offsets[position]
        candidate = classes.take(pixel).astype(np.int64)
        distance = np.abs(ranges.take(pixel) - range_of_point) * weights[position]
        silent = distance > np.float32(settings.cutoff_m or np.inf)
        if not settings.official:
            silent |= candidate == 0
        candidate |= distance.view(np.int32).astype(np.int64) << np.int64(32)
        candidate[silent] = NOBODY
        for place, held in enumerate(kept):
            np.minimum(held, candidate, out=spare)
            np.maximum(held, candidate, out=candidate)
            kept[place], spare = spare, held
        if len(kept) < settings.neighbours - 1:
            kept.append(candidate)
    others = [np.where(held == NOBODY, 0, held & CLASS_BITS).astype(classes.dtype) for held in kept]
    return [classes.take(corner + offsets[centre]), *others]


def _weights(settings: KnnSettings) -> NDArray[np.float32]:
    """(search, search) one minus a Gaussian of sum 1: pixels near the centre count as nearer."""
    offset = np.arange(settings.search, dtype=np.float32) - np.float32((settings.search - 1) / 2)
    squares = offset[:, None] ** 2 + offset[None, :] ** 2
    bell = np.exp(-squares / np.float32(2.0 * settings.sigma_px**2))
    weights: NDArray[np.float32] = np.float32(1.0) - bell / bell.sum()
    return weights


def _most_frequent(votes: Sequence[NDArray[Any]], fallback: NDArray[Any]) -> NDArray[Any]:
    """(P,) the class with the most votes, ties to the smallest id; `fallback` where all votes are 0."""
    winner, most = fallback.copy(), np.zeros(len(fallback), np.uint8)
    for ours in votes:
        count = np.zeros(len(fallback), np.uint8)
        for theirs in votes:
            count += ours == theirs
        count[ours == 0] = 0
        better = (count > most) | ((count == most) & (count > 0) & (ours < winner))
        winner[better] = ours[better]
        np.maximum(most, count, out=most)
    return winner
