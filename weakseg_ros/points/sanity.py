# SPDX-License-Identifier: Apache-2.0
"""Is a cloud in its sensor's frame, x forward, y left, z up, in metres? What is plainly not so is named, with what mends it.

Pure functions of positions, `xyz` (N, 3) in m. The ground gives the axes away: seen from above, it is the flat layer that most
squares share, and it lies below the sensor. A mirrored axis (CARLA) cannot be told from positions: a mirrored street is a street.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.ground import USUAL_HEIGHT_M, find_ground
from weakseg_ros.points.reading import rotation
from weakseg_ros.points.units import UNITS_M, beyond_any_lidar, unit_values, units_of_ground, units_of_height

MIN_POINTS = 400
"""fewer say nothing"""
FAR_M = 250.0
"""no LiDAR has half of its returns farther away"""
NO_LENGTH_M = 1e9
"""a thousand kilometres in millimetres"""
NEAR_M, NEAR_SHARE = 0.1, 0.99
"""nor nearly all of them so near"""
FLAT_SHARE = 0.002
"""of their distance, that points of one plane deviate from it: a tenth of a degree"""
SAME_SHARE = 0.3
"""of the points at one and the same place: a driver's mark for no return"""
CENTIMETRES_BELOW = 400.0
"""the lowest points of a street are 100 to 400 cm below the sensor, or 1000 to 4000 mm"""
AWAY_M = 20.0
"""nearly all points of a cloud in another frame are farther than this from its origin"""
WIDE_M = 8.0
"""a ground that would be seen from a sensor on its side is at least so wide, or it may be a wall"""
SQUARE_M, REACH_M, LAYER_M = 1.0, 25.0, 0.3
MIN_SQUARES = 20
LOWEST_M, HIGHEST_M = 0.2, 4.0
"""the ground lies between these below the sensor"""
LEVEL_M = 0.45
"""a ground so near to the height of the origin is that of a vehicle's frame"""
STRIP_M, DIRECTION_DEG = 5.0, 3.0
GROUND_SHARE, SURE_SHARE, STEEP_SHARE = 0.25, 0.4, 0.55
"""a ground is there; it is there beyond doubt; so it is where it would be so steep that furniture in a room may look like it"""
CLEARLY = 2.0
"""another set of axes must show this many times as much ground"""
FORWARD_SHARE, FORWARD_COSINE = 0.97, 0.6
AXES = {
    "upside down": ((180.0, 0.0, 0.0), "the ground lies above the sensor, so it is mounted upside down"),
    "optical": ((-90.0, 0.0, -90.0), "z is forward and y is down, a camera's optical frame"),
    "y up": ((90.0, 0.0, 90.0), "y is up and z is forward, as in graphics"),
}
SIDES = {
    "optical": AXES["optical"],
    "y up": AXES["y up"],
    "nose down": ((0.0, 90.0, 0.0), "the ground lies ahead, so x points down"),
    "nose up": ((0.0, -90.0, 0.0), "the ground lies behind, so x points up"),
}
"""how a sensor may lie on its side; the ground does not tell a sensor that is rolled from these two frames"""
LEVELLED_DEG = 18.0
"""a little less than the steepest ground that clouds are put level by, see points.ground.STEEPEST"""
LEVELLED = frozenset({"tilted", "base frame", "high", "buried"})
"""kinds that do not matter to a model which sees clouds level and at a usual height"""
MIN_TILT_DEG, MAX_TILT_DEG = 10.0, 75.0
"""roads, and sensors on moving vehicles, tilt by less than the one; beyond the other, walls are taken for ground"""


def _leaning(tilt_deg: float, ways: int) -> list[NDArray[np.float64]]:
    """Rotations that put level what is tilted by so much, in so many directions around z."""
    turns = [360.0 * way / ways for way in range(ways)]
    return [rotation(0.0, 0.0, turn) @ rotation(tilt_deg, 0.0, 0.0) @ rotation(0.0, 0.0, -turn) for turn in turns]


SLANTS, STEEP_SLANTS = (np.eye(3), *_leaning(30.0, 4)), tuple(_leaning(60.0, 8))
"""a ground is searched for within 20 deg of each of these; of the second only where the first show none"""
STAY = 0.1
BELOW_M, BELOW_SHARE = 0.8, 0.05
"""hardly anything lies this far below a ground"""
OWN_FRAME = "use the topic in the sensor's own frame"


