# SPDX-License-Identifier: Apache-2.0
"""Add up evaluations: shards of one data set, or a thousand bags on as many machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import make_folder, sha256_of_parts, write_atomic, write_json
from weakseg_ros.measure.evaluation import REPORT_FILE, SUMMARY_FILE
from weakseg_ros.measure.panoptic import PanopticQuality
from weakseg_ros.measure.report import render
from weakseg_ros.measure.summary import figures, panoptic_figures, track_figures
from weakseg_ros.measure.tally import Tally
from weakseg_ros.measure.tracks import TrackQuality
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.reads import read_json

KEPT_OF_FIRST = ("bundle", "seed", "data", "labels", "unanswered")
KEPT_OF_EACH = (
    *("made", "partial", "partial_reason", "data_hash", "data", "engine", "notes", "wrong_geometry", "fit", "domain", "worst"),
)
MOST_NAMES = 20
"""recordings that a title line names"""


def merge(
    paths: Sequence[Path], out: Path, more_notes: Sequence[str] = (), problems: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]]:
    """Add the summaries of one bundle (files, or the folders that hold them) and write report and summary into `out`.

    Returns (path of the report, summary). The figures are those of one evaluation over all the data; the pictures stay
    in the single reports. `more_notes` are listed in the report; `problems` make it partial. Raises DataError for files
    that are no summary, or of different bundles.
    """
    sums = _Sums(paths[0], out)
    for path in paths:
        sums.add(path, _read(path / SUMMARY_FILE if path.is_dir() else path))
    summary, addable = sums.result(more_notes, problems)
    make_folder(out)
    write_json(out / SUMMARY_FILE, {**summary, **addable})
    write_atomic(out / REPORT_FILE, render(summary))
    return out / REPORT_FILE, summary


class _Sums:
    """What adds up, one summary after the other, so that memory holds one of them and a few words of each."""

    def __init__(self, first_path: Path, out: Path) -> None:
        self._first_path, self._out = first_path, out
        self._first: dict[str, Any] = {}
        self._parts: list[dict[str, Any]] = []
        self._recordings: list[dict[str, Any]] = []

    def add(self, path: Path, part: dict[str, Any]) -> None:
        """Add one summary; DataError where it is of another bundle, or its counts cannot be read."""
        if not self._first:
            self._first = {key: part[key] for key in KEPT_OF_FIRST if key in part}
            self.labels = LabelMap.from_rows(part["labels"], part["bundle"]["name"])
            self.tally, self.shared = Tally(self.labels.num_classes), frozenset(part["shared"])
            self.panoptic, self.tracks = PanopticQuality(self.labels), TrackQuality()
        if part["bundle"]["hash"] != self._first["bundle"]["hash"]:
            other = f"{part['bundle']['name']} ({part['bundle']['hash'][:12]})"
            raise DataError(f"{path}: is of model {other}, but {self._first_path} is not; merge evaluations of one model")
        self.tally += Tally.from_mapping(part["counts"], str(path))
        self.shared |= frozenset(part["shared"])
        self.panoptic += _objects(path, part, self.labels)
        self.tracks += _tracks(path, part)
        self._parts.append({key: part.get(key) for key in KEPT_OF_EACH})
        self._recordings.append(_recording(path, part, self._out))

    def result(self, more_notes: Sequence[str], problems: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the summary of all, the counts that make it addable again)."""
        first, parts = self._first, self._parts
        names = list(dict.fromkeys(part["data"]["name"] for part in parts))
        paths = list(dict.fromkeys(part["data"]["path"] for part in parts))
        reasons = [part["partial_reason"] for part in parts if part["partial_reason"]]
        told = counted(len(paths), "recording")
        summary = {
            "title": f"{first['bundle']['name']} on {names[0] if len(paths) == len(names) == 1 else told}",
            "made": max(part["made"] for part in parts),
            "partial": any(part["partial"] for part in parts) or bool(problems),
            "partial_reason": " | ".join((*reasons, *problems)),
            "seed": first["seed"],
            "data_hash": sha256_of_parts(part["data_hash"] for part in parts),
            "data": {"path": _some(paths, " "), "name": _some(names, ", "), "topic": first["data"]["topic"]},
            "bundle": first["bundle"],
            "engine": ", ".join(dict.fromkeys(part["engine"] for part in parts)),
            **figures(self.tally, self.labels, self.shared, first.get("unanswered", "wrong")),
            **panoptic_figures(self.panoptic, self.shared),
            **track_figures(self.tracks),
            "notes": list(dict.fromkeys((*(note for part in parts for note in part["notes"]), *more_notes))),
            "wrong_geometry": list(dict.fromkeys(text for part in parts for text in part["wrong_geometry"] or ())),
            "fit": min((part["fit"] for part in parts if part["fit"]), key=lambda fit: float(fit["value"]), default=None),
            "domain": list(dict.fromkeys(sentence for part in parts for sentence in part["domain"])),
            "recordings": _told_apart(self._recordings) if len(paths) > 1 or len(names) > 1 else [],
            "worst": sorted((scan for part in parts for scan in part["worst"]), key=lambda scan: -scan["score"])[:10],
            "environment": environment(),
        }
        addable = {
            "labels": first["labels"],
            "shared": sorted(self.shared),
            "counts": self.tally.to_mapping(),
            "panoptic_counts": self.panoptic.to_mapping(),
            "track_counts": self.tracks.to_mapping(),
        }
        return summary, addable


