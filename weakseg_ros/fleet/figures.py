# SPDX-License-Identifier: Apache-2.0
"""What a fleet report says of each bag and robot; one summary is in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weakseg_ros.data.many_bags import Row, read_rows
from weakseg_ros.data.robots import robot_of
from weakseg_ros.errors import DataError, counted
from weakseg_ros.fleet.config import FleetConfig
from weakseg_ros.fleet.drift import Stretch, over_places, over_time, stretches_of
from weakseg_ros.fleet.queue import queue_of
from weakseg_ros.measure.evaluation import REPORT_FILE, SUMMARY_FILE
from weakseg_ros.measure.summary import figures
from weakseg_ros.measure.tally import Tally
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.reads import read_json

NO_ROBOT = "(no name)"


def fleet_figures(config: FleetConfig) -> dict[str, Any]:
    """Everything that fleet.json holds. Raises DataError where `config.run` is no evaluation of several bags."""
    rows = read_rows(config.run)
    bags: list[dict[str, Any]] = []
    robots: dict[str, _Robot] = {}
    stretches: list[Stretch] = []
    about: dict[str, Any] = {}
    for row, part in _parts(config.run, rows):
        robot = robot_of(Path(row["bag"]), config.robot) or NO_ROBOT
        bags.append(_bag_row(row, part, robot, config))
        robots.setdefault(robot, _Robot(robot)).add(bags[-1], part)
        if part:
            stretches += stretches_of(part.get("course", {}), robot, row["name"])
            about = about or {key: part[key] for key in ("bundle", "engine")}
    if not about:
        raise DataError(
            f"{config.run}: none of its {counted(len(rows), 'bag')} could be evaluated ({rows[0].get('problem', 'no summary')})"
        )
    return {
        **about,
        "run": str(config.run),
        "scans": sum(bag["scans"] or 0 for bag in bags),
        "bags": bags,
        "robots": [robot.row() for _, robot in sorted(robots.items())],
        "time": over_time(stretches),
        "places": over_places(stretches, config.cell_m),
        "queue": queue_of(config.log) if config.log is not None else None,
    }


def _parts(run: Path, rows: Sequence[Row]) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Each row with the summary of its bag, which is empty where there is none."""
    for row in rows:
        try:
            yield row, {} if "problem" in row else read_json(run / row["name"] / SUMMARY_FILE)
        except (OSError, ValueError) as error:
            yield {**row, "problem": f"{run / row['name'] / SUMMARY_FILE}: cannot be read ({error})"}, {}


def _bag_row(row: Row, part: Mapping[str, Any], robot: str, config: FleetConfig) -> dict[str, Any]:
    """The figures of one bag; None for what it has not."""
    course, total = part.get("course") or {}, part.get("latency_ms", {}).get("total", {})
    report = config.run / row["name"] / REPORT_FILE
    return {
        "name": row["name"],
        "bag": row["bag"],
        "robot": robot,
        "scans": part.get("scans"),
        "first_ns": course.get("first_ns"),
        "seconds": (course.get("last_ns", 0) - course.get("first_ns", 0)) / 1e9 if course else None,
        "fit": (part.get("fit") or {}).get("value"),
        "miou": part.get("miou_present"),
        "right": part.get("accuracy"),
        "uncertainty": part["uncertainty_histogram"]["mean"] if part else None,
        "missing": course.get("missing"),
        "left_out": course.get("left_out"),
        "p50_ms": total.get("p50"),
        "p95_ms": total.get("p95"),
        "host": row.get("host", ""),
        "report": os.path.relpath(report.absolute(), config.out.absolute()) if report.is_file() else "",
        "note": _note(row),
        "problem": row.get("problem", ""),
    }


def _note(row: Row) -> str:
    """What did not go well, in words."""
    lost = [f"attempt {number}: {text}" for number, text in enumerate(row.get("failures", ()), 1)]
    return "; ".join(filter(None, (row.get("problem", ""), row.get("partial_reason", ""), *lost)))


class _Robot:
    """Sums over the bags of a robot."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bags: list[dict[str, Any]] = []
        self._tally: Tally | None = None
        self._labels: LabelMap | None = None
        self._shared: frozenset[int] = frozenset()

    def add(self, bag: dict[str, Any], part: Mapping[str, Any]) -> None:
        """Count one bag."""
        self._bags.append(bag)
        if part:
            tally = Tally.from_mapping(part["counts"], bag["name"])
            self._tally = tally if self._tally is None else self._tally + tally
            self._labels = self._labels or LabelMap.from_rows(part["labels"], part["bundle"]["name"])
            self._shared |= frozenset(part["shared"])

    def row(self) -> dict[str, Any]:
        """The figures over all bags of the robot, each scan counting alike."""
        read = [bag for bag in self._bags if bag["scans"]]
        scans = sum(bag["scans"] for bag in read)
        missing = sum(bag["missing"] or 0 for bag in read)
        fits = [bag["fit"] for bag in read if bag["fit"] is not None]
        row: dict[str, Any] = {
            "name": self._name,
            "bags": len(self._bags),
            "unread": sum(bool(bag["problem"]) for bag in self._bags),
            "scans": scans,
            "hours": sum(bag["seconds"] or 0.0 for bag in read) / 3600.0,
            "fit": min(fits, default=None),
            "missing_share": missing / max(1, scans + missing),
            "left_out": sum(bag["left_out"] or 0 for bag in read),
            **dict.fromkeys(("miou", "right", "uncertainty", "p50_ms", "p95_ms")),
        }
        if self._tally is None or self._labels is None:
            return row
        summary = figures(self._tally, self._labels, self._shared)
        total = summary["latency_ms"].get("total", {})
        row |= {"miou": summary.get("miou_present"), "right": summary.get("accuracy")}
        row |= {"uncertainty": summary["uncertainty_histogram"]["mean"]}
        return row | {"p50_ms": total.get("p50"), "p95_ms": total.get("p95")}
