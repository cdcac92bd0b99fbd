# SPDX-License-Identifier: Apache-2.0
"""What is seen from inside a floor: by a LiDAR or a depth camera on a robot, or by a scanner that stands in each room."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.points.cloud import Cloud
from weakseg_ros.simulate.drive import START_NS, SimulatedScan
from weakseg_ros.simulate.lidar import SensorModel, Shift
from weakseg_ros.simulate.raycast import Hits, cast, make_rays
from weakseg_ros.simulate.returns import Scene, measure
from weakseg_ros.simulate.rooms.building import Floor, PlacedRoom, build_floor
from weakseg_ros.simulate.rooms.camera import CameraModel, colors, photograph
from weakseg_ros.simulate.rooms.palette import DOOR
from weakseg_ros.simulate.rooms.pinhole import pinhole_rays
from weakseg_ros.simulate.rooms.room import Footprint
from weakseg_ros.simulate.rooms.walk import Walk, plan_walk
from weakseg_ros.simulate.solids import GLASS, Parts

SPEED_M_S = 0.6
SCANNER_M, STATIONS_M2 = 1.45, 14.0
"""height of the scanner, and how much floor one of its stations serves"""
SCANNER_NOISE_M = 0.004
STAND_M = (0.3, 1.7)
"""heights of a sensor that stands anywhere"""
_SCAN_DRAW, _ROOM_DRAW = 0x2D, 0x3D


@dataclass(frozen=True)
class Tour:
    """One robot's way through one floor, with one sensor."""

    seed: int
    floor: int
    scans: int
    step_m: float
    """way between two scans"""
    sensor: SensorModel | CameraModel
    mount_height_m: float
    pitch_deg: float = 0.0
    """how far the sensor looks down"""
    shift: Shift = field(default_factory=Shift)
    anywhere: bool = False
    """every other scan is taken from a place drawn at random, as by a sensor that stands on a table or a shelf"""


def scan_at(tour: Tour, index: int) -> SimulatedScan:
    """Scan `index` of a tour, from nothing but its settings and the index."""
    floor, walk = _floor_and_walk(tour.seed, tour.floor)
    rng = np.random.default_rng([tour.seed, tour.floor, index, _SCAN_DRAW])
    way_m = index * tour.step_m
    placed = tour.anywhere and index % 2 == 1
    pose = _place_to_stand(floor, rng) if placed else walk.pose(way_m, tour.mount_height_m)
    pose[:3, :3] = pose[:3, :3] @ _pitched(tour.pitch_deg)
    parts = _near(floor.parts, pose, tour.sensor.range_max_m)
    see = _photographed if isinstance(tour.sensor, CameraModel) else _swept
    cloud, raw = see(parts, pose, tour, rng)
    return SimulatedScan(dataclasses.replace(cloud, stamp_ns=START_NS + round(way_m / SPEED_M_S * 1e9)), raw, pose)


def _swept(parts: Parts, pose: NDArray[np.float64], tour: Tour, rng: np.random.Generator) -> tuple[Cloud, NDArray[np.uint32]]:
    sensor = tour.sensor
    assert isinstance(sensor, SensorModel)
    rays = make_rays(pose[:3, :3], sensor.beams_deg, sensor.columns, sensor.fov_left_deg, sensor.fov_right_deg)
    hits = cast(parts, pose[:3, 3], rays, np.full(rays.direction.shape[1], np.inf, np.float32), rng)
    return measure(Scene.indoors(parts, pose, rays, hits), sensor, tour.shift, rng)


def _photographed(
    parts: Parts, pose: NDArray[np.float64], tour: Tour, rng: np.random.Generator
) -> tuple[Cloud, NDArray[np.uint32]]:
    camera = tour.sensor
    assert isinstance(camera, CameraModel)
    rays = pinhole_rays(pose[:3, :3], camera.height, camera.width, camera.fov_deg)
    hits = cast(parts, pose[:3, 3], rays, np.full(rays.direction.shape[1], np.inf, np.float32), rng)
    return photograph(parts, pose, rays, hits, camera, rng)


@dataclass(frozen=True)
class RoomScan:
    """A room as S3DIS holds it."""

    xyz: NDArray[np.float32]
    """(N, 3) m in the floor's frame"""
    rgb: NDArray[np.uint8]
    raw: NDArray[np.uint16]
    """(N,) class, 1 to 13"""
    instance: NDArray[np.uint16]


