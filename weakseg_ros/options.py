# SPDX-License-Identifier: Apache-2.0
"""How the settings of a class, and of the classes that it holds, are typed on a command line: `--steps`, `--draw.ratio`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from weakseg_ros.errors import ConfigError, complain, did_you_mean
from weakseg_ros.files import share_folder

LEAST_COLUMNS = 40
"""characters of a line of the manuals, whatever the terminal says of itself"""


def sections_of(cls: type, prefix: str = "") -> Iterator[tuple[type, str]]:
    """`cls` and each class of settings in it, with what stands before the names of its fields, such as 'draw.'."""
    yield cls, prefix
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        notes = getattr(hint, "__metadata__", ())
        told = [note.name for note in notes if getattr(note, "name", None) is not None]
        section = told[0] if told else name
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from sections_of(part, f"{prefix}{section}." if section else prefix)


def keep_whole_texts(cls: type, texts: Callable[[type], Mapping[str, str]]) -> None:
    """Put what `texts` says of each field into the field: tyro shows that as it stands, and a docstring with its line ends."""
    for section, _ in sections_of(cls):
        for field in dataclasses.fields(section):
            if text := texts(section).get(field.name):
                field.metadata = MappingProxyType({**field.metadata, "help": text})


def former_names(cls: type) -> dict[str, str]:
    """The names of today by those of older versions."""
    return {field.metadata["was"]: field.name for field in dataclasses.fields(cls) if field.metadata.get("was")}


def former_options(cls: type) -> dict[str, str]:
    """The options of today by those of older versions, and the sections, without what follows their dots."""
    sections = ((prefix, former_names(section)) for section, prefix in sections_of(cls))
    return {_option(prefix, was): _option(prefix, name) for prefix, names in sections for was, name in names.items()}


def as_meant(argv: Sequence[str], cls: type, verb: str) -> list[str]:
    """The words of a command line with the options of older versions, and the folders '.' and '..', by their names."""
    former = former_options(cls)
    return spelt_out([by_its_name(word, former, verb) for word in argv])


def by_its_name(word: str, former: Mapping[str, str], verb: str) -> str:
    """A word of a command line; an option of an older version becomes the one of today, and a sentence says so."""
    option, equals, value = word.partition("=")
    dashed = option.replace("_", "-")
    section, dot, inner = dashed.partition(".")
    moved = former.get(section, section) + dot + inner
    today = former.get(moved, moved)
    if today == dashed or not word.startswith("--"):
        return word
    why = ", because --bundle always names the model to use" if option == "--bundle" else ""
    complain(f"weakseg {verb} {option}: is now called {today}{why}; its value was used")
    return f"{today}{equals}{value}"


def with_included_file(argv: Sequence[str], folder: str, kind: str) -> list[str]:
    """The arguments with the path of a file of config/FOLDER for its name, as in '--config s3dis_erda'; or ConfigError."""
    words = list(argv)
    at = words.index("--config") + 1 if "--config" in words else len(words)
    if at < len(words) and not Path(words[at]).is_file() and not Path(words[at]).suffix:
        included = {file.stem: file for file in sorted((share_folder() / "config" / folder).glob("*.yaml"))}
        if words[at] not in included:
            found = f"'{words[at]}' is neither a file nor an included {kind}{did_you_mean(words[at], included)}"
            raise ConfigError(f"config: {found}; included are: {', '.join(included)}")
        words[at] = str(included[words[at]])
    return words


def as_typed(error: ConfigError, cls: type, words: Sequence[str]) -> ConfigError:
    """An error that the settings within `cls` raised when they were made of `words`, with their option in place of their field.

    What `cls` itself raised, and what no settings did, stays as it is.
    """
    refused = _refused_settings(error)
    prefixes = [prefix for section, prefix in sections_of(cls) if section.__qualname__ == type(refused).__qualname__]
    if refused is None or isinstance(refused, cls) or not prefixes:
        return error
    field, colon, found = str(error).partition(":")
    if not hasattr(refused, field):  # of several fields at once
        return ConfigError(f"--{prefixes[0].rstrip('.').replace('_', '-')}: {error}") if prefixes[0] else error
    typed = {word.partition("=")[0].replace("_", "-") for word in words}
    options = [_option(prefix, field) for prefix in prefixes]
    return ConfigError(" or ".join([option for option in options if option in typed] or options) + colon + found)


def spelt_out(words: Sequence[str]) -> list[str]:
    """The words of a command line with the folders '.' and '..' by their names, as data are told apart by theirs.

    A value of an option stays as it is.
    """
    behind_option = [before.startswith("-") and "=" not in before for before in ("", *words)]
    dots = [bool(word) and set(word) <= {".", "/"} and "." in word for word in words]
    return [
        os.path.abspath(word) if is_dots and not is_value else word
        for word, is_dots, is_value in zip(words, dots, behind_option, strict=False)
    ]


@contextlib.contextmanager
def torch_left_out() -> Iterator[None]:
    """tyro takes a torch that is blocked, None in sys.modules, for one that is there."""
    blocked = "torch" in sys.modules and sys.modules["torch"] is None
    if blocked:
        del sys.modules["torch"]
    try:
        yield
    finally:
        if blocked:
            sys.modules["torch"] = None  # type: ignore[assignment]


@contextlib.contextmanager
def wide_enough() -> Iterator[None]:
    """tyro never ends its manual where a line has no room for its frame."""
    former = os.environ.get("COLUMNS")
    narrow = shutil.get_terminal_size().columns < LEAST_COLUMNS
    if narrow:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)
    try:
        yield
    finally:
        if narrow and former is None:
            del os.environ["COLUMNS"]
        elif narrow:
            os.environ["COLUMNS"] = str(former)


def _option(prefix: str, name: str) -> str:
    return f"--{prefix}{name}".replace("_", "-")


def _refused_settings(error: ConfigError) -> Any:
    """The settings whose check raised an error, the innermost ones; None where no check did."""
    refused, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "__post_init__":
            refused = trace.tb_frame.f_locals.get("self")
        trace = trace.tb_next
    return refused
