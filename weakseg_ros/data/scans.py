# SPDX-License-Identifier: Apache-2.0
"""Scans on disk: SemanticKITTI's folder layout, read and written, and `open_scans` for any folder of scans."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from weakseg_ros import registry
from weakseg_ros.config import read_yaml
from weakseg_ros.data import scan_files
from weakseg_ros.data.bare_spec import spec_of_bare
from weakseg_ros.data.cloud_files import cloud_files
from weakseg_ros.data.scan_files import Manifest
from weakseg_ros.data.scan_sets import OpensScans, Scan, ScanCollection, ScanSet, Subset, check, holdout, readable
from weakseg_ros.data.side_files import label_file, poses_of, say_strays, stamps_of
from weakseg_ros.errors import DataError, did_you_mean
from weakseg_ros.files import (
    cannot_be_replaced,
    content_of,
    inside,
    is_ours,
    move_into,
    put_in_place,
    sha256_of,
    staged,
    write_atomic,
)
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap, instances_in
from weakseg_ros.points.projection import RangeSpec

__all__ = [
    "Scan",
    "ScanCollection",
    "ScanFolder",
    "ScanSet",
    "ScanWriter",
    "Subset",
    "check",
    "holdout",
    "open_scans",
    "open_splits",
    "readable",
    "recordings",
    "splits_of",
]

OFFICIAL_SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(f"{i:02d}" for i in range(11, 22)),
}
"""SemanticKITTI's sequences by split"""


def open_scans(path: Path | str, split: str = "", labels: LabelMap | str | None = None, sequences: Sequence[str] = ()) -> ScanSet:
    """The data set in a folder, recognised by what lies there (the rows of `registry.DATASETS`).

    `split` picks a part that the data set tells apart ('train', 'val'), '' takes all; `labels` replaces its label map
    (a map, a name, or a YAML file's path); `sequences` picks recordings by name. Raises DataError where the folder
    holds no scans or lacks the part asked for.
    """
    folder = Path(path)
    label_map = LabelMap.load(labels) if isinstance(labels, str) and labels else labels
    return _recognise(folder).open(folder, split, label_map or None, tuple(sequences))


def open_splits(path: Path | str, held_out: float = 0.2, labels: LabelMap | str | None = None) -> tuple[ScanSet, ScanSet]:
    """(train, validation) of a folder: its own splits where it has both, else the last `held_out` of its scans."""
    if {"train", "val"} <= set(splits_of(path)):
        return open_scans(path, "train", labels), open_scans(path, "val", labels)
    return holdout(open_scans(path, "", labels), held_out)


def splits_of(path: Path | str) -> tuple[str, ...]:
    """The parts that a folder itself tells apart ('train', 'val'), none where it does not; DataError without scans in it."""
    return _recognise(Path(path)).splits(Path(path))


def _recognise(folder: Path) -> OpensScans:
    if folder.is_file():
        raise DataError(f"{folder}: is a file; scans lie in a folder ('weakseg import {folder}' makes one of a bag or of clouds)")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path")
    for name in registry.DATASETS:
        kind = cast(OpensScans, registry.load(registry.DATASETS, name))
        if kind.recognises(folder):
            return kind
    looked = "velodyne/, sequences/, and undamaged train.npz or val.npz of a known kind"
    raise DataError(f"{folder}: holds no scans (looked for {looked}){_what_lies_there(folder)}")


def _what_lies_there(folder: Path) -> str:
    """What a folder without scans holds, and how it becomes one with scans."""
    for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        files = cloud_files(place)
        if files:
            kind = files[0].suffix
            return f"; {len(files)} {kind} files were found in {place}: 'weakseg import {place} --out scans' makes scans of them"
    return "; check the path"


