# SPDX-License-Identifier: Apache-2.0
"""What a click with the brush or the eraser reaches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GROWTH = 1.3
"""by how much the brush, or a mask's reach, grows or shrinks at a time"""
ERASER_M = 0.3
"""an eraser takes what is so close to the clicked point along with it"""
SMALLEST_BRUSH_M, LARGEST_BRUSH_M = 0.05, 3.0


def brush_radius(radius_m: float) -> float:
    """The radius that the brush gets when this one is asked for, m; 0 is a brush of one point."""
    return 0.0 if radius_m < SMALLEST_BRUSH_M else min(radius_m, LARGEST_BRUSH_M)


def brush_step(radius_m: float, growth: float) -> float:
    """The radius after a brush of this radius, m, has grown or shrunk; a brush of one point grows to the smallest ball."""
    return brush_radius(max(radius_m, SMALLEST_BRUSH_M / GROWTH) * growth)


def within(xyz: NDArray[np.float32], point: int, radius_m: float) -> NDArray[np.bool_]:
    """(N,) which of the points (N, 3) lie within a radius of one of them, m."""
    near: NDArray[np.bool_] = np.linalg.norm(xyz - xyz[point], axis=1) <= radius_m
    return near


def painted(xyz: NDArray[np.float32], shown: NDArray[np.bool_], point: int, radius_m: float) -> NDArray[np.int64]:
    """(P,) the shown points that a click with the brush labels; with radius 0 the clicked one alone."""
    return np.flatnonzero(shown & within(xyz, point, radius_m)) if radius_m else np.array([point])


def erased(
    xyz: NDArray[np.float32],
    shown: NDArray[np.bool_],
    class_id: NDArray[np.uint8],
    instance_id: NDArray[np.uint16],
    point: int,
    radius_m: float,
) -> NDArray[np.int64]:
    """(P,) the labelled points within the brush, or of the whole object where the clicked point belongs to a numbered one."""
    if instance_id[point]:
        return np.flatnonzero((class_id == class_id[point]) & (instance_id == instance_id[point]))
    return np.flatnonzero(shown & within(xyz, point, max(ERASER_M, radius_m)) & (class_id > 0))
