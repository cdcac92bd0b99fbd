# SPDX-License-Identifier: Apache-2.0
"""Whether a fleet's model becomes less sure or less right with time, and where it is least sure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTHS_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0, 365 * 86400.0)
"""lengths of time over which scans are averaged"""
MOST_BINS = 60
FEWEST_BINS = 6
"""of a robot's time, below which nothing is said about it"""
SIGMAS, WORTH_SAYING = 3.0, 0.02
"""a change is told where it is larger than so many standard errors of the difference, and than this"""
WORST_PLACES = 10


@dataclass(frozen=True)
class Stretch:
    """Neighbouring scans of one bag."""

    robot: str
    bag: str
    stamp_s: float
    scans: int
    uncertainty: float
    right: float | None
    """point accuracy; None without labels"""
    place_m: tuple[float, float] | None
    is_global: bool
    """whether its place is one of the earth, and not of the bag's own odometry"""


def stretches_of(course: Mapping[str, Any], robot: str, bag: str) -> list[Stretch]:
    """The stretches that the summary of a bag tells; none in those of older versions."""
    return [
        Stretch(
            robot,
            bag,
            row["stamp_ns"] / 1e9,
            row["scans"],
            row["uncertainty"],
            row.get("right"),
            (row["place_m"][0], row["place_m"][1]) if "place_m" in row else None,
            row.get("is_global", False),
        )
        for row in course.get("stretches", ())
    ]


def over_time(stretches: Sequence[Stretch]) -> dict[str, Any]:
    """Mean uncertainty and point accuracy by robot and time, and a sentence for each robot that changed."""
    if not stretches:
        return {"width_s": 0.0, "robots": {}, "said": []}
    stamps = [stretch.stamp_s for stretch in stretches]
    first, span = min(stamps), max(stamps) - min(stamps)
    width = next((width for width in WIDTHS_S if span / width < MOST_BINS), WIDTHS_S[-1])
    bins: dict[tuple[str, int], list[Stretch]] = defaultdict(list)
    for stretch in stretches:
        bins[stretch.robot, int((stretch.stamp_s - first) // width)].append(stretch)
    robots: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (robot, number), inside in sorted(bins.items()):
        robots[robot].append({"time_s": first + number * width, **_means(inside)})
    said = [sentence for robot, rows in robots.items() for sentence in _changes(robot, rows)]
    return {"width_s": width, "robots": dict(robots), "said": said}


def _means(inside: Sequence[Stretch]) -> dict[str, Any]:
    """Means over some stretches, each scan counting alike."""
    scans = np.array([stretch.scans for stretch in inside], np.float64)
    judged = [(stretch.right, stretch.scans) for stretch in inside if stretch.right is not None]
    uncertainty = float(np.average([stretch.uncertainty for stretch in inside], weights=scans))
    right = float(np.average([r for r, _ in judged], weights=[n for _, n in judged])) if judged else None
    return {"scans": int(scans.sum()), "uncertainty": round(uncertainty, 5), "right": None if right is None else round(right, 5)}


def _changes(robot: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What changed between the first and the last third of a robot's time beyond what neighbouring times differ by."""
    said = []
    for name, words in (("uncertainty", "the mean uncertainty"), ("right", "the point accuracy")):
        values = [row[name] for row in rows if row[name] is not None]
        third = len(values) // 3
        if len(values) < FEWEST_BINS:
            continue
        before, after = np.array(values[:third]), np.array(values[-third:])
        change = float(after.mean() - before.mean())
        error = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / third)
        if abs(change) > max(SIGMAS * error, WORTH_SAYING):
            verb = "rises" if change > 0 else "falls"
            said.append(
                f"{robot}: {words} {verb} from {before.mean():.2f} to {after.mean():.2f} between its first and last third"
            )
    return said


def over_places(stretches: Sequence[Stretch], cell_m: float) -> dict[str, Any]:
    """Mean uncertainty by square of `cell_m`: those of the map that has most scans, and the worst ones of all.

    Places on the earth share one map; the odometry of each bag has a map of its own.
    """
    cells: dict[tuple[str, int, int], list[Stretch]] = defaultdict(list)
    for stretch in stretches:
        if stretch.place_m is not None:
            column, line = (math.floor(value / cell_m) for value in stretch.place_m)
            cells["" if stretch.is_global else stretch.bag, column, line].append(stretch)
    rows = [
        {"map": frame, "x_m": (column + 0.5) * cell_m, "y_m": (line + 0.5) * cell_m, **_means(inside), "bags": _bags(inside)}
        for (frame, column, line), inside in sorted(cells.items())
    ]
    scans: dict[str, int] = defaultdict(int)
    for row in rows:
        scans[str(row["map"])] += int(row["scans"])
    largest = max(scans, key=lambda frame: scans[frame], default="")
    worst = sorted(rows, key=lambda row: -row["uncertainty"])[:WORST_PLACES]
    return {
        "cell_m": cell_m,
        "map": largest,
        "maps": len(scans),
        "cells": [row for row in rows if row["map"] == largest],
        "worst": worst,
    }


def _bags(inside: Sequence[Stretch]) -> list[str]:
    return list(dict.fromkeys(stretch.bag for stretch in inside))
