# SPDX-License-Identifier: Apache-2.0
"""Is a cloud in its sensor's frame, x forward, y left, z up, in metres? What is plainly not so is named, with what mends it.

Pure functions of positions. The ground gives the axes away: seen from above, it is the flat layer that most squares share, and
it lies below the sensor. A mirrored y axis (CARLA) cannot be told from positions: a mirrored street is a street.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.reading import rotation

MIN_POINTS = 200
"""fewer say nothing"""
FAR_M = 250.0
"""no LiDAR has half of its returns farther away"""
CENTIMETRES_BELOW = 400.0
"""the lowest points of a street are 100 to 400 cm below the sensor, or 1000 to 4000 mm"""
AWAY_M = 20.0
"""nearly all points of a cloud in another frame are farther than this from its origin"""
SQUARE_M, REACH_M, LAYER_M = 1.0, 25.0, 0.3
MIN_SQUARES = 20
LOWEST_M, HIGHEST_M = 0.2, 4.0
"""the ground lies between these below the sensor"""
LEVEL_M = 0.45
"""a ground so near to the height of the origin is that of a vehicle's frame"""
STRIP_M, DIRECTION_DEG = 5.0, 3.0
GROUND_SHARE, SURE_SHARE = 0.25, 0.4
"""a ground is there; it is there beyond doubt"""
CLEARLY = 2.0
"""another set of axes must show this many times as much ground"""
FORWARD_SHARE, FORWARD_COSINE = 0.97, 0.6
AXES = {
    "upside down": ((180.0, 0.0, 0.0), "the ground lies above the sensor: it hangs upside down"),
    "optical": ((-90.0, 0.0, -90.0), "z is forward and y is down, a camera's optical frame"),
    "y up": ((90.0, 0.0, 90.0), "y is up and z is forward, as in graphics"),
}
SECTORS = 72


class Finding(NamedTuple):
    """What is wrong with a cloud's geometry."""

    kind: str
    """'unit', 'far', a key of AXES, 'base frame', or 'segments'"""
    text: str
    """what was found, a clause without a full stop"""
    remedy: str
    """what mends it"""

    def __str__(self) -> str:
        return f"{self.text}{'' if self.text.endswith('?') else ';'} {self.remedy}"


def findings(xyz: NDArray[np.floating], frame_id: str = "") -> list[Finding]:
    """What is plainly wrong with the frame or unit of (N, 3) usable points; the first that applies, or nothing.

    `frame_id` is only named.
    """
    points = xyz.astype(np.float64)
    if len(points) < MIN_POINTS:
        return []
    for test in (far_away, wrong_unit, wrong_axes, base_frame):
        found = test(points)
        if found is not None:
            frame = f"frame '{frame_id}': " if frame_id else ""
            return [found._replace(text=frame + found.text)]
    return []


