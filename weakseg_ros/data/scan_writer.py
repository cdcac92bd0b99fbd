# SPDX-License-Identifier: Apache-2.0
"""Scans written into a folder as SemanticKITTI lays them out, with a manifest; they appear in it whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data import scan_files
from weakseg_ros.data.pose_files import format_pose
from weakseg_ros.data.scan_files import Manifest
from weakseg_ros.data.scans import layout_files
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import (
    cannot_be_replaced,
    content_of,
    move_into,
    put_in_place,
    staged,
    write_atomic,
)
from weakseg_ros.half_written import is_ours
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.yaml_files import read_yaml


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
        (self._fresh / "velodyne").mkdir()

    def __enter__(self) -> ScanWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
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
            (self._fresh / "labels").mkdir(exist_ok=True)
            blob = scan_files.write_raw_labels(self._fresh / "labels" / f"{key}.label", raw_label)
            self._files[f"labels/{key}.label"] = hashlib.sha256(blob).hexdigest()
        if cloud.rgb is not None:
            (self._fresh / "rgb").mkdir(exist_ok=True)
            blob = scan_files.write_rgb(self._fresh / "rgb" / f"{key}.rgb", cloud.rgb)
            self._files[f"rgb/{key}.rgb"] = hashlib.sha256(blob).hexdigest()
        self._ring_is_row &= ring_is_row
        self._shapes.add((cloud.height, cloud.width))
        self._frame_id = self._frame_id or cloud.frame_id
        self._intensity_field = self._intensity_field or cloud.intensity_field
        self._stamps.append(cloud.stamp_ns)
        if pose is not None:
            self._poses.append(np.asarray(pose, np.float64))
        return key

    def write_lines(self, name: str, lines: Sequence[str]) -> None:
        """Write a text file of the layout beside the scans."""
        text = "".join(f"{line}\n" for line in lines)
        write_atomic(self._fresh / name, text)
        self._files[name] = hashlib.sha256(text.encode()).hexdigest()

    def close(self) -> None:
        """Write times, poses and the manifest, and put everything in place."""
        self.write_lines("times.txt", [scan_files.format_stamp(stamp) for stamp in self._stamps])
        if self._poses:
            self.write_lines("poses.txt", [format_pose(pose) for pose in self._poses])
        self._manifest(complete=True).save(self._fresh)
        with self._stack:
            self._publish()

    def _publish(self) -> None:
        """All at once where nothing else lies in the folder; else our files one by one, with a manifest that says so."""
        self._refuse_what_is_there()
        old = [self.folder / name for name in (*layout_files(self.folder), scan_files.MANIFEST)]
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
            raise DataError(f"{self.folder}: is not empty; choose another folder, or give --overwrite")
        if _manifest_says(self.folder, growing=True):
            raise DataError(f"{self.folder}: is a frame log; choose another folder")
        if layout_files(self.folder) and not (self.folder / scan_files.MANIFEST).is_file():
            raise DataError(f"{self.folder}: holds scans that this program did not write; choose another folder")

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
            raise DataError(
                f"{where}: labels have shape {raw_label.shape}, the cloud has {counted(len(cloud), 'point')}; label every point"
            )
        unknown = self._labels.unknown_raw_ids(raw_label)
        if unknown:
            raise DataError(f"{where}: raw ids {unknown[:5]} are not in label map '{self._labels.name}'; add them to it")

    def _check_geometry(self, cloud: Cloud, pose: NDArray[np.float64] | None, ring_is_row: bool, where: str) -> None:
        if len(self) and (pose is not None) != bool(self._poses):
            raise DataError(f"{where}: give a pose for every scan, or for none")
        rows = self._facts["spec"].rows
        is_grid = cloud.height > 1 and self._shapes <= {(cloud.height, cloud.width)}
        if (rows != "angle" and not is_grid) or (rows == "ring" and not ring_is_row):
            fault = "the cloud is not organised in the laser-by-column grid that all scans share"
            raise DataError(f"{where}: the range image takes its rows by '{rows}', but {fault}; use rows 'angle'")


def _manifest_says(folder: Path, **facts: bool) -> bool:
    """Whether the folder has a manifest with these entries; a recording that was interrupted says `complete: false`."""
    content = read_yaml(folder / scan_files.MANIFEST) if (folder / scan_files.MANIFEST).is_file() else None
    return isinstance(content, dict) and facts.items() <= content.items()
