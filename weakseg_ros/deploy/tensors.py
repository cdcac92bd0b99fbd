# SPDX-License-Identifier: Apache-2.0
"""The tensors that go into a network and come out of it, by name: what each is, so that nobody has to know it by heart.

A bundle carries such a table. Engines check arrays against it and know nothing of their meaning; frontends know the meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weakseg_ros.errors import ConfigError, EngineError

DTYPES = ("float32", "uint8", "uint16", "int32", "int64", "bool")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network."""

    dtype: str
    """numpy's name of its type"""
    shape: tuple[str, ...]
    """sizes: B batch, C channels, H and W of the image, K classes with class 0, Q queries, or a number; others are free"""
    meaning: str = ""
    """what its values say"""
    unit: str = ""
    """unit of its values; empty = none"""
    lowest: int = 0
    """smallest value that may come, where `below` is given"""
    below: str = ""
    """size that every value lies below, as in `shape`; empty = any value"""
    of_points: bool = False
    """whether each pixel's value is an answer for the points in it, under the same name in `Segmentation`"""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype: unknown '{self.dtype}'; known: {', '.join(DTYPES)}")


IMAGE = ("B", "H", "W")

RANGE_INPUTS = {
    "image": TensorSpec("float32", ("B", "C", "H", "W"), "normalised channels of the range image, 0 where no point is")
}
"""what a network on range images is given"""

ANSWERS = {
    "class_id": TensorSpec("uint8", IMAGE, "most probable class, 1..K-1", lowest=1, below="K", of_points=True),
    "confidence": TensorSpec("float32", IMAGE, "calibrated probability of that class, 0..1", of_points=True),
    "uncertainty": TensorSpec("float32", IMAGE, "entropy over its largest value, 0..1", of_points=True),
}
"""what every network answers"""

REFERRING_FEATURES = "referring_features"

HEAD_OUTPUTS: dict[str, dict[str, TensorSpec]] = {
    "novelty": {"novelty": TensorSpec("float32", IMAGE, "how unlike anything labelled, 0..1", of_points=True)},
    "centres": {
        "centre": TensorSpec("float32", IMAGE, "how near the object's centre is, 0..1"),
        "offset": TensorSpec("float32", ("B", "2", "H", "W"), "way to the centre, away from the sensor and to the left", "m"),
    },
    "referring": {
        REFERRING_FEATURES: TensorSpec("float32", ("B", "D", "H/2", "W/2"), "means of two by two pixels' features"),
    },
    "queries": {
        "query_class": TensorSpec("float32", ("B", "Q", "K"), "logits of classes 1..K-1 and of 'no object'"),
        "query_mask": TensorSpec(
            "float32", ("B", "Q", "h", "w"), "logits of the query's mask over the image, which may be smaller"
        ),
    },
}
"""what the heads answer whose answers frontends and object finding know; other heads bring their tables with them"""


def check_tensors(
    what: str, arrays: Mapping[str, Any], table: Mapping[str, TensorSpec], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Hold arrays of numpy or torch against their table; returns `sizes` with those that the arrays settled, B for one.

    `what` begins the message ("network output"). EngineError: one is missing, of another type or shape, NaN, infinite, or out
    of its range.
    """
    known = dict(sizes)
    for name, spec in table.items():
        if name not in arrays:
            raise EngineError(f"{what}: '{name}' is missing (has {', '.join(arrays)}); export the model again")
        array = arrays[name]
        dtype = str(array.dtype).removeprefix("torch.")
        if dtype != spec.dtype:
            raise EngineError(f"{what} '{name}': expected {spec.dtype}, found {dtype}; export the model again")
        if not _fits(array.shape, spec.shape, known):
            raise EngineError(
                f"{what} '{name}': expected shape {_text(spec.shape, known)}, found {tuple(array.shape)}; export the model again"
            )
        _check_values(f"{what} '{name}'", array, spec, known)
    return known


def _check_values(what: str, array: Any, spec: TensorSpec, known: Mapping[str, int]) -> None:
    """EngineError for NaN, infinities, and values beyond those that the table allows; on the device where the array lies."""
    if spec.dtype.startswith("float"):
        finite = array.isfinite() if hasattr(array, "isfinite") else np.isfinite(array)
        if not bool(finite.all()):
            raise EngineError(f"{what}: holds NaN or infinite values; the weights or the input are damaged")
    if spec.below in known and 0 not in array.shape:
        low, high, end = int(array.min()), int(array.max()), known[spec.below]
        if low < spec.lowest or high >= end:
            raise EngineError(f"{what}: {low}..{high} is outside {spec.lowest}..{end - 1}, which the bundle allows")


def _fits(found: tuple[int, ...], shape: tuple[str, ...], known: dict[str, int]) -> bool:
    """Whether a shape is as the table says; sizes met for the first time are noted in `known`."""
    if len(found) != len(shape):
        return False
    return all(
        size == (int(symbol) if symbol.isdigit() else known.setdefault(symbol, size))
        for size, symbol in zip(found, shape, strict=True)
    )


def _text(shape: tuple[str, ...], known: Mapping[str, int]) -> str:
    return f"({', '.join(str(known.get(symbol, symbol)) for symbol in shape)})"
