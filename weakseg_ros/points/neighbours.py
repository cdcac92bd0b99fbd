# SPDX-License-Identifier: Apache-2.0
"""Neighbours in a range image among a chosen few of its pixels: what grouping and distances along surfaces walk over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class PixelNeighbours:
    """P pixels, given by their rising flat index `at` in an image of `shape`, and who lies beside whom.

    A window reaches `rows` up and down and `cols` to both sides; over a full circle it reaches across the rear.
    """

    def __init__(self, at: NDArray[np.int64], shape: tuple[int, ...], full_circle: bool, rows: int, cols: int) -> None:
        height, width = shape
        cols = min(cols, width)
        self.rows, self.cols = rows, cols
        self.row, self.col = np.divmod(at, width)
        self._stride = width + 2 * cols
        self._place = self.row * self._stride + self.col + cols
        number = np.full((height + rows, self._stride), -1, np.int32)  # of the pixel in each place, -1 = none
        number.ravel()[self._place] = np.arange(len(at), dtype=np.int32)
        if full_circle:
            number[:, :cols] = number[:, width : width + cols]
            number[:, width + cols :] = number[:, cols : 2 * cols]
        self._number = number.ravel()

    @property
    def half_window(self) -> list[tuple[int, int]]:
        """(rows down, columns to the right) of the later half of the window: each pair of neighbours turns up once."""
        beside = [(0, right) for right in range(1, self.cols + 1)]
        below = [(down, right) for down in range(1, self.rows + 1) for right in range(-self.cols, self.cols + 1)]
        return beside + below

    def at(self, down: int, right: int) -> NDArray[np.int32]:
        """(P,) number of the pixel that lies so many rows below and columns to the right of each one, -1 where none does."""
        found: NDArray[np.int32] = self.around([(down, right)])[0]
        return found

    def around(self, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
        """(M, P) what `at` says of each of M offsets."""
        steps = np.array([down * self._stride + right for down, right in offsets])
        found: NDArray[np.int32] = self._number.take(self._place + steps[:, None])
        return found
