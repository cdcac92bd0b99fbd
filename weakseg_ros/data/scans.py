# SPDX-License-Identifier: Apache-2.0
"""Scans on disk: SemanticKITTI's folder layout, and `open_scans` for any folder of scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from weakseg_ros import registry
from weakseg_ros.data import scan_files
from weakseg_ros.data.bag_files import is_bag
from weakseg_ros.data.bare_spec import spec_of_bare
from weakseg_ros.data.cloud_files import cloud_files
from weakseg_ros.data.findings import Finding, fault
from weakseg_ros.data.other_forms import above, below, foreign, of_another_program
from weakseg_ros.data.recordings_check import KITTI_COUNTS, published_findings, recording_findings
from weakseg_ros.data.scan_files import Manifest
from weakseg_ros.data.scan_sets import OpensScans, Scan, ScanCollection, ScanSet, holdout
from weakseg_ros.data.side_files import label_file, poses_of, say_strays, stamps_of
from weakseg_ros.errors import DataError, counted, did_you_mean, refuse_bytes
from weakseg_ros.files import content_of, inside, sha256_of
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import NO_LABELS, LabelMap, instances_in
from weakseg_ros.points.projection import RangeSpec

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
    holds no scans or lacks the part asked for, and where a name in it is no text.
    """
    folder = Path(path)
    label_map = LabelMap.load(labels) if isinstance(labels, str) and labels else labels
    opened = _recognise(folder).open(folder, split, label_map or None, tuple(dict.fromkeys(sequences)))
    refuse_bytes((opened.name, *opened.keys), f"{folder}: ")
    return opened


def open_splits(path: Path | str, held_out: float = 0.2, labels: LabelMap | str | None = None) -> tuple[ScanSet, ScanSet]:
    """(train, validation) of a folder: its own splits where it has both, else the last `held_out` of its scans."""
    if {"train", "val"} <= set(splits_of(path)):
        return open_scans(path, "train", labels), open_scans(path, "val", labels)
    return holdout(open_scans(path, "", labels), held_out)


def splits_of(path: Path | str) -> tuple[str, ...]:
    """The parts that a folder itself tells apart ('train', 'val'), none where it does not; DataError without scans in it."""
    return _recognise(Path(path)).splits(Path(path))


def _recognise(folder: Path) -> OpensScans:
    return cast(OpensScans, registry.load(registry.DATASETS, recognised_as(folder)))


def recognised_as(folder: Path) -> str:
    """The row of `registry.DATASETS` whose layout a folder has; DataError where it has none."""
    if folder.is_file():
        usual = f"'weakseg import {folder}' makes one from a bag or cloud files"
        raise DataError(f"{folder}: is a file, but scans are stored in a folder ({foreign(folder) or usual})")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path")
    kind = _layout_of(folder)
    if kind:
        return kind
    looked = "velodyne/, sequences/, undamaged train.npz or val.npz of a known kind, and the layouts in docs/datasets.md"
    raise DataError(f"{folder}: holds no scans (looked for {looked}){_what_lies_there(folder)}")


def _layout_of(folder: Path) -> str:
    """The row of `registry.DATASETS` whose layout a folder has; empty where it has none."""
    kinds = (name for name in registry.DATASETS if cast(OpensScans, registry.load(registry.DATASETS, name)).recognises(folder))
    return next(kinds, "")


def _what_lies_there(folder: Path) -> str:
    """What a folder without scans holds or lies beside, and what to do about it."""
    told = of_another_program(folder) or below(folder, _has_layout)
    if told:
        return told
    for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        if place != folder and is_bag(place):
            return f"; {place} is a bag, name that"
        files = cloud_files(place)
        if files:
            kind = files[0].suffix
            return (
                f"; {len(files)} {kind} files were found in {place}: 'weakseg import {place} --out scans' converts them to scans"
            )
    told = above(folder, _has_layout) or foreign(folder)
    return f"; {told.removeprefix('; ')}" if told else "; check the path"


def _has_layout(place: Path) -> bool:
    return bool(_layout_of(place))


