# SPDX-License-Identifier: Apache-2.0
"""What data sets of rooms, buildings and cities share: one merged cloud for each place, and no sensor it was seen from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data import scan_files
from weakseg_ros.data.scan_sets import OpensAsOne, Scan
from weakseg_ros.errors import DataError, counted, did_you_mean
from weakseg_ros.files import sha256_of_parts
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.points.rgb import from_channels


@dataclass(frozen=True)
class Place:
    """One cloud of a data set and the files that hold it."""

    key: str
    """'Area_1/office_1', 'scene0000_00', 'cambridge_block_2'"""
    split: str
    """the part of the data set that it belongs to; empty where the owner puts it into none"""
    files: tuple[Path, ...]


class StaticScans(OpensAsOne):
    """Places as a data set: a subclass says which places a folder holds and reads one of them.

    A merged cloud has no sensor. `spec` looks around its origin, for what asks for a range image; nets that take points
    do not need it.
    """

    map_name: ClassVar[str]
    """the label map that ships for it"""
    split_names: ClassVar[tuple[str, ...]] = ("train", "val")
    split_advice: ClassVar[str] = ""
    """where the owner's lists of the splits come from, if the folder lacks them"""
    spec = RangeSpec(256, 1024, fov_up_deg=90.0, fov_down_deg=-90.0)
    intensity_full_scale = 0.0

    def __init__(self, folder: Path, places: Sequence[Place], name: str, labels: LabelMap | None = None) -> None:
        self.folder, self.name = folder, name
        self.labels = labels or LabelMap.load(self.map_name)
        self.places = tuple(places)
        self.keys = tuple(place.key for place in places)

    @classmethod
    def places_in(cls, folder: Path) -> list[Place]:
        """The places of a folder, sorted, found without reading any of them."""
        raise NotImplementedError

    def read(self, place: Place) -> Scan:
        """The cloud of a place; DataError with the file where it is damaged."""
        raise NotImplementedError

    @classmethod
    def splits(cls, folder: Path) -> tuple[str, ...]:
        """Those of 'train', 'val' (and 'test') of which the folder holds a place."""
        found = {place.split for place in cls.places_in(folder)}
        return tuple(name for name in cls.split_names if name in found)

    @classmethod
    def open(cls, folder: Path, split: str, labels: LabelMap | None, sequences: Sequence[str]) -> Self:
        """All places, those of a split, or those named; a name may also be the part of a key before its '/'."""
        places = cls.places_in(folder)
        known = {name for place in places for name in (place.key, place.key.partition("/")[0])}
        for name in sequences:
            if name not in known:
                raise DataError(
                    f"{folder}: has no place '{name}'{did_you_mean(name, known)}; it has {counted(len(places), 'place')}"
                )
        if split and not sequences and split not in cls.splits(folder):
            raise DataError(
                f"{folder}: no split '{split}' here; it has: {', '.join(cls.splits(folder)) or 'none'}{cls.split_advice}"
            )
        wanted = [place for place in places if _is_wanted(place, split, sequences)]
        if not wanted:
            raise DataError(f"{folder}: contains none of the requested clouds; 'weakseg check {folder}' says what is missing")
        return cls(folder, wanted, " ".join(filter(None, [folder.resolve().name, split])), labels)

    @cached_property
    def content_hash(self) -> str:
        """A fingerprint of the files of all places."""
        names = [str(file.relative_to(self.folder)) for place in self.places for file in place.files]
        present = [name for name in names if (self.folder / name).is_file()]
        return sha256_of_parts([*self.keys, scan_files.fingerprint(self.folder, present)])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Scan:
        return self.read(self.places[index])

    def scan_of_columns(
        self,
        place: Place,
        columns: Mapping[str, NDArray[Any]],
        raw: NDArray[Any] | None,
        instance_id: NDArray[np.uint16] | None = None,
        xyz: NDArray[np.float32] | None = None,
        intensity: NDArray[np.float32] | None = None,
    ) -> Scan:
        """A scan of a .ply file's columns x, y, z, red, green, blue; `xyz` (N, 3) replaces the positions. See `scan_of`."""
        missing = [name for name in ("x", "y", "z", "red", "green", "blue") if name not in columns]
        if missing:
            has = ", ".join(columns)
            raise DataError(
                f"{place.files[0]}: has no column {', '.join(missing)} (has {has}); it is another data set or version"
            )
        if not len(columns["x"]):
            raise DataError(f"{place.files[0]}: holds no point; copy the file again")
        if xyz is None:
            xyz = np.stack([columns[axis].astype(np.float32) for axis in "xyz"], axis=1)
        rgb = from_channels(columns["red"], columns["green"], columns["blue"])
        return self.scan_of(place, xyz, rgb, raw, instance_id, intensity)

    def scan_of(
        self,
        place: Place,
        xyz: NDArray[np.float32],
        rgb: NDArray[np.uint8] | None,
        raw: NDArray[Any] | None,
        instance_id: NDArray[np.uint16] | None = None,
        intensity: NDArray[np.float32] | None = None,
    ) -> Scan:
        """A scan of arrays (N, ...), with the classes of raw ids (N,); DataError for one that the label map does not list."""
        if raw is not None:
            where = place.files[0] if len(place.files) == 1 else f"{self.folder}: {place.key}"
            self.labels.refuse_unknown(raw, str(where))
        cloud = make_cloud(
            xyz,
            intensity,
            rgb=rgb,
            frame_id=place.key,
            intensity_full_scale=self.intensity_full_scale if intensity is not None else 0.0,
        )
        return Scan(place.key, cloud, None if raw is None else self.labels.to_class(raw), instance_id, None)


def _is_wanted(place: Place, split: str, sequences: Sequence[str]) -> bool:
    if sequences:
        return place.key in sequences or place.key.partition("/")[0] in sequences
    return not split or place.split == split
