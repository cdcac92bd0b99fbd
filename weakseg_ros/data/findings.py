# SPDX-License-Identifier: Apache-2.0
"""What a look at a data set finds: faults, which make `weakseg check` end with 1, and notes, which do not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SHOWN = 5
"""names in one sentence; the others are counted"""


class Finding(NamedTuple):
    """One sentence: where, what was found, what to do."""

    wrong: bool
    text: str


def fault(text: str) -> Finding:
    """Something that is missing, damaged or of another version."""
    return Finding(True, text)


def note(text: str) -> Finding:
    """Something to know that is as its owner published it, or that nothing needs."""
    return Finding(False, text)


def some(names: Collection[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(list(names)[:SHOWN]) + more


def missing_parts(
    folder: Path,
    what: str,
    present: Collection[str],
    split_of: Mapping[str, Sequence[str]],
    needed: Sequence[str] = ("train", "val"),
) -> Iterator[Finding]:
    """A fault for each of the `needed` splits that lacks some of its parts, a note for each other one."""
    for split, names in split_of.items():
        absent = [name for name in names if name not in present]
        if absent:
            text = f"{folder}: lacks {len(absent)} of the {len(names)} {what} of the split {split} ({some(absent)}); copy them"
            yield Finding(split in needed, text)