def far_away(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud that lies beside its origin, as one in a map's frame does."""
    middle = np.median(xyz, axis=0)
    distance = float(np.linalg.norm(middle))
    near = float(np.quantile(np.linalg.norm(xyz, axis=1), 0.01))
    spread = float(np.median(np.linalg.norm(xyz - middle, axis=1)))
    if near < AWAY_M or spread > min(distance / 2, FAR_M):
        return None
    text = f"all points lie in one direction, {distance:.0f} m away, so the cloud is not in its sensor's frame (map?)"
    return Finding("far", text, "take the topic in the sensor's own frame, or transform the clouds into it")


def wrong_unit(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud in millimetres or centimetres."""
    middle = float(np.median(np.linalg.norm(xyz, axis=1)))
    if middle < FAR_M:
        return None
    unit, name = (0.01, "centimetres") if _depth(xyz) < CENTIMETRES_BELOW and middle < 1e4 else (0.001, "millimetres")
    text = f"half of the points are farther than {_distance(middle)}, which no LiDAR sees: {name} in place of metres?"
    return Finding("unit", text, f"set unit_m to {unit:g}")


def wrong_axes(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud whose ground is not below it, but would be on other axes."""
    own = max(ground_share(xyz), ground_share(xyz, level=True))
    if own >= SURE_SHARE:
        return None
    shares = {name: ground_share(xyz @ rotation(*rpy).T) for name, (rpy, _) in AXES.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] >= GROUND_SHARE and shares[best] > CLEARLY * own:
        return _axes(best)
    forward = xyz[:, 2] / np.linalg.norm(xyz, axis=1)
    if np.mean(forward > 0) >= FORWARD_SHARE and np.median(forward) > FORWARD_COSINE and own < GROUND_SHARE:
        return _axes("optical")
    return None


def base_frame(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud whose ground lies at the height of its origin, as one in base_link does."""
    level = ground_share(xyz, level=True)
    if level < GROUND_SHARE or level < ground_share(xyz) * 0.9 or strip_m(xyz) < STRIP_M:
        return None
    text = "the ground lies at the height of the origin, so the cloud is in the vehicle's frame (base_link), not the sensor's"
    return Finding("base frame", text, "take the topic in the sensor's own frame")


def ground_share(xyz: NDArray[np.float64], level: bool = False) -> float:
    """Share of the squares around the sensor whose lowest point lies in one layer below it; with `level`, at its own height."""
    near = xyz[np.hypot(xyz[:, 0], xyz[:, 1]) < REACH_M]
    if len(near) < MIN_POINTS:
        return 0.0
    squares = np.floor(near[:, :2] / SQUARE_M).astype(np.int64) @ np.array([1 << 20, 1])
    order = np.lexsort((near[:, 2], squares))
    first = np.append(True, np.diff(squares[order]) != 0)
    lowest = near[order[first], 2]
    low, high = (-LEVEL_M, LEVEL_M) if level else (-HIGHEST_M, -LOWEST_M)
    edges = np.arange(low, high + LAYER_M / 2, LAYER_M / 3)
    counts = np.histogram(lowest, edges)[0]
    if len(lowest) < MIN_SQUARES:
        return 0.0
    layers = np.convolve(counts, np.ones(3), "valid") if len(counts) >= 3 else counts
    return float(layers.max()) / len(lowest)


def strip_m(xyz: NDArray[np.float64]) -> float:
    """How far the points at the height of the origin reach along one direction, typically.

    What a sensor sees at its own height is one surface in each direction; ground at that height is a strip, which only a
    sensor above it can see.
    """
    near = xyz[(np.abs(xyz[:, 2]) < LEVEL_M) & (np.hypot(xyz[:, 0], xyz[:, 1]) < REACH_M)]
    direction = np.floor(np.degrees(np.arctan2(near[:, 1], near[:, 0])) / DIRECTION_DEG)
    distance = np.hypot(near[:, 0], near[:, 1])
    reach = [np.ptp(distance[direction == one]) for one in np.unique(direction) if np.count_nonzero(direction == one) >= 3]
    return float(np.median(reach)) if reach else 0.0


def sectors(xyz: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(SECTORS,) which parts of the azimuth hold points."""
    azimuth = np.arctan2(xyz[:, 1], xyz[:, 0])
    filled = np.bincount(((azimuth / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS, minlength=SECTORS)
    seen: NDArray[np.bool_] = filled > max(1, len(xyz) // (SECTORS * 20))
    return seen


def segments(covered: Sequence[NDArray[np.bool_]]) -> Finding | None:
    """Clouds that are each a part of a turn, from the `sectors` of some in a row."""
    filled = [one for one in covered if one.any()]
    if len(filled) < 3:
        return None
    each, together = float(np.mean([one.mean() for one in filled])), float(np.any(filled, axis=0).mean())
    if each > 0.4 or together < max(2 * each, 0.5):
        return None
    text = f"each cloud covers about {360 * each:.0f} deg, all of them together {360 * together:.0f}: parts of a turn?"
    return Finding("segments", text, "take the driver's topic of full turns, or let it join them")


def _axes(name: str) -> Finding:
    rpy, text = AXES[name]
    angles = " ".join(f"{angle:g}" for angle in rpy)
    return Finding(name, text, f"set rotation_rpy_deg to {angles}, or transform the clouds to x forward, y left, z up")


def _depth(xyz: NDArray[np.float64]) -> float:
    return float(abs(np.quantile(xyz[:, 2], 0.02)))


def _distance(metres: float) -> str:
    return f"{metres / 1000:.1f} km" if metres >= 1000 else f"{metres:.0f} m"
