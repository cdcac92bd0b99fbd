# SPDX-License-Identifier: Apache-2.0
"""nuScenes with lidarseg labels: the key frames of its LiDAR, read from the tables without its own kit.

v1.0-trainval/*.json                        tables; also v1.0-mini and v1.0-test
samples/LIDAR_TOP/*.pcd.bin                 (N, 5) little-endian float32: x, y, z in m, intensity 0..255, laser
lidarseg/v1.0-trainval/*_lidarseg.bin       (N,) uint8 category numbers

The axes are the sensor's own: x right, y forward, z up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data import scan_files
from weakseg_ros.data.findings import Finding, fault, some
from weakseg_ros.data.scan_sets import OpensAsOne, Scan
from weakseg_ros.errors import DataError, counted, did_you_mean
from weakseg_ros.files import read_regular, sha256_of_parts
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.reads import parse_json

VERSIONS = ("v1.0-trainval", "v1.0-mini", "v1.0-test")
"""in order of preference, where several lie in one folder"""
SCENES = {"v1.0-trainval": 850, "v1.0-mini": 10, "v1.0-test": 150}
"""scenes in each version"""
SENSOR = "samples/LIDAR_TOP/"
POINT_FLOATS = 5
_VAL_RANGES = (
    *((3, 3), (12, 18), (35, 36), (38, 39), (92, 110), (221, 221), (268, 278), (329, 332), (344, 346), (519, 524)),
    *((552, 565), (625, 627), (629, 630), (632, 638), (770, 771), (775, 775), (777, 778), (780, 784), (794, 800)),
    *((802, 802), (904, 917), (919, 931), (962, 963), (966, 969), (971, 972), (1059, 1073)),
)
VAL_SCENES = frozenset(f"scene-{i:04d}" for first, last in _VAL_RANGES for i in range(first, last + 1))
"""the 150 scenes of the official validation split; the other 700 are for training"""
MINI_VAL_SCENES = frozenset({"scene-0103", "scene-0916"})
CATEGORIES = (
    *("noise", "animal", "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker"),
    *("human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human.pedestrian.stroller"),
    *("human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris", "movable_object.pushable_pullable"),
    *("movable_object.trafficcone", "static_object.bicycle_rack", "vehicle.bicycle", "vehicle.bus.bendy", "vehicle.bus.rigid"),
    *("vehicle.car", "vehicle.construction", "vehicle.emergency.ambulance", "vehicle.emergency.police", "vehicle.motorcycle"),
    *("vehicle.trailer", "vehicle.truck", "flat.driveable_surface", "flat.other", "flat.sidewalk", "flat.terrain"),
    *("static.manmade", "static.other", "static.vegetation", "vehicle.ego"),
)
"""of lidarseg, each at the number that label files hold for it"""


@dataclass(frozen=True)
class _Frame:
    key: str
    """'scene-0061/000000'"""
    points: str
    """path relative to the data set"""
    labels: str
    """path of the labels relative to the data set; empty where the frame has none"""
    stamp_ns: int


class NuScenes(OpensAsOne):
    """The LiDAR's key frames of all scenes, of a split, or of the scenes named; keys are '<scene>/<number>'.

    Labels are those of config/labels/nuscenes.yaml; frames without a lidarseg file have none. There are neither
    instances nor poses. The image is COARSE3D's: 64 x 2048, +15 to -35 deg, points nearer than 1 m (the car) left out.
    """

    spec = RangeSpec(64, 2048, fov_up_deg=15.0, fov_down_deg=-35.0, min_range_m=1.0)
    intensity_full_scale = 255.0

    def __init__(self, folder: Path, split: str = "", labels: LabelMap | None = None, scenes: Sequence[str] = ()) -> None:
        self.folder = folder
        self.labels = labels or LabelMap.load("nuscenes")
        self.name = " ".join(filter(None, [folder.resolve().name, split]))
        tables = folder / _version(folder)
        if labels is None:
            _refuse_other_categories(tables)
        chosen = _chosen(tables, split, scenes)
        if not chosen:
            raise DataError(f"{tables}: lists no scene of those asked for; name other scenes, or copy the tables again")
        self._frames = _frames(tables, chosen)
        if not self._frames:
            raise DataError(f"{tables}: lists no file below {SENSOR} for the scenes asked for{_other_sensors(tables)}")
        self.keys = tuple(frame.key for frame in self._frames)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True where the tables of a version lie."""
        return any((folder / version / "sample_data.json").is_file() for version in VERSIONS)

    @classmethod
    def splits(cls, folder: Path) -> tuple[str, ...]:
        """Those of 'train' and 'val' of which there is a scene, or 'test'."""
        version = _version(folder)
        if version == "v1.0-test":
            return ("test",)
        val = _val_scenes(version)
        found = {row["name"] in val for row in _table(folder / version, "scene")}
        return tuple(name for name, is_val in (("train", False), ("val", True)) if is_val in found)

    @classmethod
    def open(cls, folder: Path, split: str, labels: LabelMap | None, sequences: Sequence[str]) -> NuScenes:
        """The data set or part of it; `sequences` are names of scenes."""
        if split and split not in cls.splits(folder):
            raise DataError(f"{folder}: no split '{split}' here; it has {', '.join(cls.splits(folder))}")
        return cls(folder, split, labels, sequences)

    @classmethod
    def inspect(cls, folder: Path) -> Iterator[Finding]:
        """Scenes that the tables lack, files that they name and that are not there, tables without lidarseg."""
        tables = folder / _version(folder)
        scenes = len(_table(tables, "scene"))
        if scenes != SCENES[tables.name]:
            yield fault(
                f"{tables / 'scene.json'}: lists {counted(scenes, 'scene')}, {SCENES[tables.name]} "
                "were published; copy the tables again"
            )
        if tables.name != "v1.0-test" and not (tables / "lidarseg.json").is_file():
            yield fault(f"{tables}: has no lidarseg.json, so there are no labels; unpack nuScenes-lidarseg over the data set")
        if any("index" not in row for row in _table(tables, "category", needed=False)):
            yield fault(f"{tables / 'category.json'}: is older than lidarseg (it has no index); unpack nuScenes-lidarseg over it")
        frames = cls(folder)._frames
        for what, names in (("scans", [f.points for f in frames]), ("label files", [f.labels for f in frames if f.labels])):
            absent = [name for name in names if not (folder / name).is_file()]
            if absent:
                yield fault(f"{folder}: lacks {len(absent)} of the {len(names)} {what} in its tables ({some(absent)}); copy them")

    @cached_property
    def content_hash(self) -> str:
        """A fingerprint of the frames' files."""
        names = [name for frame in self._frames for name in (frame.points, frame.labels) if name]
        present = [name for name in names if (self.folder / name).is_file()]
        return sha256_of_parts([*self.keys, scan_files.fingerprint(self.folder, present)])

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Scan:
        frame = self._frames[index]
        points = _read(self.folder / frame.points, "<f4", POINT_FLOATS)
        cloud = make_cloud(
            np.ascontiguousarray(points[:, :3]),
            np.ascontiguousarray(points[:, 3]),
            points[:, 4].astype(np.uint16),
            stamp_ns=frame.stamp_ns,
            frame_id="LIDAR_TOP",
            intensity_full_scale=self.intensity_full_scale,
        )
        return Scan(frame.key, cloud, self._class_id(frame, len(points)), None, None)

    def _class_id(self, frame: _Frame, count: int) -> NDArray[np.uint8] | None:
        if not frame.labels:
            return None
        path = self.folder / frame.labels
        raw = _read(path, "u1", 1)[:, 0]
        if len(raw) != count:
            raise DataError(f"{path}: has {counted(len(raw), 'label')}, its scan {counted(count, 'point')}; copy both again")
        self.labels.refuse_unknown(raw, str(path))
        return self.labels.to_class(raw)


