# SPDX-License-Identifier: Apache-2.0
"""What is to be labelled: the frames of a log by worth, or any folder of scans in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.frame_log import FrameScans, Suggestion
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.data.scans import open_scans
from weakseg_ros.improve.label.moved_objects import Sight
from weakseg_ros.improve.log.frame_folder import FrameFolder, open_frames
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec, RangeView, project
from weakseg_ros.weak.ground import ground_points
from weakseg_ros.weak.scan_poses import recording_of

SPREAD_POINTS = 20
"""points suggested in a scan that no model has looked at"""
SPREAD_WITHIN_M = 25.0
EARLIEST_CLOCK_NS = 946_684_800 * 10**9
"""stamps before the year 2000 count from something else than a calendar does"""
_SAMPLE = 4000


@dataclass(frozen=True)
class Frame:
    """One scan on the page, with what a model said about it."""

    key: str
    cloud: Cloud
    spec: RangeSpec
    suggestions: tuple[Suggestion, ...]
    prediction: NDArray[np.uint8] | None
    """(N,) class ids; None where no model has seen the scan"""
    uncertainty: NDArray[np.float32] | None
    """(N,) 0..1"""

    @cached_property
    def ground(self) -> NDArray[np.bool_]:
        """(N,) the points of the ground, by their places alone."""
        ground = np.zeros(len(self.cloud), np.bool_)
        usable = np.flatnonzero(self.cloud.valid)
        ground[usable] = ground_points(self.cloud.xyz[usable])
        return ground

    def guess(self, point: int) -> tuple[int, float]:
        """(class id, confidence) that the model gave a point; 0 where there is no guess or its confidence is not known."""
        if self.prediction is None:
            return 0, 0.0
        told = [suggestion.confidence for suggestion in self.suggestions if suggestion.point == point]
        return int(self.prediction[point]), told[0] if told else 0.0

    @cached_property
    def sight(self) -> Sight:
        """What the sensor looked at, and what it looked through."""
        return Sight(self.cloud.xyz[self.cloud.valid], self.spec)

    @cached_property
    def view(self) -> RangeView:
        """The range image of the cloud."""
        return project(self.cloud, self.spec)


class FrameSource:
    """The frames of a folder, the most worthwhile first; DataError where it holds no scans."""

    def __init__(self, folder: Path, labels: LabelMap | None = None) -> None:
        self.folder = folder
        self.log: FrameFolder | None = open_frames(folder) if FrameScans.recognises(folder) else None
        self.scans: ScanSet = self.log.scans if self.log else open_scans(folder, labels=labels)
        self.labels = labels or self.scans.labels
        self.keys = tuple(record.key for record in self.log.frames) if self.log else tuple(self.scans.keys)
        self._index = {key: i for i, key in enumerate(self.scans.keys)}

    def __len__(self) -> int:
        return len(self.keys)

    def worth(self, key: str) -> str:
        """Why a frame is in the list, in few words; empty for scans that nobody chose, and where it was replaced in the log."""
        if self.log is None or key not in self._index:
            return ""
        record = self.log.record(key)
        return f"priority {record.score:.2f} ({record.tag or record.reason})"

    def about(self, key: str) -> str:
        """When a frame was taken and of what, in few words; empty where nothing is known."""
        if self.log is None or key not in self._index:
            return ""
        record = self.log.record(key)
        when = datetime.fromtimestamp(record.stamp_ns / 1e9, timezone.utc)
        time = f"{when:%Y-%m-%d %H:%M:%S}" if record.stamp_ns > EARLIEST_CLOCK_NS else ""
        return " · ".join(filter(None, (time, self.log.origin(key), record.source_key)))

    def pose(self, key: str) -> NDArray[np.float64] | None:
        """(4, 4) where the sensor was, None where that is not known."""
        return self.scans[self._index[key]].pose if key in self._index else None

    def neighbours(self, key: str, step: int) -> Iterator[str]:
        """The frames of the same recording after this one, or before it with `step` -1, the nearest first.

        Poses of different recordings have nothing to do with each other, and one may be for training, the other for validation.
        """
        at = self._index.get(key)
        while at is not None and 0 <= (at := at + step) < len(self.scans.keys):
            if recording_of(self.scans.keys[at]) != recording_of(key):
                return
            yield self.scans.keys[at]

    def frame(self, key: str) -> Frame:
        """Read one frame; DataError where it is damaged or was replaced."""
        cloud = self.scans[self._index[key]].cloud
        if self.log is None:
            return Frame(key, cloud, self.scans.spec, points_far_apart(cloud, SPREAD_POINTS), None, None)
        prediction = self.log.scans.labels.to_raw(self.log.prediction(key)[0])
        suggestions = tuple(self.log.suggestions(key))
        return Frame(key, cloud, self.scans.spec, suggestions, self.labels.to_class(prediction), self.log.uncertainty(key))


def points_far_apart(cloud: Cloud, count: int, seed: int = 0) -> tuple[Suggestion, ...]:
    """Up to `count` points of a cloud, each as far from the earlier ones as can be, the first one near the sensor.

    Distances grow with the range (the logarithm of it counts), as the density of points falls with it.
    """
    distance = np.linalg.norm(cloud.xyz, axis=1)
    usable = np.flatnonzero(cloud.valid & (distance < SPREAD_WITHIN_M) & (distance > 1.0))
    if not len(usable):
        return ()
    usable = np.random.default_rng(seed).permutation(usable)[:_SAMPLE]
    place = cloud.xyz[usable] / distance[usable, None] * np.log1p(distance[usable, None])
    place[:, 2] *= 2.0  # a wall and the ground before it are two things to label
    chosen = [int(np.argmin(distance[usable]))]
    apart = np.full(len(usable), np.inf, np.float32)
    while len(chosen) < min(count, len(usable)):
        apart = np.minimum(apart, np.linalg.norm(place - place[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(apart)))
    return tuple(Suggestion(int(usable[i]), 0.0, "spread over the scan") for i in chosen)
