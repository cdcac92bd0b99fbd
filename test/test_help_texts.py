# SPDX-License-Identifier: Apache-2.0
"""Every setting is explained in one full sentence, which `--help` and the ROS parameters show as it stands."""

from __future__ import annotations

import dataclasses
import importlib
import re

import pytest

from support import optional
from support.verb_settings import SETTINGS, with_inner
from weakseg_ros.cli import VERBS
from weakseg_ros.config import field_docs

LEAST_WORDS = 4
VERBS_OF_HELP = frozenset(
    "Adds Aggregates Changes Checks Configures Continues Deploys Draws Enables Evaluates Excludes Exports Feeds Follows Gives "
    "Holds Initialises Keeps Levels Limits Lists Makes Moves Names Publishes Reads Replaces Resets Restricts Runs Scales Seeds "
    "Selects Sets Shows Simulates Splits Starts States Stops Stores Sums Tracks Trains Uses Varies Waits Writes".split()
)
"""what a setting does; a new verb is one more word here"""
SHOWN_WITH_BOUNDS = ("NodeConfig", "NodeInputSettings", "TrackSettings", "LogSettings")
"""settings of the node, whose manual and descriptions add the bounds by themselves"""


def is_sentence(text: str) -> bool:
    """Whether it begins with what the setting does, ends with a full stop and has words enough to stand alone."""
    words = text.split()
    return words[0] in VERBS_OF_HELP and text.endswith(".") and len(words) >= LEAST_WORDS


def says_its_range(text: str) -> bool:
    """Whether it says what the setting may be, as in (0 to 1) or (1 or more)."""
    return bool(re.search(r"\d\S* (to \S*\d|or more)|at least \d|must be less than|above 0", text))


def test_no_verb_is_left_out() -> None:
    assert SETTINGS.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", SETTINGS)
def test_each_setting_is_explained_in_one_sentence(verb: str) -> None:
    if verb == "replay":
        optional("rclpy")
    for entry in SETTINGS[verb]:
        module, _, name = entry.partition(":")
        for cls in with_inner(getattr(importlib.import_module(module), name)):
            docs = field_docs(cls)
            silent = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in docs]
            assert not silent, f"{cls.__name__}: no line under {', '.join(silent)}"
            fragments = {field: text for field, text in docs.items() if not is_sentence(text)}
            assert not fragments, f"{cls.__name__}: {fragments}"
            if cls.__name__ not in SHOWN_WITH_BOUNDS:
                bounded = [field.name for field in dataclasses.fields(cls) if field.metadata.get("low") is not None]
                silent = [name for name in bounded if not says_its_range(docs[name])]
                assert not silent, f"{cls.__name__}: the range of {', '.join(silent)} is not told"


@pytest.mark.parametrize(
    "text", ["folder for the scans", "Likewise.", "and so many columns over it.", "Seconds between two checks of the bundle."]
)
def test_a_fragment_is_no_sentence(text: str) -> None:
    assert not is_sentence(text)
