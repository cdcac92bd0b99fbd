# SPDX-License-Identifier: Apache-2.0
"""The frame log on disk, written one whole frame at a time while others read it. data/frame_log.py has its layout."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data import scan_files
from weakseg_ros.data.frame_log import (
    INDEX,
    SUFFIX_OF_COLORS,
    SUFFIX_OF_PART,
    FrameRecord,
    Suggestion,
    part_path,
    read_records,
)
from weakseg_ros.data.many_bags import JOURNAL
from weakseg_ros.data.many_bags import MANIFEST as MANIFEST_OF_BAGS
from weakseg_ros.data.scan_files import MANIFEST, Manifest
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import DataError
from weakseg_ros.files import append_json_line, content_of, make_folder, write_atomic
from weakseg_ros.improve.log.context import context_path
from weakseg_ros.improve.log.frame_folder import SESSIONS
from weakseg_ros.locks import is_claimed, try_claim
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap, pack_raw
from weakseg_ros.points.projection import RangeSpec

FINISHED = "finished"
BESIDE_FRAMES = ("looks", ".attempts", MANIFEST_OF_BAGS, JOURNAL)
"""what a choice over many bags puts into its log before the first frame"""
OUR_KEY = re.compile(r"(\d{4,})_\d{6,}")
REMOVED_IN_INDEX = 100
"""lines of removed frames that the index may hold before it is written anew"""


def check_is_log(folder: Path, labels: LabelMap) -> Manifest | None:
    """The manifest of the log in `folder`, None where none was begun there; DataError where no log of these classes may be."""
    manifest = Manifest.read(folder) if folder.is_dir() else None
    if manifest is None:  # a folder with sessions is a log that lost its manifest
        others = [entry for entry in content_of(folder) if entry.name not in BESIDE_FRAMES]
        if others and not (folder / SESSIONS).is_dir():
            raise DataError(f"{folder}: is not empty and is not a frame log; name another folder")
        return None
    if not manifest.growing:
        raise DataError(f"{folder}: holds recorded scans, not a frame log; name another folder")
    if not manifest.label_map.same_classes_as(labels):
        raise DataError(f"{folder}: holds frames of other classes ({manifest.labels}); name another folder for this bundle")
    return manifest


@dataclass(frozen=True)
class Origin:
    """Where a frame and its predictions come from."""

    bundle: str = ""
    bundle_hash: str = ""
    sensor: str = ""
    source_key: str = ""
    intensity_scale: float = 0.0
    """factor that the model was told to multiply the intensity by; 0 = none"""


@dataclass(frozen=True)
class Worth:
    """Why a frame is kept, and what is to be labelled in it."""

    score: float
    """how much is to be learnt from it, 0..1"""
    reason: str
    """uncertain, novel, random, asked or chosen"""
    descriptor: Sequence[float] = ()
    suggestions: Sequence[Suggestion] = ()
    tag: str = ""
    """the word under which somebody asked for it"""
    note: str = ""
    """why somebody asked for it"""


class FrameWriter:
    """Adds frames to a log folder, which it makes where there is none. Several writers may share a folder.

    Each writer takes a session number that no other ever had, so that keys ('0003_000012') are never used twice. What a
    killed writer left half-written is removed at the next start; `notes` has a sentence on it. What there is to say of
    all frames of the session (`facts`: settings, seeds, hashes) lies in sessions/; with `resume`, a session of the same facts
    that was ended before `finish` goes on, with `again` also a finished one; `earlier` are the frames that it had kept. Raises
    DataError for a folder that holds something else or frames of other classes, OSError where the disk does not take it.
    """

    def __init__(
        self,
        folder: Path,
        labels: LabelMap,
        spec: RangeSpec,
        *,
        source: str,
        intensity_full_scale: float = 0.0,
        facts: Mapping[str, Any] | None = None,
        resume: bool = False,
        again: bool = False,
    ) -> None:
        self.folder = folder
        self.records: dict[str, FrameRecord] = {}
        self.notes: list[str] = []
        self._labels, self._spec = labels, spec
        self._count = 0
        self._removed = 0
        self._claim_folder(spec, source, intensity_full_scale)
        self._facts = {"source": source, **(facts or {})}
        self._session, self._lock = _claim_session(folder / SESSIONS, self._facts if resume or again else None, again)
        try:
            self._start()
        except BaseException:  # nothing was written under this number: the next attempt must not leave a trail of them
            with contextlib.suppress(OSError):
                os.unlink(self._lock.name)
            with contextlib.suppress(OSError):
                self._lock.close()
            raise

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def earlier(self) -> dict[str, FrameRecord]:
        """The frames that this session kept before it was ended, by key."""
        return {key: self.records[key] for key in self._earlier if key in self.records}

    def finish(self, frames: int) -> None:
        """Say that everything is written, `frames` in all, so that the next session of the same facts is a new one."""
        write_atomic(self._session_file, json.dumps({**self._facts, FINISHED: frames}, indent=2))

    def close(self) -> None:
        """Give the session up; the frames stay as they are."""
        self._lock.close()

    def write(self, cloud: Cloud, answer: Segmentation, origin: Origin, worth: Worth) -> FrameRecord:
        """Add a frame: every file is on the disk before its record is, and the record is what makes it count.

        Raises DataError for an empty cloud and one that the model could not read again, and OSError where the disk refuses;
        no part of the frame is left then.
        """
        if not len(cloud):
            raise DataError(f"{self.folder}: the cloud has no points; leave it out")
        if self._spec.rows == "ring" and not _ring_is_row(cloud):
            raise DataError(
                f"{self.folder}: the model needs the laser index, which the log can store only for clouds with one row "
                "per laser; let the driver publish organised clouds, or use a bundle with rows: angle"
            )
        self._count += 1
        key = f"{self._session:04d}_{self._count:06d}"
        record = _record(key, cloud, origin, worth)
        raw = pack_raw(self._labels.to_raw(answer.class_id), answer.instance_id)
        try:
            scan_files.write_points(part_path(self.folder, "velodyne", key), cloud.xyz, cloud.intensity)
            scan_files.write_raw_labels(part_path(self.folder, "predictions", key), raw)
            write_atomic(part_path(self.folder, "uncertainty", key), _npy(answer.uncertainty))
            if cloud.rgb is not None:
                make_folder(self.folder / "rgb")
                scan_files.write_rgb(part_path(self.folder, "rgb", key), cloud.rgb)
            write_atomic(part_path(self.folder, "frames", key), record.to_yaml())
        except OSError:
            self._remove_files(key)
            raise
        self.records[key] = _slim(record)
        self._append_to_index(record)
        return record

    def remove(self, key: str) -> None:
        """Take a frame out of the log, its record first."""
        self.records.pop(key, None)
        self._remove_files(key)
        self._removed += 1
        if self._removed > max(REMOVED_IN_INDEX, len(self.records)):
            self._removed = 0
            self._rewrite_index(read_records(self.folder, []))

    def refresh(self) -> None:
        """Learn what others did to the folder since: writers that share it, a person who moves frames away."""
        names = os.listdir(self.folder / "frames")
        keys = {name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and not name.startswith(".")}
        self.records = {key: record for key, record in self.records.items() if key in keys}
        for key in sorted(keys - self.records.keys()):
            with contextlib.suppress(DataError):  # damaged, or gone again
                self.records[key] = _slim(FrameRecord.read(self.folder, key))

    def unclicked(self) -> list[FrameRecord]:
        """The frames in which nobody has clicked, in the order of keeping."""
        clicked = {path.stem for path in self.folder.glob("sparse/*/*.label")}
        return [record for key, record in sorted(self.records.items()) if key not in clicked]

    def is_whole(self) -> bool:
        """Whether the folder is still there as this writer needs it."""
        return all((self.folder / name).exists() for name in (MANIFEST, *SUFFIX_OF_PART))

    def _claim_folder(self, spec: RangeSpec, source: str, intensity_full_scale: float) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder}: is not a folder; name another place for the frame log")
        make_folder(folder)
        if check_is_log(folder, self._labels) is None:
            _manifest(folder, self._labels, spec, source, intensity_full_scale).save(folder)
        for part in SUFFIX_OF_PART:
            (folder / part).mkdir(exist_ok=True)

    @property
    def _session_file(self) -> Path:
        return self.folder / SESSIONS / f"{self._session:04d}"

    def _start(self) -> None:
        """Say what the session is, clear up after dead ones, learn what the folder holds."""
        swept = _sweep(self.folder, own=f"{self._session:04d}")
        self._lock.truncate(0)
        json.dump(self._facts, self._lock, indent=2)
        self._lock.flush()
        if swept:
            self.notes.append(f"{self.folder}: removed {swept} half-written frames that an earlier process left behind")
        records = read_records(self.folder, self.notes)
        self._rewrite_index(records)
        self.records = {key: _slim(record) for key, record in records.items()}
        self._earlier = {key for key in records if key.startswith(f"{self._session:04d}_")}
        self._count = max((int(key.partition("_")[2]) for key in self._earlier), default=0)

    def _append_to_index(self, record: FrameRecord) -> None:
        """One line at the end; the index is a convenience, so a disk that refuses it takes nothing from the frame."""
        with contextlib.suppress(OSError):
            append_json_line(self.folder / INDEX, record.to_plain(), durable=False)

    def _rewrite_index(self, records: Mapping[str, FrameRecord]) -> None:
        with contextlib.suppress(OSError):
            write_atomic(self.folder / INDEX, b"".join(map(_index_line, records.values())))

    def _remove_files(self, key: str) -> None:
        with contextlib.suppress(OSError):
            context_path(self.folder, key).unlink(missing_ok=True)
        for part in (*reversed(SUFFIX_OF_PART), *SUFFIX_OF_COLORS):
            with contextlib.suppress(OSError):
                part_path(self.folder, part, key).unlink(missing_ok=True)


def _slim(record: FrameRecord) -> FrameRecord:
    """What the writer itself must remember of a frame."""
    return replace(record, suggestions=())


def _record(key: str, cloud: Cloud, origin: Origin, worth: Worth) -> FrameRecord:
    return FrameRecord(
        key=key,
        stamp_ns=cloud.stamp_ns,
        frame_id=cloud.frame_id,
        height=cloud.height,
        width=cloud.width,
        ring_is_row=_ring_is_row(cloud),
        intensity_field=cloud.intensity_field,
        intensity_full_scale=cloud.intensity_full_scale,
        score=round(float(worth.score), 4),
        reason=worth.reason,
        descriptor=tuple(round(float(value), 4) for value in worth.descriptor),
        suggestions=tuple(replace(s, point=int(s.point), score=round(float(s.score), 4)) for s in worth.suggestions),
        tag=worth.tag,
        note=worth.note,
        colored=cloud.rgb is not None,
        **vars(origin),
    )


def _ring_is_row(cloud: Cloud) -> bool:
    """Whether the rows of the cloud tell the laser of each point."""
    rows = np.repeat(np.arange(cloud.height), cloud.width)
    return cloud.height > 1 and cloud.ring is not None and np.array_equal(cloud.ring, rows)


def _manifest(folder: Path, labels: LabelMap, spec: RangeSpec, source: str, intensity_full_scale: float) -> Manifest:
    return Manifest(
        version=scan_files.MANIFEST_VERSION,
        name=folder.resolve().name,
        source=source,
        seed=None,
        sensor="",
        frame_id="",
        labels=labels.name,
        classes=labels.classes,
        spec=spec,
        organised=None,
        ring_is_row=False,
        intensity_full_scale=intensity_full_scale,
        count=0,
        complete=True,
        content_hash="",
        files={},
        growing=True,
    )


def _claim_session(folder: Path, facts: Mapping[str, Any] | None, finished: bool) -> tuple[int, IO[str]]:
    """A number that no writer had before, and the open file that says by its lock that its writer lives.

    A number that nothing came of is taken again, and that of an unfinished session of the same facts, where they are given; with
    `finished` that of any session of the same facts.
    """
    make_folder(folder)
    taken = sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    for number in taken:
        path = folder / f"{number:04d}"
        if _may_go_on(path, facts, finished) and not is_claimed(path):
            file = open(path, "a+", encoding="utf-8")  # kept open: it carries the lock
            if try_claim(file.fileno()):
                return number, file
            file.close()
    number = taken[-1] + 1 if taken else 0
    while True:
        with contextlib.suppress(FileExistsError):
            file = open(folder / f"{number:04d}", "x", encoding="utf-8")
            if try_claim(file.fileno()):
                return number, file
            file.close()
        number += 1


def _may_go_on(session: Path, facts: Mapping[str, Any] | None, finished: bool) -> bool:
    try:
        text = session.read_text(encoding="utf-8")
        if not text:
            return True
        told = json.loads(text)
        if finished:
            told.pop(FINISHED, None)
        return facts is not None and bool(told == json.loads(json.dumps(facts)))
    except (OSError, ValueError, AttributeError):
        return False


def frames_of_finished(folder: Path, facts: Mapping[str, Any]) -> int | None:
    """The number of frames that a finished session of the same facts has put into a log; None where there is no such session."""
    wanted = json.loads(json.dumps(facts))
    for path in sorted((folder / SESSIONS).iterdir()) if (folder / SESSIONS).is_dir() else ():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            told = json.loads(path.read_text(encoding="utf-8"))
            frames = told.pop(FINISHED, None)
            if told == wanted and isinstance(frames, int):
                return frames
    return None


def _sweep(folder: Path, own: str) -> int:
    """Remove what dead writers left half-written, and their temporary files; the number of frames it was.

    `own` is the session that has just begun, or begun again: what it had half-written goes, too.
    """
    lives = {own: False}
    swept = set()
    for key, path in _files_without_record(folder):
        session = key.partition("_")[0]
        if session not in lives:
            lives[session] = is_claimed(folder / SESSIONS / session)  # the system drops it when the writer ends, however
        if not lives[session]:
            path.unlink(missing_ok=True)
            swept.add(key)
    return len(swept)


def _files_without_record(folder: Path) -> Iterator[tuple[str, Path]]:
    records = {path.stem for path in folder.glob("frames/*.yaml") if not path.name.startswith(".")}
    for part in (*SUFFIX_OF_PART, *SUFFIX_OF_COLORS):
        for path in (folder / part).iterdir() if (folder / part).is_dir() else ():
            match = OUR_KEY.match(path.name.lstrip("."))
            if match and (path.name.startswith(".") or match.group() not in records):
                yield match.group(), path


def _index_line(record: FrameRecord) -> bytes:
    return json.dumps(record.to_plain()).encode() + b"\n"


def _npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()
