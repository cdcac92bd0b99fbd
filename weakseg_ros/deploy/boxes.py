# SPDX-License-Identifier: Apache-2.0
"""From points to boxes: where each object stands, how large its seen part is, and which way it lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FARTHEST_M = 1e5
"""no point of an object is farther away; such coordinates are faults, like NaN"""
SAMPLE = 100
"""points of an object that choose its heading; its size is taken from all of them"""
NEAR_EDGE_M = 0.1
"""points this near to an edge count alike, so that noise on a flat side does not decide"""
TIGHTNESS = 0.2
"""how much a tight rectangle counts beside points near its edges; decides where all headings are alike, as for few points"""
COARSE_DEG, FINE_DEG = 6.0, 1.5
BOX_DTYPE = np.dtype(
    [
        ("instance_id", np.uint16),
        ("class_id", np.uint8),
        ("centre_m", np.float32, 3),
        ("size_m", np.float32, 3),
        ("yaw_rad", np.float32),
        ("score", np.float32),
        ("points", np.int32),
    ]
)
"""one object: centre x, y, z and size length, width, height in m, length >= width; yaw from the x axis to the length,
-pi/2..pi/2, since front and back look alike; score = mean confidence, 0..1; number of points"""


@dataclass(frozen=True)
class ObjectPoints:
    """The points of the M objects of a cloud, object by object, in the cloud's order within each."""

    ids: NDArray[np.uint16]
    """(M,) instance ids"""
    count: NDArray[np.int64]
    """(M,) number of points of each object"""
    at: NDArray[np.int64]
    """(P,) index of each point in the cloud"""
    xyz: NDArray[np.float32]
    """(3, P) m, one row an axis"""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def start(self) -> NDArray[np.int64]:
        """(M,) where each object begins among the P."""
        return np.cumsum(self.count) - self.count

    @property
    def owner(self) -> NDArray[np.int64]:
        """(P,) number 0..M-1 of each point's object."""
        return np.repeat(np.arange(len(self)), self.count)

    def chosen(self, which: NDArray[np.int64]) -> ObjectPoints:
        """The objects of these numbers, in this order."""
        points = rows_of(self.count, which)
        return ObjectPoints(self.ids[which], self.count[which], self.at[points], self.xyz[:, points])

    def sample(self, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """At most `limit` points of each object, evenly over its rows: (S,) which of the P, and (M,) how many of each."""
        taken = np.minimum(self.count, limit)
        step = np.repeat(self.count / np.maximum(taken, 1), taken)
        number = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
        return np.repeat(self.start, taken) + (number * step).astype(np.int64), taken

    def commonest(self, class_id: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(M,) the class of most points of each object, out of the cloud's (N,); of equals the lowest."""
        width = int(class_id.max(initial=0)) + 1
        votes = np.bincount(self.owner * width + class_id[self.at], minlength=len(self) * width)
        best: NDArray[np.int64] = votes.reshape(len(self), width).argmax(axis=1)
        return best


def objects_of(xyz: NDArray[np.float32], instance_id: NDArray[np.uint16]) -> ObjectPoints:
    """The objects of a cloud in ascending order of their ids.

    `xyz` is (N, 3) in m, `instance_id` (N,), 0 = none; points that are NaN, infinite or absurdly far belong to no object.
    """
    at = np.flatnonzero(instance_id)
    x, y, z = (np.ascontiguousarray(xyz[:, axis]).take(at) for axis in range(3))
    with np.errstate(invalid="ignore", over="ignore"):
        usable = np.flatnonzero(np.abs(x) + np.abs(y) + np.abs(z) < FARTHEST_M)
    ids = instance_id.take(at.take(usable))
    order = usable.take(np.argsort(ids, kind="stable"))  # a radix sort for 16 bits
    at = at.take(order)
    ids = instance_id.take(at)
    start = np.flatnonzero(np.diff(ids.astype(np.int32), prepend=0))
    return ObjectPoints(ids[start], np.diff(start, append=len(ids)), at, np.stack([part.take(order) for part in (x, y, z)]))


def rows_of(count: NDArray[np.int64], which: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the rows that belong to the groups `which`, group by group, where group i has `count[i]` of them."""
    taken = count[which]
    begin = (np.cumsum(count) - count)[which] - (np.cumsum(taken) - taken)
    rows: NDArray[np.int64] = np.arange(taken.sum()) + np.repeat(begin, taken)
    return rows


def boxes(
    xyz: NDArray[np.float32], instance_id: NDArray[np.uint16], class_id: NDArray[np.uint8], confidence: NDArray[np.float32]
) -> NDArray[np.void]:
    """One upright box (BOX_DTYPE) around the points of each instance, in ascending order of the ids: (M,).

    `xyz` (N, 3) m, the others (N,); points that are not finite are left out, and an instance without any other has no
    box. A box holds the seen part of its object. Its heading is the one in which the points lie nearest to the
    rectangle's edges: two sides of a car make an L (Zhang et al., Efficient L-Shape Fitting for Vehicle Detection Using
    Laser Scanners, IV 2017, closeness criterion). Its class is the one of most of its points.
    """
    objects = objects_of(xyz, instance_id)
    found = np.zeros(len(objects), BOX_DTYPE)
    if not len(objects):
        return found
    start = objects.start
    heading = _headings(objects)
    cosine, sine = (np.repeat(part, objects.count) for part in (np.cos(heading), np.sin(heading)))
    x, y, z = objects.xyz
    sides = (x * cosine + y * sine, y * cosine - x * sine, z)
    low = np.stack([np.minimum.reduceat(side, start) for side in sides], axis=1)
    high = np.stack([np.maximum.reduceat(side, start) for side in sides], axis=1)
    found["instance_id"], found["points"] = objects.ids, objects.count
    found["class_id"] = objects.commonest(class_id)
    found["score"] = np.add.reduceat(confidence[objects.at].astype(np.float64), start) / objects.count
    _place(found, heading, low, high)
    return found


def _place(found: NDArray[np.void], heading: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> None:
    """Fill in centre, size and yaw from the extents (M, 3) along and across the heading and upwards."""
    middle, size = (low + high) / 2, high - low
    cosine, sine = np.cos(heading), np.sin(heading)
    along, across, up = middle.T
    found["centre_m"] = np.stack([along * cosine - across * sine, along * sine + across * cosine, up], axis=1)
    turned = size[:, 1] > size[:, 0]
    size[turned, :2] = size[turned, 1::-1]
    found["size_m"] = size
    yaw = heading + np.where(turned, np.pi / 2, 0.0)
    found["yaw_rad"] = np.where(yaw > np.pi / 2, yaw - np.pi, yaw)


def _headings(objects: ObjectPoints) -> NDArray[np.float32]:
    """(M,) heading of each object's rectangle in rad, 0..pi/2 and a little beyond."""
    chosen, taken = objects.sample(SAMPLE)
    start = np.cumsum(taken) - taken
    owner = np.repeat(np.arange(len(taken)), taken)
    x, y = objects.xyz[:2, chosen] - objects.xyz[:2, objects.start][:, owner]
    coarse = np.radians(np.arange(0.0, 90.0, COARSE_DEG))[:, None] + np.zeros(len(taken))
    best = _best_heading(x, y, start, owner, coarse.astype(np.float32))
    fine = best + np.radians(np.arange(-COARSE_DEG / 2, COARSE_DEG / 2 + 0.1, FINE_DEG))[:, None]
    return _best_heading(x, y, start, owner, fine.astype(np.float32))


def _best_heading(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    start: NDArray[np.int64],
    owner: NDArray[np.int64],
    headings: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(M,) the one of the `headings` (A, M) in rad in which an object's points lie nearest to edges; of equals the first."""
    cosine, sine = np.cos(headings)[:, owner], np.sin(headings)[:, owner]  # (A, S)
    along, length = _to_extremes(x * cosine + y * sine, start, owner)
    across, width = _to_extremes(y * cosine - x * sine, start, owner)
    near = np.float32(NEAR_EDGE_M) / np.maximum(np.minimum(along, across), np.float32(NEAR_EDGE_M))
    closeness = np.add.reduceat(near, start, axis=1) / np.diff(start, append=len(owner))  # (A, M) 0..1
    girth = length + width
    merit = closeness - TIGHTNESS * girth / np.maximum(girth.max(axis=0), np.float32(1e-6))
    chosen = (merit >= merit.max(axis=0) - 1e-5).argmax(axis=0)  # less than that is rounding
    best: NDArray[np.float32] = headings[chosen, np.arange(headings.shape[1])]
    return best


def _to_extremes(
    side: NDArray[np.float32], start: NDArray[np.int64], owner: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(A, S) distance of each coordinate to the nearer of its object's two extremes, and (A, M) how far these are apart."""
    low = np.minimum.reduceat(side, start, axis=1)
    high = np.maximum.reduceat(side, start, axis=1)
    return np.minimum(side - low[:, owner], high[:, owner] - side), high - low