def _version(folder: Path) -> str:
    return next(version for version in VERSIONS if (folder / version / "sample_data.json").is_file())


def _val_scenes(version: str) -> frozenset[str]:
    return MINI_VAL_SCENES if version == "v1.0-mini" else VAL_SCENES


def _refuse_other_categories(tables: Path) -> None:
    """DataError where the numbers in label files mean other classes than nuScenes' own: data in its layout, not its data."""
    for row in _table(tables, "category", needed=False):
        number, name = row.get("index"), row.get("name")
        if isinstance(number, int) and not (0 <= number < len(CATEGORIES) and CATEGORIES[number] == name):
            raise DataError(
                f"{tables / 'category.json'}: number {number} is '{name}', and in nuScenes-lidarseg it is not; write a label map "
                "with these numbers as raw_ids (docs/classes.md), and give it to 'weakseg train' with --label-map"
            )


def _other_sensors(tables: Path) -> str:
    """The folders of samples that the table of files names, and what to do, as the end of a sentence."""
    files = (PurePosixPath(str(row.get("filename", ""))) for row in _table(tables, "sample_data"))
    found = sorted({file.parts[1] for file in files if len(file.parts) > 2 and file.parts[0] == "samples"})
    there = f" (it lists {some(found)}); call the LiDAR LIDAR_TOP as nuScenes does, or" if found else ";"
    return f"{there} copy the tables again"


