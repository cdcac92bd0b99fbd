# SPDX-License-Identifier: Apache-2.0
"""What a scan of the street shows, as one who sits behind the sensor sees it: objects, where they are, what they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from weakseg_ros.points.labels import instances_in
from weakseg_ros.simulate import kits
from weakseg_ros.simulate.drive import SimulateConfig, SimulatedScan
from weakseg_ros.simulate.ground import LANE, PARKING, ROAD, SIDEWALK
from weakseg_ros.simulate.solids import Parts, join
from weakseg_ros.simulate.street import Street
from weakseg_ros.simulate.traffic import moving_parts

FARTHEST_M = 50.0
FEWEST_POINTS = 15
"""an object with fewer points in a scan is taken as unseen"""
VAN_M = 1.85
"""a car of this height and more is a van"""
KIND = {
    kits.CAR: "car",
    kits.BUS: "bus",
    kits.TRUCK: "truck",
    kits.BICYCLE: "bicycle",
    kits.MOTORCYCLE: "motorcycle",
    kits.PERSON: "person",
    kits.BICYCLIST: "cyclist",
    kits.MOTORCYCLIST: "motorcyclist",
}
STILL = {moving: raw for raw, moving in kits.MOVING.items()}
LANDMARK = {kits.TRUNK: "tree", kits.SIGN: "sign", kits.STRUCTURE: "shelter"}
ZONE = {ROAD: "road", LANE: "road", SIDEWALK: "sidewalk", PARKING: "parking"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SceneObject:
    """One object or landmark; positions in the sensor's frame made level, x ahead, y to the left, m."""

    instance: int
    """instance id in the scan's labels; 0 for a landmark"""
    kind: str
    x_m: float
    y_m: float
    heading_rad: float
    """of its front against ours; 0 = the same way"""
    size_m: tuple[float, float, float]
    """length, width, height"""
    moving: bool = False
    zone: str = ""
    """the ground below it: road, sidewalk, parking, or '' for any other"""


class SceneGraph:
    """The objects of one scan as arrays, in one order, and what lies between each two of them."""

    def __init__(self, objects: Sequence[SceneObject]) -> None:
        self.objects = tuple(objects)
        self.kind = np.array([each.kind for each in objects], dtype=object)
        self.instance = np.array([each.instance for each in objects], int)
        self.xy = np.array([(each.x_m, each.y_m) for each in objects], float).reshape(-1, 2)
        self.heading = np.array([each.heading_rad for each in objects], float)
        self.moving = np.array([each.moving for each in objects], bool)
        self.zone = np.array([each.zone for each in objects], dtype=object)
        self.size = np.array([each.size_m for each in objects], float).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self.objects)

    @cached_property
    def distance(self) -> Floats:
        """(n,) from the sensor, m."""
        away: Floats = np.hypot(self.xy[:, 0], self.xy[:, 1])
        return away

    @cached_property
    def bearing(self) -> Floats:
        """(n,) rad, 0 ahead, positive to the left."""
        angle: Floats = np.arctan2(self.xy[:, 1], self.xy[:, 0])
        return angle

    @cached_property
    def gap(self) -> Floats:
        """(n, n) smallest distance between the outlines of two objects, m."""
        outline = self._outlines()
        count, corners = outline.shape[:2]
        apart = cdist(outline.reshape(-1, 2), outline.reshape(-1, 2)).reshape(count, corners, count, corners)
        gaps: Floats = apart.min(axis=(1, 3))
        return gaps

    def offset(self, turn: Floats) -> tuple[Floats, Floats]:
        """(n, n) twice: how far object i lies along and to the left of object j, seen in the direction `turn[j]`."""
        delta = self.xy[:, None] - self.xy[None]
        cos, sin = np.cos(turn), np.sin(turn)
        return delta[..., 0] * cos + delta[..., 1] * sin, delta[..., 1] * cos - delta[..., 0] * sin

    def _outlines(self) -> Floats:
        """(n, 10, 2) points around each object's rectangle."""
        unit = np.array([(1, 1), (1, 0), (1, -1), (0.4, -1), (-0.4, -1), (-1, -1), (-1, 0), (-1, 1), (-0.4, 1), (0.4, 1)]) / 2
        local = unit[None] * self.size[:, None, :2]
        cos, sin = np.cos(self.heading)[:, None], np.sin(self.heading)[:, None]
        x = self.xy[:, None, 0] + cos * local[..., 0] - sin * local[..., 1]
        y = self.xy[:, None, 1] + sin * local[..., 0] + cos * local[..., 1]
        return np.stack([x, y], axis=-1)


