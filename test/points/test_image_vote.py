# SPDX-License-Identifier: Apache-2.0
"""The vote of pixels at the same range, against a count by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from weakseg_ros.points.image_vote import NEAR_M, NEAR_SHARE, STEPS, image_vote
from weakseg_ros.points.projection import RangeView


def make_view(pixel_of_point: list[int], shape: tuple[int, int], ranges: list[float]) -> RangeView:
    """A view in which the nearest point owns each pixel."""
    pixels, distance = np.array(pixel_of_point, np.int32), np.array(ranges, np.float32)
    owner = np.full(shape[0] * shape[1], -1, np.int32)
    for point in sorted(range(len(pixels)), key=lambda i: (-distance[i], -i)):
        if pixels[point] >= 0:
            owner[pixels[point]] = point
    return RangeView(pixels, owner.reshape(shape), distance)


def by_hand(classes: NDArray[np.uint8], view: RangeView, full_circle: bool, point: int) -> int:
    """The rule of image_vote, for one point."""
    pixel, rows, cols = int(view.pixel_of_point[point]), *classes.shape
    if pixel < 0:
        return 0
    owner, own = int(view.point_of_pixel.flat[pixel]), int(classes.flat[pixel])
    behind = view.range_of_point[point] - view.range_of_point[owner]
    hidden = behind > np.float32(NEAR_M) + np.float32(NEAR_SHARE) * view.range_of_point[point]
    asks = view.range_of_point[point if hidden else owner]
    near = np.float32(NEAR_M) + np.float32(NEAR_SHARE) * asks
    votes: Counter[int] = Counter() if hidden or not own else Counter({own: 1})
    for step in STEPS:
        for down in (-step, 0, step):
            for right in (-step, 0, step):
                row, col = pixel // cols + down, pixel % cols + right
                if (down, right) == (0, 0) or not 0 <= row < rows or not (full_circle or 0 <= col < cols):
                    continue
                voter = view.point_of_pixel[row, col % cols]
                if voter >= 0 and abs(view.range_of_point[voter] - asks) <= near and classes[row, col % cols]:
                    votes[int(classes[row, col % cols])] += 1
    if not votes:
        return own
    return own if votes[own] == max(votes.values()) else min(votes, key=lambda name: (-votes[name], name))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(3, 16), (9, 13), (14, 14), (1, 30)]),
    classes=st.integers(1, 9),
    full_circle=st.booleans(),
)
def test_every_point_gets_what_a_count_by_hand_gives(seed: int, shape: tuple[int, int], classes: int, full_circle: bool) -> None:
    rng = np.random.default_rng(seed)
    image = np.where(rng.random(shape) < 0.3, rng.integers(0, classes + 1, shape), 1).astype(np.uint8)
    pixels = rng.integers(-1, image.size, 3 * image.size).astype(np.int32).tolist()
    ranges = rng.choice(np.array([5.0, 5.25, 5.5, 9.0], np.float32), len(pixels)).tolist()
    view = make_view(pixels, shape, ranges)
    image[view.point_of_pixel < 0] = 0  # as the network's answers come
    found = image_vote(image, view, full_circle)
    assert found.tolist() == [by_hand(image, view, full_circle, point) for point in range(len(pixels))]


def test_single_mistakes_are_outvoted_and_another_object_is_not() -> None:
    image = np.full((14, 20), 1, np.uint8)
    image[7, 3] = 2  # alone on the wall
    image[:, 12:15] = 3  # a pole before it, as wide as three pixels
    ranges = np.full(image.shape, 20.0)
    ranges[:, 12:15] = 5.0
    view = make_view([*range(image.size)], (14, 20), ranges.ravel().tolist())
    found = image_vote(image, view, full_circle=False).reshape(image.shape)
    assert found[7, 3] == 1
    assert (found[:, 12:15] == 3).all()


def test_a_hidden_point_takes_the_class_at_its_own_range() -> None:
    image = np.full((5, 7), 1, np.uint8)
    image[:, 3] = 2
    ranges = [20.0] * 35 + [20.3]
    for row in range(5):
        ranges[row * 7 + 3] = 5.0
    found = image_vote(image, make_view([*range(35), 17], (5, 7), ranges), full_circle=False)
    assert found[[17, 35]].tolist() == [2, 1]


def test_voters_reach_across_the_rear_only_on_a_full_circle() -> None:
    image = np.array([[2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]], np.uint8)
    view = make_view([*range(18)], (1, 18), [10.0] * 18)
    assert image_vote(image, view, True)[0] == 2
    assert image_vote(image, view, False)[0] == 1


@pytest.mark.parametrize("shape", [(2, 3), (1, 1)])
def test_without_points_there_is_nothing_to_vote_on(shape: tuple[int, int]) -> None:
    view = RangeView(np.zeros(0, np.int32), np.full(shape, -1, np.int32), np.zeros(0, np.float32))
    assert image_vote(np.zeros(shape, np.uint8), view, True).shape == (0,)
