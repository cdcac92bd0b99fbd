# SPDX-License-Identifier: Apache-2.0
"""Two label maps that meet, a model's and that of data or of another model: which classes are the same.

Raw ids are what label files hold, so they decide. But each data set numbers its own classes: 30 is a person in
SemanticKITTI and vegetation in nuScenes. Where raw ids and names contradict each other, names decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from weakseg_ros.points.labels import RAW_IDS, LabelClass, LabelMap


def in_data_of(labels: LabelMap, native: LabelMap) -> tuple[LabelMap, list[str]]:
    """`labels` with the raw ids that mean its classes in data of the map `native`, and a sentence for what was assumed.

    All other raw ids of the data are listed under class 0.
    """
    theirs = {row.name: row for row in native.classes[1:]}
    odd = _with_another_number(labels, theirs)
    if odd is None:
        raw_ids = {row.name: row.raw_ids + _unlisted(labels, theirs.get(row.name)) for row in labels.classes[1:]}
        renamed = [f"{old} counts as {new}" for old, new in _called_otherwise(labels, native)]
        said = [f"by their raw ids, {'; '.join(renamed)}"] if renamed else []
        return _with_raw_ids(labels, raw_ids, (*labels.classes[0].raw_ids, *_all_raw(native))), said
    free = (raw for raw in range(RAW_IDS - 1, 0, -1) if raw not in _all_raw(native))  # for classes that the data do not have
    raw_ids = {row.name: theirs[row.name].raw_ids if row.name in theirs else (next(free),) for row in labels.classes[1:]}
    numbers = f"raw id {theirs[odd.name].raw_ids[0]} in the map '{native.name}' and {odd.raw_ids[0]} in '{labels.name}'"
    said = [f"'{odd.name}' is {numbers}, so the classes of these maps are matched by their names"]
    return _with_raw_ids(labels, raw_ids, _all_raw(native)), said


def _with_another_number(labels: LabelMap, theirs: dict[str, LabelClass]) -> LabelClass | None:
    """A class that shows that the maps number their classes each in their own way; None where they do not.

    They do where a class of the other map has, by its raw ids, another name here, although that name is here, too; and
    where most of the classes that both have share no raw id.
    """
    owner = {raw: row.name for row in labels.classes[1:] for raw in row.raw_ids}
    both = [row for row in labels.classes[1:] if row.name in theirs]
    apart = [row for row in both if not set(row.raw_ids) & set(theirs[row.name].raw_ids)]
    taken = [row for row in apart if any(raw in owner for raw in theirs[row.name].raw_ids)]
    return next(iter(taken or apart)) if taken or 2 * len(apart) > len(both) else None


def _unlisted(labels: LabelMap, same: LabelClass | None) -> tuple[int, ...]:
    """The raw ids of the data's class of the same name, where `labels` lists none of them."""
    return () if same is None or set(_all_raw(labels)) & set(same.raw_ids) else same.raw_ids


def _called_otherwise(labels: LabelMap, native: LabelMap) -> Iterator[tuple[str, str]]:
    """(the data's name, the model's) of classes that are one by raw id and have two names, in quotes."""
    owner = {raw: row.name for row in labels.classes[1:] for raw in row.raw_ids}
    for row in native.classes[1:]:
        owners = dict.fromkeys(owner[raw] for raw in row.raw_ids if raw in owner)
        if owners and row.name not in owners:
            yield f"'{row.name}'", ", ".join(f"'{name}'" for name in owners)


def _all_raw(labels: LabelMap) -> tuple[int, ...]:
    return tuple(raw for row in labels.classes for raw in row.raw_ids)


def _with_raw_ids(labels: LabelMap, raw_ids: dict[str, tuple[int, ...]], others: tuple[int, ...]) -> LabelMap:
    """`labels` with other raw ids; the `others` belong to class 0 where no class has them."""
    known = {raw for ids in raw_ids.values() for raw in ids}
    ignored = tuple(dict.fromkeys(raw for raw in others if raw not in known))
    rows = (replace(row, raw_ids=raw_ids[row.name]) for row in labels.classes[1:])
    return LabelMap(labels.name, (replace(labels.classes[0], raw_ids=ignored), *rows))
