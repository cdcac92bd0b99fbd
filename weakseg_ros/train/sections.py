# SPDX-License-Identifier: Apache-2.0
"""The sections of a training's settings: one for each method and net of the registry that has settings of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import field
from typing import Any, TypeVar

from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.parts import BASE
from weakseg_ros.registry import METHODS, NETS, settings_of

T = TypeVar("T")


def with_sections(cls: type[T]) -> type[T]:
    """A class of settings, not yet a dataclass, with one more field for each section, under the name of its row.

    Raises ConfigError for a row that is called like one of the other settings.
    """
    for name, kind, chosen_by in rows_with_settings():
        if name in cls.__annotations__:
            raise ConfigError(f"registry: '{name}' has the name of a training setting; give the row another name")
        about = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
        told = f"{about} These settings take effect only if `{chosen_by}` names {name}."
        cls.__annotations__[name] = kind
        setattr(cls, name, field(default_factory=kind, metadata={"help": told}))
    return cls


def as_section(name: str, kind: type, value: Any) -> Any:
    """The settings of a section as its class; ConfigError where they are those of another.

    A file that has been read and imported since then has a class of the same name and fields.
    """
    if isinstance(value, kind):
        return value
    if type(value).__name__ != kind.__name__:
        raise ConfigError(f"{name}: expected {kind.__name__}, found {type(value).__name__}; give this part its own settings")
    return kind(**vars(value))


def rows_with_settings() -> Iterator[tuple[str, type, str]]:
    """Each row with settings of its own: its name, their class, and the setting that chooses it; without `supervised`.

    `supervised` is part of every method, so its settings are always a training's.
    """
    for chosen_by, table in (("method", METHODS), ("net", NETS)):
        for name in table:
            kind = settings_of(table, name)
            if kind is not None and name != BASE:
                yield name, kind, chosen_by