class ScanFolder:
    """One recording in SemanticKITTI's layout, with our manifest or without.

    Without a manifest it is taken as SemanticKITTI's as to intensity (0..1) and classes (its 19); the range image is
    measured. Scans without a label file have no class ids. Raises DataError where velodyne/ holds no scan or the manifest
    lists another number.
    """

    official_splits: ClassVar[dict[str, tuple[str, ...]]] = OFFICIAL_SPLITS

    def __init__(self, folder: Path, labels: LabelMap | None = None, name: str = "") -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.keys = tuple(file.stem for file in _points_of(folder))
        self._check_count()
        self.name = name or (self.manifest.name if self.manifest else folder.resolve().name)
        own = self.manifest.label_map if self.manifest else None
        self.labels = labels or own or LabelMap.load("semantickitti")
        self.intensity_full_scale = self.manifest.intensity_full_scale if self.manifest else 1.0
        listed = self.manifest is not None
        self._stamps = stamps_of(folder, self.keys, listed)
        self._poses = poses_of(folder, self.keys, listed)
        say_strays(folder, self.keys)

    @cached_property
    def spec(self) -> RangeSpec:
        """The manifest's range image, or one that is measured from the scans of a folder that has none."""
        if self.manifest:
            return self.manifest.spec
        return spec_of_bare(tuple(_points_of(self.folder)))

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """True for a recording, a SemanticKITTI root, and a folder of recordings or of splits."""
        return bool(recordings(folder))

    @classmethod
    def splits(cls, folder: Path) -> tuple[str, ...]:
        """'train', 'val', 'test' where SemanticKITTI's sequences or folders of that name are there."""
        present = dict(recordings(folder))
        if (folder / "sequences").is_dir():
            return tuple(split for split, names in cls.official_splits.items() if set(names) & set(present))
        return tuple(split for split in OFFICIAL_SPLITS if recordings(folder / split))

    @classmethod
    def open(cls, folder: Path, split: str, labels: LabelMap | None, sequences: Sequence[str]) -> ScanSet:
        """All recordings under a folder, or those of a split, or those named."""
        if split and not (folder / "sequences").is_dir() and recordings(folder / split):
            folder, split = folder / split, ""
        found = dict(recordings(folder))
        names = _chosen(folder, list(found), cls.official_splits.get(split, ()), split, sequences)
        if names == [""]:
            return cls(folder, labels)
        opened = [cls(found[name], labels, name) for name in names]
        _share_spec(opened)
        parts = list(zip(names, opened, strict=True))
        return ScanCollection(" ".join(filter(None, [folder.resolve().name, split])), parts)

    @cached_property
    def content_hash(self) -> str:
        """The manifest's hash, or a fingerprint of the files of a folder that has none."""
        if self.manifest:
            return self.manifest.content_hash
        return scan_files.fingerprint(self.folder, _files_of(self.folder))

    def verify(self) -> list[str]:
        """Compare every file with the manifest's sha256; one sentence for each that differs, none where all agree."""
        if not self.manifest:
            return [f"{self.folder}: has no {scan_files.MANIFEST}, so there is nothing to compare with"]
        listed, present = self.manifest.files, _files_of(self.folder)
        problems = [f"{self.folder / name}: is not in the manifest" for name in present if name not in listed]
        for name, digest in listed.items():
            path = inside(self.folder, name)
            if not path.is_file():
                problems.append(f"{path}: is missing")
            elif sha256_of(path) != digest:
                problems.append(f"{path}: was changed since the manifest was written")
        return problems

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Scan:
        key = self.keys[index]
        index %= len(self)
        points = scan_files.read_points(self.folder / "velodyne" / f"{key}.bin")
        cloud = self._cloud(points, key, self._stamps[index])
        pose = self._poses[index] if self._poses is not None else None
        file = label_file(self.folder, key)
        if file is None:
            return Scan(key, cloud, None, None, pose)
        raw = scan_files.read_raw_labels(file, len(points))
        unknown = self.labels.unknown_raw_ids(raw)
        if unknown:
            found = ", ".join(map(str, unknown[:5]))
            hint = "give a map that lists them with --label-map (formerly --labels), those to ignore under raw_ids of class 0"
            raise DataError(f"{file}: holds raw ids that label map '{self.labels.name}' does not list ({found}); {hint}")
        instance = instances_in(raw)
        return Scan(key, cloud, self.labels.to_class(raw), instance, pose)

    def _cloud(self, points: NDArray[np.float32], key: str, stamp_ns: int) -> Cloud:
        grid = self.manifest.organised if self.manifest else None
        if grid and grid[0] * grid[1] != len(points):
            path = self.folder / "velodyne" / f"{key}.bin"
            raise DataError(f"{path}: has {len(points)} points, the manifest says {grid[0]} x {grid[1]}; copy the file again")
        height, width = grid or (1, len(points))
        ring = np.repeat(np.arange(height, dtype=np.uint16), width) if self.manifest and self.manifest.ring_is_row else None
        has_intensity = not self.manifest or bool(self.manifest.intensity_field)
        return make_cloud(
            np.ascontiguousarray(points[:, :3]),
            np.ascontiguousarray(points[:, 3]) if has_intensity else None,
            ring,
            stamp_ns=stamp_ns,
            frame_id=self.manifest.frame_id if self.manifest else "velodyne",
            height=height,
            width=width,
            intensity_full_scale=self.intensity_full_scale,
        )

    def _check_count(self) -> None:
        if not self.keys:
            raise DataError(f"{self.folder}/velodyne: holds no .bin file; check the path")
        if self.manifest and self.manifest.count != len(self.keys):
            counts = f"{len(self.keys)} scans, the manifest lists {self.manifest.count}"
            raise DataError(f"{self.folder}: holds {counts}; copy the folder again")


