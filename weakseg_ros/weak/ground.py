# SPDX-License-Identifier: Apache-2.0
"""Which points are ground, from their places alone: below every object of a bounded size lies a surface that goes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from weakseg_ros.config import check_ranges, setting

_FARTHEST_M = 150.0


@dataclass(frozen=True)
class GroundSettings:
    """Sets what counts as ground."""

    cell_m: float = setting(1.0, 0.05, 10.0)
    """Sets the cell size in metres of the grid of lowest points (0.05 to 10)."""
    opening_m: float = setting(6.0, 0.5, 100.0)
    """Sets the largest width in metres of a raised structure that stands on the ground (0.5 to 100); wider ones count as
    ground."""
    height_m: float = setting(0.15, 0.0, 10.0)
    """Sets the height in metres above the ground surface below which points belong to the ground (0 to 10)."""

    def __post_init__(self) -> None:
        check_ranges(self)


def ground_points(xyz: NDArray[np.float32], settings: GroundSettings | None = None) -> NDArray[np.bool_]:
    """(N,) True for points of the ground: `xyz` (N, 3) in m, z up, finite; points beyond 150 m are none.

    The lowest points of a grid are opened, a minimum then a maximum over a window, as a progressive morphological filter
    does (Zhang et al., IEEE TGRS 2003): objects vanish, slopes stay.
    """
    settings = settings or GroundSettings()
    size = int(2 * _FARTHEST_M / settings.cell_m) + 1
    column = np.floor((xyz[:, :2] + np.float32(_FARTHEST_M)) / np.float32(settings.cell_m)).astype(np.int64)
    inside = ((column >= 0) & (column < size)).all(axis=1)
    cell = column[inside] @ np.array([size, 1])
    z = xyz[inside, 2]
    lowest = np.full(size * size, np.inf, np.float32)
    np.minimum.at(lowest, cell, z)
    window = int(settings.opening_m / settings.cell_m) | 1
    ground = ndimage.minimum_filter(lowest.reshape(size, size), window, mode="constant", cval=np.inf)
    ground[np.isinf(ground)] = -np.inf
    ground = ndimage.maximum_filter(ground, window, mode="constant", cval=-np.inf).ravel()
    answer = np.zeros(len(xyz), np.bool_)
    answer[inside] = z < ground[cell] + np.float32(settings.height_m)
    return answer