def _told_apart(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows by the names of their recordings, or of their folders where several robots call theirs alike."""
    counts = Counter(row["name"] for row in rows)
    return [{**row, "name": row["name"] if counts[row["name"]] == 1 else row["folder"]} for row in rows]


def _some(names: Sequence[str], between: str) -> str:
    """All names, or the first of very many and their number."""
    more = f"{between}and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return between.join(names[:MOST_NAMES]) + more


def _recording(path: Path, part: dict[str, Any], out: Path) -> dict[str, Any]:
    """One row of the report's table of recordings, with a link to its own report where that lies below this one."""
    report = (path if path.is_dir() else path.parent) / REPORT_FILE
    below = report.resolve().is_relative_to(out.resolve()) and report.is_file()
    return {
        "name": part["data"]["name"],
        "folder": (path if path.is_dir() else path.parent).name,
        "scans": part["scans"],
        "miou_present": part.get("miou_present"),
        "accuracy": part.get("accuracy"),
        "pq_present": part.get("panoptic", {}).get("pq_present"),
        "uncertainty": part["uncertainty_histogram"]["mean"],
        "p50_ms": part["latency_ms"].get("total", {}).get("p50"),
        "report": quote(report.resolve().relative_to(out.resolve()).as_posix()) if below else "",
        "note": "partial" if part["partial"] else "",
    }


def _objects(path: Path, part: dict[str, Any], labels: LabelMap) -> PanopticQuality:
    """The objects that an evaluation counted; none in those of older versions."""
    if "panoptic_counts" not in part:
        return PanopticQuality(labels)
    try:
        return PanopticQuality.from_mapping(labels, part["panoptic_counts"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its objects cannot be read ({error!r}); write it again with 'weakseg evaluate'") from None


def _tracks(path: Path, part: dict[str, Any]) -> TrackQuality:
    """The lasting ids that an evaluation counted; none in those of older versions."""
    if "track_counts" not in part:
        return TrackQuality()
    try:
        return TrackQuality.from_mapping(part["track_counts"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its ids cannot be read ({error!r}); write it again with 'weakseg evaluate'") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give the {SUMMARY_FILE} of an evaluation") from None
    if not isinstance(content, dict) or not {"counts", "labels", "shared", "bundle"} <= content.keys():
        raise DataError(f"{path}: is not the {SUMMARY_FILE} of an evaluation; write it with 'weakseg evaluate'")
    return content