class ScanWriter:
    """Writes scans into a folder, as a context manager; they appear in it when the block ends well.

    Every point is written, in order, so that an organised cloud comes back as its grid; lasers' indices only where they
    are the grid's rows. Raises DataError for a folder that is not empty (`overwrite` replaces the scans in it, and leaves
    other files alone).
    """

    def __init__(
        self,
        folder: Path,
        labels: LabelMap,
        spec: RangeSpec,
        *,
        source: str,
        seed: int | None,
        intensity_full_scale: float,
        sensor: str = "",
        overwrite: bool = False,
    ) -> None:
        self.folder = folder
        self._labels = labels
        self._facts: dict[str, Any] = {
            "version": scan_files.MANIFEST_VERSION,
            "name": folder.resolve().name,
            "source": source,
            "seed": seed,
            "sensor": sensor,
            "labels": labels.name,
            "classes": labels.classes,
            "spec": spec,
            "intensity_full_scale": float(intensity_full_scale),
        }
        self._files: dict[str, str] = {}
        self._stamps: list[int] = []
        self._poses: list[NDArray[np.float64]] = []
        self._shapes: set[tuple[int, int]] = set()
        self._frame_id = self._intensity_field = ""
        self._ring_is_row = True
        self._overwrite = overwrite
        self._refuse_what_is_there()
        self._stack = ExitStack()
        self._fresh = self._stack.enter_context(staged(folder, inside=cannot_be_replaced(folder)))
        for name in ("velodyne", "labels"):
            (self._fresh / name).mkdir()

    def __enter__(self) -> ScanWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            if kind is None:
                self.close()

    def __len__(self) -> int:
        return len(self._stamps)

    def write(self, cloud: Cloud, raw_label: NDArray[np.uint32] | None = None, pose: NDArray[np.float64] | None = None) -> str:
        """Append one scan; returns its key. `raw_label` (N,) is raw id + (instance << 16), `pose` (4, 4).

        Raises DataError for a cloud without points, labels that do not fit it or the label map, a pose that only some
        scans have, and a cloud from whose file the range image could not be made.
        """
        key = f"{len(self):06d}"
        where = f"{self.folder}: scan {key}"
        ring_is_row = cloud.ring is not None and np.array_equal(cloud.ring, np.repeat(np.arange(cloud.height), cloud.width))
        self._check_labels(cloud, raw_label, where)
        self._check_geometry(cloud, pose, ring_is_row, where)
        blob = scan_files.write_points(self._fresh / "velodyne" / f"{key}.bin", cloud.xyz, cloud.intensity)
        self._files[f"velodyne/{key}.bin"] = hashlib.sha256(blob).hexdigest()
        if raw_label is not None:
            blob = scan_files.write_raw_labels(self._fresh / "labels" / f"{key}.label", raw_label)
            self._files[f"labels/{key}.label"] = hashlib.sha256(blob).hexdigest()
        self._ring_is_row &= ring_is_row
        self._shapes.add((cloud.height, cloud.width))
        self._frame_id = self._frame_id or cloud.frame_id
        self._intensity_field = self._intensity_field or cloud.intensity_field
        self._stamps.append(cloud.stamp_ns)
        if pose is not None:
            self._poses.append(np.asarray(pose, np.float64))
        return key

    def close(self) -> None:
        """Write times, poses and the manifest, and put everything in place."""
        self._write_lines("times.txt", [scan_files.format_stamp(stamp) for stamp in self._stamps])
        if self._poses:
            self._write_lines("poses.txt", [scan_files.format_pose(pose) for pose in self._poses])
        self._manifest(complete=True).save(self._fresh)
        with self._stack:
            self._publish()

    def _publish(self) -> None:
        """All at once where nothing else lies in the folder; else our files one by one, with a manifest that says so."""
        self._refuse_what_is_there()
        old = [self.folder / name for name in (*_files_of(self.folder), scan_files.MANIFEST)]
        others = any(path not in old for path in self.folder.rglob("*") if path.is_file() and not is_ours(path.name))
        if not others and not cannot_be_replaced(self.folder):
            put_in_place(self._fresh, self.folder)
            return
        self._manifest(complete=False).save(self.folder)
        for path in old[:-1]:
            path.unlink()
        move_into(self._fresh, self.folder, scan_files.MANIFEST)

    def _refuse_what_is_there(self) -> None:
        """DataError where the folder holds something that may not be replaced; a recording that was interrupted may."""
        if not content_of(self.folder) or _manifest_says(self.folder, complete=False):
            return
        if not self._overwrite:
            raise DataError(f"{self.folder}: is not empty; choose another folder, or allow to overwrite it")
        if _manifest_says(self.folder, growing=True):
            raise DataError(f"{self.folder}: is a frame log; choose another folder")
        if _files_of(self.folder) and not (self.folder / scan_files.MANIFEST).is_file():
            raise DataError(f"{self.folder}: holds scans that this program did not write; choose another folder")

    def _write_lines(self, name: str, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        write_atomic(self._fresh / name, text)
        self._files[name] = hashlib.sha256(text.encode()).hexdigest()

    def _manifest(self, complete: bool) -> Manifest:
        grid = next(iter(self._shapes)) if len(self._shapes) == 1 else (1, 0)
        organised = grid if grid[0] > 1 else None
        return Manifest(
            **self._facts,
            frame_id=self._frame_id,
            organised=organised,
            ring_is_row=bool(organised) and self._ring_is_row,
            intensity_field=self._intensity_field,
            count=len(self),
            complete=complete,
            content_hash=scan_files.content_hash(self._files),
            files=dict(self._files),
        )

    def _check_labels(self, cloud: Cloud, raw_label: NDArray[np.uint32] | None, where: str) -> None:
        if not len(cloud):
            raise DataError(f"{where}: the cloud has no points; leave it out")
        if raw_label is None:
            return
        if raw_label.shape != (len(cloud),):
            raise DataError(f"{where}: labels have shape {raw_label.shape}, the cloud has {len(cloud)} points; label every point")
        unknown = self._labels.unknown_raw_ids(raw_label)
        if unknown:
            raise DataError(f"{where}: raw ids {unknown[:5]} are not in label map '{self._labels.name}'; add them to it")

    def _check_geometry(self, cloud: Cloud, pose: NDArray[np.float64] | None, ring_is_row: bool, where: str) -> None:
        if len(self) and (pose is not None) != bool(self._poses):
            raise DataError(f"{where}: give a pose for every scan, or for none")
        rows = self._facts["spec"].rows
        is_grid = cloud.height > 1 and self._shapes <= {(cloud.height, cloud.width)}
        if (rows != "angle" and not is_grid) or (rows == "ring" and not ring_is_row):
            fault = "the cloud is not organised as the one grid of laser by column that all scans share"
            raise DataError(f"{where}: the range image takes its rows by '{rows}', but {fault}; use rows 'angle'")


def _manifest_says(folder: Path, **facts: bool) -> bool:
    """Whether the folder has a manifest with these entries; a recording that was interrupted says `complete: false`."""
    content = read_yaml(folder / scan_files.MANIFEST) if (folder / scan_files.MANIFEST).is_file() else None
    return isinstance(content, dict) and facts.items() <= content.items()


def _share_spec(recordings: Sequence[ScanFolder]) -> None:
    """Recordings without a manifest are of one sensor: they get one range image, measured over all of them."""
    bare = [part for part in recordings if part.manifest is None and "spec" not in vars(part)]
    spec = spec_of_bare(tuple(file for part in bare for file in _points_of(part.folder))) if bare else RangeSpec()
    for part in bare:
        part.spec = spec


def _points_of(folder: Path) -> list[Path]:
    """The files of a recording's scans, in order."""
    return sorted((folder / "velodyne").glob("*.bin"))


def _files_of(folder: Path) -> list[str]:
    """The files of the layout that are there, relative to the folder, sorted; the manifest is not one of them."""
    labels = (path for suffix in scan_files.LABEL_SUFFIXES for path in folder.glob(f"labels/*{suffix}"))
    scans = [*folder.glob("velodyne/*.bin"), *labels]
    single = [folder / name for name in ("calib.txt", "poses.txt", "times.txt")]
    return sorted(str(path.relative_to(folder)) for path in [*scans, *filter(Path.is_file, single)])


def recordings(folder: Path) -> list[tuple[str, Path]]:
    """Recordings under a folder by name; one named '' where the folder itself is one."""
    if (folder / "velodyne").is_dir():
        return [("", folder)]
    root = folder / "sequences" if (folder / "sequences").is_dir() else folder
    below = content_of(root)
    return [(child.name, child) for child in below if (child / "velodyne").is_dir()]


def _chosen(folder: Path, found: list[str], official: Sequence[str], split: str, sequences: Sequence[str]) -> list[str]:
    """The recordings to open, out of those found."""
    for name in sequences:
        if name not in found:
            raise DataError(f"{folder}: no recording '{name}'{did_you_mean(name, found)}; it has {', '.join(found)}")
    if sequences or not split:
        return list(sequences) or found
    names = [name for name in found if name in official] if (folder / "sequences").is_dir() else []
    if not names:
        known = ", ".join(_recognise(folder).splits(folder)) or "none; open all of it and hold a part out"
        raise DataError(f"{folder}: no split '{split}' here; it tells apart: {known}")
    return names
