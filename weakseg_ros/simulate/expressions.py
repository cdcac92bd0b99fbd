# SPDX-License-Identifier: Apache-2.0
"""English expressions about the objects of a simulated scan, drawn from its true scene graph.

ScanRefer's cases (Chen et al., 2020): unique, multiple; and none, where nothing in the scan matches.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from weakseg_ros.data.expressions import Expression
from weakseg_ros.simulate.forms import (
    CONCEPTS,
    Form,
    anchor_is_one,
    answer,
    confusable_with,
    context_of,
    draw_false_form,
    draw_form,
    narrowed,
)
from weakseg_ros.simulate.grammar import Speaker, Words, say_form
from weakseg_ros.simulate.scene_graph import SceneGraph
from weakseg_ros.simulate.scene_relations import Facts

NONE_SHARE = 0.12
"""share of the expressions that match nothing"""
PHRASINGS = (1, 3)
"""smallest and largest number of ways in which one thing is said"""
FALSE_SHARE = 0.3
"""share of the draws that try for one that matches nothing; many of them match something"""
NARROWED = 3
"""how often something is added to what could mean several objects"""
TRIES = 12
"""draws for each expression that is asked for, before a scan is taken as exhausted"""


def expressions_of(scene: SceneGraph, key: str, count: int, seed: int, words: Words = "training") -> list[Expression]:
    """At most `count` expressions about a scan, fewer where it shows too little; the same seed gives the same ones.

    `key` is the scan's; `words` 'test' draws held-out synonyms among the others.
    """
    rng = np.random.default_rng([seed, 0xE8])
    things = np.flatnonzero(scene.instance > 0)
    if not len(things):
        return []
    facts, weight = Facts(scene), _weights(scene, things)
    rows: list[Expression] = []
    said: set[Form] = set()
    for _ in range(TRIES * count):
        if len(rows) >= count:
            break
        form, target = _draw(facts, int(rng.choice(things, p=weight)), rng)
        if target is None or form in said or (target < 0 and _enough_match_nothing(rows)):
            continue
        said.add(form)
        rows += _said(form, facts, target, Speaker(rng, words, anchor_is_one(form, facts)), (key, len(said) - 1))
    return rows[:count]


def _draw(facts: Facts, meant: int, rng: np.random.Generator) -> tuple[Form, int | None]:
    """A form for an object, said more narrowly until it means nothing else, or one that may match nothing; with its answer."""
    form = draw_form(facts, meant, rng)
    if rng.random() < FALSE_SHARE:
        form = draw_false_form(form, rng)
        return form, answer(form, facts)
    for _ in range(NARROWED):
        target = answer(form, facts)
        if target is not None:
            return form, target
        form = narrowed(form, facts, meant, rng)
    return form, answer(form, facts)


def _weights(scene: SceneGraph, things: np.ndarray) -> np.ndarray:
    """(n,) shares of the objects: those of rare kinds are asked for more often than those of common ones."""
    counts = Counter(scene.kind[things])
    weight = np.array([counts[kind] ** -0.35 for kind in scene.kind[things]])
    share: np.ndarray = weight / weight.sum()
    return share


def _enough_match_nothing(rows: list[Expression]) -> bool:
    return sum(row.case == "none" for row in rows) > NONE_SHARE * len(rows)


def _said(form: Form, facts: Facts, target: int, speaker: Speaker, place: tuple[str, int]) -> list[Expression]:
    """A form in one to three phrasings; `place`: the scan's key and the group."""
    scene, (key, group) = facts.scene, place
    targets = (int(scene.instance[target]),) if target >= 0 else ()
    alike = np.isin(scene.kind, CONCEPTS[form.concept][0]).sum()
    case = "none" if target < 0 else "unique" if alike == 1 else "multiple"
    texts: dict[str, bool] = {}
    for _ in range(int(speaker.rng.integers(PHRASINGS[0], PHRASINGS[1] + 1))):
        each = replace(speaker)
        text = say_form(form, each)
        texts[text] = each.used_held_out
    context, confusable = context_of(form, facts, target), confusable_with(form, scene, target)
    return [Expression(key, text, targets, case, group, context, confusable, new) for text, new in texts.items()]
