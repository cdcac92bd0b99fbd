# SPDX-License-Identifier: Apache-2.0
"""Lines over time and squares over places as drawings of an HTML page; numbers only, so that no name can become code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

WIDTH, HEIGHT, EDGE = 1000.0, 190.0, 8.0
COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#eeca3b", "#ff9da6", "#79706e")
OTHER = "#a0a0a0"
CLOCK_BEGINS_S = 946_684_800.0
"""stamps before the year 2000 count from something else than a calendar does"""


def color_of(number: int) -> str:
    """The colour of a robot by its place in the list; from the eleventh on they share a grey."""
    return COLORS[number] if number < len(COLORS) else OTHER


def lines_over_time(robots: Mapping[str, Sequence[Mapping[str, Any]]], value: str) -> dict[str, Any]:
    """A line for each robot through its `value`s, with the ends of both axes in words; no lines where nobody has any."""
    told = {name: [row for row in rows if row[value] is not None] for name, rows in robots.items()}
    every = [row for rows in told.values() for row in rows]
    if not every:
        return {"lines": []}
    times, values = [row["time_s"] for row in every], [row[value] for row in every]
    low, high = min(values), max(values)
    high = high if high - low > 0.01 else low + 0.01
    first, span = min(times), max(max(times) - min(times), 1e-9)
    lines = [
        {
            "name": name,
            "color": color_of(number),
            "points": [
                (
                    round(EDGE + (WIDTH - 2 * EDGE) * (row["time_s"] - first) / span, 1),
                    round(EDGE + (HEIGHT - 2 * EDGE) * (high - row[value]) / (high - low), 1),
                )
                for row in rows
            ],
        }
        for number, (name, rows) in enumerate(told.items())
    ]
    return {"lines": lines, "low": f"{low:.2f}", "high": f"{high:.2f}", "from": clock(min(times)), "to": clock(max(times))}


def map_of(cells: Sequence[Mapping[str, Any]], cell_m: float) -> dict[str, Any]:
    """Squares with an opacity by their uncertainty, north up; none where there are no places."""
    if not cells:
        return {"squares": []}
    left, right = min(c["x_m"] for c in cells) - cell_m / 2, max(c["x_m"] for c in cells) + cell_m / 2
    low, high = min(c["y_m"] for c in cells) - cell_m / 2, max(c["y_m"] for c in cells) + cell_m / 2
    scale = min(WIDTH / (right - left), 420.0 / (high - low), 60.0 / cell_m)
    values = [cell["uncertainty"] for cell in cells]
    least, most = min(values), max(values)
    squares = [
        {
            "x": round((cell["x_m"] - cell_m / 2 - left) * scale, 1),
            "y": round((high - cell["y_m"] - cell_m / 2) * scale, 1),
            "side": round(cell_m * scale, 1),
            "tone": round(0.12 + 0.88 * (cell["uncertainty"] - least) / max(most - least, 1e-9), 3),
            "uncertainty": cell["uncertainty"],
            "scans": cell["scans"],
        }
        for cell in cells
    ]
    size = {"width": round((right - left) * scale, 1), "height": round((high - low) * scale, 1)}
    return {"squares": squares, **size, "least": f"{least:.2f}", "most": f"{most:.2f}"}


def clock(time_s: float) -> str:
    """A time of the calendar, or seconds of another clock."""
    if time_s < CLOCK_BEGINS_S:
        return f"{time_s:.0f} s"
    return f"{datetime.fromtimestamp(time_s, timezone.utc):%Y-%m-%d %H:%M}"


def span(seconds: float) -> str:
    """A length of time in its largest whole unit: 21600 s are 6 hours."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}" if seconds > length else f"one {unit[:-1]}"
    return f"{seconds:g} s"
