# SPDX-License-Identifier: Apache-2.0
"""Add up evaluations: shards of one data set, or a thousand bags on as many machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from weakseg_ros.errors import DataError
from weakseg_ros.files import environment, make_folder, sha256_of_parts, write_atomic, write_json
from weakseg_ros.measure.evaluation import REPORT_FILE, SUMMARY_FILE
from weakseg_ros.measure.panoptic import PanopticQuality
from weakseg_ros.measure.report import render
from weakseg_ros.measure.summary import figures, panoptic_figures, track_figures
from weakseg_ros.measure.tally import Tally
from weakseg_ros.measure.tracks import TrackQuality
from weakseg_ros.points.labels import LabelMap


def merge(
    paths: Sequence[Path], out: Path, more_notes: Sequence[str] = (), problems: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]]:
    """Add the summaries of one bundle (files, or the folders that hold them) and write report and summary into `out`.

    Returns (path of the report, summary). The figures are those of one evaluation over all the data; the pictures stay
    in the single reports. `more_notes` are listed in the report; `problems` make it partial. Raises DataError for files
    that are no summary, or of different bundles.
    """
    parts = [_read(path / SUMMARY_FILE if path.is_dir() else path) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if part["bundle"]["hash"] != first["bundle"]["hash"]:
            other = f"{part['bundle']['name']} ({part['bundle']['hash'][:12]})"
            raise DataError(f"{path}: is of model {other}, {paths[0]} is not; merge evaluations of one model")
    tallies = [Tally.from_mapping(part["counts"], str(path)) for path, part in zip(paths, parts, strict=True)]
    tally = sum(tallies[1:], start=tallies[0])
    shared = frozenset(k for part in parts for k in part["shared"])
    labels = LabelMap.from_rows(first["labels"], first["bundle"]["name"])
    panoptic = sum((_objects(path, part, labels) for path, part in zip(paths, parts, strict=True)), PanopticQuality(labels))
    tracks = sum((_tracks(path, part) for path, part in zip(paths, parts, strict=True)), TrackQuality())
    names = list(dict.fromkeys(part["data"]["name"] for part in parts))
    summary = {
        "title": f"{first['bundle']['name']} on {names[0] if len(names) == 1 else f'{len(names)} recordings'}",
        "made": max(part["made"] for part in parts),
        "partial": any(part["partial"] for part in parts) or bool(problems),
        "partial_reason": " | ".join(filter(None, (*(part["partial_reason"] for part in parts), *problems))),
        "seed": first["seed"],
        "data_hash": sha256_of_parts(part["data_hash"] for part in parts),
        "data": {
            "path": " ".join(dict.fromkeys(part["data"]["path"] for part in parts)),
            "name": ", ".join(names),
            "topic": first["data"]["topic"],
        },
        "bundle": first["bundle"],
        "engine": ", ".join(dict.fromkeys(part["engine"] for part in parts)),
        **figures(tally, labels, shared, first.get("unanswered", "wrong")),
        **panoptic_figures(panoptic, shared),
        **track_figures(tracks),
        "notes": list(dict.fromkeys((*(note for part in parts for note in part["notes"]), *more_notes))),
        "wrong_geometry": list(dict.fromkeys(text for part in parts for text in part.get("wrong_geometry", []))),
        "fit": min((part["fit"] for part in parts if part.get("fit")), key=lambda fit: float(fit["value"]), default=None),
        "domain": list(dict.fromkeys(sentence for part in parts for sentence in part["domain"])),
        "recordings": [_recording(path, part, out) for path, part in zip(paths, parts, strict=True)] if len(names) > 1 else [],
        "worst": sorted((scan for part in parts for scan in part["worst"]), key=lambda scan: -scan["score"])[:10],
        "environment": environment(),
    }
    make_folder(out)
    addable = {
        "labels": first["labels"],
        "shared": sorted(shared),
        "counts": tally.to_mapping(),
        "panoptic_counts": panoptic.to_mapping(),
        "track_counts": tracks.to_mapping(),
    }
    write_json(out / SUMMARY_FILE, {**summary, **addable})
    write_atomic(out / REPORT_FILE, render(summary))
    return out / REPORT_FILE, summary


def _recording(path: Path, part: dict[str, Any], out: Path) -> dict[str, Any]:
    """One row of the report's table of recordings, with a link to its own report where that lies below this one."""
    report = (path if path.is_dir() else path.parent) / REPORT_FILE
    below = report.resolve().is_relative_to(out.resolve()) and report.is_file()
    return {
        "name": part["data"]["name"],
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give the {SUMMARY_FILE} of an evaluation") from None
    if not isinstance(content, dict) or not {"counts", "labels", "shared", "bundle"} <= content.keys():
        raise DataError(f"{path}: is not the {SUMMARY_FILE} of an evaluation; write it with 'weakseg evaluate'")
    return content
