# SPDX-License-Identifier: Apache-2.0
"""The kinds of rooms, named as in S3DIS: how large they are, and what stands in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from weakseg_ros.simulate.rooms import clutter, furniture
from weakseg_ros.simulate.rooms.furniture import Kit
from weakseg_ros.simulate.rooms.palette import WALL
from weakseg_ros.simulate.rooms.room import Footprint, Room
from weakseg_ros.simulate.rooms.shell import beams, column
from weakseg_ros.simulate.solids import block

CHAIR_M = 0.45
"""what a chair needs in front of a table"""
TABLE_M = (0.3, 0.79)
"""heights of what a chair may be pushed under"""


@dataclass(frozen=True)
class Kind:
    """What rooms of one kind have in common."""

    width_m: tuple[float, float]
    depth_m: tuple[float, float]
    windows: float
    """share of them that have windows"""
    furnish: Callable[[Room], None]


def furnish(room: Room) -> None:
    """Furniture, clutter, lamps, beams and columns of a room whose shell stands."""
    hall = room.kind in ("hallway", "lobby", "openspace")
    if room.kind == "hallway" or room.rng.random() < (0.7 if hall else 0.35):
        beams(room, int(room.rng.integers(1, 2 + int(max(room.size) / 4))))
    for _ in range(int(room.rng.integers(1, 4)) if hall else int(room.rng.random() < 0.3)):
        column(room)
    KINDS[room.kind].furnish(room)
    _overhead(room)
    _strew(room)


def _office(room: Room) -> None:
    rng, area = room.rng, float(np.prod(room.size))
    for _ in range(int(np.clip(area / rng.uniform(4, 7), 1, 6))):
        _work_place(room)
    _several(room, furniture.bookcase, rng.integers(1, 5))
    _several(room, furniture.cupboard, rng.integers(0, 2))
    _several(room, furniture.board, rng.integers(0, 3))
    _several(room, furniture.plain_chair, rng.integers(0, 3))
    if rng.random() < 0.25:
        room.against_wall(furniture.sofa(rng, room.palette))
    if rng.random() < 0.3:
        _set_table(room, furniture.round_table(rng, room.palette), 0.0)


def _conference(room: Room) -> None:
    rng, (length, width) = room.rng, room.size
    yaw = 0.0 if length >= width else np.pi / 2
    for share in (1.0, 0.85, 0.7, 0.55, 0.4):  # the longest that leaves the way in free
        long = share * (max(length, width) - rng.uniform(1.6, 2.2))
        table = furniture.long_table(rng, room.palette, max(long, 1.2), rng.uniform(0.8, 1.4))
        if _set_table(room, table, yaw):
            break
    _several(room, furniture.board, rng.integers(1, 3))
    _several(room, furniture.plain_chair, rng.integers(0, 3))
    if rng.random() < 0.4:
        room.against_wall(furniture.cupboard(rng, room.palette))


def _open_space(room: Room) -> None:
    rng, (length, width) = room.rng, room.size
    low = room.corners.min(axis=0)
    for x in np.arange(1.0, length - 0.8, rng.uniform(1.8, 2.4)):
        for y in np.arange(1.2, width - 0.8, rng.uniform(2.2, 2.8)):
            if rng.random() < 0.8:
                _work_place(room, (float(low[0] + x), float(low[1] + y), float(rng.choice([0.0, np.pi]))))
    _several(room, furniture.bookcase, rng.integers(1, 4))
    _several(room, furniture.board, rng.integers(0, 3))


def _lounge(room: Room) -> None:
    rng = room.rng
    for _ in range(rng.integers(2, 6)):
        seat = furniture.sofa(rng, room.palette)
        spot = room.against_wall(seat, gap=0.05) if rng.random() < 0.7 else room.anywhere(seat)
        if spot and rng.random() < 0.6:
            x, y, yaw = spot
            away = seat.half[1] + rng.uniform(0.45, 0.7)
            low = furniture.coffee_table(rng, room.palette)
            if room.stand(low, x - np.sin(yaw) * away, y + np.cos(yaw) * away, yaw):
                _things_on(room, low, x - np.sin(yaw) * away, y + np.cos(yaw) * away, yaw, 1)
    for _ in range(rng.integers(0, 3)):
        _set_table(room, furniture.round_table(rng, room.palette), 0.0)
    _several(room, furniture.bookcase, rng.integers(0, 3))
    _several(room, clutter.plant, rng.integers(0, 3))


def _lobby(room: Room) -> None:
    _lounge(room)
    if room.rng.random() < 0.7:
        desk = furniture.counter(room.rng, room.palette)
        room.anywhere(desk, float(room.rng.choice([0, np.pi / 2, np.pi])))
    _several(room, furniture.board, room.rng.integers(0, 2))


def _pantry(room: Room) -> None:
    rng = room.rng
    for _ in range(rng.integers(1, 3)):
        bench = furniture.counter(rng, room.palette)
        spot = room.against_wall(bench)
        if spot:
            _things_on(room, bench, *spot, 3)
    _several(room, clutter.appliance, rng.integers(1, 3))
    for _ in range(rng.integers(1, 3)):
        _set_table(room, furniture.round_table(rng, room.palette), 0.0)


def _storage(room: Room) -> None:
    _several(room, furniture.bookcase, room.rng.integers(2, 6))
    _several(room, furniture.cupboard, room.rng.integers(0, 3))
    _several(room, clutter.boxes, room.rng.integers(2, 7))
    _several(room, clutter.appliance, room.rng.integers(0, 2))


def _copy_room(room: Room) -> None:
    _several(room, clutter.appliance, room.rng.integers(1, 4))
    _several(room, furniture.bookcase, room.rng.integers(0, 3))
    spot = room.against_wall(table := furniture.desk(room.rng, room.palette))
    if spot:
        _things_on(room, table, *spot, 3)
    _several(room, clutter.boxes, room.rng.integers(0, 3))


def _wc(room: Room) -> None:
    """Stalls along the wall opposite to the door, basins elsewhere."""
    rng, step = room.rng, room.rng.uniform(0.9, 1.1)
    _, yaw, length = room.edge(2)
    paint = room.palette.paint(rng, rng.choice(["accent", "plastic", "wall"]))
    for along in np.arange(step / 2, length - step / 2, step):
        bowl = clutter.toilet(rng, room.palette)
        x, y = room.at_edge(2, along, bowl.half[1] + 0.02)
        if room.stand(bowl, x, y, yaw):
            side = room.at_edge(2, along + step / 2, 0.7)
            room.put(block(WALL, 0, 0, 0.15, (0.012, 0.7, 1.9), **paint), *side, yaw)
    _several(room, clutter.basin, rng.integers(1, 4))


def _hallway(room: Room) -> None:
    rng = room.rng
    _several(room, furniture.board, rng.integers(0, 4))
    _several(room, clutter.wall_thing, rng.integers(2, 8))
    _several(room, furniture.plain_chair, rng.integers(0, 3))
    _several(room, furniture.cupboard, rng.integers(0, 2))
    if rng.random() < 0.3:
        room.against_wall(furniture.bookcase(rng, room.palette))


KINDS = {
    "office": Kind((2.6, 5.0), (3.2, 5.5), 0.9, _office),
    "conferenceRoom": Kind((3.6, 6.5), (4.0, 7.0), 0.8, _conference),
    "openspace": Kind((6.0, 10.0), (5.0, 8.0), 0.95, _open_space),
    "lounge": Kind((3.5, 6.0), (4.0, 6.0), 0.9, _lounge),
    "lobby": Kind((5.0, 9.0), (4.0, 7.0), 0.8, _lobby),
    "pantry": Kind((2.5, 4.0), (3.0, 4.5), 0.5, _pantry),
    "storage": Kind((1.8, 3.5), (2.5, 4.5), 0.1, _storage),
    "copyRoom": Kind((2.2, 3.5), (2.8, 4.0), 0.3, _copy_room),
    "WC": Kind((2.2, 4.0), (3.0, 4.5), 0.3, _wc),
    "hallway": Kind((16.0, 30.0), (1.7, 2.8), 0.0, _hallway),
}


def _several(room: Room, maker: furniture.Maker, count: SupportsIndex) -> None:
    for _ in range(count):
        room.against_wall(maker(room.rng, room.palette))


def _work_place(room: Room, spot: tuple[float, float, float] | None = None) -> None:
    """A desk with a chair, a screen and what lies on it; the chair stands in front of it, tidily or not."""
    rng, desk = room.rng, furniture.desk(room.rng, room.palette)
    if spot is None:
        facing = rng.random() < 0.2
        spot = room.anywhere(desk) if facing else room.against_wall(desk, gap=rng.uniform(0.02, 0.12))
        if spot is None:
            return
    elif not room.stand(desk, *spot):
        return
    x, y, yaw = spot
    screen = clutter.monitor(rng, room.palette)
    if rng.random() < 0.85:
        _on(room, screen, x, y, yaw, rng.uniform(-0.2, 0.2), -desk.half[1] * 0.5, desk.height)
    _things_on(room, desk, x, y, yaw, 1 + int(4 * room.mess))
    maker = furniture.office_chair if rng.random() < 0.8 else furniture.plain_chair
    _seat(room, maker(rng, room.palette), x, y, yaw, 0.0, desk.half[1], yaw + np.pi)


def _seat(room: Room, chair: Kit, x: float, y: float, yaw: float, along: float, half: float, facing: float) -> None:
    """A chair in front of a table whose edge is `half` m away; pushed under it a little."""
    rng = room.rng
    away = half + chair.half[1] * rng.uniform(0.2, 1.3) + 0.6 * room.mess * rng.random()
    cx, cy = x + np.cos(yaw) * along - np.sin(yaw) * away, y + np.sin(yaw) * along + np.cos(yaw) * away
    turn = facing + rng.normal(0, 0.1 + 0.6 * room.mess)
    footprint = Footprint(cx, cy, chair.half, turn, 0.0, chair.height)
    under = Footprint(cx, cy, chair.half, turn, chair.height, chair.height + 0.1)  # a chair may stand below a table
    if room.is_free(under) and not any(footprint.meets(other) for other in room.taken if not _is_table(other)):
        room.taken.append(footprint)
        room.put(chair.parts, cx, cy, turn)


def _is_table(footprint: Footprint) -> bool:
    return footprint.low == 0.0 and TABLE_M[0] < footprint.high < TABLE_M[1]


def _set_table(room: Room, table: Kit, yaw: float) -> bool:
    """A table with chairs around it, where there is room for both; whether there was."""
    rng = room.rng
    spread = Kit(table.parts, (table.half[0] + CHAIR_M, table.half[1] + CHAIR_M), table.height)
    found = room.find(spread, yaw)
    if found is None:
        return False
    x, y = found
    room.stand(table, x, y, yaw)
    _things_on(room, table, x, y, yaw, 1 + int(6 * room.mess))
    maker = furniture.office_chair if rng.random() < 0.4 else furniture.plain_chair
    state = rng.bit_generator.state  # all chairs of one table are alike
    for turn, along_half, half in (
        (0.0, *table.half),
        (np.pi, *table.half),
        (np.pi / 2, *table.half[::-1]),
        (-np.pi / 2, *table.half[::-1]),
    ):
        for along in _places(along_half, rng):
            copy = np.random.Generator(type(rng.bit_generator)())
            copy.bit_generator.state = state
            _seat(room, maker(copy, room.palette), x, y, yaw + turn, along, half, yaw + turn + np.pi)
    return True


def _places(half: float, rng: np.random.Generator) -> np.ndarray:
    count = int(half * 2 / rng.uniform(0.62, 0.9))
    return (np.arange(count) - (count - 1) / 2) * (2 * half / max(count, 1)) if rng.random() < 0.9 else np.zeros(0)


def _on(room: Room, kit: Kit, x: float, y: float, yaw: float, along: float, inwards: float, z: float, turn: float = 0.0) -> None:
    """A thing on a table at a place in the table's frame."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    room.put(kit.parts, x + cos * along - sin * inwards, y + sin * along + cos * inwards, yaw + turn, z)


