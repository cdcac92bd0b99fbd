# SPDX-License-Identifier: Apache-2.0
"""Which methods a training joins by '+', and whose settings are whose; free of torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.registry import METHODS

BASE = "supervised"
"""the part of every method: its losses are computed once, whatever is joined to them"""


def parts_of(method: str) -> tuple[str, ...]:
    """The rows of registry.METHODS that `erda+coarse3d` joins, `supervised` included, in their order there.

    Raises ConfigError for an unknown name, and for one that stands there twice.
    """
    names = method.split("+")
    for name in names:
        if name not in METHODS:
            known = f"known: {', '.join(METHODS)}, and several of them joined by +"
            raise ConfigError(f"method: unknown '{name}'{did_you_mean(name, METHODS)}; {known}")
        if names.count(name) > 1:
            raise ConfigError(f"method: '{method}' names {name} twice; name it once")
    return tuple(name for name in METHODS if name in names or name == BASE)


def by_part(options: Mapping[str, Any], settings: Mapping[str, type], where: str) -> dict[str, dict[str, Any]]:
    """The settings of each part by name, from the `options` in which older versions held those of all parts together.

    `settings` are the classes of settings by part. Raises ConfigError for an option that no part has.
    """
    owners = {
        field.metadata.get("was") or field.name: (part, field.name)
        for part, kind in settings.items()
        for field in dataclasses.fields(kind)
    }
    found: dict[str, dict[str, Any]] = {}
    for option, value in options.items():
        if option not in owners:
            hint = did_you_mean(option, owners)
            raise ConfigError(f"{where}.{option}: unknown key{hint}; write settings under their method, as in coarse3d.anchors")
        part, name = owners[option]
        found.setdefault(part, {})[name] = value
    return found
