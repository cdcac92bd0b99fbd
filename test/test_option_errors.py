# SPDX-License-Identifier: Apache-2.0
"""A value that a verb refuses is named by the option as it is typed, in whatever section of the settings it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from support import optional
from support.verb_settings import SETTINGS, class_at
from weakseg_ros.config import from_mapping, parse
from weakseg_ros.errors import ConfigError
from weakseg_ros.options import sections_of

VERBS = [verb for verb in SETTINGS if verb not in ("node", "doctor")]
"""those whose command line `parse` reads"""


def too_low(section: type) -> dict[str, float]:
    """Fields of a class of settings that have a lower bound, each with a value below it."""
    bounds = {field.name: (field.default, field.metadata.get("low")) for field in dataclasses.fields(section)}
    return {name: low - 1 for name, (usual, low) in bounds.items() if low is not None and type(usual) in (int, float)}


def positional(verb: str, path: Path) -> list[str]:
    """What has to be typed besides options."""
    return [str(path)] * {"compare": 2, "import": 1, "wrap": 1}.get(verb, 1)


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_of_a_section_is_named_with_its_section(verb: str, tmp_path: Path) -> None:
    if verb == "replay":
        optional("rclpy")
    cls = class_at(SETTINGS[verb][0])
    for section, prefix in sections_of(cls):
        for name, value in too_low(section).items() if section is not cls else ():
            option = f"--{prefix}{name}".replace("_", "-")
            with pytest.raises(ConfigError) as caught:
                parse(cls, [*positional(verb, tmp_path), f"{option}={value:g}"], verb)
            assert str(caught.value).startswith(f"{option}: {value:g}"), option


def test_a_file_is_named_with_the_path_to_the_value() -> None:
    cls = class_at(SETTINGS["train"][0])
    sections = [(section, prefix) for section, prefix in sections_of(cls) if prefix.count(".") == 1]
    assert len(sections) > 5
    for section, prefix in sections:
        for name, value in too_low(section).items():
            kind = {field.name: type(field.default) for field in dataclasses.fields(section)}[name]
            with pytest.raises(ConfigError) as caught:
                from_mapping(cls, {prefix.rstrip("."): {name: kind(value)}}, "my.yaml")
            assert str(caught.value).startswith(f"my.yaml.{prefix}{name}: {value:g}")
