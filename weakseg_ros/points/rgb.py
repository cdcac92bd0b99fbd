# SPDX-License-Identifier: Apache-2.0
"""Colours of points: what cameras, scanners and files call rgb, as (N, 3) uint8 red, green, blue.

PCL packs a colour into four bytes, 0xAARRGGBB, which it calls float32 or uint32; others write three fields.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKED_NAMES = ("rgb", "rgba")
SEPARATE_NAMES = (("r", "g", "b"), ("red", "green", "blue"))


def names_of_color(present: Collection[str]) -> tuple[str, ...]:
    """The fields among `present` that hold the colour: one that is packed, three that are not, or none."""
    for name in PACKED_NAMES:
        if name in present:
            return (name,)
    return next((names for names in SEPARATE_NAMES if set(names) <= set(present)), ())


def colors_of(columns: Sequence[NDArray[Any]]) -> NDArray[np.uint8] | None:
    """(N, 3) red, green, blue of one packed column of 4 bytes a number, or of three; None where they are neither."""
    if len(columns) == 3:
        return from_channels(*columns)
    packed = len(columns) == 1 and columns[0].dtype.itemsize == 4
    return unpack(columns[0]) if packed else None


def unpack(packed: NDArray[Any]) -> NDArray[np.uint8]:
    """(N, 3) red, green, blue of (N,) numbers of 4 bytes, of any type and byte order, whose bits are 0xAARRGGBB."""
    little = packed.astype(packed.dtype.newbyteorder("<"), copy=False)
    parts = np.ascontiguousarray(little).view(np.uint8).reshape(-1, 4)
    return np.ascontiguousarray(parts[:, 2::-1])


def pack(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N,) float32 whose bits are 0x00RRGGBB, as PCL and RViz expect them."""
    parts = np.zeros((len(rgb), 4), np.uint8)
    parts[:, 2::-1] = rgb
    return parts.view("<f4").reshape(-1)


def from_channels(red: NDArray[Any], green: NDArray[Any], blue: NDArray[Any]) -> NDArray[np.uint8]:
    """(N, 3) uint8 of three columns (N,): of 8 bits, of 16 bits, or of floats from 0 to 1 or from 0 to 255.

    Which range wider numbers have is told by the largest of the cloud; what is not finite or negative becomes 0.
    """
    channels = np.stack([red, green, blue], axis=1)
    if channels.dtype == np.uint8:
        return channels
    values = np.nan_to_num(channels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = values.max(initial=0.0)
    if channels.dtype.kind == "f" and largest <= 1.0:
        values *= 255.0
    elif largest > 255.0:
        values /= 257.0
    rgb: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rgb
