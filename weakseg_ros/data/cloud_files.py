# SPDX-License-Identifier: Apache-2.0
"""One cloud from one file: .bin, .pcd, .npy, .npz, .ply, .las and .laz, .feather; each becomes columns by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.arrays import load_array, open_archive
from weakseg_ros.data.bin_layout import LAYOUTS, SHOWN, USUAL, find_layout, named_layout, read_bin
from weakseg_ros.data.pcd import read_pcd, read_ply
from weakseg_ros.data.scan_files import own_files
from weakseg_ros.data.side_files import stamp_of
from weakseg_ros.errors import DataError, counted
from weakseg_ros.extras import need
from weakseg_ros.files import read_regular
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.layout import INTENSITY_NAMES, RING_NAMES
from weakseg_ros.points.rgb import colors_of, names_of_color
from weakseg_ros.reads import check_regular

Columns = Mapping[str, NDArray[Any]]
MORE_INTENSITIES = ("scalar_intensity", "scalar_reflectance")
MORE_RINGS = ("laser_number", "laser_id", "scan_line")

log = logging.getLogger(__name__)

CARLA = {"I", "CosAngle", "ObjIdx", "ObjTag"}
"""columns of the .ply files that CARLA writes"""
LEFT_HANDED = (
    "the columns are named as in CARLA's files, whose y axis points to the right; if these do, too, set mirror to y (--mirror y)"
)
COARSE_M = 0.01
NO_POINTS = ("rgb", "color", "colors", "colour", "colours", "normal", "normals")
"""what else an archive may hold as one row for each point"""


def cloud_files(path: Path) -> list[Path]:
    """The files of clouds in a folder or one of them, in the order of their numbers; those of one kind, the most frequent.

    Raises DataError where there is none.
    """
    if path.is_file():
        return [path] if path.suffix.lower() in READERS else []
    found = own_files(file for file in path.iterdir() if file.suffix.lower() in READERS) if path.is_dir() else []
    kinds = sorted({file.suffix.lower() for file in found}, key=lambda kind: -sum(f.suffix.lower() == kind for f in found))
    if len(kinds) > 1:
        others = ", ".join(f"{sum(f.suffix.lower() == kind for f in found)} {kind}" for kind in kinds[1:])
        log.warning("%s: holds files of several kinds; those of %s are read, %s are not", path, kinds[0], others)
    return [file for file in found if file.suffix.lower() == kinds[0]] if kinds else []


def read_cloud_file(path: Path, columns: Sequence[str] = (), intensity_field: str = "auto") -> Cloud:
    """The cloud in a file; `columns` names those of a .bin or .npy. Raises DataError, with what was found and what to do."""
    try:
        named = READERS[path.suffix.lower()](path, tuple(columns))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    notes: tuple[str, ...] = (LEFT_HANDED,) if CARLA & named.keys() else ()
    lowered = {name.lower(): values for name, values in named.items()}
    if intensity_field not in named and len(lowered) == len(named):  # X, Y, Z, I, as some converters and CARLA write them
        named = lowered
    missing = [axis for axis in "xyz" if axis not in named]
    if missing:
        raise DataError(f"{path}: has no column {' or '.join(missing)} (has {', '.join(named)}); name them x, y and z")
    intensity = _intensity(named, intensity_field, path)
    ring = next((named[name] for name in (*RING_NAMES, *MORE_RINGS) if name in named), None)
    values = None if intensity is None else named[intensity]
    _check_numbers({axis: named[axis] for axis in "xyz"} | ({intensity: named[intensity]} if intensity else {}), path)
    scale = float(np.iinfo(values.dtype).max) if values is not None and values.dtype.kind in "iu" else 0.0
    if lost_m := _lost_m(named):
        notes += (
            f"as float32, positions this far from the origin are rounded to steps of {lost_m:.2g} m; subtract an offset first",
        )
    cloud = make_cloud(
        np.stack([named[axis].astype(np.float32) for axis in "xyz"], axis=1),
        None if values is None else values.astype(np.float32),
        None if ring is None or not _are_rings(ring, len(named["x"])) else np.clip(ring, 0, 65535).astype(np.uint16),
        rgb=colors_of([named[name] for name in names_of_color(named)]),
        intensity_full_scale=scale,
        stamp_ns=stamp_of(path.stem),
    )
    return replace(cloud, notes=notes)


def _lost_m(named: Columns) -> float:
    """The step between two positions as float32 where it is more than a LiDAR's noise, 0 where it is not."""
    farthest = max((float(np.abs(named[axis]).max(initial=0.0, where=np.isfinite(named[axis]))) for axis in "xyz"), default=0.0)
    step = float(np.spacing(np.float32(farthest)))
    return step if named["x"].dtype == np.float64 and step > COARSE_M else 0.0


def _check_numbers(columns: Columns, path: Path) -> None:
    """Each column must hold one number for each point."""
    for name, values in columns.items():
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            raise DataError(f"{path}: column '{name}' is of type {values.dtype}, not one number a point; write it as float32")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path}: its columns are of different lengths ({listed}); write one number a point in each")


def _are_rings(values: NDArray[Any], points: int) -> bool:
    return values.shape == (points,) and values.dtype.kind in "iuf" and bool(np.isfinite(values).all())


