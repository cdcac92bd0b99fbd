# SPDX-License-Identifier: Apache-2.0
"""A person who clicks, simulated: labels suggested points from the truth, with a budget and with mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.data.frame_log import FrameRecord
from weakseg_ros.data.scan_sets import Scan, ScanSet
from weakseg_ros.errors import DataError
from weakseg_ros.improve.label.clicks import ClickStore


@dataclass(frozen=True)
class AnnotatorConfig:
    """How patient and how careful the person is."""

    clicks: int = setting(200, 0)
    """clicks in all"""
    clicks_per_frame: int = setting(10, 1)
    """clicks in one frame"""
    error_rate: float = setting(0.0, 0.0, 1.0)
    """share of the clicks that get the name of another class that the frame holds"""
    seed: int = setting(0, 0)
    """which clicks these are"""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Spent:
    """What the person did."""

    clicks: int
    wrong: int
    """clicks with another class than the truth's"""
    passed_over: int
    """suggested points that nobody can name: the truth has no class there"""
    frames: int
    """frames with at least one click"""


class Annotator:
    """Spends one budget over any number of calls."""

    def __init__(self, store: ClickStore, config: AnnotatorConfig) -> None:
        self._store, self._config = store, config
        self.clicks = self.wrong = self.passed_over = self.frames = 0

    @property
    def spent(self) -> Spent:
        """What was done so far."""
        return Spent(self.clicks, self.wrong, self.passed_over, self.frames)

    def label(self, key: str, points: Sequence[int], truth: Scan) -> int:
        """Click the points of a frame in their order as far as the budget goes; returns the number of clicks.

        `truth` is the frame's scan with its class ids (N,). A point without a true class costs nothing and gets nothing.
        Raises DataError where the truth belongs to another cloud.
        """
        class_id = truth.class_id
        known, _ = self._store.labelled(key)
        if class_id is None or class_id.shape != known.shape:
            found = "no labels" if class_id is None else f"{len(class_id)} labels"
            raise DataError(f"{self._store.folder}: frame '{key}' has {len(known)} points, its truth has {found}; give its own")
        rng = np.random.default_rng([self._config.seed, *key.encode()])
        left = min(self._config.clicks - self.clicks, self._config.clicks_per_frame)
        clicked: dict[tuple[int, int], list[int]] = {}
        done = 0
        for point in map(int, points):
            if done >= left:
                break
            right = int(class_id[point])
            if not right:
                self.passed_over += 1
                continue
            named = self._named(class_id, right, rng)
            clicked.setdefault((named, _instance(self._store, truth, point, named)), []).append(point)
            self.wrong += named != right
            done += 1
        for (named, instance), chosen in clicked.items():  # a change of the store costs as much for many points as for one
            self._store.add(key, chosen, named, instance)
        self.clicks += done
        self.frames += done > 0
        return done

    def _named(self, class_id: NDArray[np.uint8], right: int, rng: np.random.Generator) -> int:
        if rng.random() >= self._config.error_rate:
            return right
        others = np.setdiff1d(class_id, (0, right))
        return int(rng.choice(others)) if len(others) else right


def annotate(
    frames: Iterable[FrameRecord], truth_of: Callable[[FrameRecord], Scan], store: ClickStore, config: AnnotatorConfig
) -> Spent:
    """Label the suggested points of frames, in their order, until the budget is spent."""
    annotator = Annotator(store, config)
    for record in frames:
        if annotator.clicks >= config.clicks:
            break
        annotator.label(record.key, [suggestion.point for suggestion in record.suggestions], truth_of(record))
    return annotator.spent


def truth_by_source(scans: ScanSet) -> Callable[[FrameRecord], Scan]:
    """The truth of frames that were taken from a labelled data set: by the source's key, or by the stamp where there is none."""
    by_key = {key: i for i, key in enumerate(scans.keys)}
    by_stamp: dict[int, int] = {}

    def find(record: FrameRecord) -> Scan:
        if record.source_key in by_key:
            return scans[by_key[record.source_key]]
        if not by_stamp:
            by_stamp.update({scans[i].cloud.stamp_ns: i for i in range(len(scans))})
        if record.stamp_ns not in by_stamp:
            raise DataError(f"{scans.name}: has no scan of frame '{record.key}'; give the data that the log was made from")
        return scans[by_stamp[record.stamp_ns]]

    return find


def _instance(store: ClickStore, truth: Scan, point: int, class_id: int) -> int:
    return int(truth.instance_id[point]) if truth.instance_id is not None and store.labels.things[class_id] else 0
