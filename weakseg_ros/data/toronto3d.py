# SPDX-License-Identifier: Apache-2.0
"""Toronto-3D: four stretches of a street from a mobile mapping system, one .ply file each.

Toronto_3D/L001.ply    x, y, z (float64, UTM), red, green, blue, scalar_Intensity, ..., scalar_Label (0 = unclassified)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from weakseg_ros.data.findings import Finding, missing_parts
from weakseg_ros.data.pcd import read_ply
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.static_scans import Place, StaticScans
from weakseg_ros.errors import DataError

SPLIT_OF: dict[str, str] = {"L001": "train", "L002": "val", "L003": "train", "L004": "train"}
"""the owners test on L002; its labels are public, so it is 'val' here"""
OFFSET_M = (627285.0, 4841948.0, 0.0)
"""taken off the UTM coordinates, as the owners advise: float32 holds no centimetres at their size"""
LABEL = "scalar_Label"


class Toronto3d(StaticScans):
    """Toronto-3D with 8 classes, colours and intensity, positions without the offset of UTM; 'val' is L002."""

    map_name = "toronto3d"
    folders: ClassVar[tuple[str, ...]] = ("", "Toronto_3D")

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True where one of the four files lies."""
        return bool(cls.places_in(folder))

    @classmethod
    def places_in(cls, folder: Path) -> list[Place]:
        for below in cls.folders:
            files = [(name, folder / below / f"{name}.ply") for name in SPLIT_OF]
            found = [Place(name, SPLIT_OF[name], (file,)) for name, file in files if file.is_file()]
            if found:
                return found
        return []

    @classmethod
    def inspect(cls, folder: Path) -> Iterator[Finding]:
        """Files that are missing."""
        names = {split: [name for name, its in SPLIT_OF.items() if its == split] for split in cls.split_names}
        yield from missing_parts(folder, "files", {place.key for place in cls.places_in(folder)}, names)

    def read(self, place: Place) -> Scan:
        file = place.files[0]
        columns = read_ply(file)
        if LABEL not in columns:
            raise DataError(f"{file}: has no column {LABEL} (has {', '.join(columns)}); it is another data set or version")
        if columns["x"].size and abs(float(columns["x"].mean())) < OFFSET_M[0] / 2:
            raise DataError(f"{file}: its positions are not UTM's (x is about {columns['x'].mean():.0f} m); use the owners' file")
        if columns["y"].dtype == np.float32:
            raise DataError(f"{file}: its positions are float32, which holds no centimetres at UTM's size; use the owners' file")
        positions = [(columns[axis] - offset).astype(np.float32) for axis, offset in zip("xyz", OFFSET_M, strict=True)]
        raw = np.nan_to_num(columns[LABEL]).astype(np.int64)
        intensity = columns.get("scalar_Intensity")
        return self.scan_of_columns(place, columns, raw, None, np.stack(positions, axis=1), intensity)
