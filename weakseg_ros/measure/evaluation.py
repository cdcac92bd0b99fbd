# SPDX-License-Identifier: Apache-2.0
"""One evaluation: answers are pushed in, wherever they come from; counts, pictures and a report come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.environment import environment
from weakseg_ros.errors import CloudError
from weakseg_ros.files import make_folder, write_atomic, write_json
from weakseg_ros.measure.course import Course
from weakseg_ros.measure.inputs import Input, Item
from weakseg_ros.measure.panoptic import PanopticQuality, raw_labels
from weakseg_ros.measure.pictures import ScanPictures, scan_pictures
from weakseg_ros.measure.report import render
from weakseg_ros.measure.scan3d import Scan3D, pack_scan
from weakseg_ros.measure.summary import Unanswered, figures, panoptic_figures, track_figures
from weakseg_ros.measure.tally import Tally
from weakseg_ros.measure.tracks import TrackQuality, object_keys
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import project

STRETCHES = 8
"""neighbouring scans look alike, so each stretch of the data may send one scan among the worst"""
WORST_SHOWN = 3
PROBLEMS_SHOWN = 3
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class _Kept:
    """A scan that may become a picture."""

    key: str
    score: float
    cloud: Cloud
    truth: NDArray[np.uint8] | None
    answer: Segmentation

    @property
    def note(self) -> str:
        if self.truth is None:
            return f"Scan {self.key}: mean uncertainty {self.score:.2f}."
        return f"Scan {self.key}: {100 * self.score:.1f} % of the labelled points are wrong."


class Evaluation:
    """Counts one answer after the other and keeps the scans worth a picture; memory does not grow with the data.

    Only where the scans come `in_sequence`, none left out, it is counted whether ids last.
    """

    def __init__(self, bundle: Bundle, source: Input, in_sequence: bool, unanswered: Unanswered = "wrong") -> None:
        self.tally = Tally(bundle.num_classes)
        self.panoptic = PanopticQuality(bundle.labels)
        self.tracks = TrackQuality()
        self.course = Course(len(source))
        self._in_sequence, self._unanswered = in_sequence, unanswered
        self._recording = ""
        self._bundle = bundle
        self._source = source
        self._typical: _Kept | None = None
        self._worst: dict[int, _Kept] = {}

    def add(self, item: Item, answer: Segmentation) -> None:
        """Count the answer to one scan; a scan without any labelled point counts as unlabelled."""
        truth = item.truth if item.truth is not None and item.truth.any() else None
        self.tally.add(item.cloud, answer, truth)
        self.course.add(item.index, item.cloud.stamp_ns, item.place, answer, truth)
        self._add_objects(answer, truth, item)
        kept = _Kept(item.key, _badness(answer, truth), item.cloud, truth, answer)
        if self._typical is None or item.index <= len(self._source) // 2:
            self._typical = kept
        stretch = min(STRETCHES - 1, item.index * STRETCHES // max(1, len(self._source)))
        if stretch not in self._worst or kept.score > self._worst[stretch].score:
            self._worst[stretch] = kept

    def _add_objects(self, answer: Segmentation, truth: NDArray[np.uint8] | None, item: Item) -> None:
        """Count a scan's objects, unless its labels tell no object from another.

        Raw classes that the label map merges are one class here: a lane marking is no segment beside its road, as it would
        be for SemanticKITTI's API, which `PanopticQuality` follows when it is given the raw labels themselves.
        """
        if truth is None or item.truth_instance is None:
            return
        labels, instance = self._bundle.labels, item.truth_instance
        of_things = instance[labels.things[truth]]
        if of_things.any() or not len(of_things):
            predicted = raw_labels(labels, answer.class_id, answer.instance_id)
            self.panoptic.add(predicted, raw_labels(labels, truth, instance))
            self._add_tracks(answer, object_keys(truth, instance, labels.things), truth, item.recording)

    def _add_tracks(self, answer: Segmentation, objects: NDArray[np.int64], truth: NDArray[np.uint8], recording: str) -> None:
        if not self._in_sequence:
            return
        if recording != self._recording:
            self.tracks.begin()
            self._recording = recording
        self.tracks.add(answer.instance_id, objects, truth > 0)

    def leave_out(self, item: Item, error: CloudError) -> None:
        """Note that the model cannot take a scan; the result is partial."""
        self._source.problems.append(f"scan {item.key}: {error}")

    def summary(self, path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Everything the JSON file holds but the counts; `facts` are engine, domain, and what the caller adds."""
        info = self._bundle.info
        return {
            "title": f"{info.name} on {self._source.name}",
            "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "partial": bool(self._source.problems),
            "partial_reason": _joined(self._source.problems),
            "seed": info.provenance.seed,
            "data_hash": self._source.content_hash,
            "data": {"path": str(path), "name": self._source.name, "topic": self._source.topic, "scans": len(self._source)},
            "bundle": {"name": info.name, "hash": info.content_hash, "folder": _short(self._bundle.folder)},
            **figures(self.tally, info.labels, self._source.shared, self._unanswered),
            **panoptic_figures(self.panoptic, self._source.shared),
            **track_figures(self.tracks),
            "notes": list(self._source.notes),
            "worst": [{"key": kept.key, "score": round(kept.score, 4)} for kept in self._worst_first()],
            "course": {**self.course.to_mapping(), "left_out": len(self._source.problems)},
            **facts,
            "environment": environment(),
        }

    def pictures(self) -> tuple[ScanPictures | None, list[ScanPictures]]:
        """The typical scan and the worst ones, drawn."""
        return self._draw(self._typical) if self._typical else None, [self._draw(kept) for kept in self._worst_first()]

    def write(self, out: Path, summary: dict[str, Any], pictures: bool = True) -> Path:
        """Write summary.json (with the counts, for merging) and report.html into `out`; returns the report's path."""
        make_folder(out)
        addable = {"labels": self._bundle.labels.to_rows(), "shared": sorted(self._source.shared)}
        counts = {"counts": self.tally.to_mapping(), "panoptic_counts": self.panoptic.to_mapping()}
        counts |= {"track_counts": self.tracks.to_mapping()}
        write_json(out / SUMMARY_FILE, {**summary, **addable, **counts})
        typical, worst = self.pictures() if pictures else (None, [])
        write_atomic(out / REPORT_FILE, render(summary, typical, worst, self._worst_in_3d() if pictures else None))
        return out / REPORT_FILE

    def _worst_in_3d(self) -> Scan3D | None:
        kept = next(iter(self._worst_first()), None)
        return pack_scan(kept.key, kept.cloud, kept.answer, kept.truth) if kept else None

    def _worst_first(self) -> list[_Kept]:
        return sorted(self._worst.values(), key=lambda kept: -kept.score)[:WORST_SHOWN]

    def _draw(self, kept: _Kept) -> ScanPictures:
        view = project(kept.cloud, self._bundle.info.input.geometry, widen=self._bundle.info.input.level)
        answer, colors = kept.answer, self._bundle.labels.colors
        return scan_pictures(kept.key, kept.note, kept.cloud.xyz, view, colors, answer.class_id, kept.truth, answer.uncertainty)


def _badness(answer: Segmentation, truth: NDArray[np.uint8] | None) -> float:
    """Share of wrong points among the labelled ones, or the mean uncertainty where nothing is labelled."""
    if truth is None:
        known = answer.class_id > 0
        return float(answer.uncertainty[known].mean()) if known.any() else 0.0
    labelled = truth > 0
    return float(np.mean(answer.class_id[labelled] != truth[labelled]))


def _joined(problems: Sequence[str]) -> str:
    more = f" (and {len(problems) - PROBLEMS_SHOWN} more)" if len(problems) > PROBLEMS_SHOWN else ""
    return " | ".join(problems[:PROBLEMS_SHOWN]) + more


def _short(folder: Path) -> str:
    """The folder as one would type it from here."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
