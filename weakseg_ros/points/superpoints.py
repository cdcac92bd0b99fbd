# SPDX-License-Identifier: Apache-2.0
"""Superpoints: the objects of a scan and pieces of the rest, each with what a sentence may say of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PLACE_M = 20.0
"""positions are told in this unit"""
GEOMETRY = (
    *("ahead", "left", "up", "log_distance", "sine", "cosine", "log_width", "height_m", "log_points", "confidence", "object"),
    *("alone", "nearest", "nearest_ahead", "nearest_on_side", "leftmost", "rightmost", "widest", "tallest", "farthest"),
)
"""what `describe` says of each superpoint besides its class, the classes around it and the network's features"""


@dataclass(frozen=True)
class Superpoints:
    """S superpoints of a scan."""

    centre: NDArray[np.float32]
    """(S, 3) mean of the points, m"""
    width_m: NDArray[np.float32]
    """(S,) diagonal of the ground plan"""
    height_m: NDArray[np.float32]
    """(S,) of the points, from the lowest to the highest"""
    points: NDArray[np.float32]
    """(S,) number of pixels"""
    confidence: NDArray[np.float32]
    """(S,) mean of the pixels' confidence"""
    classes: NDArray[np.float32]
    """(S, K) share of the pixels in each class"""
    around: NDArray[np.float32]
    """(S, K) share of the pixels nearby in each class"""
    single: NDArray[np.bool_]
    """(S,) whether it is a single object, no piece of the rest"""
    features: NDArray[np.float32]
    """(S, D) mean of the network's features"""

    def __len__(self) -> int:
        return len(self.points)

    def only(self, kept: NDArray[np.bool_]) -> Superpoints:
        """Those that are kept, (S,) bool."""
        return Superpoints(**{field.name: getattr(self, field.name)[kept] for field in dataclasses.fields(self)})

    def mirrored(self) -> Superpoints:
        """Left and right exchanged."""
        return dataclasses.replace(self, centre=self.centre * np.array([1, -1, 1], np.float32))

    def turned(self, angle_rad: float) -> Superpoints:
        """Turned about the sensor, to the left where the angle is positive."""
        cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
        turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], np.float32)
        return dataclasses.replace(self, centre=self.centre @ turn.T)


def columns(num_classes: int, features: int) -> int:
    """F, the length of what `describe` says of a superpoint."""
    return len(GEOMETRY) + 2 * num_classes + features


def describe(superpoints: Superpoints) -> NDArray[np.float32]:
    """(S, F) what is said of each superpoint: GEOMETRY, its classes, the classes around it, the features.

    `alone` to `farthest` compare the single objects of one class: 1 for the first, 1/2 for the second, and so on; `alone` is
    1 over their number. Nothing of it is learnt, so that order and side need few examples.
    """
    x, y, z = superpoints.centre.T
    distance = np.hypot(x, y)
    reach = np.maximum(distance, np.float32(1e-3))
    plain = [x / PLACE_M, y / PLACE_M, z / 2, np.log1p(distance) - 2, y / reach, x / reach]
    plain += [np.log1p(superpoints.width_m), superpoints.height_m / 2, np.log1p(superpoints.points) / 2, superpoints.confidence]
    table = np.stack([*plain, superpoints.single, *_orders(superpoints, distance)], axis=1)
    return np.concatenate([table, superpoints.classes, superpoints.around, superpoints.features], axis=1).astype(np.float32)


def _orders(superpoints: Superpoints, distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """(9, S) from `alone` to `farthest`; 0 for what is no single object."""
    count = len(superpoints)
    if not count:
        return np.zeros((9, 0), np.float32)
    x, y, _ = superpoints.centre.T
    kind = superpoints.classes.argmax(axis=1)
    alike = (kind[:, None] == kind[None]) & superpoints.single[:, None] & superpoints.single[None]  # (S, S)
    ahead, sided = x > 0, np.sign(y)
    azimuth = np.arctan2(y, x)
    in_front = alike & ahead[:, None] & ahead[None]
    on_side = alike & (sided[:, None] == sided[None]) & ahead[:, None] & ahead[None]
    pairs = [(alike, distance), (in_front, distance), (on_side, distance), (in_front, -azimuth), (in_front, azimuth)]
    pairs += [(alike, -superpoints.width_m), (alike, -superpoints.height_m), (alike, -distance)]
    orders = [_first(among, key) for among, key in pairs]
    alone = 1 / np.maximum(alike.sum(axis=1), 1) * superpoints.single
    return np.stack([alone, *orders]).astype(np.float32)


def _first(among: NDArray[np.bool_], key: NDArray[np.float32]) -> NDArray[np.float32]:
    """(S,) 1 over the place in the order of the key among those of (S, S); 0 where it is not among them itself."""
    before = (among & (key[None] < key[:, None])).sum(axis=1)
    place: NDArray[np.float32] = np.where(np.diagonal(among), 1 / (1 + before), 0).astype(np.float32)
    return place
