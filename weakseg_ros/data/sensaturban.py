# SPDX-License-Identifier: Apache-2.0
"""SensatUrban: tiles of two cities from photogrammetry, one .ply file each.

train/birmingham_block_0.ply    x, y, z (float32, m), red, green, blue (uint8), class (uint8, 0 = ground .. 12 = water)
test/birmingham_block_2.ply     the same without a class

The tiles may also lie in ply/train and ply/test, or all in original_block_ply, as the owners' own code moves them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from weakseg_ros.data.findings import Finding, fault, missing_parts
from weakseg_ros.data.pcd import read_ply
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.static_scans import Place, StaticScans
from weakseg_ros.errors import DataError

log = logging.getLogger(__name__)

_CITIES = {
    "birmingham": {
        "train": (0, 3, 4, 6, 7, 9, 10, 11, 12, 13),
        "val": (1, 5),
        "test": (2, 8),
    },
    "cambridge": {
        "train": (0, 1, 2, 3, 4, 6, 8, 9, 12, 13, 14, 17, 18, 19, 20, 21, 23, 25, 26, 28, 32, 33, 34),
        "val": (7, 10),
        "test": (15, 16, 22, 27),
    },
}
SPLIT_OF = {
    f"{city}_block_{number}": split for city, splits in _CITIES.items() for split, numbers in splits.items() for number in numbers
}
"""all 43 tiles; 'val' is the part of the labelled ones that the owners' code validates on"""
SHORT = ("cambridge_block_0", "cambridge_block_1", "cambridge_block_34")
"""tiles that were published with fewer points than their headers say"""
FOLDERS = (("train", "test"), ("ply/train", "ply/test"), ("original_block_ply",), ("",))
CLASS = "class"


class SensatUrban(StaticScans):
    """SensatUrban with 13 classes and colours. The labels of 'test' are not public, so its tiles have none here."""

    map_name = "sensaturban"
    split_names = ("train", "val", "test")

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True where a tile lies."""
        return bool(cls.places_in(folder))

    @classmethod
    def places_in(cls, folder: Path) -> list[Place]:
        for names in FOLDERS:
            files = [(tile, folder / name / f"{tile}.ply") for name in names for tile in SPLIT_OF]
            found = [Place(tile, SPLIT_OF[tile], (file,)) for tile, file in files if file.is_file()]
            if found:
                return sorted(found, key=lambda place: place.key)
        return []

    @classmethod
    def inspect(cls, folder: Path) -> Iterator[Finding]:
        """Tiles that are missing, and tiles that were thinned out."""
        places = cls.places_in(folder)
        tiles = {split: [tile for tile, its in SPLIT_OF.items() if its == split] for split in cls.split_names}
        yield from missing_parts(folder, "tiles", {place.key for place in places}, tiles)
        labelled = [place.files[0] for place in places if place.split != "test"]
        thinned = labelled or [tile for tile in folder.glob("grid_*/*.ply") if tile.stem in SPLIT_OF]
        if any(tile.parent.name.startswith("grid_") for tile in thinned):
            yield fault(
                f"{folder}: holds tiles that were thinned out; results count on all points, so name the folder of the originals"
            )

    def read(self, place: Place) -> Scan:
        file = place.files[0]
        columns = read_ply(file, short=place.key in SHORT)
        if place.key in SHORT:
            log.info(
                "%s: its published file ends before the number of points in its header; %d are read", file, len(columns["x"])
            )
        raw = columns.get(CLASS)
        if raw is None and place.split != "test":
            raise DataError(
                f"{file}: has no column {CLASS} (has {', '.join(columns)}); it is another version; copy the tile again"
            )
        return self.scan_of_columns(place, columns, None if raw is None else raw.astype(np.uint16) + 1)
