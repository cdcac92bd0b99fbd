# SPDX-License-Identifier: Apache-2.0
"""A folder of scans while it is labelled: what is known of each scan, and which labels it had before the first click."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.frame_log import FrameScans, part_path
from weakseg_ros.data.scan_sets import Scan
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap, pack_raw
from weakseg_ros.weak.sparse_labels import hash_of_points


class Facts(NamedTuple):
    """What the record needs to know of a scan."""

    points: int
    usable: int
    position: str


class LabelledFolder:
    """The scans of a folder, opened again where a log has grown meanwhile. Raises DataError for a folder without scans."""

    def __init__(self, folder: Path, labels: LabelMap | None) -> None:
        self.folder = folder
        self._facts: dict[str, Facts] = {}
        self._starts: dict[str, NDArray[np.uint32]] = {}
        self._open(labels)
        self.labels = labels or self.scans.labels

    @property
    def may_have_labels(self) -> bool:
        """Whether the data can have labels of their own; a frame log has none."""
        return not isinstance(self.scans, FrameScans)

    def place(self, key: str) -> int:
        """Where a scan is in the order of the scans; behind them all where it is not known."""
        return self._index.get(key, len(self._index))

    def start(self, key: str) -> NDArray[np.uint32]:
        """(N,) raw labels before any click: those that the data set has of the scan, 0 where it has none."""
        if key not in self._starts:
            points = self.facts(key).points
            scan = self.scans[self._index[key]] if self.may_have_labels else None
            self._starts[key] = np.zeros(points, np.uint32) if scan is None else self._raw_of(scan)
        return self._starts[key]

    def facts(self, key: str) -> Facts:
        """What is known of a scan; DataError where the folder does not have it."""
        if key not in self._facts:
            cloud = self._cloud(key)
            self._facts[key] = Facts(len(cloud), int(cloud.valid.sum()), hash_of_points(cloud))
        return self._facts[key]

    def is_replaced(self, key: str) -> bool:
        """Whether the node has taken a frame that was opened out of its log since: a click in it would be lost."""
        return isinstance(self.scans, FrameScans) and not part_path(self.folder, "frames", key).is_file()

    def _raw_of(self, scan: Scan) -> NDArray[np.uint32]:
        if scan.class_id is None:
            return np.zeros(len(scan.cloud), np.uint32)
        raw = self.labels.to_raw(scan.class_id)
        return raw.astype(np.uint32) if scan.instance_id is None else pack_raw(raw, scan.instance_id)

    def _cloud(self, key: str) -> Cloud:
        if key not in self._index:  # a log grows while it is labelled
            self._open(self.labels)
        if key not in self._index:
            raise DataError(f"{self.folder}: has no scan '{key}'; open the folder again")
        return self.scans[self._index[key]].cloud

    def _open(self, labels: LabelMap | None) -> None:
        self.scans = open_scans(self.folder, labels=labels)
        self._index = {key: i for i, key in enumerate(self.scans.keys)}
        self.data_hash = self.scans.content_hash
