# SPDX-License-Identifier: Apache-2.0
"""The changes of a folder of clicks that can be taken back, kept on disk so that a restart does not forget them."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.arrays import open_archive
from weakseg_ros.files import write_atomic

CHANGES = ".changes"
"""the folder below a folder of clicks that holds them"""
KEPT = 200
"""changes that can be taken back; older ones are forgotten"""


class LabelChange(NamedTuple):
    """What one call did to the labels of a scan."""

    key: str
    points: NDArray[np.int64]
    before: NDArray[np.uint32]
    after: NDArray[np.uint32]
    clicked: str
    """name of the class that the clicks count for, '' for an eraser"""
    clicks: int


class ChangeLog:
    """The last changes of a folder, one small file each; whoever opens the folder next can take them back.

    A disk that takes no more must not cost a click: such a change is remembered until the program ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = sorted(path.name for path in folder.glob("*.npz")) if folder.is_dir() else []
        self._in_memory: dict[str, LabelChange] = {}

    def __len__(self) -> int:
        return len(self._names)

    def push(self, change: LabelChange) -> None:
        """Remember a change as the last one."""
        name = f"{max(time.time_ns(), self._newest + 1):020d}.npz"
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomic(self._folder / name, _packed(change))
        except OSError:
            self._in_memory[name] = change
        self._names.append(name)
        for old in self._names[:-KEPT]:
            self._forget(old)
        del self._names[:-KEPT]

    def last(self) -> LabelChange | None:
        """The last change, None where there is none; those that another program has taken back since are passed over."""
        while self._names:
            name = self._names[-1]
            change = self._in_memory.get(name) or _unpacked(self._folder / name)
            if change is not None:
                return change
            self._names.pop()
        return None

    def holds_other(self, key: str) -> bool:
        """Whether there is a change of a scan besides the last one here, also one that another program made."""
        last = self._names[-1:]
        stored = (_unpacked(path) for path in self._folder.glob("*.npz") if path.name not in last)
        remembered = (change for name, change in self._in_memory.items() if name not in last)
        return any(change is not None and change.key == key for change in (*remembered, *stored))

    def pop(self) -> None:
        """Forget the last change: it was taken back."""
        if self._names:
            self._forget(self._names.pop())

    @property
    def _newest(self) -> int:
        return int(self._names[-1].partition(".")[0]) if self._names else 0

    def _forget(self, name: str) -> None:
        self._in_memory.pop(name, None)
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)


def rewrite(folder: Path, follow: Callable[[LabelChange], LabelChange]) -> None:
    """Replace each change in a folder by what `follow` makes of it; OSError where it cannot be written."""
    for path in sorted(folder.glob("*.npz")):
        change = _unpacked(path)
        if change is not None:
            write_atomic(path, _packed(follow(change)))


def _packed(change: LabelChange) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        points=change.points,
        before=change.before,
        after=change.after,
        key=np.array(change.key),
        clicked=np.array(change.clicked),
        clicks=np.array(change.clicks),
    )
    return buffer.getvalue()


def _unpacked(path: Path) -> LabelChange | None:
    """The change in a file, None where it is gone or damaged."""
    try:
        with open_archive(path) as content:
            points, before, after = content["points"], content["before"], content["after"]
            key, clicked, clicks = str(content["key"]), str(content["clicked"]), int(content["clicks"])
    except (OSError, ValueError, KeyError):
        return None
    if not (points.ndim == 1 and points.shape == before.shape == after.shape and points.dtype == np.int64):
        return None
    return LabelChange(key, points, before.astype(np.uint32), after.astype(np.uint32), clicked, clicks)
