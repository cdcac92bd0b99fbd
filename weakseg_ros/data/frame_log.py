# SPDX-License-Identifier: Apache-2.0
"""A frame log as a data set: scans that were kept while a robot drove, each with a record of its own.

manifest.yaml           label map and range image, written once; `growing`, because frames are added while it is read
frames/KEY.yaml         the frame's record, written last: a frame without it does not count
velodyne/KEY.bin        as in any folder of scans
predictions/KEY.label   (N,) little-endian uint32: the model's class as raw id, its instance in the high 16 bits
uncertainty/KEY.npy     (N,) float16, 0..1
rgb/KEY.rgb             as in any folder of scans, where the sensor sees colours
index.jsonl             the records again, one a line, for quick reading; rebuilt from frames/ where they differ
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weakseg_ros.data import scan_files
from weakseg_ros.data.scan_files import POINT_BYTES, Manifest
from weakseg_ros.data.scan_sets import OpensAsOne, Scan, ScanSet
from weakseg_ros.errors import ConfigError, DataError, counted
from weakseg_ros.files import read_regular, sha256_of_parts
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.reads import parse_json
from weakseg_ros.yaml_files import read_yaml

INDEX = "index.jsonl"
COLOR_BYTES = 3
NPY_HEADER_BYTES = 128
SUFFIX_OF_PART = {"velodyne": ".bin", "predictions": ".label", "uncertainty": ".npy", "frames": ".yaml"}
"""the files of a frame in the order of writing; the last one makes it count"""
SUFFIX_OF_COLORS = {"rgb": ".rgb"}
"""a further file of a frame with colours"""


@dataclass(frozen=True)
class Suggestion:
    """A point that is worth a click."""

    point: int
    """index in the cloud"""
    score: float
    """what it was chosen by, 0..1, the highest first"""
    why: str
    """one line for the person who is to label it"""
    confidence: float = 0.0
    """the model's confidence in the class that it gave the point, 0..1; 0 = not recorded"""

    def to_plain(self) -> dict[str, Any]:
        """Numbers and words only; what older records lack is written only where it says something."""
        return {name: value for name, value in vars(self).items() if value or name != "confidence"}

    @classmethod
    def from_plain(cls, row: Any) -> Suggestion:
        """A suggestion from a mapping; KeyError, TypeError or ValueError where it holds something else."""
        return cls(int(row["point"]), float(row["score"]), str(row["why"]), float(row.get("confidence", 0.0)))