def scene_of(street: Street, drive: SimulateConfig, index: int, scan: SimulatedScan) -> SceneGraph:
    """The graph of scan `index` of a drive: of all that stands and moves there, what the scan shows."""
    time_s = index * drive.stride / drive.sensor.rate_hz
    parts = join([street.parts, moving_parts(street.movers, time_s, street.ground)])
    parts = parts[np.hypot(*(parts["position"] - scan.pose[:3, 3]).T[:2]) < FARTHEST_M]
    seen = np.flatnonzero(np.bincount(instances_in(scan.raw_label)) >= FEWEST_POINTS)
    things = parts[np.isin(parts["instance"], seen[seen > 0])]
    order = np.argsort(things["instance"], kind="stable")
    borders = np.flatnonzero(np.diff(things["instance"][order])) + 1
    groups = np.split(things[order], borders) if len(things) else []
    objects = [_thing(group, street, scan.pose) for group in groups]
    return SceneGraph([*objects, *_landmarks(parts, street, scan)])


def _thing(parts: Parts, street: Street, pose: Floats) -> SceneObject:
    raw = int(parts["raw"][0])
    size = _extent(parts)
    kind = KIND[STILL.get(raw, raw)]
    kind = "van" if kind == "car" and size[2] >= VAN_M else kind
    return _seen(street, pose, parts, (int(parts["instance"][0]), kind, size, raw in STILL))


def _extent(parts: Parts) -> tuple[float, float, float]:
    """Length, width and height of an object's parts, along its own axes."""
    yaw, offset = parts["yaw"][0], parts["position"] - parts["position"].mean(axis=0)
    along = np.cos(yaw) * offset[:, 0] + np.sin(yaw) * offset[:, 1]
    across = np.cos(yaw) * offset[:, 1] - np.sin(yaw) * offset[:, 0]
    half, top = parts["size"], offset[:, 2] + parts["size"][:, 2]
    lengths = (np.max(np.abs(along) + half[:, 0]) * 2, np.max(np.abs(across) + half[:, 1]) * 2, top.max() - offset[:, 2].min())
    return float(lengths[0]), float(lengths[1]), float(lengths[2])


def _seen(street: Street, pose: Floats, parts: Parts, what: tuple[int, str, tuple[float, float, float], bool]) -> SceneObject:
    """The object of these parts from the sensor's place; `what`: instance, kind, size, whether it moves."""
    instance, kind, size, moving = what
    place = parts["position"].mean(axis=0)
    yaw = np.arctan2(pose[1, 0], pose[0, 0])
    dx, dy = place[:2] - pose[:2, 3]
    x, y = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
    heading = float((parts["yaw"][0] - yaw + np.pi) % (2 * np.pi) - np.pi)
    ground = int(street.ground.kind_at(place[:1], place[1:2])[0])
    return SceneObject(instance, kind, float(x), float(y), heading, size, moving, ZONE.get(ground, ""))


def _landmarks(parts: Parts, street: Street, scan: SimulatedScan) -> list[SceneObject]:
    """Trees, signs and shelters that the scan shows; parts of one landmark that stand together count once."""
    found: list[SceneObject] = []
    raw = scan.raw_label & np.uint32(0xFFFF)
    for number, kind in LANDMARK.items():
        seen = scan.cloud.xyz[raw == number][:, :2]
        for part in parts[parts["raw"] == number]:
            each = _seen(street, scan.pose, part.reshape(1), (0, kind, (0.4, 0.4, float(part["size"][2])), False))
            beside = [other for other in found if np.hypot(other.x_m - each.x_m, other.y_m - each.y_m) < 3.0]
            near = np.sum(np.hypot(*(seen - (each.x_m, each.y_m)).T) < 1.0) if len(seen) else 0
            if near >= FEWEST_POINTS and not any(other.kind == kind for other in beside):
                found.append(each)
    return found
