# SPDX-License-Identifier: Apache-2.0
"""What data sets share that come as .npz archives of organised grids: arrays in, `Scan` out.

Such archives hold `xyz` (n, H, W, 3) float32 m with (0, 0, 0) where nothing came back, `intensity` (n, H, W) and `label`
(n, H, W) uint8, in files named after their split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.arrays import open_archive
from weakseg_ros.data.scan_sets import OpensAsOne, Scan
from weakseg_ros.data.side_files import DEFAULT_PERIOD_NS
from weakseg_ros.errors import DataError
from weakseg_ros.files import sha256_of, sha256_of_parts
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

SPLITS = ("train", "val")


@dataclass(frozen=True)
class ArchiveFormat:
    """What the arrays of one kind of archive mean."""

    spec: RangeSpec
    intensity_full_scale: float
    labels: str
    """the map that its classes belong to"""
    class_of_stored: tuple[int, ...]
    """class id by the number that the archive stores"""
    has_stamps: bool
    frame_id: str


class GridArchive(OpensAsOne):
    """All scans of the .npz files of a folder, or of one split; keys are '<split>/<scan>'.

    With a `labels` map of its own, classes go through the raw ids of both maps. Raises DataError for a file that is
    damaged or whose arrays do not fit.
    """

    format: ClassVar[ArchiveFormat]

    def __init__(self, folder: Path, split: str = "", labels: LabelMap | None = None) -> None:
        known = self.splits(folder)
        if split and split not in known:
            raise DataError(f"{folder}: no split '{split}' here; it has {', '.join(known)} (or hold a part of one out)")
        names = [split] if split else list(known)
        archives = [_load(folder / f"{name}.npz", self.format) for name in names]
        self.name = " ".join(filter(None, [folder.resolve().name, split]))
        self.spec = self.format.spec
        self.intensity_full_scale = self.format.intensity_full_scale
        native = LabelMap.load(self.format.labels)
        self.labels = labels or native
        self._class_of_stored = self.labels.to_class(native.to_raw(np.array(self.format.class_of_stored)))
        self.keys = tuple(
            f"{name}/{i:06d}" for name, arrays in zip(names, archives, strict=True) for i in range(len(arrays["xyz"]))
        )
        self._arrays = {field: np.concatenate([arrays[field] for arrays in archives]) for field in archives[0]}
        self._files = [folder / f"{name}.npz" for name in names]

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True where every .npz named after a split holds this format's arrays at its size."""
        files = [folder / f"{name}.npz" for name in cls.splits(folder)]
        return bool(files) and all(_fits(path, cls.format) for path in files)

    @classmethod
    def splits(cls, folder: Path) -> tuple[str, ...]:
        """The splits whose file is there."""
        return tuple(name for name in SPLITS if (folder / f"{name}.npz").is_file())

    @classmethod
    def open(cls, folder: Path, split: str, labels: LabelMap | None, sequences: Sequence[str]) -> GridArchive:
        """The archive, or one split of it; it has no sequences to choose from."""
        if sequences:
            raise DataError(f"{folder}: has no sequences to choose from ({', '.join(sequences)}); leave them out")
        return cls(folder, split, labels)

    @cached_property
    def content_hash(self) -> str:
        """Over the archives' bytes."""
        return sha256_of_parts(sha256_of(path) for path in self._files)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Scan:
        key = self.keys[index]
        index %= len(self)
        height, width = self.spec.height, self.spec.width
        stamps = self._arrays.get("stamp_ns")
        cloud = make_cloud(
            self._arrays["xyz"][index].reshape(-1, 3),
            self._arrays["intensity"][index].ravel(),
            np.repeat(np.arange(height, dtype=np.uint16), width),
            stamp_ns=int(stamps[index]) if stamps is not None else index * DEFAULT_PERIOD_NS,
            frame_id=self.format.frame_id,
            height=height,
            width=width,
            intensity_full_scale=self.intensity_full_scale,
        )
        return Scan(key, cloud, self._class_of_stored[self._arrays["label"][index].ravel()], None, None)


def _fits(path: Path, form: ArchiveFormat) -> bool:
    try:
        with open_archive(path) as arrays:
            same_kind = {"xyz", "intensity", "label"} <= arrays.keys() and ("stamp_ns" in arrays) == form.has_stamps
            return same_kind and arrays["label"].shape[1:] == (form.spec.height, form.spec.width)
    except (OSError, ValueError):
        return False


def _load(path: Path, form: ArchiveFormat) -> dict[str, NDArray[Any]]:
    fields = ["xyz", "intensity", "label", *(["stamp_ns"] if form.has_stamps else [])]
    try:
        with open_archive(path) as archive:
            arrays = {field: archive[field] for field in fields}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy the file again") from None
    grid = (len(arrays["xyz"]), form.spec.height, form.spec.width)
    expected = {"xyz": (*grid, 3), "intensity": grid, "label": grid, "stamp_ns": grid[:1]}
    for field, array in arrays.items():
        if array.shape != expected[field]:
            raise DataError(f"{path}: '{field}' has shape {array.shape}, expected {expected[field]}; use the original archive")
    if not grid[0] or arrays["label"].max() >= len(form.class_of_stored):
        raise DataError(f"{path}: holds no scans, or labels above {len(form.class_of_stored) - 1}; use the original archive")
    return arrays
