# SPDX-License-Identifier: Apache-2.0
"""From queries with a class and a mask each to one segment per pixel: Mask2Former's panoptic inference, on numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Segments:
    """Which segment each pixel is of, and what the S segments are."""

    image: NDArray[np.int32]
    """(H, W), or whatever shape the masks have: 1..S, 0 = none"""
    classes: NDArray[np.int64]
    """(S,) class of segment 1, 2, ... as the queries count classes"""
    things: NDArray[np.bool_]
    """(S,) whether it is a single object"""


def panoptic_inference(
    class_logits: NDArray[np.float32],
    mask_logits: NDArray[np.float32],
    things: NDArray[np.bool_],
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> Segments:
    """One segment per pixel from Q queries: class logits (Q, K + 1), the last 'no object', and mask logits (Q, H, W).

    Queries surer of a class than `object_threshold` compete for each pixel by class probability times mask probability.
    A query keeps the pixels it wins where its mask is at least 0.5, provided that it wins as many as `overlap_threshold`
    of the pixels in its mask. Queries of one stuff class share a segment; `things` (K,) says which classes do not.
    Cheng et al., Masked-attention Mask Transformer, CVPR 2022; Per-Pixel Classification is Not All You Need, NeurIPS 2021.
    """
    shape = mask_logits.shape[1:]
    score, classes = _best_class(class_logits)
    sure = (classes < len(things)) & (score > object_threshold)
    masks = _sigmoid(mask_logits[sure].reshape(int(sure.sum()), math.prod(shape)))  # (kept, P)
    classes, image = classes[sure], np.zeros(math.prod(shape), np.int32)
    segments: list[int] = []
    stuff: dict[int, int] = {}
    winner = (score[sure][:, None] * masks).argmax(axis=0) if len(masks) else np.zeros(0, np.int64)
    for query, (class_id, mask) in enumerate(zip(classes.tolist(), masks, strict=True)):
        won, inside = winner == query, mask >= 0.5
        own = won & inside
        if not own.any() or won.sum() / inside.sum() < overlap_threshold:
            continue
        number = len(segments) + 1 if things[class_id] else stuff.setdefault(class_id, len(segments) + 1)
        if number > len(segments):
            segments.append(class_id)
        image[own] = number
    found = np.array(segments, np.int64)
    return Segments(image.reshape(shape), found, things[found])


def _best_class(logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(Q,) probability and number of each query's likeliest class."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds.max(axis=1) / odds.sum(axis=1), logits.argmax(axis=1)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # the exponential of a large negative logit overflows to infinity, whose inverse is the 0 that is wanted
    with np.errstate(over="ignore"):
        probability: NDArray[np.float32] = np.reciprocal(1 + np.exp(-logits), dtype=np.float32)
    return probability
