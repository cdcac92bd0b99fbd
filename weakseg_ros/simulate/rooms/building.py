# SPDX-License-Identifier: Apache-2.0
"""A floor of a building drawn from a seed: a hallway with rooms on both sides and a lobby at its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.rooms.kinds import KINDS, furnish
from weakseg_ros.simulate.rooms.palette import Palette, Random, draw_palette
from weakseg_ros.simulate.rooms.room import Footprint, Opening, Room
from weakseg_ros.simulate.rooms.shell import AISLE_HALF_M, WALL_M, build_shell, door, way_in_m
from weakseg_ros.simulate.solids import Parts, join, place

_PALETTE_DRAW, _FLOOR_DRAW = 0xB1, 0xF1
USUAL = ("office",) * 5 + ("conferenceRoom",) * 2 + ("storage", "WC", "copyRoom", "pantry", "lounge", "openspace")
AT_LEAST = ("conferenceRoom", "office", "lounge", "storage")
"""kinds that every floor has, so that every class occurs on it"""


@dataclass(frozen=True)
class PlacedRoom:
    """A room where it stands on its floor."""

    name: str
    """kind_number, as S3DIS names rooms"""
    room: Room
    position: tuple[float, float]
    yaw: float
    is_open: bool
    """one can get in"""

    def to_floor(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) from the room's frame to the floor's."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        moved: NDArray[np.float64] = points @ np.array([[cos, sin], [-sin, cos]]) + self.position
        return moved

    def way_in(self) -> NDArray[np.float64]:
        """(3, 2) in front of the door, in it, and at the end of the free way behind it, in the floor's frame."""
        opening = self.room.doors[0]
        middle, deep = (opening.start + opening.end) / 2, way_in_m(self.room, opening)
        ends = [self.room.at_edge(opening.edge, middle, inwards) for inwards in (-0.8, -WALL_M, deep - 0.3)]
        return self.to_floor(np.array(ends))


@dataclass(frozen=True)
class Floor:
    """Everything on one floor of a building; the first room is the hallway."""

    rooms: tuple[PlacedRoom, ...]
    parts: Parts
    """`instance` counts the things of the whole floor from 1"""
    class_of_thing: NDArray[np.uint8]
    """(T + 1,) raw id of each instance, 0 for none"""
    room_of_thing: NDArray[np.int16]
    """(T + 1,) row in `rooms` of each instance, -1 for none"""


def build_floor(seed: int, number: int = 0) -> Floor:
    """Floor `number` of the building of a seed; floors of one building share colours and materials."""
    palette = draw_palette(np.random.default_rng([seed, _PALETTE_DRAW]))
    rng = np.random.default_rng([seed, number, _FLOOR_DRAW])
    height, mess = rng.uniform(2.4, 3.5), float(rng.choice([0.0, 0.3, 0.6, 1.0]))
    rooms = _plan(rng, palette, height, mess)
    for placed in rooms:
        furnish(placed.room)
    return _assemble(rooms)


def _plan(rng: Random, palette: Palette, height: float, mess: float) -> list[PlacedRoom]:
    """The shells of all rooms, with their doors."""
    length, wide = rng.uniform(*KINDS["hallway"].width_m), rng.uniform(*KINDS["hallway"].depth_m)
    lobby = _outline("lobby", rng, (wide + 1.0, 0.0))
    hall_doors: list[Opening] = []
    placed: list[PlacedRoom] = []
    kinds = [*AT_LEAST]
    rng.shuffle(kinds)
    for side in (1, -1):
        x = rng.uniform(0.0, 1.5)
        while x < length - 2.5:
            kind = kinds.pop() if kinds else str(rng.choice(USUAL))
            corners = _outline(kind, rng, (0.0, length - x))
            size = np.ptp(corners, axis=0)
            room = Room(
                kind, corners, height * rng.uniform(0.93, 1.0), rng, palette, float(np.clip(mess + rng.normal(0, 0.2), 0, 1))
            )
            opening = _door_opening(room, rng)
            room.doors.append(opening)
            _windows(room, rng)
            at = (x, wide / 2 + 2 * WALL_M) if side > 0 else (x + size[0], -wide / 2 - 2 * WALL_M)
            angle = _door_angle(rng)
            placed.append(PlacedRoom(kind, room, at, 0.0 if side > 0 else np.pi, angle is None or angle > 0.8))
            build_shell(room)
            door(room, opening, angle)
            hall_doors.append(_across(placed[-1], opening, length, side))
            x += size[0] + 2 * WALL_M
    end = _lobby(rng, palette, lobby, height, mess, length, wide)
    mouth = end.room.doors[0]
    hall_doors.append(Opening(1, (wide - (mouth.end - mouth.start)) / 2, (wide + (mouth.end - mouth.start)) / 2, 0.0, mouth.high))
    corners = np.array([(0, 0), (length, 0), (length, wide), (0, wide)])
    hall = Room("hallway", corners, height * rng.uniform(0.93, 1.0), rng, palette, mess * 0.5, doors=hall_doors)
    build_shell(hall)
    hall.taken.append(Footprint(length / 2, wide / 2, (length / 2, AISLE_HALF_M), 0.0, 0.0, 2.0))  # the robot's way
    return _named([PlacedRoom("hallway", hall, (0.0, -wide / 2), 0.0, True), end, *placed])