def scan_room(seed: int, floor_number: int, number: int, points: int) -> RoomScan:
    """Room `number` of a floor as a scanner sees it from a few stations, about `points` points.

    What shows through doors is left out.
    """
    floor, _ = _floor_and_walk(seed, floor_number)
    placed = floor.rooms[number]
    rng = np.random.default_rng([seed, floor_number, number, _ROOM_DRAW])
    stations = _stations(placed, rng)
    side = int(np.sqrt(1.15 * points / len(stations) / 2))
    views = [_view(floor, number, np.append(station, SCANNER_M), side, rng) for station in stations]
    xyz, rgb, raw, instance = (np.concatenate(columns) for columns in zip(*views, strict=True))
    return RoomScan(xyz, rgb, raw, instance)


def _view(
    floor: Floor, number: int, origin: NDArray[np.float64], side: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint16]]:
    """What one station adds: rays evenly over the sphere, but for straight up and down."""
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    beams = np.degrees(np.arcsin(np.linspace(0.995, -0.995, side)))
    rays = make_rays(rotation, beams, 2 * side, 180.0, -180.0)
    parts = _near(floor.parts, np.array([[0, 0, 0, origin[0]], [0, 0, 0, origin[1]]]), 12.0)
    hits = cast(parts, origin, rays, np.full(rays.direction.shape[1], np.inf, np.float32), rng)
    kept = np.flatnonzero(_belongs(floor, parts, hits, number, rng))
    hits = Hits(hits.distance[kept], hits.part[kept], hits.cosine[kept])
    reach = hits.distance + rng.normal(0, SCANNER_NOISE_M, len(kept)).astype(np.float32)
    xyz = (rays.direction[:, kept] * reach).T + origin.astype(np.float32)
    part = parts[hits.part]
    return xyz, colors(parts, hits, xyz, rng), part["raw"].astype(np.uint16), part["instance"].astype(np.uint16)


def _belongs(floor: Floor, parts: Parts, hits: Hits, number: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hits on the room's own things and on doors that lead into it; glass is seen now and then."""
    thing = parts["instance"][np.maximum(hits.part, 0)]
    own = (floor.room_of_thing[thing] == number) | ((floor.class_of_thing[thing] == DOOR) & (number == 0))
    glass = parts["surface"][np.maximum(hits.part, 0)] == GLASS
    belongs: NDArray[np.bool_] = (hits.part >= 0) & own & ~(glass & (rng.random(len(thing)) < 0.3))
    return belongs


def _stations(placed: PlacedRoom, rng: np.random.Generator) -> NDArray[np.float64]:
    """(S, 2) places at head height, spread over the longer side of the room."""
    room, (length, width) = placed.room, placed.room.size
    count = max(1, round(length * width / STATIONS_M2))
    low, along = room.corners.min(axis=0), 0 if length >= width else 1
    stations = np.tile(room.middle, (count, 1))
    stations[:, along] = low[along] + room.size[along] * (np.arange(count) + 0.5) / count
    for station in stations:
        for away in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35):
            moved = station + rng.uniform(-away, away, 2) * min(length, width)
            if room.is_free(Footprint(moved[0], moved[1], (0.15, 0.15), 0.0, SCANNER_M - 0.1, SCANNER_M + 0.1)):
                station[:] = moved
                break
    return placed.to_floor(stations)


def _place_to_stand(floor: Floor, rng: np.random.Generator) -> NDArray[np.float64]:
    """(4, 4) sensor to world somewhere in a room but in nothing, tilted a little."""
    placed = floor.rooms[int(rng.integers(len(floor.rooms)))]
    low, high = placed.room.corners.min(axis=0), placed.room.corners.max(axis=0)
    for _ in range(40):
        at, height = rng.uniform(low, high), rng.uniform(*STAND_M)
        if placed.room.is_free(Footprint(at[0], at[1], (0.12, 0.12), 0.0, height - 0.08, height + 0.08)):
            break
    else:
        at, height = placed.room.middle, STAND_M[1]
    pose = np.eye(4)
    turn = rng.uniform(0, 2 * np.pi)
    pose[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    pose[:3, :3] = pose[:3, :3] @ _pitched(rng.normal(0, 2.0))
    pose[:3, 3] = *placed.to_floor(at[None])[0], height
    return pose


def _near(parts: Parts, pose: NDArray[np.float64], range_m: float) -> Parts:
    reach = np.hypot(*(parts["position"][:, :2] - pose[:2, 3]).T) - np.hypot(*parts["size"].T[:2])
    near: Parts = parts[reach < range_m]
    return near


def _pitched(down_deg: float) -> NDArray[np.float64]:
    c, s = np.cos(np.radians(down_deg)), np.sin(np.radians(down_deg))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


@lru_cache(maxsize=2)
def _floor_and_walk(seed: int, number: int) -> tuple[Floor, Walk]:
    floor = build_floor(seed, number)
    return floor, plan_walk(floor)