class Finding(NamedTuple):
    """What is wrong with a cloud's geometry."""

    kind: str
    """'same', 'flat', 'unit', 'far', a key of AXES or SIDES, 'tilted', 'steep' (tilted by more than is put level),
    'base frame', 'high', 'buried', 'merged', or 'segments'"""
    text: str
    """what was found, a clause without a full stop"""
    remedy: str
    """what mends it"""
    units: tuple[str, ...] = ()
    """units of length other than metres that would explain it"""

    def __str__(self) -> str:
        return f"{self.text}{'' if self.text.endswith('?') else ';'} {self.remedy}"


def findings(xyz: NDArray[np.floating], frame_id: str = "") -> list[Finding]:
    """What is plainly wrong with the frame or unit of (N, 3) usable points; the first that applies, or nothing.

    `frame_id` is only named.
    """
    points = xyz.astype(np.float64)
    if len(points) < MIN_POINTS:
        return []
    for test in (same_place, far_away, one_plane, wrong_unit, wrong_height, wrong_axes, tilted, on_its_side, base_frame):
        found = test(points)
        if found is not None:
            frame = f"frame '{frame_id}': " if frame_id else ""
            return [found._replace(text=frame + found.text)]
    return []


def same_place(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud many of whose points are one and the same, beside its origin."""
    order = np.lexsort(xyz.T)
    starts = np.flatnonzero(np.append(True, np.any(np.diff(xyz[order], axis=0) != 0, axis=1)))
    counts = np.diff(np.append(starts, len(xyz)))
    share = counts.max() / len(xyz)
    if share < SAME_SHARE:
        return None
    place = ", ".join(f"{value:g}" for value in xyz[order[starts[counts.argmax()]]])
    text = f"{share:.0%} of the points lie at one and the same place ({place}), which is no return"
    return Finding("same", text, "let the driver write NaN or 0, 0, 0 there, or leave these points out")


def far_away(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud that lies beside its origin, as one in a map's frame does."""
    middle = np.median(xyz, axis=0)
    distance = float(np.linalg.norm(middle))
    near = float(np.quantile(np.linalg.norm(xyz, axis=1), 0.01))
    spread = float(np.median(np.linalg.norm(xyz - middle, axis=1)))
    if near < AWAY_M or spread > min(distance / 2, FAR_M):
        return None
    text = f"all points lie in one direction, {distance:.0f} m away, so the cloud is not in its sensor's frame (map?)"
    return Finding("far", text, "use the topic in the sensor's own frame, or transform the clouds into it")


def one_plane(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud all of whose points lie at the height of its origin."""
    height, reach = np.quantile(np.abs(xyz[:, 2]), NEAR_SHARE), np.quantile(np.hypot(xyz[:, 0], xyz[:, 1]), 0.5)
    if height > FLAT_SHARE * reach:
        return None
    text = (
        "all points lie at the height of the origin: a scanner of one plane, or a driver that lacks the sensor's vertical angles"
    )
    return Finding("flat", text, "give the driver the sensor's angle file (RoboSense: DIFOP packets), or use a 3D LiDAR's topic")


def wrong_unit(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud in another unit than metres, which is named by the height at which its sensor would be."""
    distance = np.linalg.norm(xyz, axis=1)
    middle, most = float(np.median(distance)), float(np.quantile(distance, NEAR_SHARE))
    if most < NEAR_M:
        text = f"{NEAR_SHARE:.0%} of the points are nearer than {most:.2g} m, so the lengths are not in metres (scaled to one?)"
        return Finding("unit", text, "set unit_m to the length of the cloud's unit in metres")
    if middle < FAR_M and not beyond_any_lidar(xyz):
        return None
    if middle > NO_LENGTH_M:
        text = f"half of the points are farther than {middle:.1g} m, so the coordinates are no lengths in any unit"
        return Finding("unit", text, "check the driver, and the type and byte order of the fields")
    heights = units_of_ground(xyz)
    usual = "centimetres" if _depth(xyz) < CENTIMETRES_BELOW and middle < 1e4 else "millimetres"
    names = list(heights) if usual in heights or (heights and middle < FAR_M) else [*heights, usual]
    how_far = f"half of the points are farther than {_distance(middle)}"
    if middle < FAR_M:
        how_far = f"points are {_distance(most)} away"
    text = f"{how_far}, beyond the range of any LiDAR: {' or '.join(names)} instead of metres?"
    return Finding("unit", text, f"set unit_m to {unit_values(names, heights)}", tuple(names))


def wrong_axes(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud whose ground is not below it, but would be on other axes."""
    own = max(ground_share(xyz), ground_share(xyz, level=True))
    if own >= SURE_SHARE or ground_height_m(xyz) is not None:
        return None
    shares = {name: ground_share(xyz @ rotation(*rpy).T) for name, (rpy, _) in AXES.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] >= GROUND_SHARE and shares[best] > CLEARLY * own:
        return _axes(best, heading_is_known=_looks_along_z(xyz))
    return _axes("optical", heading_is_known=True) if own < GROUND_SHARE and _looks_along_z(xyz) else None


def on_its_side(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud that shows its ground at a usual height only where it is turned by a right angle."""
    own = find_ground(xyz)
    if max(ground_share(xyz), ground_share(xyz, level=True)) >= GROUND_SHARE or _looks_along_z(xyz):
        return None
    shares = {name: _share_of_wide_ground(xyz @ rotation(*rpy).T) for name, (rpy, _) in SIDES.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] < SURE_SHARE or (own.share > shares[best] and LOWEST_M < own.offset_m < HIGHEST_M):
        return None
    return _axes(best, SIDES)


def _share_of_wide_ground(xyz: NDArray[np.float64]) -> float:
    """The share of a ground at a usual height that reaches as far as a road does and no wall of a room; 0 without one."""
    plane = find_ground(xyz)
    on_it = xyz[np.abs(plane.height(xyz)) < LAYER_M]
    if not LOWEST_M < plane.offset_m < HIGHEST_M or len(on_it) < MIN_POINTS / 4:
        return 0.0
    reach = np.ptp(np.quantile(on_it[:, :2], (0.05, 0.95), axis=0), axis=0)
    return plane.share if reach.min() >= WIDE_M else 0.0


def _looks_along_z(xyz: NDArray[np.float64]) -> bool:
    forward = xyz[:, 2] / np.maximum(np.linalg.norm(xyz, axis=1), 1e-9)
    return bool(np.mean(forward > 0) >= FORWARD_SHARE and np.median(forward) > FORWARD_COSINE)


def base_frame(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud whose ground lies at the height of its origin, as one in base_link does."""
    height, level = ground_height_m(xyz), ground_share(xyz, level=True)
    by_plane = height is not None and abs(height) < LEVEL_M
    by_layer = level >= GROUND_SHARE and level >= ground_share(xyz) * 0.9
    if not (by_plane or by_layer) or strip_m(xyz) < (STRIP_M / 2 if by_plane else STRIP_M):
        return None
    text = (
        "the ground lies at the height of the origin, so the cloud is in the vehicle's frame (base_link), as merged clouds are, "
        "not in the sensor's"
    )
    return Finding("base frame", text, f"{OWN_FRAME}, or set translation_m to 0 0 -H for a sensor H metres above the ground")


def tilted(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud whose ground is clear to see, and not level."""
    share, normal = _best_ground(xyz, SLANTS)
    enough = SURE_SHARE
    if share < enough:
        share, normal = _best_ground(xyz, STEEP_SLANTS)
        enough = STEEP_SHARE
    tilt = math.degrees(math.acos(min(1.0, max(-1.0, float(normal[2])))))
    if share < enough or not MIN_TILT_DEG <= tilt <= MAX_TILT_DEG:
        return None
    x, y, z = normal
    roll, pitch = math.degrees(math.atan2(y, z)), math.degrees(math.atan2(-x, math.hypot(y, z)))
    text = f"the ground is tilted by {tilt:.0f} deg against the cloud's x-y plane, so the sensor is mounted at an angle"
    return Finding("tilted" if tilt <= LEVELLED_DEG else "steep", text, f"set rotation_rpy_deg to {roll:.0f} {pitch:.0f} 0")


def _best_ground(xyz: NDArray[np.float64], turns: Sequence[NDArray[np.float64]]) -> tuple[float, NDArray[np.float64]]:
    """Share and (3,) normal of the clearest ground below the sensor in a cloud that is turned in each of these ways.

    The first stays unless another one is clearly better.
    """
    planes = [find_ground(xyz @ turn.T) for turn in turns]
    shares = [plane.share if LOWEST_M < plane.offset_m < HIGHEST_M else 0.0 for plane in planes]
    best = int(np.argmax(np.array(shares) + STAY * (np.arange(len(turns)) == 0)))
    return shares[best], planes[best].normal @ turns[best]


def wrong_height(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud whose origin is high above a ground that is clear to see, or below it."""
    height = ground_height_m(xyz, math.inf)
    if height is None:
        return _deep_ground(xyz)
    if -LEVEL_M <= height <= HIGHEST_M or _looks_along_z(xyz):
        return None
    if height > 0 and on_its_side(xyz) is not None:  # what lies so far below is a wall
        return None
    remedy = f"{OWN_FRAME}, or set translation_m to 0 0 {height - USUAL_HEIGHT_M:.1f}"
    if height > 0:
        text = f"the ground lies {height:.1f} m below the origin: a sensor on a mast, or a frame above it"
        units = units_of_height(height)
        if units:
            text += f", or lengths in {' or '.join(f'{name} (then unit_m is {UNITS_M[name]:g})' for name in units)}"
        return Finding("high", text, remedy, tuple(units))
    return Finding("buried", f"the ground lies {-height:.1f} m above the origin, where no sensor could see it", remedy)


def _deep_ground(xyz: NDArray[np.float64]) -> Finding | None:
    """A cloud whose ground is so far below that its own unit shows none, while another unit shows one at a usual height."""
    if max(find_ground(xyz).share, ground_share(xyz), ground_share(xyz, level=True)) >= GROUND_SHARE or _looks_along_z(xyz):
        return None
    heights = units_of_ground(xyz, level=True)
    if not heights:
        return None
    names = tuple(heights)
    below = max(heights[name] / UNITS_M[name] for name in names)
    text = f"the ground lies {below:.0f} m below the origin: lengths in {' or '.join(names)}, or a sensor on a high mast?"
    ways = f"set unit_m to {unit_values(names, heights)}, or for a mast translation_m to 0 0 {below - USUAL_HEIGHT_M:.1f}"
    return Finding("unit", text, ways, names)


def ground_height_m(xyz: NDArray[np.float64], most_m: float = HIGHEST_M) -> float | None:
    """Metres of the origin above a ground that is clear to see with hardly anything below it; None where there is none.

    Grounds more than `most_m` below the origin, or clearly above it while `most_m` is finite, do not count.
    """
    plane = find_ground(xyz)
    if plane.share < SURE_SHARE or np.mean(plane.height(xyz) < -BELOW_M) > BELOW_SHARE:
        return None
    if plane.offset_m > most_m or (plane.offset_m < -LEVEL_M and math.isfinite(most_m)):
        return None
    return plane.offset_m


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


def _axes(
    name: str, among: Mapping[str, tuple[tuple[float, float, float], str]] = AXES, heading_is_known: bool = False
) -> Finding:
    rpy, text = among[name]
    angles = " ".join(f"{angle:g}" for angle in rpy)
    remedy = f"set rotation_rpy_deg to {angles}, or transform the clouds to x forward, y left, z up"
    if name != "upside down" and not heading_is_known:
        rolled = (
            f"{rpy[0]:g} 0 0 keeps x forward, for a sensor that is rolled" if rpy[0] else "change the third angle if it is wrong"
        )
        remedy += f"; the ground does not show which way is forward ({rolled})"
    return Finding(name, text, remedy)


def _depth(xyz: NDArray[np.float64]) -> float:
    return float(abs(np.quantile(xyz[:, 2], 0.02)))


def _distance(metres: float) -> str:
    return f"{metres / 1000:.1f} km" if metres >= 1000 else f"{metres:.0f} m"
