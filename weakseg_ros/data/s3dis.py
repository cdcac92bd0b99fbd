# SPDX-License-Identifier: Apache-2.0
"""S3DIS (Stanford 2D-3D-Semantics, version 1.2): rooms of six areas, one text file for each object.

Area_1/office_1/office_1.txt                  x, y, z in m and red, green, blue 0..255, one line a point
Area_1/office_1/Annotations/chair_1.txt       the points of one object; its class is the name before the number
Area_1/Area_1_alignmentAngle.txt              room and angle in degrees; not in the aligned version

The aligned version (Stanford3dDataset_v1.2_Aligned_Version) has its rooms turned by that angle, so that walls lie along x and
y; the other one is turned here as it is read. Points come in the order of the object files, sorted by class and number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.findings import Finding, fault, missing_parts, note, some
from weakseg_ros.data.point_text import read_point_text
from weakseg_ros.data.scan_files import own_files
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.static_scans import Place, StaticScans
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import content_of
from weakseg_ros.points.rgb import from_channels

AREAS = tuple(f"Area_{number}" for number in range(1, 7))
VAL_AREA = "Area_5"
"""the area of the usual evaluation: a building of its own, which no other area shows"""
ROOMS = {"Area_1": 44, "Area_2": 40, "Area_3": 23, "Area_4": 49, "Area_5": 68, "Area_6": 48}
"""rooms in each area of the whole data set"""
RAW_IDS = {
    **{"ceiling": 1, "floor": 2, "wall": 3, "beam": 4, "column": 5, "window": 6, "door": 7, "table": 8, "chair": 9},
    **{"sofa": 10, "bookcase": 11, "board": 12, "clutter": 13, "stairs": 14},
}
"""raw id by the class in an object file's name"""
ALIGNED, RAW = "Stanford3dDataset_v1.2_Aligned_Version", "Stanford3dDataset_v1.2"
ANNOTATIONS = "Annotations"
SIMULATED = "simulated.yaml"
"""beside the rooms of a simulated area, which was never published"""
UNLABELLED_ALLOWED = 0.01
"""share of a room's points that may belong to no object: a few rooms were published so"""


class S3dis(StaticScans):
    """Rooms of S3DIS with 13 classes, colours and instances; 'val' is Area 5, 'train' the other five.

    For the six folds, name areas as `sequences` and `val_sequences`. Keys are 'Area_1/office_1'. A room without annotations
    is read from its own file and has no labels.
    """

    map_name = "s3dis"

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True where areas lie that hold a room with annotations."""
        return any(rooms_in(area) for area in areas_in(folder))

    @classmethod
    def places_in(cls, folder: Path) -> list[Place]:
        return [
            Place(f"{area.name}/{room.name}", "val" if area.name == VAL_AREA else "train", tuple(room_files(room)))
            for area in areas_in(folder)
            for room in rooms_in(area)
        ]

    @classmethod
    def inspect(cls, folder: Path) -> Iterator[Finding]:
        """The version, areas and rooms that are missing, and rooms whose objects do not hold all of their points."""
        yield from version_findings(folder)
        if not any((area / SIMULATED).is_file() for area in areas_in(folder)):
            yield from missing_rooms(folder)
        for area in areas_in(folder):
            for room in rooms_in(area):
                yield from room_findings(room)

    def read(self, place: Place) -> Scan:
        tables = [read_point_text(file, 6) for file in place.files]
        if not sum(map(len, tables)):
            raise DataError(f"{place.files[0].parent}: its files hold no point; copy the room again")
        table = np.concatenate(tables)
        room = room_of(place)
        xyz = upright(table[:, :3], angle_of(room))
        rgb = from_channels(*np.clip(table[:, 3:], 0, 255).T)
        if place.files[0].parent.name != ANNOTATIONS:
            return self.scan_of(place, xyz, rgb, None)
        counts = list(map(len, tables))
        raw = np.repeat(np.array([raw_id_of(file) for file in place.files], np.uint16), counts)
        instance = np.repeat(np.arange(1, len(counts) + 1, dtype=np.uint16), counts)
        return self.scan_of(place, xyz, rgb, raw, instance)


def root_of(folder: Path) -> Path:
    """The folder that holds the areas: this one, that of a version which lies in it, the aligned one first, or an area's own."""
    if folder.name in AREAS:
        return folder.parent
    below = (folder / name for name in (ALIGNED, RAW))
    return next((root for root in (folder, *below) if any((root / area).is_dir() for area in AREAS)), folder)


def areas_in(folder: Path) -> list[Path]:
    """The folders Area_1 to Area_6 of a data set, or the folder itself where it is one of them."""
    if folder.name in AREAS:
        return [folder]
    return [root_of(folder) / area for area in AREAS if (root_of(folder) / area).is_dir()]


def rooms_in(area: Path) -> list[Path]:
    """The folders of an area's rooms, sorted."""
    return [room for room in content_of(area) if (room / ANNOTATIONS).is_dir() or (room / f"{room.name}.txt").is_file()]


