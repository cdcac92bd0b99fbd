# SPDX-License-Identifier: Apache-2.0
"""What an expression says, apart from its words: a concept, where, doing what, in which order, next to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.simulate.scene_graph import SceneGraph
from weakseg_ros.simulate.scene_relations import SIDES, VEHICLES, Facts, Holds, Mask

CONCEPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "car": (("car",), ("van",)),
    "van": (("van",), ()),
    "truck": (("truck",), ()),
    "bus": (("bus",), ()),
    "vehicle": (VEHICLES, ()),
    "person": (("person",), ()),
    "cyclist": (("cyclist",), ("bicycle", "motorcyclist")),
    "motorcyclist": (("motorcyclist",), ("motorcycle", "cyclist")),
    "bicycle": (("bicycle",), ("cyclist", "motorcycle")),
    "motorcycle": (("motorcycle",), ("motorcyclist", "bicycle")),
    "tree": (("tree",), ()),
    "sign": (("sign",), ()),
    "shelter": (("shelter",), ()),
}
"""by concept: the kinds of object that it means, and further ones that somebody might call so"""
LANDMARKS = ("tree", "sign", "shelter")
ORDERS = ("first", "second", "third", "last", "nearest", "farthest", "biggest", "smallest")


@dataclass(frozen=True)
class Form:
    """One thing that can be said; two expressions of the same form say the same."""

    concept: str
    side: str = ""
    motion: str = ""
    zone: str = ""
    order: str = ""
    metres: int = 0
    relation: str = ""
    anchor: Form | None = None

    def __len__(self) -> int:
        """Number of statements about the object besides what it is."""
        return sum(map(bool, (self.side, self.motion, self.zone, self.order, self.metres, self.relation)))


def evaluate(form: Form, facts: Facts) -> Holds:
    """The objects of a scene that a form means clearly, and those that somebody might take it for; (n,) each."""
    (kinds, also), scene = CONCEPTS[form.concept], facts.scene
    holds = Holds(np.isin(scene.kind, kinds), np.isin(scene.kind, kinds + also))
    if form.side:
        holds = holds & facts.sides[form.side]
    if form.motion:
        holds = holds & facts.motions[form.motion]
    if form.zone:
        there = np.array([zone == form.zone for zone in scene.zone], bool)
        holds = holds & Holds(there, there)
    if form.metres:
        off = np.abs(scene.distance - form.metres)
        holds = holds & Holds(off < 1.5, off < 0.2 * form.metres + 2.0)
    if form.anchor is not None:
        holds = holds & _related(facts.relations[form.relation], evaluate(form.anchor, facts))
    return _ordered(form.order, holds, scene) if form.order else holds


def answer(form: Form, facts: Facts) -> int | None:
    """Index of the one object that a form means; -1 where nothing at all can be meant; None where it is not clear."""
    holds = evaluate(form, facts)
    if not holds.loose.any():
        return -1
    only = bool(holds.clear.sum() == 1 and holds.loose.sum() == 1)
    return int(np.flatnonzero(holds.clear)[0]) if only else None


def context_of(form: Form, facts: Facts, target: int) -> tuple[int, ...]:
    """Instance ids of the objects that a form names besides the one that it means (`target`: its index, -1 for none)."""
    if form.anchor is None:
        return ()
    named = evaluate(form.anchor, facts).clear & (facts.scene.instance > 0)
    if target >= 0:
        named &= facts.relations[form.relation].clear[target]
    return tuple(sorted(facts.scene.instance[named].tolist()))


def anchor_is_one(form: Form, facts: Facts) -> bool:
    """Whether the anchor of a form is a single object, "the truck" and not "a truck"."""
    return form.anchor is not None and answer(form.anchor, facts) not in (None, -1)


def confusable_with(form: Form, scene: SceneGraph, target: int) -> tuple[int, ...]:
    """Instance ids of what is of the named concept, but not the answer (`target`: its index, -1 for none)."""
    alike = np.isin(scene.kind, CONCEPTS[form.concept][0]) & (scene.instance > 0)
    alike[target] &= target < 0
    return tuple(sorted(scene.instance[alike].tolist()))


def draw_form(facts: Facts, target: int, rng: np.random.Generator) -> Form:
    """Something that is true of one object, drawn in about the proportions in which people say it to a car."""
    scene = facts.scene
    form = Form(_concept(str(scene.kind[target]), rng))
    if rng.random() < 0.36:
        form = replace(form, side=_true_name(facts.sides, target, rng))
    if rng.random() < 0.14:
        form = replace(form, motion=_true_name(facts.motions, target, rng))
    if rng.random() < 0.10 and scene.zone[target] in ("sidewalk", "road"):
        form = replace(form, zone=str(scene.zone[target]))
    if rng.random() < 0.2:
        form = _with_relation(form, facts, target, rng)
    if rng.random() < 0.08 and form.anchor is None:
        form = replace(form, order=str(rng.choice(ORDERS, p=_ORDER_SHARE)))
    if rng.random() < 0.003:
        form = replace(form, metres=max(5, 5 * round(float(scene.distance[target]) / 5)))
    return form


def narrowed(form: Form, facts: Facts, target: int, rng: np.random.Generator) -> Form:
    """A form that says one thing more about the same object, for one that could mean several."""
    scene = facts.scene
    if not form.side and rng.random() < 0.6:
        return replace(form, side=_true_name(facts.sides, target, rng))
    if rng.random() < 0.5 and form.anchor is None and not form.order:
        return _with_relation(form, facts, target, rng)
    if not form.order and form.anchor is None and rng.random() < 0.5:
        return replace(form, order=str(rng.choice(ORDERS[:6])))
    if not form.motion:
        return replace(form, motion=_true_name(facts.motions, target, rng))
    return replace(form, zone=str(scene.zone[target])) if scene.zone[target] in ("sidewalk", "road") else form


def draw_false_form(form: Form, rng: np.random.Generator) -> Form:
    """A form near a given one, with another concept, side, motion or anchor; in many scenes it means nothing."""
    change = int(rng.integers(4))
    if change == 0 and form.side:
        return replace(form, side=str(rng.choice(list(SIDES))))
    if change == 1 and form.motion:
        return replace(form, motion=str(rng.choice(_motions_of(form.concept))))
    if change == 2 and form.anchor is not None:
        return replace(form, anchor=Form(str(rng.choice([*_THINGS, *LANDMARKS]))))
    concept = str(rng.choice(_THINGS))
    suits = form.motion in _motions_of(concept)
    return replace(form, concept=concept, motion=form.motion if suits else "")


_THINGS = [concept for concept in CONCEPTS if concept not in LANDMARKS]
_SIDE_WEIGHT = {"left": 5.0, "right": 5.0, "ahead": 4.0, "ahead_left": 1.5, "ahead_right": 1.5}
_ORDER_SHARE = np.array([0.3, 0.15, 0.05, 0.15, 0.2, 0.07, 0.04, 0.04])


def _motions_of(concept: str) -> list[str]:
    if concept == "person":
        return ["standing", "walking", "walking_towards", "walking_away"]
    if concept in ("cyclist", "motorcyclist"):
        return ["moving", "oncoming", "same_way"]
    return ["parked"] if concept in ("bicycle", "motorcycle") else ["parked", "moving", "oncoming", "same_way"]


def _concept(kind: str, rng: np.random.Generator) -> str:
    own = [concept for concept, (kinds, _) in CONCEPTS.items() if kind in kinds]
    return own[0] if rng.random() < 0.85 else str(rng.choice(own))


def _true_name(facts: Mapping[str, Holds], target: int, rng: np.random.Generator) -> str:
    """One of the facts that clearly hold for an object, '' where none does."""
    names = [name for name, holds in facts.items() if holds.clear[target]]
    weight = np.array([_SIDE_WEIGHT.get(name, 1.0) for name in names])
    return str(rng.choice(names, p=weight / weight.sum())) if names else ""


def _with_relation(form: Form, facts: Facts, target: int, rng: np.random.Generator) -> Form:
    """The form with a relation to another object of the scene, where one holds."""
    pairs = [(name, int(at)) for name, holds in facts.relations.items() for at in np.flatnonzero(holds.clear[target])]
    if not pairs:
        return form
    relation, at = pairs[int(rng.integers(len(pairs)))]
    anchor = Form(_concept(str(facts.scene.kind[at]), rng))
    if rng.random() < 0.3 and anchor.concept not in LANDMARKS:
        anchor = replace(anchor, side=_true_name(facts.sides, at, rng))
    elif rng.random() < 0.2 and anchor.concept not in LANDMARKS:
        anchor = replace(anchor, motion=_true_name(facts.motions, at, rng))
    return replace(form, relation=relation, anchor=anchor)


def _related(pairs: Holds, anchor: Holds) -> Holds:
    clear: Mask = np.any(pairs.clear & anchor.clear[None], axis=1)
    loose: Mask = np.any(pairs.loose & anchor.loose[None], axis=1)
    return Holds(clear, loose)


def _ordered(order: str, holds: Holds, scene: SceneGraph) -> Holds:
    """The object at a place in the order; unclear where a doubtful one could take it or two are about equally far."""
    key, rank = _key(order, scene)
    members = np.flatnonzero(holds.loose)
    members = members[np.argsort(key[members], kind="stable")]
    chosen = np.zeros(len(scene), bool)
    if rank >= len(members):
        return Holds(chosen, chosen)
    sure = bool(holds.clear[members[: rank + 1]].all())
    values = key[members]
    margin = 1.2 if order in _COUNTED else 0.1 * abs(float(values[rank]))
    if not sure or len(members) < 2 or (np.diff(values[max(rank - 1, 0) : rank + 2]) < margin).any():
        return Holds(chosen, holds.loose)
    chosen[members[rank]] = True
    return Holds(chosen, chosen)


_COUNTED = {"first": 0, "second": 1, "third": 2, "last": 0}


def _key(order: str, scene: SceneGraph) -> tuple[NDArray[np.float64], int]:
    """What the objects are sorted by, and the place that is meant; what lies behind us is counted after what lies ahead."""
    passed = 1e4 * (scene.xy[:, 0] <= 0)
    if order == "last":
        return passed - scene.distance, 0
    if order in _COUNTED:
        return passed + scene.distance, _COUNTED[order]
    if order in ("biggest", "smallest"):
        size = np.cbrt(scene.size.prod(axis=1))
        return (size if order == "smallest" else -size), 0
    return (scene.distance if order == "nearest" else -scene.distance), 0
