# SPDX-License-Identifier: Apache-2.0
"""Settings as older versions wrote them: `options` held those of all methods, `net_options` those of the net."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from weakseg_ros.errors import ConfigError, complain, did_you_mean
from weakseg_ros.methods.parts import by_part
from weakseg_ros.registry import METHODS, NETS
from weakseg_ros.yaml_files import parse_yaml

log = logging.getLogger(__name__)

Sections = Mapping[str, type]
"""the classes of settings by the name of the method or net that they belong to"""


def in_sections(mapping: Mapping[str, Any], sections: Sections, where: str) -> dict[str, Any]:
    """Settings of a training with `options` and `net_options`, if there are any, put under the methods and nets they belong to.

    Raises ConfigError for an option that no method or net has.
    """
    today = dict(mapping)
    moved = _by_section(today.pop("options", {}), today.pop("net_options", {}), sections, where)
    if moved:
        log.warning("%s.options: these settings now belong to a method or net and are read as %s", where, moved)
    for section, values in moved.items():
        today[section] = {**values, **today.get(section, {})}
    return today


def words_in_sections(words: Sequence[str], sections: Sections) -> list[str]:
    """The same for the words of a command line, with a note on stderr: `--options anchors 64` becomes `--coarse3d.anchors 64`."""
    rest, given = [], {"--options": [], "--net-options": []}  # type: ignore[var-annotated]
    taker = rest
    for word in words:
        if word.startswith("--"):
            taker = given.get(word, rest)
        if word not in given:
            taker.append(word)
    for option, pairs in given.items():
        if len(pairs) % 2:
            raise ConfigError(f"weakseg train {option}: '{pairs[-1]}' has no value; give each setting as a name and a value")
    values = [_by_name(pairs, f"weakseg train {option}") for option, pairs in given.items()]
    moved = _by_section(values[0], values[1], sections, "--options")
    fresh = [word for section, names in moved.items() for name, value in names.items() for word in _option(section, name, value)]
    if fresh:
        complain(
            f"weakseg train --options: now belong to a method or net and are read as {' '.join(fresh)}",
        )
    return rest + fresh


def _by_name(pairs: Sequence[str], where: str) -> dict[str, Any]:
    return {name: parse_yaml(value, f"{where}: '{value}'") for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


def _by_section(options: Any, net_options: Any, sections: Sections, where: str) -> dict[str, dict[str, Any]]:
    for name, value in (("options", options), ("net_options", net_options)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}.{name}: expected settings by name, found {type(value).__name__}")
    moved = by_part(options, {name: sections[name] for name in METHODS if name in sections}, f"{where}.options")
    nets = {name: {field.name for field in dataclasses.fields(sections[name])} for name in NETS if name in sections}
    for option, value in net_options.items():
        owners = [name for name, known in nets.items() if option in known]
        if not owners:
            hint = did_you_mean(option, set().union(*nets.values()))
            how = "write settings under their net, as in squeezesegv3.layers"
            raise ConfigError(f"{where}.net_options.{option}: unknown key{hint}; {how}")
        for owner in owners:
            moved.setdefault(owner, {})[option] = value
    return moved


def _option(section: str, name: str, value: Any) -> list[str]:
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{section.replace('_', '-')}.{'' if value else 'no-'}{dashed}"]
    return [f"--{section.replace('_', '-')}.{dashed}", str(value)]
