# SPDX-License-Identifier: Apache-2.0
"""Every setting is explained in one full sentence, which `--help` and the ROS parameters show as it stands."""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from collections.abc import Iterator

import pytest

from support import optional
from support.verb_settings import OTHER_MANUALS, SETTINGS, with_inner
from weakseg_ros.cli import VERBS, main
from weakseg_ros.config import field_docs
from weakseg_ros.registry import DEFAULT_BUNDLE, REFERRING_BUNDLE

LEAST_WORDS = 4
VERBS_OF_HELP = frozenset(
    "Adds Aggregates Changes Checks Configures Continues Deploys Draws Enables Evaluates Excludes Exports Feeds Follows Gives "
    "Holds Initialises Keeps Levels Limits Lists Makes Moves Names Publishes Reads Replaces Resets Restricts Runs Scales Seeds "
    "Selects Sets Shows Simulates Splits Starts States Stops Stores Sums Tracks Trains Uses Varies Waits Writes".split()
)
"""what a setting does; a new verb is one more word here"""
SHOWN_WITH_BOUNDS = ("NodeConfig", "TrackSettings")
"""settings of the node, whose manual and descriptions add the bounds by themselves"""
UNITS = {"_m": "metre", "_s": "second", "_deg": "degree", "_mib": "MiB", "_gib": "GiB", "_minutes": "minute", "_m_s": "second"}
"""the end of a name, and the word that its sentence must have"""
NOT_OUR_WORDS = re.compile(r"\b(anew|beside|shall|mend(s|ed)?|in place of|goes? on|of its own|at hand)\b")
"""words that a reader of English would stumble over"""
_RANGE = re.compile(r"\((\S+) to (\S+?)[;)]")
_LEAST = re.compile(r"\((\S+) or more[;)]")


def is_sentence(text: str) -> bool:
    """Whether it begins with what the setting does, ends with a full stop, has words enough, and is plain English."""
    words = text.split()
    return words[0] in VERBS_OF_HELP and text.endswith(".") and len(words) >= LEAST_WORDS and not NOT_OUR_WORDS.search(text)


def says_its_range(text: str, low: float, high: float | None) -> bool:
    """Whether it gives the bounds that are checked, as in (0 to 1) or (1 or more).

    A 0 below the range is told apart where it means something else, as in (1 to 64); 0 uses all.
    """
    told = _RANGE.search(text) or _LEAST.search(text)
    if told is None:
        return False
    bounds = [float(bound) for bound in told.groups()]
    apart = low == 0 and bounds[0] > 0 and re.search(r"(; |, and )0 ", text)
    return (bounds[0] == low or bool(apart)) and bounds[1:] == ([] if high is None else [high])


def names_its_unit(name: str, text: str) -> bool:
    """Whether a setting whose name ends with a unit spells it out."""
    return all(word in text for end, word in UNITS.items() if name.endswith(end))


def classes_of(verb: str) -> Iterator[type]:
    """The classes of settings of a verb, with those that they hold."""
    for entry in (*SETTINGS[verb], *OTHER_MANUALS.get(verb, ())):
        module, _, name = entry.partition(":")
        yield from with_inner(getattr(importlib.import_module(module), name))


def test_no_verb_is_left_out() -> None:
    assert SETTINGS.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", SETTINGS)
def test_each_setting_is_explained_in_one_sentence(verb: str) -> None:
    if verb == "replay":
        optional("rclpy")
    for cls in classes_of(verb):
        docs = field_docs(cls)
        silent = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in docs]
        assert not silent, f"{cls.__name__}: no line under {', '.join(silent)}"
        fragments = {field: text for field, text in docs.items() if not is_sentence(text)}
        assert not fragments, f"{cls.__name__}: {fragments}"


@pytest.mark.parametrize("verb", SETTINGS)
def test_each_number_says_its_unit_and_the_range_that_is_checked(verb: str) -> None:
    if verb == "replay":
        optional("rclpy")
    for cls in classes_of(verb):
        docs, hints = field_docs(cls), typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if hints[field.name] not in (int, float):
                continue
            text, low = docs[field.name], field.metadata.get("low")
            assert low is not None, f"{cls.__name__}.{field.name}: has no bounds"
            told = cls.__name__ in SHOWN_WITH_BOUNDS or says_its_range(text, low, field.metadata.get("high"))
            assert told, f"{cls.__name__}.{field.name}: does not say the range that is checked: {text}"
            assert names_its_unit(field.name, text), f"{cls.__name__}.{field.name}: does not name its unit: {text}"


@pytest.mark.parametrize(
    "text",
    [
        "folder for the scans",
        "Likewise.",
        "and so many columns over it.",
        "Seconds between two checks of the bundle.",
        "Names the bundle to take in place of the old one.",
    ],
)
def test_a_fragment_is_no_sentence(text: str) -> None:
    assert not is_sentence(text)


@pytest.mark.parametrize(
    ("text", "low", "high", "is_told"),
    [
        ("Sets the share (0 to 1).", 0.0, 1.0, True),
        ("Sets the share (0 to 1).", 0.0, 2.0, False),
        ("Sets the number of streets (1 or more).", 1, 900, False),
        ("Sets the width (1 to 64); 0 uses the data's own.", 0, 64, True),
        ("Sets the width (1 to 64).", 0, 64, False),
        ("Limits the number of frames in the folder.", 1, None, False),
    ],
)
def test_a_range_that_is_not_the_checked_one_is_found(text: str, low: float, high: float | None, is_told: bool) -> None:
    assert says_its_range(text, low, high) is is_told


def test_a_unit_that_is_not_spelt_out_is_found() -> None:
    assert names_its_unit("spacing_s", "Sets the minimum time in seconds between two kept frames.")
    assert not names_its_unit("spacing_s", "Sets the minimum time between two kept frames.")


@pytest.mark.parametrize("verb", ["import", "evaluate", "predict"])
def test_a_text_is_broken_where_the_terminal_ends_and_nowhere_else(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    for cls in classes_of(verb):
        for name, text in field_docs(cls).items():
            assert text in shown, f"{cls.__name__}.{name}"


def test_the_manual_of_doctor_lists_the_words_that_an_option_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    assert "--mirror {none,x,y,z}" in capsys.readouterr().out


def settings_named(name: str) -> dict[str, tuple[object, str]]:
    """The default and the text of a setting by the verbs that have it; the node has its own."""
    found = {}
    for verb in SETTINGS.keys() - {"node", "replay"}:
        for cls in classes_of(verb):
            fields = {field.name: field for field in dataclasses.fields(cls)}
            if name in fields:
                found[verb] = (fields[name].default, field_docs(cls)[name])
    return found


def test_every_verb_takes_the_same_model_where_none_is_named() -> None:
    others = {"refer": REFERRING_BUNDLE, "retrain": "models/current", "view": (), "benchmark": ""}
    for verb, (default, _) in settings_named("bundle").items():
        if default is not dataclasses.MISSING:
            assert default == others.get(verb, DEFAULT_BUNDLE), verb


def test_every_verb_explains_auto_alike() -> None:
    told = {verb: text for verb, (default, text) in settings_named("engine").items() if default == "auto"}
    assert len(told) > 3
    assert len(set(told.values())) == 1, told
