# SPDX-License-Identifier: Apache-2.0
"""Ways along the surfaces that the sensor sees: neighbouring pixels are joined where no gap lies between their points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.points.neighbours import PixelNeighbours

_SHORTEST_M = 1e-6  # a way of length 0 would be no way to scipy


@dataclass(frozen=True)
class SurfaceSettings:
    """Sets when two pixels lie on the same surface."""

    gap_m: float = setting(0.8, 0.0, 100.0)
    """Sets the largest gap in metres between neighbouring pixels of one surface (0 to 100)."""
    gap_share: float = setting(0.03, 0.0, 1.0)
    """Sets the largest gap as a fraction of the range (0 to 1); the larger of this and `gap_m` applies."""
    rows: int = setting(3, 1, 8)
    """Sets the number of rows of the range image over which neighbours are searched (1 to 8)."""
    cols: int = setting(5, 1, 16)
    """Sets the number of columns of the range image over which neighbours are searched (1 to 16)."""

    def __post_init__(self) -> None:
        check_ranges(self)


def surface_graph(
    at: NDArray[np.int64], xyz: NDArray[np.float32], shape: tuple[int, ...], full_circle: bool, settings: SurfaceSettings
) -> csr_array:
    """The ways between P pixels, each pair once, (P, P), lengths in m: rising flat indices `at` in an image of `shape`,
    and the places of their points (P, 3) m.
    """
    near = PixelNeighbours(at, shape, full_circle, settings.rows, settings.cols)
    gap = np.maximum(np.float32(settings.gap_m), np.float32(settings.gap_share) * np.linalg.norm(xyz, axis=1))
    starts, ends, lengths = [], [], []
    for offset in near.half_window:
        other = near.at(*offset)
        start = np.flatnonzero(other >= 0)
        end = other[start]
        apart = xyz[start] - xyz[end]
        length = np.sqrt(np.einsum("pi,pi->p", apart, apart))
        joined = length <= np.minimum(gap[start], gap[end])
        starts.append(start[joined])
        ends.append(end[joined])
        lengths.append(np.maximum(length[joined], np.float32(_SHORTEST_M)))
    ways = np.concatenate(starts), np.concatenate(ends)
    return csr_array((np.concatenate(lengths), ways), shape=(len(at),) * 2)


def surface_distances(graph: csr_array, starts: NDArray[np.int64], farthest_m: float) -> NDArray[np.float32]:
    """(M, P) length in m of the shortest way from each start to every pixel, inf where there is none up to `farthest_m`."""
    if not len(starts):
        return np.zeros((0, graph.shape[0]), np.float32)
    distance: NDArray[np.float64] = dijkstra(graph, directed=False, indices=starts, limit=farthest_m)
    return distance.astype(np.float32)
