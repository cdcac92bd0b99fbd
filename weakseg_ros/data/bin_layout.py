# SPDX-License-Identifier: Apache-2.0
"""A .bin file of points says nothing about itself: how many columns has it, of which type?

In the right layout x and z are distributed differently. In a wrong one every column is the same mixture of all of them, and
doubles read as floats are no lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError, counted

SAMPLE_ROWS = 20_000
DIFFERENT = 0.08
"""largest difference of two cumulative distributions above which two columns are not the same mixture"""
CHANCE = 1.8
"""times the root of two over the number of rows, what two samples of one mixture differ by once in a thousand times"""
LONGEST_M, LONGEST_IN_A_MAP_M = 1e4, 1e8
"""coordinates of a cloud in its sensor's frame, in any usual unit, and of one in a map's, where columns are named"""
USUAL = ("x", "y", "z", "intensity", "ring", "time")


class BinLayout(NamedTuple):
    """Columns and type of a point's numbers."""

    columns: int
    dtype: str
    """numpy's name: <f4 or <f8, or >f4 or >f8 in the other byte order"""

    @property
    def point_bytes(self) -> int:
        """Bytes of one point."""
        return self.columns * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        kind = {"f4": "float32", "f8": "float64"}[self.dtype[1:]] + (" in big-endian byte order" if self.dtype[0] == ">" else "")
        return (
            f"{counted(self.columns, 'column')} of {kind} ({', '.join(USUAL[: self.columns])}), {self.point_bytes} bytes a point"
        )


KITTI = BinLayout(4, "<f4")
LAYOUTS = (KITTI, *(BinLayout(columns, kind) for kind in ("<f4", "<f8") for columns in (5, 6, 4, 3) if (columns, kind) != KITTI))
OTHER_ORDER = tuple(BinLayout(layout.columns, layout.dtype.replace("<", ">")) for layout in LAYOUTS)
"""tried where the bytes are points in none of LAYOUTS"""
SHOWN = "x, y, z, intensity as little-endian float32, 16 bytes a point, one file per scan"
"""the layout of SemanticKITTI's velodyne/*.bin, for messages"""


def read_bin(blob: bytes, layout: BinLayout) -> NDArray[np.float32]:
    """(N, columns) of a file's bytes; bytes that are no whole point must have been refused."""
    values: NDArray[np.float32] = np.frombuffer(blob, layout.dtype).reshape(-1, layout.columns).astype(np.float32, copy=False)
    return values


def plausible_layouts(blob: bytes) -> list[BinLayout]:
    """The layouts in which the bytes can be points, KITTI's first; those in the other byte order where there is no other."""
    return _plausible(blob, LAYOUTS) or _plausible(blob, OTHER_ORDER)


def _plausible(blob: bytes, layouts: Sequence[BinLayout]) -> list[BinLayout]:
    return [layout for layout in layouts if len(blob) % layout.point_bytes == 0 and _is_plausible(blob, layout)]


def find_layout(blob: bytes) -> BinLayout | None:
    """The one layout of a file, the only plausible one or KITTI's; None = unknown."""
    found = plausible_layouts(blob)
    return found[0] if len(found) == 1 or KITTI in found else None


def named_layout(blob: bytes, columns: tuple[str, ...], where: str) -> BinLayout:
    """The layout of these columns; the type is that in which the bytes are whole points and lengths. Raises DataError."""
    layouts = [BinLayout(len(columns), dtype) for dtype in ("<f4", "<f8", ">f4", ">f8")]
    whole = [layout for layout in layouts if len(blob) % layout.point_bytes == 0]
    if not whole:
        sizes = " or ".join(str(layout.point_bytes) for layout in layouts[:2])
        raise DataError(
            f"{where}: has {len(blob)} bytes, not whole points of {counted(len(columns), 'column')} "
            f"({sizes} bytes); check columns"
        )
    lowered = [name.lower() for name in columns]
    axes = [lowered.index(axis) for axis in "xyz" if axis in lowered] or [0]
    for longest in (LONGEST_M, LONGEST_IN_A_MAP_M):
        for layout in whole:
            if _are_lengths(_sample(blob, layout)[:, axes], longest):
                return layout
    if not blob.strip(b"\0"):
        return whole[0]
    raise DataError(
        f"{where}: x, y and z are no lengths as any of float32 and float64 with {counted(len(columns), 'column')}; "
        "check the number of columns and the type of the numbers"
    )


def _sample(blob: bytes, layout: BinLayout) -> NDArray[np.float64]:
    rows = min(SAMPLE_ROWS, len(blob) // layout.point_bytes)
    values = np.frombuffer(blob, layout.dtype, rows * layout.columns).reshape(rows, layout.columns)
    with np.errstate(all="ignore"):  # in the wrong layout the numbers may be anything
        return values.astype(np.float64)


def _are_lengths(xyz: NDArray[np.float64], longest: float = LONGEST_M) -> bool:
    with np.errstate(all="ignore"):
        size = np.abs(xyz).max(axis=1)
        told = size[np.isfinite(size) & (size > 0)]
        return bool(len(told) and np.mean((told > 1e-3) & (told < longest)) > 0.99)


def _is_plausible(blob: bytes, layout: BinLayout) -> bool:
    xyz = _sample(blob, layout)[:, :3]
    if not len(xyz) or not _are_lengths(xyz):
        return False
    if layout.columns in (3, 6) and (layout.columns == 3) != _are_pairs(blob, BinLayout(6, layout.dtype)):
        return False
    xyz = xyz[np.isfinite(xyz).all(axis=1)]
    return all(_are_different(xyz[:, axis], xyz[:, 2]) for axis in (0, 1))


def _are_pairs(blob: bytes, six: BinLayout) -> bool:
    """Whether the columns 4 to 6 are like 1 to 3, because a row is two points without an intensity."""
    values = _sample(blob, six)
    values = values[np.isfinite(values).all(axis=1)]
    return bool(len(values)) and not any(_are_different(values[:, axis], values[:, axis + 3]) for axis in range(3))


def _are_different(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two columns hold more than two samples of one mixture."""
    return bool(_difference(one, other) > max(DIFFERENT, CHANCE * (2 / max(1, len(one))) ** 0.5))


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The largest difference of the cumulative shares of two samples (Kolmogorov and Smirnov)."""
    places = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(values), places, "right") / max(1, len(values)) for values in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max()) if len(places) else 0.0
