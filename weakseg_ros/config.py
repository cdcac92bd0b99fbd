# SPDX-License-Identifier: Apache-2.0
"""Settings: frozen dataclasses, filled from YAML, the command line or ROS parameters by one strict loader.

A class of settings names the unit in each field (`_m _deg _s _ms`), states bounds with `setting(...)`, says in a
docstring line under each field what it does, and calls `check_ranges(self)` in `__post_init__`.
Default < YAML < command line or ROS override. There is no inheritance between files and no environment variable.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import math
import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache, partial, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.options import as_meant, as_typed, former_names, keep_whole_texts, torch_left_out, wide_enough
from weakseg_ros.yaml_files import read_yaml

T = TypeVar("T")
log = logging.getLogger(__name__)

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""the safe dumper in C, where PyYAML was built with it"""
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""1e-3 and the like, which YAML 1.1 takes for text as they lack the point or the sign"""
_VALUE = re.compile(r"(?i)true|false|yes|no|on|off|none|[\d.]+|\[.*|\w+=.*")
"""what somebody writes behind a switch, and nobody as a path"""


def setting(default: Any, low: float | None = None, high: float | None = None, read_only: bool = False, was: str = "") -> Any:
    """A dataclass field with bounds (inclusive); `read_only` = a running node cannot change it.

    `was` is the name that the field had in older versions: files and command lines with it are understood, with a warning.
    """
    bounds = {"low": low, "high": high, "read_only": read_only, "was": was}
    if isinstance(default, (list, dict, set)):
        raise TypeError("defaults are immutable; use a tuple")
    return dataclasses.field(default=default, metadata=bounds)


def check_ranges(settings: Any) -> None:
    """Raise ConfigError for the first field that is outside its bounds, NaN or infinite where it has bounds."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        low, high = field.metadata.get("low"), field.metadata.get("high")
        if (low is None and high is None) or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        too_low = low is not None and value < low
        too_high = high is not None and value > high
        if math.isnan(value) or too_low or too_high:
            bounds = f"{'-inf' if low is None else low}..{'inf' if high is None else high}"
            raise ConfigError(f"{field.name}: {value} is outside {bounds}")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str, base: T | None = None) -> T:
    """Build the dataclass `cls` from a mapping, checking names and types; nested dataclasses are filled likewise.

    `where` begins every error text (a file's name, or the node's); fields that the mapping does not hold keep the
    value of `base`, or their default. A class may have `from_older(mapping, where)`, which gives the mapping of an older
    version as it is written today. Raises ConfigError.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: expected settings by name, found {type(mapping).__name__}")
    from_older = getattr(cls, "from_older", None)
    mapping = mapping if from_older is None else from_older(mapping, where)
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    former = former_names(cls)
    for written, value in mapping.items():
        key = written if written in names else former.get(written, written)
        if key != written:
            log.warning("%s.%s: is now called '%s'; its value was used", where, written, key)
        if key not in names:
            hint = did_you_mean(str(key), names) or f"; known: {', '.join(names)}"
            raise ConfigError(f"{where}.{key}: unknown key{hint}")
        inner = getattr(base, key) if base is not None else None
        values[key] = _convert(hints[key], value, f"{where}.{key}", inner)
    if base is None and (absent := [name for name in _required(cls) if name not in values]):
        raise ConfigError(f"{where}: lacks {', '.join(map(repr, absent))}; add {'it' if len(absent) == 1 else 'them'}")
    try:
        return dataclasses.replace(base, **values) if base is not None else cls(**values)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def _required(cls: Any) -> list[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(cls) if f.init and f.default is missing and f.default_factory is missing]


def to_mapping(settings: Any) -> dict[str, Any]:
    """The plain mapping (numbers, strings, lists) that `from_mapping` turns back into the same settings."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings) if field.init}


def load_yaml(cls: type[T], path: Path, base: T | None = None) -> T:
    """Settings of type `cls` from a YAML file; an empty file leaves every default."""
    return from_mapping(cls, read_yaml(path) or {}, path.name, base)


def dump_yaml(settings: Any) -> str:
    """Settings as YAML text, in field order; feeding the text back gives the same settings."""
    return str(yaml.dump(to_mapping(settings), Dumper=_DUMPER, sort_keys=False))