class ScanFolder:
    """One recording in SemanticKITTI's layout, with our manifest or without.

    Without a manifest it is taken as SemanticKITTI's as to intensity (0..1) and classes (its 19); the range image is
    measured. Scans without a label file have no class ids. Raises DataError where velodyne/ holds no scan or the manifest
    lists another number.
    """

    official_splits: ClassVar[dict[str, tuple[str, ...]]] = OFFICIAL_SPLITS
    published_counts: ClassVar[dict[str, int]] = KITTI_COUNTS

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
        self._poses = poses_of(folder, self.keys, self._stamps, listed)
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

    @classmethod
    def inspect(cls, folder: Path) -> Iterator[Finding]:
        """What is missing: of a published data set, of each recording; and what a manifest says was changed."""
        found = dict(recordings(folder))
        manifests = {name: Manifest.read(path) for name, path in found.items() if (path / scan_files.MANIFEST).is_file()}
        published = (folder / "sequences").is_dir() and not manifests
        if published:
            yield from published_findings(folder, found, cls.official_splits, cls.published_counts)
        labelled = {name for split in ("train", "val") for name in cls.official_splits[split]} if published else set()
        for name, path in found.items():
            yield from recording_findings(path, name in labelled)
            if name in manifests:
                yield from (fault(f"{text}; copy the folder again") for text in cls(path).verify())

    @classmethod
    def parts(cls, folder: Path, sequences: Sequence[str]) -> list[tuple[str, ...]]:
        """One recording at a time, so that a damaged one hides no other."""
        return [(name,) if name else () for name in sequences or dict(recordings(folder))]

    @cached_property
    def content_hash(self) -> str:
        """The manifest's hash, or a fingerprint of the files of a folder that has none."""
        if self.manifest:
            return self.manifest.content_hash
        return scan_files.fingerprint(self.folder, layout_files(self.folder))

    def verify(self) -> list[str]:
        """Compare every file with the manifest's sha256; one sentence for each that differs, none where all agree."""
        if not self.manifest:
            return [f"{self.folder}: has no {scan_files.MANIFEST}, so there is nothing to compare with"]
        listed, present = self.manifest.files, layout_files(self.folder)
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
        if file is None or self.labels is NO_LABELS:
            return Scan(key, cloud, None, None, pose)
        raw = scan_files.read_raw_labels(file, len(points))
        self.labels.refuse_unknown(raw, str(file))
        instance = instances_in(raw)
        return Scan(key, cloud, self.labels.to_class(raw), instance, pose)

    def _cloud(self, points: NDArray[np.float32], key: str, stamp_ns: int) -> Cloud:
        grid = self.manifest.organised if self.manifest else None
        if grid and grid[0] * grid[1] != len(points):
            path = self.folder / "velodyne" / f"{key}.bin"
            raise DataError(
                f"{path}: has {counted(len(points), 'point')}, but the manifest says {grid[0]} x {grid[1]}; copy the file again"
            )
        height, width = grid or (1, len(points))
        ring = np.repeat(np.arange(height, dtype=np.uint16), width) if self.manifest and self.manifest.ring_is_row else None
        has_intensity = not self.manifest or bool(self.manifest.intensity_field)
        colors = self.folder / "rgb" / f"{key}.rgb"
        return make_cloud(
            np.ascontiguousarray(points[:, :3]),
            np.ascontiguousarray(points[:, 3]) if has_intensity else None,
            ring,
            rgb=scan_files.read_rgb(colors, len(points)) if colors.is_file() else None,
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
            counts = f"{counted(len(self.keys), 'scan')}, the manifest lists {self.manifest.count}"
            raise DataError(f"{self.folder}: holds {counts}; copy the folder again")


def _share_spec(recordings: Sequence[ScanFolder]) -> None:
    """Recordings without a manifest are of one sensor: they get one range image, measured over all of them."""
    bare = [part for part in recordings if part.manifest is None and "spec" not in vars(part)]
    spec = spec_of_bare(tuple(file for part in bare for file in _points_of(part.folder))) if bare else RangeSpec()
    for part in bare:
        part.spec = spec


def _points_of(folder: Path) -> list[Path]:
    """The files of a recording's scans, in order."""
    return scan_files.own_files((folder / "velodyne").glob("*.bin"))


def layout_files(folder: Path) -> list[str]:
    """The files of the layout that are there, relative to the folder, sorted; the manifest is not one of them."""
    kinds = ("velodyne/*.bin", *(f"labels/*{suffix}" for suffix in scan_files.LABEL_SUFFIXES), "rgb/*.rgb")
    scans = scan_files.own_files(path for kind in kinds for path in folder.glob(kind))
    single = [folder / name for name in ("calib.txt", "poses.txt", "times.txt", scan_files.EXPRESSIONS)]
    return sorted(str(path.relative_to(folder)) for path in [*scans, *filter(Path.is_file, single)])


def recordings(folder: Path) -> list[tuple[str, Path]]:
    """Recordings under a folder by name; one named '' where the folder itself is one."""
    if (folder / "velodyne").is_dir():
        return [("", folder)]
    root = folder / "sequences" if (folder / "sequences").is_dir() else folder
    below = content_of(root)
    return [(child.name, child) for child in below if (child / "velodyne").is_dir()]


def _recording_meant(name: str, found: list[str]) -> str:
    """What to write instead of a recording's name that is not there, as the end of a sentence."""
    if found == [""]:
        return "; it is a single one and has no name, so name none"
    parts = name.replace(",", " ").split()
    if len(parts) > 1 and all(part in found for part in parts):
        return f"; write {' '.join(parts)}, with spaces between the names"
    same = [each for each in found if name.isdecimal() and each.isdecimal() and int(each) == int(name)]
    hint = f"; did you mean '{same[0]}'?" if same else did_you_mean(name, found)
    return f"{hint}; it has {', '.join(found)}"


def _chosen(folder: Path, found: list[str], official: Sequence[str], split: str, sequences: Sequence[str]) -> list[str]:
    """The recordings to open, out of those found."""
    for name in sequences:
        if name not in found:
            raise DataError(f"{folder}: no recording '{name}'{_recording_meant(name, found)}")
    if sequences or not split:
        return list(sequences) or found
    names = [name for name in found if name in official] if (folder / "sequences").is_dir() else []
    if not names:
        known = ", ".join(_recognise(folder).splits(folder)) or "none; open all of it and hold a part out"
        raise DataError(f"{folder}: no split '{split}' here; it has: {known}")
    return names
