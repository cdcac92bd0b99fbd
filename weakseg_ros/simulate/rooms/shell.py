# SPDX-License-Identifier: Apache-2.0
"""The shell of a room: floor, ceiling, walls with their holes, doors, windows, beams and columns."""

from __future__ import annotations

import numpy as np

from weakseg_ros.simulate.rooms.palette import BEAM, CEILING, COLUMN, DOOR, FLOOR, WALL, WINDOW
from weakseg_ros.simulate.rooms.room import Footprint, Opening, Room
from weakseg_ros.simulate.solids import GLASS, Parts, block, cylinder, join, place

WALL_M = 0.08
"""each room has walls of its own; two of them stand back to back"""
SLAB_M = 0.2
AISLE_HALF_M = 0.4
"""half width of the way from a door into a room that stays free"""
WAY_SHARE, LONGEST_M, SHORTEST_M = 0.42, 2.4, 1.1
"""share of a room's depth that this way reaches into it, and its bounds"""


def build_shell(room: Room) -> None:
    """Everything of a room that does not move, into `room`; the way in from each door is kept free."""
    _slabs(room)
    accent = int(room.rng.integers(len(room.corners))) if room.rng.random() < 0.35 else -1
    paint = room.palette.paint(room.rng, "wall")
    for number in range(len(room.corners)):
        _wall(room, number, room.palette.paint(room.rng, "accent") if number == accent else paint)
    for opening in room.windows:
        _window(room, opening)
    for opening in room.doors:
        _keep_free(room, opening)


def door(room: Room, opening: Opening, angle: float | None) -> None:
    """The frame of a door and its leaf, opened into the room by `angle` rad; None = no leaf."""
    rng, wide, trim = room.rng, opening.end - opening.start, room.rng.uniform(0.03, 0.06)
    frame, leaf = room.palette.paint(rng, "frame"), room.palette.paint(rng, "door")
    parts = [block(DOOR, s * (wide / 2 - trim / 2), 0, 0, (trim / 2, WALL_M + 0.015, opening.high), **frame) for s in (1, -1)]
    parts.append(block(DOOR, 0, 0, opening.high - trim, (wide / 2, WALL_M + 0.015, trim), **frame))
    if angle is not None:
        half = wide / 2 - trim
        glazed = {**room.palette.paint(rng, "glass"), "surface": GLASS} if rng.random() < 0.12 else leaf
        slab = block(DOOR, half, 0, 0.01, (half, 0.022, opening.high - trim - 0.02), **glazed)
        grip = block(DOOR, 2 * half - 0.12, 0, 1.0, (0.06, 0.07, 0.03), **room.palette.paint(rng, "metal"))
        side = rng.choice([1, -1])
        hung = place(join([slab, grip]), (-half, WALL_M - 0.03, 0), angle)
        parts.append(hung if side > 0 else _mirrored(hung))
    _in_edge(room, opening, join(parts), inwards=-WALL_M)


def beams(room: Room, count: int) -> None:
    """Beams below the ceiling from wall to wall, along or across the room."""
    rng, (length, width) = room.rng, room.size
    along = length < width if rng.random() < 0.8 else length >= width
    half, drop = rng.uniform(0.08, 0.2), rng.uniform(0.1, max(0.15, min(0.5, room.height - 2.2)))
    paint, low = room.palette.paint(rng, rng.choice(["wall", "ceiling", "wood"])), room.corners.min(axis=0)
    for share in (np.arange(count) + rng.uniform(0.3, 0.7)) / count:
        size = (length / 2, half, drop) if along else (half, width / 2, drop)
        x, y = (length / 2, width * share) if along else (length * share, width / 2)
        room.put(block(BEAM, low[0] + x, low[1] + y, room.height - drop, size, **paint))


def column(room: Room) -> None:
    """A round or square column, against a wall or free."""
    rng, half = room.rng, room.rng.uniform(0.12, 0.3)
    paint, round_one = room.palette.paint(rng, rng.choice(["wall", "ceiling", "accent"])), room.rng.random() < 0.35
    shape = cylinder(COLUMN, 0, 0, 0, half, room.height, **paint)
    if not round_one:
        shape = block(COLUMN, 0, 0, 0, (half, half * rng.uniform(0.7, 1.4), room.height), **paint)
    footprint = (float(shape["size"][0, 0]), float(shape["size"][0, 1]))
    for _ in range(20):
        number = int(rng.integers(len(room.corners)))
        _, yaw, length = room.edge(number)
        away = footprint[1] - 0.02 if rng.random() < 0.6 else rng.uniform(0.5, 1.2)
        x, y = room.at_edge(number, rng.uniform(0.1, 0.9) * length, max(away, footprint[1] + 1e-3))
        taken = Footprint(x, y, footprint, yaw, 0.0, room.height)
        if room.is_free(taken):
            room.taken.append(taken)
            room.put(shape, x, y, yaw)
            return