def _intensity(named: Columns, wanted: str, path: Path) -> str | None:
    if wanted == "auto":
        return next((name for name in (*INTENSITY_NAMES, *MORE_INTENSITIES) if name in named), None)
    if wanted and wanted not in named:
        raise DataError(f"{path}: has no column '{wanted}' (has {', '.join(named)}); set intensity_field to one of them, or ''")
    return wanted or None


def _bin(path: Path, columns: tuple[str, ...]) -> Columns:
    blob = read_regular(path)
    if not blob:
        raise DataError(f"{path}: is empty; remove it, or write it again")
    if len(set(columns)) < len(columns):
        raise DataError(
            f"columns: '{max(columns, key=columns.count)}' is named {counted(_most(columns), 'time')}; name each column once"
        )
    layout = named_layout(blob, columns, str(path)) if columns else find_layout(blob)
    if layout is None:
        raise DataError(f"{path}: has {counted(len(blob), 'byte')}, {_what_it_could_be(blob)} (usual is {SHOWN})")
    names = columns or USUAL[: layout.columns]
    return dict(zip(names, read_bin(blob, layout).T, strict=True))


def _most(names: Sequence[str]) -> int:
    return max(map(names.count, names))


def _what_it_could_be(blob: bytes) -> str:
    whole = [one for one in LAYOUTS if len(blob) % one.point_bytes == 0]
    if not whole:
        return "no whole points in any usual layout: cut off? copy the file again, or say its columns with --columns"
    listed = " or ".join(map(str, whole))
    return f"which could be {listed}; choose with --columns, e.g. --columns {' '.join(USUAL[: whole[0].columns])}"


def _npy(path: Path, columns: tuple[str, ...]) -> Columns:
    with _as_sentence(path):
        values = load_array(path)
    return _array(values, columns, path)


def _npz(path: Path, columns: tuple[str, ...]) -> Columns:
    with _as_sentence(path), open_archive(path) as archive:
        arrays = {name: archive[name] for name in archive}
    if {"x", "y", "z"} <= {name.lower() for name in arrays}:
        return {name: values.reshape(-1) for name, values in arrays.items()}
    tables = {name: values for name, values in arrays.items() if _is_table(name, values)}
    if not tables:
        raise DataError(f"{path}: holds no table of points (has {', '.join(arrays)}); store (N, 3) or more as 'points'")
    if len(tables) > 1 and "points" not in tables:
        raise DataError(f"{path}: holds several tables ({', '.join(tables)}); name the one with the points 'points'")
    named = dict(_array(tables.get("points", next(iter(tables.values()))), columns, path))
    if "rgb" in arrays and arrays["rgb"].shape[-1:] == (3,):
        named |= dict(zip(("red", "green", "blue"), arrays["rgb"].reshape(-1, 3).T, strict=True))
    count = len(named["x"]) if "x" in named else -1
    return named | {name: values.reshape(-1) for name, values in arrays.items() if values.size == count}


def _is_table(name: str, values: NDArray[Any]) -> bool:
    return values.ndim >= 2 and values.shape[-1] >= 3 and name.lower() not in NO_POINTS


@contextmanager
def _as_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as a NumPy file ({str(error).splitlines()[0]}); save it with numpy.save"
        ) from None


def _array(values: NDArray[Any], columns: tuple[str, ...], path: Path) -> Columns:
    if values.dtype.names:
        return {name: values[name].reshape(-1) for name in values.dtype.names}
    width = values.shape[-1] if values.ndim >= 2 else 0
    names = columns or USUAL[:width]
    if width < 3 or len(names) != width:
        raise DataError(
            f"{path}: is of shape {values.shape}; (N, 3) to (N, {len(USUAL)}) is required, {', '.join(USUAL)}, or set --columns"
        )
    return dict(zip(names, values.reshape(-1, width).T, strict=True))


def _las(path: Path, columns: tuple[str, ...]) -> Columns:
    need("laspy")
    import laspy

    if path.suffix.lower() == ".laz" and not laspy.LazBackend.detect_available():
        need("lazrs")
    try:
        points = laspy.read(check_regular(path))
    except OSError:
        raise
    except Exception as error:  # those of laspy and lazrs share no class of their own
        raise DataError(f"{path}: cannot be read as LAS ({type(error).__name__}: {error}); copy it again") from None
    names = [name for name in points.point_format.dimension_names if name not in "XYZ"]
    return {"x": np.array(points.x), "y": np.array(points.y), "z": np.array(points.z)} | {n: np.array(points[n]) for n in names}


def _feather(path: Path, columns: tuple[str, ...]) -> Columns:
    need("pyarrow")
    from pyarrow import ArrowInvalid, feather

    try:
        table = feather.read_table(check_regular(path))
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: cannot be read as feather ({error}); copy it again") from None
    return {name: table[name].to_numpy() for name in table.column_names}


READERS: dict[str, Callable[[Path, tuple[str, ...]], Columns]] = {
    ".bin": _bin,
    ".pcd": lambda path, _: read_pcd(path),
    ".ply": lambda path, _: read_ply(path),
    ".npy": _npy,
    ".npz": _npz,
    ".las": _las,
    ".laz": _las,
    ".feather": _feather,
}
"""columns by name of a file, by its ending"""
