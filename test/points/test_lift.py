# SPDX-License-Identifier: Apache-2.0
"""Pixels back to points: the plain look-up, and the vote beside one written out point by point."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.lift import KnnSettings, knn_vote, lift, range_image, vote
from weakseg_ros.points.projection import RangeSpec, RangeView, project


def make_view(pixel_of_point: list[int], shape: tuple[int, int], ranges: list[float]) -> RangeView:
    image = np.full(shape, -1, np.int32)
    seen = [point for point, pixel in enumerate(pixel_of_point) if pixel >= 0]
    for point in sorted(seen, key=lambda point: (-ranges[point], -point)):
        image.ravel()[pixel_of_point[point]] = point
    return RangeView(np.array(pixel_of_point, np.int32), image, np.array(ranges, np.float32))


def test_every_point_gets_its_pixels_value_and_the_others_the_fill() -> None:
    view = make_view([3, -1, 0, 3], (2, 2), [5.0, np.nan, 1.0, 9.0])
    classes = np.array([[7, 8], [9, 10]], np.uint8)
    found = lift(classes, view, 0)
    assert found.dtype == np.uint8
    assert found.tolist() == [10, 0, 7, 10]
    assert lift(classes.astype(np.float32), view, 0.5).tolist() == [10, 0.5, 7, 10]


def test_range_image_holds_the_owners_range() -> None:
    view = make_view([3, -1, 0, 3], (2, 2), [5.0, np.nan, 1.0, 9.0])
    assert range_image(view).tolist() == [[1.0, -1.0], [-1.0, 5.0]]


@given(st.integers(0, 2**32 - 1), st.integers(0, 400))
@settings(deadline=None, max_examples=40)
def test_lifting_what_owners_put_down_gives_it_back(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(count, 3)).astype(np.float32)
    cloud = Cloud(xyz, np.zeros(count, np.float32), np.zeros(count, np.uint8), width=count)
    view = project(cloud, RangeSpec(height=8, width=32, fov_up_deg=40, fov_down_deg=-50))
    back = lift(view.point_of_pixel, view, -1)
    owners = view.point_of_pixel[view.point_of_pixel >= 0]
    assert np.array_equal(back[owners], owners)
    assert (back[view.pixel_of_point < 0] == -1).all()
    assert (view.range_of_point[back[back >= 0]] <= view.range_of_point[back >= 0]).all()


def vote_by_hand(
    classes: np.ndarray, ranges: np.ndarray, distance: np.float32, pixel: int, full_circle: bool, how: KnnSettings
) -> int:
    """One point's vote, as the paper's algorithm reads."""
    height, width = classes.shape
    half, row, col = how.search // 2, *divmod(pixel, classes.shape[1])
    offsets = [(dy, dx) for dy in range(-half, half + 1) for dx in range(-half, half + 1)]
    bell = np.exp(-np.array([dy**2 + dx**2 for dy, dx in offsets], np.float32) / np.float32(2 * how.sigma_px**2))
    bell /= bell.sum()
    heard = []
    for (dy, dx), height_of_bell in zip(offsets, bell, strict=True):
        y, x = row + dy, col + dx
        if full_circle and not how.official:
            x %= width
        if 0 <= y < height and 0 <= x < width:
            label, there = int(classes[y, x]), np.float32(np.inf) if ranges[y, x] < 0 else ranges[y, x]
        elif how.official:
            label, there = 0, np.float32(0)
        else:
            continue
        centre = dy == dx == 0
        gap = np.float32(0) if centre else abs(there - distance) * (np.float32(1) - height_of_bell)
        if how.official or label > 0 or centre:
            heard.append((gap, label))
    heard.sort(key=lambda vote: vote[0])
    ballots = Counter(label for gap, label in heard[: how.neighbours] if label > 0 and not 0 < how.cutoff_m < gap)
    if not ballots:
        return 1 if how.official else int(classes[row, col])
    return min(ballots, key=lambda label: (-ballots[label], label))


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (1, 9), (4, 1), (6, 12), (9, 3)]),
    search=st.sampled_from([1, 3, 5, 7]),
    neighbours=st.integers(1, 9),
    cutoff=st.sampled_from([0.0, 0.3, 1.0, 50.0]),
    classes=st.integers(1, 5),
    official=st.booleans(),
    full_circle=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_vote_is_the_one_counted_by_hand(
    seed: int,
    shape: tuple[int, int],
    search: int,
    neighbours: int,
    cutoff: float,
    classes: int,
    official: bool,
    full_circle: bool,
) -> None:
    rng = np.random.default_rng(seed)
    how = KnnSettings(search=search, neighbours=min(neighbours, search**2), sigma_px=1.3, cutoff_m=cutoff, official=official)
    # large areas of one class, so that the short cut is taken as well
    labels = np.where(rng.random(shape) < 0.15, rng.integers(0, classes + 1, shape), 1).astype(np.uint8)
    ranges = np.where(rng.random(shape) < 0.1, -1, rng.uniform(1, 4, shape)).astype(np.float32)
    if cutoff == 0:
        ranges = np.abs(ranges) + rng.uniform(0, 1e-3, shape).astype(np.float32)  # two empty pixels would tie at infinity
    pixel = rng.integers(0, labels.size, 60).astype(np.int32)
    distance = rng.uniform(1, 4, 60).astype(np.float32)
    found = vote(labels, ranges, distance, pixel, full_circle, how)
    expected = [vote_by_hand(labels, ranges, d, p, full_circle, how) for d, p in zip(distance, pixel, strict=True)]
    assert found.tolist() == expected


def test_hidden_point_takes_the_class_at_its_own_distance() -> None:
    # a pole (2) one pixel wide before a wall (1): the wall's point behind the pole shares the pole's pixel
    classes = np.full((5, 7), 1, np.uint8)
    classes[:, 3] = 2
    ranges = [20.0] * 35 + [20.5]
    for row in range(5):
        ranges[row * 7 + 3] = 5.0
    view = make_view([*range(35), 2 * 7 + 3], (5, 7), ranges)
    assert lift(classes, view, 0)[-1] == 2
    voted = knn_vote(classes, view, full_circle=False)
    assert voted[-1] == 1
    assert voted[2 * 7 + 3] == 2


def test_only_points_far_enough_behind_their_pixels_owner_ask_when_told_so() -> None:
    classes = np.full((3, 5), 1, np.uint8)
    classes[1, 2] = 2  # outvoted by its neighbours, all of them at the same range
    view = make_view([*range(15), 7, 7], (3, 5), [10.0] * 15 + [10.2, 10.5])
    assert knn_vote(classes, view, False)[[7, 15, 16]].tolist() == [1, 1, 1]
    assert knn_vote(classes, view, False, KnnSettings(hidden_m=0.3))[[7, 15, 16]].tolist() == [2, 2, 1]


def test_window_reaches_across_the_rear_only_on_a_full_circle() -> None:
    classes = np.full((3, 8), 1, np.uint8)
    classes[:, 4:] = 2
    view = make_view(list(range(24)), (3, 8), [10.0] * 24)
    how = KnnSettings(search=3, neighbours=9, cutoff_m=1.0)
    classes[:, 0] = [2, 3, 2]  # the window of the 3 holds two 2s and three 1s, and three more 2s across the rear
    assert knn_vote(classes, view, True, how)[8] == 2
    assert knn_vote(classes, view, False, how)[8] == 1


def test_point_without_a_vote_keeps_its_pixels_class_and_without_a_pixel_gets_none() -> None:
    classes = np.array([[0, 4, 0]], np.uint8)
    view = make_view([1, 0, -1], (1, 3), [10.0, 99.0, 10.0])
    assert knn_vote(classes, view, True).tolist() == [4, 0, 0]
    assert knn_vote(classes, view, True, KnnSettings(official=True)).tolist() == [4, 1, 0]


def test_vote_over_a_view_without_points_is_empty() -> None:
    view = RangeView(np.zeros(0, np.int32), np.full((2, 3), -1, np.int32), np.zeros(0, np.float32))
    assert knn_vote(np.zeros((2, 3), np.uint8), view, True, KnnSettings(hidden_m=1.0)).shape == (0,)


@pytest.mark.parametrize("wrong", [{"search": 4}, {"search": 3, "neighbours": 10}, {"cutoff_m": float("nan")}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        KnnSettings(**wrong)  # type: ignore[arg-type]