def parse(cls: type[T], argv: Sequence[str], verb: str, default: T | None = None, about: str = "") -> T:
    """Settings of type `cls` from a command line; `--config FILE` is read first, the other arguments override it.

    `about` stands in the manual below what the class says of itself.
    Ends the process with the manual for `--help` and with exit code 2 for a wrong argument, as every command does.
    """
    import tyro

    arguments = as_meant(argv, cls, verb)
    if "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 == len(arguments):
            raise ConfigError(f"weakseg {verb} --config: needs the path of a YAML file")
        default = load_yaml(cls, Path(arguments[at + 1]), default)
        del arguments[at : at + 2]
    # tyro takes further names for a mapping only where its default is empty
    named = {} if default is None else {key: value for key, value in vars(default).items() if isinstance(value, dict)}
    keep = {} if default is None else {"default": dataclasses.replace(default, **{key: {} for key in named})}  # type: ignore[type-var]
    description = f"{inspect.getdoc(cls)}\n\n{about}" if about else None
    if not {"-h", "--help"}.isdisjoint(arguments):
        keep_whole_texts(cls, field_docs)
    with torch_left_out(), wide_enough():
        read = partial(tyro.cli, cls, args=arguments, prog=f"weakseg {verb}", description=description, **keep)
        settings: T
        try:
            settings, left = read(return_unknown_args=True)
        except ConfigError as error:
            raise as_typed(error, cls, arguments) from None
        if left:
            _refuse_value_of_switch(settings, arguments)
            refuse_more_paths(left)
            read()  # says what is wrong with them, and ends the process
    merged = {key: value | getattr(settings, key) for key, value in named.items()}
    return dataclasses.replace(settings, **merged) if merged else settings  # type: ignore[type-var]


def refuse_more_paths(left: Sequence[str]) -> None:
    """ConfigError where all words that no option has taken are paths: a pattern that the shell has replaced by its matches."""
    if left and not any(word.startswith("-") for word in left):
        found = ", ".join(repr(word) for word in left[:3]) + (", ..." if len(left) > 3 else "")
        advice = "name a single path, or put a pattern in quotes"
        raise ConfigError(f"takes one path, and {found} came after it; {advice}")


def _refuse_value_of_switch(settings: Any, arguments: Sequence[str]) -> None:
    """ConfigError where a switch is given a value, which would count as a path."""
    for option, word in pairwise(arguments):
        if not option.startswith("--") or not _VALUE.fullmatch(word):
            continue
        group, dot, last = option[2:].replace("-", "_").rpartition(".")
        positive = last.removeprefix("no_")
        holder = reduce(lambda part, name: getattr(part, name, None), group.split(".") if group else (), settings)
        if isinstance(getattr(holder, positive, None), bool):
            place, name = f"--{group}{dot}".replace("_", "-"), positive.replace("_", "-")
            found = f"{option}: is a switch and takes no value, but '{word}' follows it"
            raise ConfigError(f"{found}; write {place}{name} or {place}no-{name}")


def shard_of(text: str) -> tuple[int, int]:
    """(number of the first item, stride) of a shard 'i/n', i from 1 to n; (0, 1), which is everything, for an empty text."""
    if not text:
        return 0, 1
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"shard: '{text}' is not i/n with i from 1 to n; for two processes 1/2 and 2/2")
    return int(part) - 1, int(parts)


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The docstring written under each field of a dataclass, by field name (what the ROS parameters show).

    Fields that it has from another dataclass are there, too, and those that are in no file, whose text is in their metadata.
    """
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        docs |= _own_field_docs(base)
    return docs | {field.name: field.metadata["help"] for field in dataclasses.fields(cls) if "help" in field.metadata}


def _own_field_docs(cls: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = tree.body[0].body  # type: ignore[attr-defined]
    docs = {}
    for line, below in pairwise(body):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and is_text:
            docs[line.target.id] = " ".join(below.value.value.split())
    return docs


def _convert(hint: Any, value: Any, where: str, base: Any = None) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, where, base)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return _convert_union(options, value, where, base)
    if origin is Literal:
        if value in options:
            return value
        known = ", ".join(map(str, options))
        raise ConfigError(f"{where}: unknown value '{value}'{did_you_mean(str(value), map(str, options))}; known: {known}")
    if origin is tuple:
        return _convert_tuple(options, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected names with values, found {_found(value)}")
        return {_convert(options[0], k, where): _convert(options[1], v, f"{where}.{k}") for k, v in value.items()}
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any or (isinstance(hint, type) and type(value) is hint):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    expected = getattr(hint, "__name__", str(hint))
    hint_on_text = "; put it in quotes" if hint is str and not isinstance(value, (list, Mapping, type(None))) else ""
    raise ConfigError(f"{where}: expected {expected}, found {_found(value)}{hint_on_text}")


def _convert_union(options: tuple[Any, ...], value: Any, where: str, base: Any) -> Any:
    if value is None and type(None) in options:
        return None
    if isinstance(value, str) and str in options:
        return value  # it may look like a number
    failures = []
    for option in (option for option in options if option is not type(None)):
        try:
            return _convert(option, value, where, base)
        except ConfigError as error:
            failures.append(error)
    raise failures[0]


def _convert_tuple(options: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where}: expected a list, found {_found(value)}")
    if len(options) == 2 and options[1] is Ellipsis:
        options = (options[0],) * len(value)
    if len(options) != len(value):
        raise ConfigError(f"{where}: expected {len(options)} values, found {len(value)}")
    return tuple(_convert(option, item, f"{where}[{i}]") for i, (option, item) in enumerate(zip(options, value, strict=True)))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _found(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
