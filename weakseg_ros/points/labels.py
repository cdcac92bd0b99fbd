# SPDX-License-Identifier: Apache-2.0
"""Label maps: which classes a network knows, how they are drawn, and which ids in files mean them.

A *raw id* is what a label file holds (SemanticKITTI's numbering, but for `semanticposs` and `nuscenes`, which have their
own); a *class id* is what a network is trained on: 0 = unlabelled, 1..K-1 the classes. A map is a YAML list with one row
per class, or a data config of lidar-bonnetal.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import from_mapping, to_mapping
from weakseg_ros.errors import ConfigError, DataError, counted, did_you_mean
from weakseg_ros.files import share_folder
from weakseg_ros.points.data_config import is_data_config, rows_of
from weakseg_ros.yaml_files import read_yaml

log = logging.getLogger(__name__)

MAX_CLASSES = 255
RAW_IDS = 1 << 16
INSTANCE_SHIFT = 16
"""a raw label is the raw id in the low 16 bits and the number of the instance above them"""
GAMMA = 2.2
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
LEAST_LUMINANCE = 0.06
"""of a class on a black page: twice as bright as the page; SemanticKITTI's sidewalk and truck have a third of it"""


def on_black(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(K, 3) red, green, blue, mixed with white where they would not be seen as points on a black page."""
    share, steps = colors / 255.0, np.linspace(0.0, 1.0, 256)[:, None, None]
    mixed = share + steps * (1.0 - share)  # (256, K, 3)
    first = np.argmax((mixed**GAMMA) @ LUMINANCE >= LEAST_LUMINANCE, axis=0)
    return np.asarray(255 * mixed[first, np.arange(len(colors))] + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class LabelClass:
    """One row of a label map."""

    id: int
    """class id; 0 is 'unlabelled', the others follow without a gap"""
    name: str
    """what reports and pictures call it"""
    color: tuple[int, int, int]
    """red, green, blue, each 0..255"""
    thing: bool
    """True where single objects can be counted (cars), False for stuff (road)"""
    raw_ids: tuple[int, ...]
    """the ids in label files that mean this class; the first one is what is written back"""


@dataclass(frozen=True)
class LabelMap:
    """The classes of one data set or bundle, checked where it is made; ConfigError says which row is wrong."""

    name: str
    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        _check_rows(self.name or "labels", self.classes)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], name: str) -> LabelMap:
        """A map from plain mappings, as YAML, JSON and `bundle.yaml` hold them; `name` begins every error text."""
        if isinstance(rows, (str, Mapping)) or not isinstance(rows, Sequence):
            raise ConfigError(f"{name}: expected a list with one row per class, found {type(rows).__name__}; {_EXAMPLE}")
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise ConfigError(
                    f"{name}[{i}]: expected the row of a class, found {type(row).__name__} {str(row)[:40]!r}; {_EXAMPLE}"
                )
        return cls(name, tuple(from_mapping(LabelClass, row, f"{name}[{i}]") for i, row in enumerate(rows)))

    @classmethod
    def from_yaml(cls, path: Path) -> LabelMap:
        """A map from a YAML or JSON file, named after the file: a list of rows, or lidar-bonnetal's data config."""
        content = read_yaml(path)
        if is_data_config(content):
            content = rows_of(content, str(path), _shipped_things())
        labels = cls.from_rows(content, path.stem)
        first = labels.names[0]
        if not any(word in first.lower() for word in _NO_CLASS):
            log.warning(
                "%s: its class 0 is '%s', but class 0 always means unlabelled: its points are ignored everywhere; "
                "if that is a class, begin with {id: 0, name: unlabelled, color: [0, 0, 0], thing: false, raw_ids: []}",
                path,
                first,
            )
        return labels

    @classmethod
    def load(cls, name_or_path: str | Path) -> LabelMap:
        """A map that ships with the package by its name ('semantickitti'), or any other by the path of its file."""
        path = Path(name_or_path)
        folder = _shipped()
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        if str(name_or_path) not in known:
            if path.suffix.lower() in (".yaml", ".yml", ".json") or path.is_file():
                return cls.from_yaml(path)
            hint = did_you_mean(str(name_or_path), known) or ";"
            raise ConfigError(f"labels: unknown '{name_or_path}'{hint} known: {', '.join(known)}, or the path of a .yaml file")
        return cls.from_yaml(folder / f"{name_or_path}.yaml")

    def to_rows(self) -> list[dict[str, Any]]:
        """Plain rows that `from_rows` turns back into the same classes."""
        return [to_mapping(row) for row in self.classes]

    @property
    def num_classes(self) -> int:
        """K, counting class 0."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """K names; the first is class 0's."""
        return tuple(row.name for row in self.classes)

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """(K, 3) red, green, blue."""
        return np.array([row.color for row in self.classes], np.uint8)

    @cached_property
    def colors_on_black(self) -> NDArray[np.uint8]:
        """(K, 3) the same for points on a black page, see `on_black`."""
        return on_black(self.colors)

    @cached_property
    def things(self) -> NDArray[np.bool_]:
        """(K,) True for classes of countable objects."""
        return np.array([row.thing for row in self.classes], np.bool_)

    def same_classes_as(self, other: LabelMap) -> bool:
        """Whether both maps mean the same by every class id; names of maps and colours may differ."""
        plain = (0, 0, 0)
        ours, theirs = ([replace(row, color=plain) for row in each.classes] for each in (self, other))
        return ours == theirs

    def id_of(self, name: str) -> int:
        """The class id of a name; ConfigError with the nearest known name where there is none."""
        if name not in self.names:
            raise ConfigError(f"{self.name}: no class '{name}'{did_you_mean(name, self.names)}; known: {', '.join(self.names)}")
        return self.names.index(name)

    def to_class(self, raw: NDArray[Any]) -> NDArray[np.uint8]:
        """Class ids (...,) of raw labels (...,): the low 16 bits count, the instance above them is ignored.

        A raw id that no row lists becomes 0; `unknown_raw_ids` names those.
        """
        return self._class_of_raw.take(raw_ids_in(raw))

    def to_raw(self, class_id: NDArray[Any]) -> NDArray[np.uint16]:
        """The raw id (...,) u16 to write for each class id (...,); IndexError for ids that the map does not have."""
        return self._raw_of_class.take(class_id)

    def unknown_raw_ids(self, raw: NDArray[Any]) -> list[int]:
        """The raw ids in `raw` that no row lists, ascending; empty for a well-formed label file."""
        low = raw_ids_in(raw)
        return [int(i) for i in np.unique(low[~self._raw_is_known.take(low)])]

    def refuse_unknown(self, raw: NDArray[Any], where: str) -> None:
        """DataError that begins with `where` unless a row lists each raw id in `raw`."""
        unknown = self.unknown_raw_ids(raw)
        if unknown:
            found = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise DataError(
                f"{where}: contains raw ids that label map '{self.name}' does not list ({found}); write a map that lists them "
                "(docs/classes.md), with those to ignore under raw_ids of class 0, and give it with --label-map (formerly "
                "--labels), which 'train', 'sparse', 'evaluate', 'label' and 'view' have"
            )

    @cached_property
    def _class_of_raw(self) -> NDArray[np.uint8]:
        table = np.zeros(RAW_IDS, np.uint8)
        for row in self.classes:
            table[list(row.raw_ids)] = row.id
        return table

    @cached_property
    def _raw_is_known(self) -> NDArray[np.bool_]:
        table = np.zeros(RAW_IDS, np.bool_)
        table[0] = True
        for row in self.classes:
            table[list(row.raw_ids)] = True
        return table

    @cached_property
    def _raw_of_class(self) -> NDArray[np.uint16]:
        return np.array([row.raw_ids[0] if row.id else 0 for row in self.classes], np.uint16)


_NO_CLASS = (
    "unlab",
    "unann",
    "unkn",
    "uncl",
    "undef",
    "invalid",
    "ignore",
    "void",
    "none",
    "nothing",
    "noise",
    "outlier",
    "background",
    "other",
)
"""parts of the names that maps give to points without a class"""
_EXAMPLE = (
    "a row reads {id: 1, name: road, color: [128, 64, 128], thing: false, raw_ids: [40]}, and id 0 is 'unlabelled' "
    "(or give a data config with labels, learning_map, learning_map_inv)"
)


def pack_raw(raw_id: NDArray[Any], instance_id: NDArray[Any]) -> NDArray[np.uint32]:
    """(N,) raw labels as label files hold them, from raw ids (N,) and instance ids (N,), both 0..65535."""
    return raw_id.astype(np.uint32) | instance_id.astype(np.uint32) << np.uint32(INSTANCE_SHIFT)


def raw_ids_in(raw: NDArray[Any]) -> NDArray[np.uint16]:
    """(...,) the raw ids in raw labels (...,), without the instance above them. TypeError unless these are integers."""
    raw = np.asarray(raw)
    if raw.dtype.kind not in "iu":
        raise TypeError(f"raw labels are integers, not {raw.dtype}")
    return raw.astype(np.uint16)


def instances_in(raw: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """(N,) the instance ids in raw labels (N,), 0 = no instance."""
    return (raw >> np.uint32(INSTANCE_SHIFT)).astype(np.uint16)


def _shipped() -> Path:
    return share_folder() / "config" / "labels"


@cache
def _shipped_things() -> frozenset[str]:
    """The names of countable classes in the label maps that ship with the package."""
    maps = [LabelMap.from_yaml(file) for file in sorted(_shipped().glob("*.yaml"))]
    return frozenset(row.name for each in maps for row in each.classes if row.thing)


def _check_rows(where: str, classes: Sequence[LabelClass]) -> None:
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise ConfigError(
            f"{where}: has {counted(len(classes), 'row')}; a map holds class 0 and 1 to {counted(MAX_CLASSES - 1, 'class')}"
        )
    for expected, row in enumerate(classes):
        if row.id != expected:
            raise ConfigError(
                f"{where}[{expected}].id: is {row.id}, expected {expected}; ids count up from 0 without gap or repeat"
            )
        _check_row(f"{where}[{expected}]", row)
    _refuse_repeats(f"{where}: the name", (row.name for row in classes))
    _refuse_repeats(f"{where}: raw id", (raw for row in classes for raw in row.raw_ids))


def _check_row(where: str, row: LabelClass) -> None:
    if not row.name.strip():
        raise ConfigError(f"{where}.name: is empty; give the class a name")
    if not row.name.isprintable():
        raise ConfigError(f"{where}.name: {row.name!r} contains control characters; rename the class")
    if len(row.color) != 3 or not all(0 <= part <= 255 for part in row.color):
        raise ConfigError(f"{where}.color: is {list(row.color)}; expected red, green, blue, each 0..255")
    if any(not 0 <= raw < RAW_IDS for raw in row.raw_ids):
        raise ConfigError(f"{where}.raw_ids: {list(row.raw_ids)} lie outside 0..{RAW_IDS - 1}, the 16 bits that label files have")
    if row.id == 0 and row.thing:
        raise ConfigError(f"{where}.thing: class 0 means unlabelled and cannot be a thing")
    if row.id and not row.raw_ids:
        raise ConfigError(f"{where}.raw_ids: is empty; name the id that label files use for '{row.name}'")
    if row.id and 0 in row.raw_ids:
        raise ConfigError(f"{where}.raw_ids: holds 0, which means 'no label' in every file; use another id for '{row.name}'")


def _refuse_repeats(what: str, values: Any) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ConfigError(f"{what} {twice[0]!r} is in two rows; each belongs to one class")


class AnyLabels(LabelMap):
    """A map that complains of no raw id: those that it does not list are no labels to it."""

    def unknown_raw_ids(self, raw: NDArray[Any]) -> list[int]:
        return []


NO_LABELS = AnyLabels("none", (LabelClass(0, "unlabelled", (0, 0, 0), False, (0,)), LabelClass(1, "any", (0, 0, 0), False, (1,))))
"""the map for work that needs no labels: label files need not be read for it"""
