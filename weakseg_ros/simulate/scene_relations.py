# SPDX-License-Identifier: Apache-2.0
"""What can be said of the objects of a scene, each with two answers: where it clearly holds, and where one might say so.

An expression that means one object is good where its clear and its loose answer are that object, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.scene_graph import SceneGraph

Mask = NDArray[np.bool_]
VEHICLES = ("car", "van", "truck", "bus")
PEOPLE = ("person", "cyclist", "motorcyclist")


@dataclass(frozen=True)
class Holds:
    """Where a statement holds: (n,) of objects or (n, n) of pairs, object i against anchor j."""

    clear: Mask
    loose: Mask

    def __and__(self, other: Holds) -> Holds:
        return Holds(self.clear & other.clear, self.loose & other.loose)


Fact = Callable[[SceneGraph], Holds]


def left(scene: SceneGraph) -> Holds:
    """On our left, ahead or behind."""
    return _on_side(scene, 1.0)


def right(scene: SceneGraph) -> Holds:
    """On our right, ahead or behind."""
    return _on_side(scene, -1.0)


def ahead(scene: SceneGraph) -> Holds:
    """Straight ahead of us."""
    return _straight(scene, 1.0)


def behind_us(scene: SceneGraph) -> Holds:
    """Straight behind us."""
    return _straight(scene, -1.0)


def ahead_left(scene: SceneGraph) -> Holds:
    """Before us, on the left."""
    return left(scene) & _forward(scene, 1.0)


def ahead_right(scene: SceneGraph) -> Holds:
    """Before us, on the right."""
    return right(scene) & _forward(scene, 1.0)


def behind_left(scene: SceneGraph) -> Holds:
    """Behind us, on the left."""
    return left(scene) & _forward(scene, -1.0)


def behind_right(scene: SceneGraph) -> Holds:
    """Behind us, on the right."""
    return right(scene) & _forward(scene, -1.0)


def beside_us(scene: SceneGraph) -> Holds:
    """Next to our own vehicle."""
    x, y = np.abs(scene.xy.T)
    return Holds((x < 4.0) & (y < 6.0), (x < 8.0) & (y < 10.0))


SIDES: Mapping[str, Fact] = {
    each.__name__: each for each in (left, right, ahead, behind_us, ahead_left, ahead_right, behind_left, behind_right, beside_us)
}


def parked(scene: SceneGraph) -> Holds:
    """A vehicle or a two-wheeler without a rider that stands still."""
    return _sure(~scene.moving & np.isin(scene.kind, (*VEHICLES, "bicycle", "motorcycle")))


def moving(scene: SceneGraph) -> Holds:
    """A vehicle or a rider on the way."""
    return _sure(scene.moving & (scene.kind != "person"))


def oncoming(scene: SceneGraph) -> Holds:
    """On the way towards us, and not yet past us."""
    comes, before = scene.moving & (scene.kind != "person"), scene.xy[:, 0] > 0
    away = np.abs(scene.heading)
    return Holds(comes & before & (away > np.radians(140)), comes & (away > np.radians(100)))


def same_way(scene: SceneGraph) -> Holds:
    """On the way in our direction."""
    goes, away = scene.moving & (scene.kind != "person"), np.abs(scene.heading)
    return Holds(goes & (away < np.radians(40)), goes & (away < np.radians(80)))


def standing(scene: SceneGraph) -> Holds:
    """A person who stands."""
    return _sure(~scene.moving & (scene.kind == "person"))


def walking(scene: SceneGraph) -> Holds:
    """A person who walks."""
    return _sure(scene.moving & (scene.kind == "person"))


def walking_towards(scene: SceneGraph) -> Holds:
    """A person who walks towards us."""
    closing = -np.cos(scene.heading - scene.bearing)
    return walking(scene) & Holds(closing > 0.75, closing > 0.2)


def walking_away(scene: SceneGraph) -> Holds:
    """A person who walks away from us."""
    leaving = np.cos(scene.heading - scene.bearing)
    return walking(scene) & Holds(leaving > 0.75, leaving > 0.2)


MOTIONS: Mapping[str, Fact] = {
    each.__name__: each for each in (parked, moving, oncoming, same_way, standing, walking, walking_towards, walking_away)
}


def beside(scene: SceneGraph) -> Holds:
    """With little between the two."""
    return _close(scene, 2.0, 4.5)


def near(scene: SceneGraph) -> Holds:
    """Not far from each other."""
    return _close(scene, 5.0, 9.0)


def behind(scene: SceneGraph) -> Holds:
    """At the back of an anchor that has one, else farther than the anchor as we see it."""
    return _in_line(scene, -1.0)


def in_front(scene: SceneGraph) -> Holds:
    """Before the front of an anchor that has one, else nearer than the anchor as we see it."""
    return _in_line(scene, 1.0)


def left_of(scene: SceneGraph) -> Holds:
    """To the left of the anchor as we see it."""
    return _across(scene, 1.0)


def right_of(scene: SceneGraph) -> Holds:
    """To the right of the anchor as we see it."""
    return _across(scene, -1.0)


def opposite(scene: SceneGraph) -> Holds:
    """Across the street from the anchor."""
    x, y = scene.xy.T
    along, apart = np.abs(x[:, None] - x[None]), y[:, None] * y[None] < 0
    sided = np.abs(y) > 2.5
    return Holds(apart & (along < 3.0) & sided[:, None] & sided[None], apart & (along < 7.0))


RELATIONS: Mapping[str, Fact] = {each.__name__: each for each in (beside, near, behind, in_front, left_of, right_of, opposite)}


class Facts:
    """Everything that can be said of one scene, worked out once."""

    def __init__(self, scene: SceneGraph) -> None:
        self.scene = scene
        self.sides = {name: fact(scene) for name, fact in SIDES.items()}
        self.motions = {name: fact(scene) for name, fact in MOTIONS.items()}
        self.relations = {name: fact(scene) for name, fact in RELATIONS.items()}


def _sure(mask: Mask) -> Holds:
    return Holds(mask, mask)


def _on_side(scene: SceneGraph, sign: float) -> Holds:
    y, x = sign * scene.xy[:, 1], np.abs(scene.xy[:, 0])
    return Holds((y > 2.2) & (y > 0.18 * x), (y > 0.8) & (y > 0.06 * x))


def _straight(scene: SceneGraph, sign: float) -> Holds:
    x, y = sign * scene.xy[:, 0], np.abs(scene.xy[:, 1])
    return Holds((x > 3.0) & (y < np.maximum(1.5, 0.15 * x)), (x > 0.0) & (y < np.maximum(3.5, 0.4 * x)))


def _forward(scene: SceneGraph, sign: float) -> Holds:
    x = sign * scene.xy[:, 0]
    return Holds(x > 4.0, x > -1.0)


def _close(scene: SceneGraph, clear_m: float, loose_m: float) -> Holds:
    other = ~np.eye(len(scene), dtype=bool)
    return Holds((scene.gap < clear_m) & other, (scene.gap < loose_m) & other)


def _in_line(scene: SceneGraph, sign: float) -> Holds:
    """Vehicles have a front of their own; people, landmarks and what stands across the street are seen from our place."""
    fronted = np.isin(scene.kind, (*VEHICLES, "cyclist", "motorcyclist")) & (np.abs(np.cos(scene.heading)) > 0.85)
    turn = np.where(fronted, scene.heading, scene.bearing + np.pi)
    along, across = scene.offset(turn)
    along, across, other = sign * along, np.abs(across), ~np.eye(len(scene), dtype=bool)
    clear = (along > 1.5) & (across < 1.6) & (scene.gap < 8.0)
    return Holds(clear & other, (along > 0.5) & (across < 3.2) & (scene.gap < 13.0) & other)


def _across(scene: SceneGraph, sign: float) -> Holds:
    along, across = scene.offset(scene.bearing)
    across, depth, other = sign * across, np.abs(along), ~np.eye(len(scene), dtype=bool)
    clear = (across > 1.0) & (depth < 2.5) & (scene.gap < 6.0)
    return Holds(clear & other, (across > 0.3) & (depth < 5.0) & (scene.gap < 10.0) & other)