def _slabs(room: Room) -> None:
    rng, (length, width) = room.rng, room.size
    x, y = room.corners.min(axis=0) + np.array(room.size) / 2
    half = (length / 2 + WALL_M, width / 2 + WALL_M)
    tile = float(rng.choice([0.0, 0.3, 0.6])), float(rng.choice([0.0, 0.6]))
    floor = {**room.palette.paint(rng, "floor"), "pattern": (tile[0], 0, 0, 0)}
    ceiling = {**room.palette.paint(rng, "ceiling"), "pattern": (tile[1], 0, 0, 0)}
    room.put(block(FLOOR, x, y, -SLAB_M, (*half, SLAB_M), **floor))
    room.put(block(CEILING, x, y, room.height, (*half, SLAB_M), **ceiling))


def _wall(room: Room, number: int, paint: dict[str, object]) -> None:
    """The pieces of one wall around its holes, and a skirting that belongs to it."""
    start, yaw, length = room.edge(number)
    holes = sorted((one for one in (*room.doors, *room.windows) if one.edge == number), key=lambda hole: hole.start)
    pieces, x = [], -WALL_M
    for hole in holes:
        pieces += _piece(x, hole.start, 0.0, room.height, paint)
        pieces += _piece(hole.start, hole.end, 0.0, hole.low, paint)
        pieces += _piece(hole.start, hole.end, hole.high, room.height, paint)
        x = hole.end
    pieces += _piece(x, length + WALL_M, 0.0, room.height, paint)
    if pieces:
        room.put(place(join(pieces), (start[0], start[1], 0), yaw))


def _piece(start: float, end: float, low: float, high: float, paint: dict[str, object]) -> list[Parts]:
    if end - start < 1e-3 or high - low < 1e-3:
        return []
    return [block(WALL, (start + end) / 2, -WALL_M / 2, low, ((end - start) / 2, WALL_M / 2, high - low), **paint)]


def _window(room: Room, opening: Opening) -> None:
    """A frame with mullions, a pane, and now and then a blind."""
    rng, wide, high = room.rng, opening.end - opening.start, opening.high - opening.low
    frame, trim = room.palette.paint(rng, "frame"), room.rng.uniform(0.03, 0.06)
    parts = [block(WINDOW, s * (wide - trim) / 2, 0, 0, (trim / 2, 0.04, high), **frame) for s in (1, -1)]
    parts += [block(WINDOW, 0, 0, z, (wide / 2, 0.04, trim), **frame) for z in (0.0, high - trim)]
    parts += [block(WINDOW, x, 0, 0, (trim / 2, 0.035, high), **frame) for x in np.arange(-wide / 2, wide / 2, 0.8)[1:]]
    parts.append(block(WINDOW, 0, -0.01, 0, (wide / 2, 0.008, high), surface=GLASS, **room.palette.paint(rng, "glass")))
    if rng.random() < 0.4:
        drawn = high * rng.uniform(0.2, 1.0)
        cloth = room.palette.paint(rng, rng.choice(["frame", "fabric", "wall"]))
        parts.append(block(WINDOW, 0, 0.06, high - drawn, (wide / 2, 0.015, drawn), **cloth))
    _in_edge(room, opening, join(parts), inwards=-WALL_M / 2)
    x, y = room.at_edge(opening.edge, (opening.start + opening.end) / 2, 0.05)
    room.taken.append(Footprint(x, y, (wide / 2, 0.05), room.edge(opening.edge)[1], opening.low, opening.high))


def _keep_free(room: Room, opening: Opening) -> None:
    """The way from a door towards the middle of the room."""
    deep = way_in_m(room, opening)
    x, y = room.at_edge(opening.edge, (opening.start + opening.end) / 2, deep / 2)
    half = (max(AISLE_HALF_M, (opening.end - opening.start) / 2), deep / 2)
    room.taken.append(Footprint(x, y, half, room.edge(opening.edge)[1], 0.0, 2.1))


def way_in_m(room: Room, opening: Opening) -> float:
    """How far the free way behind a door reaches into the room."""
    start, yaw, _ = room.edge(opening.edge)
    depth = float(((room.corners - start) @ (-np.sin(yaw), np.cos(yaw))).max())
    return float(np.clip(WAY_SHARE * depth, min(SHORTEST_M, depth), LONGEST_M))


def _in_edge(room: Room, opening: Opening, parts: Parts, inwards: float) -> None:
    x, y = room.at_edge(opening.edge, (opening.start + opening.end) / 2, inwards)
    room.put(parts, x, y, room.edge(opening.edge)[1], opening.low)


def _mirrored(parts: Parts) -> Parts:
    """Hung on the other side."""
    copy = parts.copy()
    copy["position"][:, 0] *= -1
    copy["yaw"] *= -1
    return copy
