# SPDX-License-Identifier: Apache-2.0
"""Boxes around objects, as data sets give them, and the points of a cloud that belong to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOOR_M = 0.15
"""lowest part of a box that is taken for the ground it stands on"""


@dataclass(frozen=True)
class ObjectBox:
    """An upright box; x ahead, y to the left, z up, m."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    """length along its heading, width, height"""
    heading_rad: float
    """about z, 0 along x"""


def points_in_box(xyz: NDArray[np.float32], box: ObjectBox, margin_m: float = 0.1, floor_m: float = FLOOR_M) -> NDArray[np.bool_]:
    """(N,) which points lie in a box that is `margin_m` wider on all sides and leaves out its lowest `floor_m`."""
    offset = xyz - np.asarray(box.centre, np.float32)
    cosine, sine = np.cos(box.heading_rad), np.sin(box.heading_rad)
    along, across = cosine * offset[:, 0] + sine * offset[:, 1], cosine * offset[:, 1] - sine * offset[:, 0]
    length, width, height = (side / 2 for side in box.size)
    inside: NDArray[np.bool_] = (np.abs(along) <= length + margin_m) & (np.abs(across) <= width + margin_m)
    return inside & (offset[:, 2] >= floor_m - height) & (offset[:, 2] <= height + margin_m)