def _things_on(room: Room, table: Kit, x: float, y: float, yaw: float, count: int) -> None:
    for _ in range(room.rng.integers(0, count + 1)):
        along, inwards = room.rng.uniform(-0.8, 0.8, 2) * table.half
        thing = clutter.small_thing(room.rng, room.palette)
        _on(room, thing, x, y, yaw, along, inwards, table.height, room.rng.normal(0, 0.2 + room.mess))


def _overhead(room: Room) -> None:
    """Rows of lamps, and ducts where the ceiling is open."""
    rng, (length, width), low = room.rng, room.size, room.corners.min(axis=0)
    kit = clutter.lamp(rng, room.palette, room.height)
    for x in np.arange(rng.uniform(0.8, 1.5), length - 0.5, rng.uniform(1.6, 2.8)):
        for y in np.arange(min(rng.uniform(0.8, 1.5), width / 2), width - 0.4, rng.uniform(1.8, 3.0)):
            room.put(kit.parts, low[0] + x, low[1] + y)
    if rng.random() < 0.25:
        across = length < width
        tray = clutter.duct(rng, room.palette, max(length, width), room.height)
        x, y = low + np.array(room.size) * (0.5, rng.uniform(0.1, 0.9))[:: -1 if across else 1]
        room.put(tray.parts, x, y, np.pi / 2 if across else 0.0)


def _strew(room: Room) -> None:
    """What stands about and hangs on walls; the messier the room, the more of it."""
    rng, area = room.rng, float(np.prod(room.size))
    for _ in range(rng.poisson(0.5 + room.mess * min(area, 40) / 6)):
        thing = clutter.floor_thing(rng, room.palette)
        if rng.random() < 0.7:
            room.against_wall(thing, gap=rng.uniform(0.0, 0.15))
        else:
            room.anywhere(thing)
    for _ in range(rng.poisson(1.5)):
        room.against_wall(clutter.wall_thing(rng, room.palette), gap=0.0)
    for window in room.windows:
        if rng.random() < 0.4:
            kit = clutter.radiator(rng, room.palette)
            x, y = room.at_edge(window.edge, (window.start + window.end) / 2, 0.07)
            room.stand(kit, x, y, room.edge(window.edge)[1])
    if rng.random() < 0.12:
        room.anywhere(clutter.person(rng, room.palette))