def version_findings(folder: Path) -> Iterator[Finding]:
    """Which of the two versions it is."""
    root = root_of(folder)
    turned = [area.name for area in areas_in(folder) if (area / f"{area.name}_alignmentAngle.txt").is_file()]
    if root.resolve().name == RAW and not turned:
        yield fault(f"{root}: is the version that is not aligned, and has no alignmentAngle.txt of its areas; copy it again")
        return
    if root.resolve().name == ALIGNED or not turned:
        yield note(f"{root}: is read as the aligned version; its rooms are not rotated")
        return
    yield note(f"{root}: is the version without alignment; rooms are rotated by the angles in its files")
    without = [area.name for area in areas_in(folder) if area.name not in turned]
    if without:
        yield fault(f"{root}: has no alignmentAngle.txt of {some(without)}; copy these areas again")


def missing_rooms(folder: Path) -> Iterator[Finding]:
    """Areas that are not there, and those with another number of rooms than was published."""
    areas = {area.name: len(rooms_in(area)) for area in areas_in(folder)}
    if folder.name not in AREAS:
        yield from missing_parts(
            root_of(folder), "areas", areas, {"train": [a for a in AREAS if a != VAL_AREA], "val": [VAL_AREA]}
        )
    for name, rooms in areas.items():
        if rooms != ROOMS[name]:
            yield fault(
                f"{root_of(folder) / name}: has {counted(rooms, 'room')}, {ROOMS[name]} were published; copy the area again"
            )


def room_findings(room: Path) -> Iterator[Finding]:
    """Whether a room has its objects, and whether they hold as many points as its own file."""
    objects = _texts(room / ANNOTATIONS)
    if not objects:
        yield fault(f"{room}: has no {ANNOTATIONS}, so its points have no labels; copy the room again")
        return
    own = next(iter(_texts(room)), None)  # copyRoom_1 calls it copy_Room_1.txt
    if own is None:
        return
    labelled, points = sum(map(_lines, objects)), _lines(own)
    if labelled != points:
        text = f"{room}: its objects hold {counted(labelled, 'point')} and {own.name} {points}"
        much = abs(labelled - points) > UNLABELLED_ALLOWED * points
        yield (
            fault(f"{text}; one of them is damaged, copy the room again")
            if much
            else note(f"{text}; the points of the objects are used")
        )


def _lines(file: Path) -> int:
    """Lines of a text file, also one without its line break."""
    count, last = 0, b"\n"
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            count, last = count + block.count(b"\n"), block
    return count + (not last.endswith(b"\n"))


def room_files(room: Path) -> list[Path]:
    """The object files of a room by class and number, or its own file where it has none."""
    return sorted(_texts(room / ANNOTATIONS), key=_by_class_and_number) or [room / f"{room.name}.txt"]


def _texts(folder: Path) -> list[Path]:
    """The text files in a folder."""
    return own_files(file for file in content_of(folder) if file.suffix == ".txt")


def room_of(place: Place) -> Path:
    """The folder of a room."""
    folder = place.files[0].parent
    return folder.parent if folder.name == ANNOTATIONS else folder


def class_of(file: Path) -> str:
    """'chair' of 'chair_12.txt'."""
    return file.stem.partition("_")[0]


def raw_id_of(file: Path) -> int:
    """The raw id of an object file's class; DataError for an unknown one."""
    if class_of(file) not in RAW_IDS:
        raise DataError(f"{file}: its name begins with no class of S3DIS ({', '.join(RAW_IDS)}); rename or remove it")
    return RAW_IDS[class_of(file)]


def _by_class_and_number(file: Path) -> tuple[int, int, str]:
    number = re.search(r"\d+", file.stem)
    return RAW_IDS.get(class_of(file), len(RAW_IDS) + 1), int(number[0]) if number else 0, file.name


def angle_of(room: Path) -> float:
    """Degrees by which a room of the version that is not aligned stands turned; 0 where no file says so."""
    return angles_in(room.parent).get(room.name, 0.0)


def angles_in(area: Path) -> dict[str, float]:
    """Degrees by room, from the file of an area; empty for the aligned version, whose rooms are turned already."""
    file = area / f"{area.name}_alignmentAngle.txt"
    if area.resolve().parent.name == ALIGNED or not file.is_file():
        return {}
    return dict(_angles(file))


def _angles(file: Path) -> Iterator[tuple[str, float]]:
    for number, line in enumerate(file.read_text(encoding="latin-1").splitlines(), 1):
        words = line.split()
        if words and not line.startswith("#"):
            try:
                yield words[0], float(words[1])
            except (IndexError, ValueError):
                raise DataError(f"{file}:{number}: '{line[:40]}' is not a room and an angle; copy the file again") from None


def upright(xyz: NDArray[np.float64], angle_deg: float) -> NDArray[np.float32]:
    """(N, 3) float32 m, turned back about the vertical through the middle of the room."""
    if angle_deg % 360.0 == 0.0:
        return xyz.astype(np.float32)
    middle = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
    sine, cosine = np.sin(np.radians(-angle_deg)), np.cos(np.radians(-angle_deg))
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    turned: NDArray[np.float32] = ((xyz - middle) @ turn.T + middle).astype(np.float32)
    return turned
