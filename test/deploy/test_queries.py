# SPDX-License-Identifier: Apache-2.0
"""Panoptic inference by hand: who wins a pixel, who is dropped, which stuff is joined."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.deploy.queries import panoptic_inference

THINGS = np.array([True, False])
CAR, ROAD, NOTHING = 0, 1, 2


def answer(queries: list[tuple[int, float, list[float]]], **thresholds: float) -> tuple[list[int], list[int]]:
    """(segment of each pixel, classes) for queries of (class, its probability, mask probabilities)."""
    classes = np.full((len(queries), 3), 1e-9)
    for row, (name, probability, _) in zip(classes, queries, strict=True):
        row[name], row[(name + 1) % 3] = probability, 1 - probability
    masks = np.array([mask for _, _, mask in queries])
    logits = np.log(masks / (1 - masks)).astype(np.float32)[:, None]
    found = panoptic_inference(np.log(classes).astype(np.float32), logits, THINGS, **thresholds)
    return found.image[0].tolist(), found.classes.tolist()


def test_the_surer_query_wins_a_pixel_that_both_claim() -> None:
    two = [(CAR, 0.95, [0.9, 0.9, 0.1]), (CAR, 0.85, [0.1, 0.92, 0.9])]
    assert answer(two, overlap_threshold=0.4) == ([1, 1, 2], [CAR, CAR])


def test_a_query_that_loses_most_of_its_mask_is_dropped() -> None:
    two = [(CAR, 0.95, [0.9, 0.9, 0.1]), (CAR, 0.85, [0.1, 0.92, 0.9])]
    assert answer(two, overlap_threshold=0.6) == ([1, 1, 0], [CAR])


def test_stuff_is_one_segment_and_things_are_many() -> None:
    three = [(ROAD, 0.9, [0.9, 0.1, 0.1, 0.1]), (CAR, 0.9, [0.1, 0.9, 0.1, 0.1]), (ROAD, 0.9, [0.1, 0.1, 0.1, 0.9])]
    assert answer(three) == ([1, 2, 0, 1], [ROAD, CAR])


def test_unsure_queries_and_those_without_an_object_are_silent() -> None:
    assert answer([(CAR, 0.7, [0.9, 0.9]), (NOTHING, 0.99, [0.9, 0.9])]) == ([0, 0], [])


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.floats(0.0, 0.9), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=40)
def test_segments_are_numbered_without_a_gap_and_none_is_empty(seed: int, queries: int, sure: float, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (
        5 * rng.standard_normal((queries, 3)).astype(np.float32),
        60 * rng.standard_normal((queries, 4, 5)).astype(np.float32),
    )
    found = panoptic_inference(*logits, THINGS, sure, overlap)
    assert set(np.unique(found.image)) - {0} == set(range(1, len(found.classes) + 1))
    assert (found.classes == ROAD).sum() <= 1
    assert np.array_equal(found.things, found.classes == CAR)