@dataclass(frozen=True)
class FrameRecord:
    """What is known about one kept frame."""

    key: str
    stamp_ns: int
    frame_id: str
    height: int
    width: int
    ring_is_row: bool
    """the row of the organised cloud is the laser's index"""
    intensity_field: str
    intensity_full_scale: float
    sensor: str
    bundle: str
    """name of the bundle whose predictions lie beside it"""
    bundle_hash: str
    score: float
    """how much is to be learnt from the frame, 0..1"""
    reason: str
    """uncertain, novel, random (drawn, so that the log can be evaluated), asked (by a service call) or chosen (offline)"""
    source_key: str = ""
    """name of the scan in the data set that it was taken from; empty on the robot"""
    intensity_scale: float = 0.0
    """factor that the model was told to multiply the intensity by; 0 = none, it went by sensor and training data"""
    tag: str = ""
    """the word under which somebody asked for the frame; empty where nobody did"""
    note: str = ""
    """why somebody asked for the frame, in words"""
    colored: bool = False
    """whether its points have colours"""
    descriptor: tuple[float, ...] = ()
    """what the frame looks like, for telling new from known"""
    suggestions: tuple[Suggestion, ...] = field(default=())

    @property
    def points(self) -> int:
        """N, the points of the cloud."""
        return self.height * self.width

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the files that hold an entry per point, by their part."""
        count = self.points
        colors = {"rgb": COLOR_BYTES * count} if self.colored else {}
        return {"velodyne": POINT_BYTES * count, "predictions": 4 * count, "uncertainty": NPY_HEADER_BYTES + 2 * count, **colors}

    def to_plain(self) -> dict[str, Any]:
        """Numbers, words and lists only."""
        plain = {name: value for name, value in vars(self).items() if value or name not in LATER_KINDS}
        plain["descriptor"] = list(self.descriptor)
        plain["suggestions"] = [suggestion.to_plain() for suggestion in self.suggestions]
        return plain

    def to_yaml(self) -> str:
        """The text of frames/KEY.yaml: one line a field and a suggestion.

        Each value is written as JSON, which YAML can read: PyYAML's own writer would hold the interpreter for 30 ms.
        """
        plain = self.to_plain()
        suggestions = plain.pop("suggestions")
        lines = [f"{name}: {json.dumps(value)}" for name, value in plain.items()]
        lines += ["suggestions:", *(f"- {json.dumps(row)}" for row in suggestions)] if suggestions else ["suggestions: []"]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_plain(cls, content: Any, where: str) -> FrameRecord:
        """The record in a mapping; DataError where it holds something else."""
        try:
            values = {name: kind(content[name]) for name, kind in KINDS.items()}
            values |= {name: kind(content[name]) for name, kind in LATER_KINDS.items() if name in content}
            descriptor = tuple(map(float, content["descriptor"]))
            rows = [Suggestion.from_plain(row) for row in content["suggestions"]]
            record = cls(**values, descriptor=descriptor, suggestions=tuple(rows))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise DataError(f"{where}: is not the record of a frame; remove the frame, or copy it again") from None
        scales = (record.intensity_full_scale, record.intensity_scale)
        numbers = (record.score, *scales, *descriptor, *(row.score for row in rows), *(row.confidence for row in rows))
        in_cloud = all(0 <= row.point < record.points for row in rows)
        if not in_cloud or not all(map(math.isfinite, numbers)) or min(record.height, record.width, *scales) < 0:
            raise DataError(f"{where}: holds impossible numbers; remove the frame, or copy it again")
        return record

    @classmethod
    def read(cls, folder: Path, key: str) -> FrameRecord:
        """The record of a frame from its own file; DataError where it is missing or damaged."""
        path = part_path(folder, "frames", key)
        try:
            record = cls.from_plain(read_yaml(path), str(path))
        except ConfigError as error:
            raise DataError(str(error)) from None
        if record.key != key:
            raise DataError(f"{path}: is the record of frame '{record.key}'; remove the frame, or copy it again")
        return record


KINDS = {
    "key": str,
    "stamp_ns": int,
    "frame_id": str,
    "height": int,
    "width": int,
    "ring_is_row": bool,
    "intensity_field": str,
    "intensity_full_scale": float,
    "sensor": str,
    "bundle": str,
    "bundle_hash": str,
    "score": float,
    "reason": str,
    "source_key": str,
}
LATER_KINDS = {"intensity_scale": float, "tag": str, "note": str, "colored": bool}
"""what older records lack; written only where it says something, so that an old log keeps its hash"""


def bytes_per_point(colored: bool) -> int:
    """What a point takes on the disk: cloud, prediction, uncertainty, and its colour where it has one."""
    return POINT_BYTES + 4 + 2 + COLOR_BYTES * colored


def part_path(folder: Path, part: str, key: str) -> Path:
    """Where a part of a frame lies: velodyne, predictions, uncertainty, frames or rgb."""
    return folder / part / f"{key}{(SUFFIX_OF_PART | SUFFIX_OF_COLORS)[part]}"


def read_records(folder: Path, problems: list[str]) -> dict[str, FrameRecord]:
    """The whole frames of a log by key, sorted; a sentence to `problems` for each entry that is not whole.

    The index saves the reading of each record; it is believed only about frames whose files are there, complete.
    """
    indexed = read_index(folder)
    keys = sorted(path.stem for path in folder.glob("frames/*.yaml") if not path.name.startswith("."))
    records = {}
    for key in keys:
        try:
            record = indexed.get(key) or FrameRecord.read(folder, key)
            _check_sizes(folder, record)
        except DataError as error:
            problems.append(f"{error}; the frame is left out")
            continue
        records[key] = record
    return records


def read_index(folder: Path) -> dict[str, FrameRecord]:
    """The records that the index holds, by key; a line that a kill cut off is passed over."""
    records = {}
    try:
        lines = read_regular(folder / INDEX).split(b"\n")
    except OSError:
        return {}
    for line in lines:
        try:
            record = FrameRecord.from_plain(parse_json(line), INDEX) if line else None
        except (ValueError, DataError):
            continue
        if record is not None:
            records[record.key] = record
    return records


def _check_sizes(folder: Path, record: FrameRecord) -> None:
    for part, size in record.sizes.items():
        path = part_path(folder, part, record.key)
        try:
            found = path.stat().st_size
        except OSError:
            raise DataError(f"{path}: is missing") from None
        if found != size:
            raise DataError(f"{path}: has {counted(found, 'byte')}, but {size} are expected")


class FrameScans(OpensAsOne):
    """The whole frames of a log at the moment of opening, in the order of keeping; without labels.

    Raises DataError where there is none; `problems` says which entries were left out.
    """

    def __init__(self, folder: Path, labels: LabelMap | None = None, records: Mapping[str, FrameRecord] | None = None) -> None:
        manifest = Manifest.read(folder)
        if manifest is None or not manifest.growing:
            raise DataError(f"{folder}: has a folder 'frames' but is not a frame log; check the path")
        self.folder = folder
        self.name = manifest.name
        self.labels = labels or manifest.label_map
        self.spec = manifest.spec
        self.intensity_full_scale = manifest.intensity_full_scale
        self.problems: list[str] = []
        self._records = dict(read_records(folder, self.problems) if records is None else records)
        self.keys = tuple(sorted(self._records))
        if not self.keys:
            reason = f" ({self.problems[0]})" if self.problems else ""
            raise DataError(
                f"{folder}: the frame log has no complete frame yet{reason}; let the node run, or see 'weakseg select'"
            )

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True for the folder of a frame log."""
        return all((folder / name).is_dir() for name in SUFFIX_OF_PART)

    @classmethod
    def splits(cls, folder: Path) -> tuple[str, ...]:
        """None: a log is one drive."""
        return ()

    @classmethod
    def open(cls, folder: Path, split: str, labels: LabelMap | None, sequences: Sequence[str]) -> ScanSet:
        """All frames of the log."""
        if split or sequences:
            raise DataError(f"{folder}: is a frame log, which has no splits or sequences; open all of it")
        return cls(folder, labels)

    @cached_property
    def content_hash(self) -> str:
        """Another one after every frame that came or went."""
        records = (json.dumps(self._records[key].to_plain()) for key in self.keys)
        return sha256_of_parts([*records])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Scan:
        record = self._records[self.keys[index]]
        return Scan(record.key, read_frame_cloud(self.folder, record), None, None, None)


def read_frame_cloud(folder: Path, record: FrameRecord) -> Cloud:
    """The cloud of a frame, with its own stamp, frame and grid; DataError where the file does not fit.

    The intensity is as the model saw it: multiplied by the record's factor, where it has one, which leaves no full scale.
    """
    path = part_path(folder, "velodyne", record.key)
    points = scan_files.read_points(path) if record.points else np.zeros((0, 4), np.float32)
    if len(points) != record.points:
        raise DataError(
            f"{path}: has {counted(len(points), 'point')}, but its record says {record.points}; remove the frame or copy it"
        )
    factor = np.float32(record.intensity_scale or 1.0)
    return make_cloud(
        np.ascontiguousarray(points[:, :3]),
        points[:, 3] * factor if record.intensity_field else None,
        np.repeat(np.arange(record.height, dtype=np.uint16), record.width) if record.ring_is_row else None,
        rgb=scan_files.read_rgb(part_path(folder, "rgb", record.key), record.points) if record.colored else None,
        stamp_ns=record.stamp_ns,
        frame_id=record.frame_id,
        height=record.height,
        width=record.width,
        intensity_full_scale=0.0 if record.intensity_scale else record.intensity_full_scale,
    )