def _outline(kind: str, rng: Random, limits: tuple[float, float]) -> NDArray[np.float64]:
    """A rectangle, or in one of three rooms one with a slanted side or a cut corner; at least and at most so wide."""
    least, most = limits
    width, depth = rng.uniform(*KINDS[kind].width_m), rng.uniform(*KINDS[kind].depth_m)
    width = max(min(width, most or width), least)
    style, slant = rng.random(), min(width, depth) * rng.uniform(0.15, 0.35)
    if style < 0.12:
        return np.array([(0, 0), (width, 0), (width - slant, depth), (0, depth)])
    if style < 0.24:
        return np.array([(0, 0), (width, 0), (width, depth), (slant, depth)])
    if style < 0.34:
        return np.array([(0, 0), (width, 0), (width, depth - slant), (width - slant * rng.uniform(0.6, 1.2), depth), (0, depth)])
    return np.array([(0, 0), (width, 0), (width, depth), (0, depth)])


def _door_opening(room: Room, rng: Random) -> Opening:
    """A door in the wall towards the hallway; edge 0."""
    wide, length = rng.uniform(0.82, 1.05), room.edge(0)[2]
    start = rng.uniform(0.15, max(length - wide - 0.15, 0.16))
    return Opening(0, start, start + wide, 0.0, min(rng.uniform(2.0, 2.15), room.height - 0.15))


def _door_angle(rng: Random) -> float | None:
    """How far a door stands open, in rad: shut, ajar or wide open; None without a leaf."""
    draw = rng.random()
    if draw < 0.1:
        return None
    return 0.0 if draw < 0.25 else float(rng.uniform(0.15, 0.6) if draw < 0.3 else rng.uniform(1.35, 1.95))


def _windows(room: Room, rng: Random) -> None:
    """Windows in the outer wall, which is edge 2 of a room along the hallway."""
    _, _, length = room.edge(2)
    if rng.random() > KINDS[room.kind].windows or length < 1.2:
        return
    low = float(rng.choice([0.05, rng.uniform(0.75, 1.05), rng.uniform(0.75, 1.05)]))
    high = min(rng.uniform(1.9, 2.5), room.height - 0.2)
    count = int(rng.integers(1, 1 + max(1, int(length / 1.4))))
    step = length / count
    for number in range(count):
        wide = min(step * rng.uniform(0.6, 0.9), step - 0.15)
        start = number * step + (step - wide) / 2
        room.windows.append(Opening(2, start, start + wide, low, high))


def _across(placed: PlacedRoom, opening: Opening, length: float, side: int) -> Opening:
    """The hole in the hallway's wall for a room's door."""
    ends = placed.to_floor(np.array([placed.room.at_edge(0, along, 0) for along in (opening.start, opening.end)]))[:, 0]
    if side > 0:  # the hallway's upper wall, edge 2, runs backwards
        return Opening(2, length - float(ends.max()), length - float(ends.min()), 0.0, opening.high)
    return Opening(0, float(ends.min()), float(ends.max()), 0.0, opening.high)


def _lobby(
    rng: Random, palette: Palette, corners: NDArray[np.float64], height: float, mess: float, length: float, wide: float
) -> PlacedRoom:
    room = Room("lobby", corners, height, rng, palette, mess * 0.6)
    half, middle = rng.uniform(0.35, 0.48) * wide, corners[:, 0].max() / 2
    opening = Opening(0, middle - half, middle + half, 0.0, min(rng.uniform(2.1, 2.5), height - 0.1))
    room.doors.append(opening)
    _windows(room, rng)
    build_shell(room)
    door(room, opening, None)
    return PlacedRoom("lobby", room, (length + 2 * WALL_M, middle), -np.pi / 2, True)


def _named(rooms: list[PlacedRoom]) -> list[PlacedRoom]:
    """With the number of each room among those of its kind."""
    counts: dict[str, int] = {}
    named = []
    for placed in rooms:
        counts[placed.name] = counts.get(placed.name, 0) + 1
        named.append(PlacedRoom(f"{placed.name}_{counts[placed.name]}", placed.room, placed.position, placed.yaw, placed.is_open))
    return named


def _assemble(rooms: list[PlacedRoom]) -> Floor:
    parts, classes, owners = [], [0], [-1]
    for row, placed in enumerate(rooms):
        moved = place(join(placed.room.parts), (*placed.position, 0.0), placed.yaw)
        moved["instance"] += len(classes) - 1
        parts.append(moved)
        classes += placed.room.things
        owners += [row] * len(placed.room.things)
    return Floor(tuple(rooms), join(parts), np.array(classes, np.uint8), np.array(owners, np.int16))
