# SPDX-License-Identifier: Apache-2.0
"""What a data set is, and how sets are joined, cut and read past their damaged scans."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.findings import Finding
from weakseg_ros.errors import DataError
from weakseg_ros.files import sha256_of_parts
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """One sweep from disk, with what is known about it."""

    key: str
    """name within its data set, '000012' or '08/000012'"""
    cloud: Cloud
    class_id: NDArray[np.uint8] | None
    """(N,) class ids of the data set's label map, 0 = unlabelled; None where the scan has no labels"""
    instance_id: NDArray[np.uint16] | None
    """(N,) 0 = none; None where the data set has no instances"""
    pose: NDArray[np.float64] | None
    """(4, 4) from the sensor's frame to the recording's, m"""
    label_weight: NDArray[np.float32] | None = None
    """(N,) how much each label counts in training, 1 for those that were given; None where all count 1"""


class ScanSet(Protocol):
    """What training, evaluation and the drawing of sparse labels ask of a data set."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def keys(self) -> Sequence[str]:
        """The scans' names, in order."""

    @property
    def labels(self) -> LabelMap:
        """The map that the scans' class ids belong to."""

    @property
    def spec(self) -> RangeSpec:
        """A range image that suits the sensor."""

    @property
    def intensity_full_scale(self) -> float:
        """Largest intensity that the sensor gives, 0 = unknown."""

    @property
    def content_hash(self) -> str:
        """Another one where the data are others."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Scan:
        """One scan; DataError, with the file and what to do, where it is damaged; IndexError past the end."""


class OpensScans(Protocol):
    """What a row of `registry.DATASETS` offers: it recognises its folders, names their splits and opens them."""

    def recognises(self, folder: Path) -> bool:
        """True where the folder is of this kind; cheap, and never an error."""

    def splits(self, folder: Path) -> tuple[str, ...]:
        """The parts that the folder itself tells apart, in order; empty where it does not."""

    def open(self, folder: Path, split: str, labels: LabelMap | None, sequences: Sequence[str]) -> ScanSet:
        """The data set, or one part of it; DataError where there is no such part."""

    def inspect(self, folder: Path) -> Iterator[Finding]:
        """What `weakseg check` says of a folder beside what reading its scans says: missing parts, other versions."""

    def parts(self, folder: Path, sequences: Sequence[str]) -> Sequence[Sequence[str]]:
        """The `sequences` to open one after another, so that together they are those asked for, or all."""


class OpensAsOne:
    """For data sets that are opened whole and of which nothing can be missing that opening them does not miss."""

    @classmethod
    def inspect(cls, folder: Path) -> Iterator[Finding]:
        """Nothing beside what reading says."""
        return iter(())

    @classmethod
    def parts(cls, folder: Path, sequences: Sequence[str]) -> Sequence[Sequence[str]]:
        """All at once."""
        return [sequences]


class ScanCollection:
    """Several recordings as one data set; keys are '<recording>/<scan>'.

    Raises DataError where the recordings differ in label map or range image.
    """

    def __init__(self, name: str, parts: Sequence[tuple[str, ScanSet]]) -> None:
        first_name, first = parts[0]
        for part_name, part in parts[1:]:
            for what in ("labels", "spec"):
                if getattr(part, what) != getattr(first, what):
                    raise DataError(f"{name}: '{part_name}' and '{first_name}' differ in their {what}; open them one at a time")
        self.name = name
        self.labels, self.spec = first.labels, first.spec
        self.intensity_full_scale = first.intensity_full_scale
        self.keys = tuple(f"{part_name}/{key}" for part_name, part in parts for key in part.keys)
        self._parts = [part for _, part in parts]
        self._ends = list(accumulate(map(len, self._parts)))

    @property
    def content_hash(self) -> str:
        return sha256_of_parts([*self.keys, *(part.content_hash for part in self._parts)])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Scan:
        key = self.keys[index]
        at = index % len(self)
        part = bisect.bisect_right(self._ends, at)
        scan = self._parts[part][at - (self._ends[part - 1] if part else 0)]
        return replace(scan, key=key)


class Subset:
    """Some scans of a data set, in the order of `indices`; IndexError for one that it does not have."""

    def __init__(self, parent: ScanSet, indices: Sequence[int], name: str = "") -> None:
        self.parent = parent
        self.indices = tuple(int(i) for i in indices)
        self.keys = tuple(parent.keys[i] for i in self.indices)
        self.name = name or parent.name

    @property
    def labels(self) -> LabelMap:
        return self.parent.labels

    @property
    def spec(self) -> RangeSpec:
        return self.parent.spec

    @property
    def intensity_full_scale(self) -> float:
        return self.parent.intensity_full_scale

    @property
    def content_hash(self) -> str:
        return sha256_of_parts([self.parent.content_hash, *self.keys])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Scan:
        return self.parent[self.indices[index]]


class ChangedScans:
    """A data set whose scans are changed as they are read; a subclass says how, and overrides what else becomes different."""

    def __init__(self, scans: ScanSet) -> None:
        self._scans = scans
        self.name, self.keys, self.labels = scans.name, scans.keys, scans.labels
        self.spec, self.intensity_full_scale = scans.spec, scans.intensity_full_scale

    @property
    def content_hash(self) -> str:
        return self._scans.content_hash

    def __len__(self) -> int:
        return len(self._scans)

    def __getitem__(self, index: int) -> Scan:
        return self.changed(self._scans[index], index)

    def changed(self, scan: Scan, index: int) -> Scan:
        """The scan of this index, as this set shows it."""
        raise NotImplementedError


def holdout(scans: ScanSet, fraction: float, blocks: int = 1) -> tuple[Subset, Subset]:
    """Cut a drive in two: (kept, held out), the latter about `fraction` of the scans.

    Neighbouring scans look alike, so whole stretches are held out, never single scans: the drive is cut into `blocks`
    equal parts and the end of each is held out. Each side gets at least one scan; DataError for fewer than two.
    """
    if len(scans) < 2:
        raise DataError(f"{scans.name}: has {len(scans)} scan; holding some out needs at least 2")
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction: {fraction} is outside 0..1")
    blocks = min(blocks, len(scans) // 2)
    held: set[int] = set()
    for block in np.array_split(np.arange(len(scans)), blocks):
        count = min(max(1, round(len(block) * fraction)), len(block) - 1)
        held.update(block[-count:].tolist())
    kept = [i for i in range(len(scans)) if i not in held]
    return Subset(scans, kept, f"{scans.name} (kept)"), Subset(scans, sorted(held), f"{scans.name} (held out)")


def readable(scans: ScanSet, problems: list[str]) -> Iterator[tuple[int, Scan]]:
    """(index, scan) of every scan that can be read; what is wrong with the others goes to `problems` and the log."""
    for index in range(len(scans)):
        try:
            scan = scans[index]
        except DataError as error:
            problems.append(str(error))
            log.warning("skipped: %s", error)
            continue
        yield index, scan


def check(scans: ScanSet) -> list[str]:
    """Read every scan and its labels; one sentence for each that is damaged, none where all is well."""
    problems: list[str] = []
    for _ in readable(scans, problems):
        pass
    return problems