def _chosen(tables: Path, split: str, names: Sequence[str]) -> dict[str, str]:
    """The scenes to open: name by token."""
    scenes = {row["token"]: row["name"] for row in _table(tables, "scene")}
    for name in names:
        if name not in scenes.values():
            raise DataError(f"{tables}: no scene '{name}'{did_you_mean(name, scenes.values())}; it has {len(scenes)}")
    val = _val_scenes(tables.name)
    wanted = {name for name in scenes.values() if split not in ("train", "val") or (name in val) == (split == "val")}
    return {token: name for token, name in scenes.items() if name in wanted and (not names or name in names)}


def _frames(tables: Path, scenes: dict[str, str]) -> list[_Frame]:
    """The LiDAR's key frames of the scenes, by scene and time."""
    scene_of_sample = {
        row["token"]: scenes[row["scene_token"]] for row in _table(tables, "sample") if row["scene_token"] in scenes
    }
    labels = {row["sample_data_token"]: row["filename"] for row in _table(tables, "lidarseg", needed=False)}
    rows = [
        (scene_of_sample[row["sample_token"]], row["timestamp"], row)
        for row in _table(tables, "sample_data", only="filename")
        if row["is_key_frame"] and row["sample_token"] in scene_of_sample
    ]
    frames: list[_Frame] = []
    numbers: dict[str, int] = {}
    for scene, stamp_us, row in sorted(rows, key=lambda item: item[:2]):
        number = numbers[scene] = numbers.get(scene, -1) + 1
        files = _below(tables, row["filename"]), _below(tables, labels.get(row["token"], ""))
        frames.append(_Frame(f"{scene}/{number:06d}", *files, stamp_us * 1000))
    return frames


def _below(tables: Path, name: str) -> str:
    """A file's name as a table gives it; DataError where it leaves the data set. Links are fine: data lie on other disks."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{tables}: names the file '{name}', which is outside the data set; copy the tables again")
    return name


def _table(tables: Path, name: str, only: str = "", needed: bool = True) -> list[dict[str, Any]]:
    """The rows of a table; with `only`, those whose entry of that name belongs to the LiDAR.

    The table of files has millions of rows, of which one in twelve is of the LiDAR: the others are dropped while reading.
    """
    path = tables / f"{name}.json"
    if not path.is_file() and not needed:
        return []

    def keep(row: dict[str, Any]) -> dict[str, Any] | None:
        return row if not only or str(row.get(only, "")).startswith(SENSOR) else None

    try:
        rows = parse_json(read_regular(path).decode("utf-8"), keep)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy the tables again") from None
    return [row for row in rows if row is not None]


def _read(path: Path, dtype: str, columns: int) -> NDArray[Any]:
    """(N, columns) values; DataError for a file that is missing, empty or cut off."""
    try:
        blob = read_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the data set") from None
    row_bytes = np.dtype(dtype).itemsize * columns
    if not blob or len(blob) % row_bytes:
        raise DataError(f"{path}: has {counted(len(blob), 'byte')}, not a multiple of {row_bytes}; copy the file again")
    return np.frombuffer(blob, dtype).reshape(-1, columns)
