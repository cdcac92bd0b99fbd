# SPDX-License-Identifier: Apache-2.0
"""The files of a folder of scans: SemanticKITTI's layout, and a manifest that says what a bare layout cannot.

velodyne/000000.bin   (N, 4) little-endian float32: x, y, z in m, intensity
labels/000000.label   (N,) little-endian uint32: raw id in the low 16 bits, instance in the high 16
labels/000000.npy     the same as numpy saves it, of any integer type
rgb/000000.rgb        ours: (N, 3) uint8 red, green, blue of each point, where the sensor sees colours
poses.txt             12 numbers a line, the upper rows of the 4 x 4 pose of each scan
times.txt             seconds, one line a scan
calib.txt             KITTI's; its 'Tr' turns the LiDAR's axes into the camera's, in which its poses are written
expressions.jsonl     ours: English expressions about the scans, with the instances that answer them
manifest.yaml         ours: sensor, label map, sha256 of every file
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import dump_yaml, from_mapping
from weakseg_ros.data.arrays import load_array
from weakseg_ros.data.bag_files import natural
from weakseg_ros.data.bin_layout import KITTI, SHOWN, find_layout, read_bin
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import read_regular, sha256_of_parts, write_atomic
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.reads import check_regular
from weakseg_ros.yaml_files import read_yaml

POINT_BYTES = KITTI.point_bytes
_NAMED: set[Path] = set()
"""folders of which it was said that their files have another layout"""
log = logging.getLogger(__name__)
MANIFEST = "manifest.yaml"
EXPRESSIONS = "expressions.jsonl"
MANIFEST_VERSION = 1
FINGERPRINT_BLOCK = 4096
LABEL_SUFFIXES = (".label", ".npy")
_TYPES_BY_BYTES = {1: "uint8", 2: "uint16", 8: "int64 or float64"}
LARGEST_STAMP_NS = 1 << 63


@dataclass(frozen=True)
class Manifest:
    """What `manifest.yaml` holds; incomplete only while scans are moved into a folder that holds other files, too."""

    version: int
    name: str
    source: str
    seed: int | None
    sensor: str
    frame_id: str
    labels: str
    classes: tuple[LabelClass, ...]
    spec: RangeSpec
    organised: tuple[int, int] | None
    """height and width of the grid that every scan keeps, non-returns included; null for unordered points"""
    ring_is_row: bool
    """True where the row of the organised grid is the laser's index"""
    intensity_full_scale: float
    count: int
    complete: bool
    content_hash: str
    files: dict[str, str]
    """sha256 by path relative to the folder"""
    intensity_field: str = "intensity"
    """what the sensor calls the intensity; empty where it gives none"""
    growing: bool = False
    """True for a frame log: its frames come and go while it is read, so that each has a record and none is listed here"""

    @property
    def label_map(self) -> LabelMap:
        """The label map as it was when the scans were written."""
        return LabelMap(self.labels, self.classes)

    def save(self, folder: Path) -> None:
        """Write the manifest into the folder, atomically."""
        write_atomic(folder / MANIFEST, dump_yaml(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The folder's manifest, or None where it has none.

        Raises ConfigError for an unreadable one and DataError for one that is newer than this program or was never
        finished.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        content = read_yaml(path)
        version = content.get("version") if isinstance(content, dict) else None
        if version != MANIFEST_VERSION:
            raise DataError(
                f"{path}: has version {version}, but this program reads {MANIFEST_VERSION}; update it, or write the scans again"
            )
        manifest = from_mapping(cls, content, str(path))
        if not manifest.complete:
            raise DataError(f"{folder}: was interrupted while it was written; write it again")
        return manifest


def own_files(files: Iterable[Path]) -> list[Path]:
    """Files in the order of the numbers in their names, without the '._NAME' that macOS lays beside each file on other disks."""
    kept = (file for file in files if not file.name.startswith("._"))
    return sorted(kept, key=lambda file: ([natural(Path(part)) for part in file.parts], file.name))


def content_hash(files: dict[str, str]) -> str:
    """One hash for a set of files from the sha256 of each, whatever order they are listed in."""
    return sha256_of_parts(part for item in sorted(files.items()) for part in item)


def fingerprint(folder: Path, names: list[str]) -> str:
    """A hash for files too large to read whole: names, sizes, and 4 KiB of the start, middle and end of each.

    It changes with any added, removed or resized file, but not with every edit in place; a manifest does better.
    """
    parts: list[str | bytes] = []
    for name in names:
        size = (folder / name).stat().st_size
        parts += [name, str(size)]
        try:
            file = open(check_regular(folder / name), "rb")
        except PermissionError:  # whoever reads the scans says so, and goes on with the others
            continue
        with file:
            for start in (0, max(0, size // 2), max(0, size - FINGERPRINT_BLOCK)):
                file.seek(start)
                parts.append(file.read(FINGERPRINT_BLOCK))
    return sha256_of_parts(parts)


def read_points(path: Path) -> NDArray[np.float32]:
    """(N, 4) x, y, z in m and intensity; DataError for a file that is missing, empty or cut off inside a point.

    A file that can only be of five or six columns, or of doubles, as conversions of nuScenes write it, is read as such.
    """
    blob = _read_bytes(path)
    if not blob:
        raise DataError(f"{path}: is empty; remove the scan or write it again")
    layout = find_layout(blob) or KITTI
    if layout.columns < KITTI.columns:
        raise DataError(f"{path}: has {layout}, and a scan has {SHOWN}; 'weakseg import {path.parent}' makes scans of such files")
    if layout != KITTI and path.parent not in _NAMED:
        _NAMED.add(path.parent)
        log.warning("%s: its scans have %s; columns after the intensity are ignored", path.parent, layout)
    if len(blob) % layout.point_bytes:
        text = f"has {counted(len(blob), 'byte')}, not a multiple of {layout.point_bytes} ({SHOWN})"
        raise DataError(f"{path}: {text}; the file is cut off: copy it again, or bring it into the layout with 'weakseg import'")
    return read_bin(blob, layout)[:, :4]


def read_rgb(path: Path, count: int) -> NDArray[np.uint8]:
    """(N, 3) red, green, blue of a scan of `count` points; DataError for another number of bytes."""
    blob = _read_bytes(path)
    if len(blob) != 3 * count:
        raise DataError(
            f"{path}: has {counted(len(blob), 'byte')}, its scan of {counted(count, 'point')} "
            f"needs {3 * count}; copy the file again"
        )
    return np.frombuffer(blob, np.uint8).reshape(count, 3)


def write_rgb(path: Path, rgb: NDArray[np.uint8]) -> bytes:
    """Write the colours of a scan; returns the bytes."""
    blob = np.ascontiguousarray(rgb, np.uint8).tobytes()
    write_atomic(path, blob)
    return blob


def read_raw_labels(path: Path, count: int) -> NDArray[np.uint32]:
    """(count,) raw labels of a .label or .npy file; DataError where it holds another number of them, or no labels at all."""
    if path.suffix == ".npy":
        return _labels_of_array(path, count)
    blob = _read_bytes(path)
    if len(blob) != 4 * count:
        if blob and not blob.strip(_OF_NUMBERS):
            raise DataError(f"{path}: holds numbers as text; {_AS_ARRAY}")
        raise DataError(f"{path}: has {_found(len(blob), count)}; {_due(len(blob), count)}")
    raw = np.frombuffer(blob, "<u4")
    if _looks_like_floats(raw):
        raise DataError(f"{path}: holds float32 numbers, but uint32 is expected; {_AS_ARRAY}")
    if raw.any() and not (raw & 0xFFFF).any():
        raise DataError(f"{path}: no point has a class, but some have an instance: other byte order? {_AS_ARRAY}")
    return raw


_OF_NUMBERS = b"0123456789+-.,;eE \t\r\n"
_AS_ARRAY = "write the labels as uint32, or with numpy.save as .npy of any integer type"


def _found(size: int, count: int) -> str:
    per_point = size // count if count and size % count == 0 else 0
    if per_point not in _TYPES_BY_BYTES:
        return f"{counted(size, 'byte')}, but its scan has {counted(count, 'point')}, so {4 * count} are due"
    found = (
        f"{counted(size, 'byte')} for {counted(count, 'point')}, {per_point} a point as datatype {_TYPES_BY_BYTES[per_point]} has"
    )
    return f"{found}, but 4 a point (uint32) are due"


def _due(size: int, count: int) -> str:
    return _AS_ARRAY if count and size % count == 0 and size // count in _TYPES_BY_BYTES else "label it again"


def _looks_like_floats(raw: NDArray[np.uint32]) -> bool:
    """Whether the bytes are whole float32 numbers, with instances or without: as uint32 these were instances above 16000."""
    some = raw[raw > 0]
    with np.errstate(all="ignore"):
        values = some.view("<f4")
        return bool(len(some)) and bool(((values >= 1) & (values < 1 << 24) & (values == np.floor(values))).all())


def _labels_of_array(path: Path, count: int) -> NDArray[np.uint32]:
    try:
        raw = load_array(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a numpy array ({error}); write it again with numpy.save") from None
    if raw.dtype.kind not in "iu" or raw.size != count:
        fault = f"holds {counted(raw.size, 'value')} of type {raw.dtype} for {counted(count, 'point')}"
        raise DataError(f"{path}: {fault}; one integer per point is expected, label it again or convert it")
    if raw.size and not (raw.min() >= 0 and raw.max() < 1 << 32):
        raise DataError(f"{path}: holds ids {raw.min()}..{raw.max()}, which uint32 cannot hold; use 0 for points without a class")
    labels: NDArray[np.uint32] = raw.reshape(-1).astype(np.uint32)
    return labels


def write_points(path: Path, xyz: NDArray[np.float32], intensity: NDArray[np.float32]) -> bytes:
    """Write (N, 3) positions and (N,) intensities; values that are not finite become 0. Returns the bytes written."""
    points = np.concatenate([xyz, intensity[:, None]], axis=1, dtype="<f4")
    points[~np.isfinite(points).all(axis=1)] = 0.0
    blob = points.tobytes()
    write_atomic(path, blob)
    return blob


def write_raw_labels(path: Path, raw: NDArray[np.uint32]) -> bytes:
    """Write (N,) raw labels; returns the bytes written."""
    blob = raw.astype("<u4").tobytes()
    write_atomic(path, blob)
    return blob


def read_stamps(path: Path) -> list[int]:
    """Nanoseconds, exact, one per line of seconds."""
    stamps = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            stamp_ns = Decimal(line) * 10**9
            in_range = abs(stamp_ns) < LARGEST_STAMP_NS
        except ArithmeticError:
            in_range = False
        if not in_range:
            raise DataError(f"{path}:{number}: '{line[:30]}' is not a time in seconds; repair or remove the file")
        stamps.append(int(stamp_ns))
    return stamps


def format_stamp(stamp_ns: int) -> str:
    """Nanoseconds as decimal seconds without rounding."""
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold something, without comments (#); DataError where it is no text."""
    try:
        lines = [line.strip() for line in _read_bytes(path).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not a text file; repair or remove it") from None
    return [line for line in lines if line and not line.startswith("#")]


def _read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
