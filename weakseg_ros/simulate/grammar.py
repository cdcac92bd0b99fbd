# SPDX-License-Identifier: Apache-2.0
"""Forms said in English: noun phrases, and the commands to a car that they stand in; what is said is drawn by a seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from weakseg_ros.simulate import phrases
from weakseg_ros.simulate.forms import LANDMARKS, Form
from weakseg_ros.simulate.scene_relations import PEOPLE, VEHICLES

Words = Literal["training", "test"]
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_HELD_OUT = "~"
ROLLING = (*VEHICLES, "vehicle", "cyclist", "motorcyclist")
TYPO_SHARE = 0.03
_DETERMINERS = ("the", "that", "this", "a", "an", "one")


@dataclass
class Speaker:
    """Draws one of several ways to say something, and remembers whether a held-out one was taken."""

    rng: np.random.Generator
    words: Words = "training"
    one_anchor: bool = True
    used_held_out: bool = field(default=False, init=False)

    def say(self, template: str) -> str:
        """A template with every `{a|b}` decided; test words take a held-out way in a quarter of the places that have one."""
        for slot, part in phrases.PARTS.items():
            template = template.replace(slot, part)
        while _INNERMOST.search(template):
            template = _INNERMOST.sub(self._one_of, template)
        return template

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return bool(self.rng.random() < share)

    def one(self, ways: tuple[str, ...]) -> str:
        """One of several templates, said."""
        return self.say(ways[int(self.rng.integers(len(ways)))])

    def _one_of(self, found: re.Match[str]) -> str:
        ways = found[1].split("|")
        common = [way for way in ways if not way.startswith(_HELD_OUT)]
        held_out = [way[1:] for way in ways if way.startswith(_HELD_OUT)]
        if self.words == "test" and held_out and self.chance(0.25):
            self.used_held_out = True
            common = held_out
        return common[int(self.rng.integers(len(common)))]


def spoken_words(words: Words = "training") -> set[str]:
    """Every word in small letters that expressions may hold, without numbers and typing errors."""
    tables = [value for name, value in vars(phrases).items() if name.isupper()]
    texts = [*_texts(tables), *phrases.SUBJECTS, *_DETERMINERS]
    return {word for text in texts for word in re.findall(r"[a-z]+(?:'[a-z]+)?", _without(text, words))}


def spoken_nouns(words: Words = "training") -> dict[str, set[str]]:
    """The nouns of each concept."""
    return {name: set(_without(text, words).strip("{}").split("|")) for name, text in phrases.NOUNS.items()}


def _texts(tables: Iterable[object]) -> Iterator[str]:
    for table in tables:
        if isinstance(table, str):
            yield table
        elif isinstance(table, dict):
            yield from _texts(table.values())
        elif isinstance(table, tuple):
            yield from _texts(table)


def _without(template: str, words: Words) -> str:
    """A template without slots and, for training, without what is held out."""
    plain = re.sub(r"<\w+>", " ", template)
    return plain.replace(_HELD_OUT, "") if words == "test" else re.sub(rf"{_HELD_OUT}[^|{{}}]*", "", plain)


def say_form(form: Form, speaker: Speaker) -> str:
    """One way to say a form: bare as in ScanRefer, as a command, or in two sentences of which one has a pronoun.

    The speaker's `one_anchor` says whether the form's anchor is a single object of the scene.
    """
    style = speaker.rng.random()
    if style < 0.05:
        text = noun_phrase(form, speaker)[0]
    elif style < 0.25:
        text = _in_two_sentences(form, speaker)
    else:
        text = _as_command(form, speaker)
    if style >= 0.05 and speaker.chance(0.04):
        text = speaker.say(phrases.STARTS) + text
    text = _tidy(text)
    return _with_typo(text, speaker.rng) if speaker.chance(TYPO_SHARE) else text


def noun_phrase(form: Form, speaker: Speaker, determiner: str = "{the|the|the|that|that|this}") -> tuple[str, str]:
    """The object as a noun phrase, and the pronoun for it."""
    noun = speaker.say(phrases.NOUNS[form.concept])
    front, back = _qualifiers(form, speaker)
    if form.order:
        front.insert(0, speaker.say(phrases.ORDERS[form.order]))
    text = " ".join([speaker.say("{the|the|the|that}" if form.order else determiner), *front, noun, *back])
    return re.sub(r"\ba(?= [aeio])", "an", text), _pronoun(form.concept, noun)


def _qualifiers(form: Form, speaker: Speaker) -> tuple[list[str], list[str]]:
    """What stands before the noun and what follows it."""
    front: list[str] = []
    back: list[str] = []
    if form.motion:
        leading = form.motion in phrases.LEADING_MOTIONS and speaker.chance(0.4)
        (front if leading else back).append(speaker.say((phrases.LEADING_MOTIONS if leading else phrases.MOTIONS)[form.motion]))
    if form.side:
        leading = form.side in phrases.LEADING_SIDES and not form.order and speaker.chance(0.06)
        (front if leading else back).append(speaker.say((phrases.LEADING_SIDES if leading else phrases.SIDES)[form.side]))
    if form.zone:
        back.append(speaker.say(phrases.ZONES[form.zone]))
    if form.metres:
        back.append(speaker.say(phrases.METRES).replace("<n>", str(form.metres)))
    speaker.rng.shuffle(back)
    _colour(form.concept, front, back, speaker)
    if form.anchor is not None:
        anchor = noun_phrase(form.anchor, speaker, "{the|the|that}" if speaker.one_anchor else "{a|a|one}")[0]
        back.append(f"{speaker.say(phrases.RELATIONS[form.relation])} {anchor}")
    return front, back


def _colour(concept: str, front: list[str], back: list[str], speaker: Speaker) -> None:
    """Words that a LiDAR cannot check: colours of things, clothes of people."""
    if concept in LANDMARKS:
        return
    if concept in PEOPLE:
        if speaker.chance(0.24):
            back.insert(0, speaker.say(phrases.CLOTHES if speaker.chance(0.8) else phrases.MORE_CLOTHES))
    elif speaker.chance(0.28):
        front.append(speaker.say(phrases.COLOURS))


def _as_command(form: Form, speaker: Speaker) -> str:
    ways = phrases.ANY
    if form.concept in ROLLING and form.motion != "parked" and speaker.chance(0.5):
        ways = phrases.ROLLING
    elif form.concept == "person" and speaker.chance(0.55):
        ways = phrases.PEOPLE
    text = speaker.one(ways).replace("<np>", noun_phrase(form, speaker)[0])
    return f"{text} {speaker.say(phrases.ENDINGS)}" if speaker.chance(0.09) else text


def _in_two_sentences(form: Form, speaker: Speaker) -> str:
    person = form.concept == "person"
    opening = speaker.one(phrases.PEOPLE_OPENINGS if person and speaker.chance(0.6) else phrases.OPENINGS)
    phrase, pronoun = noun_phrase(form, speaker, "{a|the|that|a}" if opening.startswith("there is") else "{the|that}")
    closings = phrases.CLOSINGS
    if speaker.chance(0.5):
        rolling = form.concept in ROLLING and form.motion != "parked"
        closings = phrases.PEOPLE_CLOSINGS if person else phrases.ROLLING_CLOSINGS if rolling else closings
    second = speaker.one(closings).replace("<it>", pronoun).replace("<they>", phrases.SUBJECTS[pronoun])
    return f"{opening.replace('<np>', phrase)}{speaker.say('{. |. |. |. |, }')}{second}{speaker.say('{.|}')}"


def _pronoun(concept: str, noun: str) -> str:
    if concept not in PEOPLE:
        return "it"
    said = [pronoun for pronoun, nouns in phrases.PRONOUNS.items() if noun.split()[0] in nouns.split()]
    return said[0] if said else "them"


def _tidy(text: str) -> str:
    return re.sub(r"\s+([,.:])", r"\1", re.sub(r"\s+", " ", text)).strip()


def _with_typo(text: str, rng: np.random.Generator) -> str:
    """One of the longer words with two letters exchanged, one left out or one doubled."""
    words = text.split(" ")
    long = [at for at, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    at = long[int(rng.integers(len(long)))]
    word, place = words[at], int(rng.integers(1, len(words[at]) - 1))
    ways = (
        word[:place] + word[place + 1] + word[place] + word[place + 2 :],
        word[:place] + word[place + 1 :],
        word[:place] + word[place] + word[place:],
    )
    words[at] = ways[int(rng.integers(3))]
    return " ".join(words)
