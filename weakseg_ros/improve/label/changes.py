# SPDX-License-Identifier: Apache-2.0
"""The changes of a folder of clicks that can be taken back, kept on disk so that a restart does not forget them."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.arrays import open_archive
from weakseg_ros.files import write_atomic

CHANGES = ".changes"
"""the folder below a folder of clicks that holds them"""
KEPT = 200
"""steps that can be taken back; older ones are forgotten"""


class LabelChange(NamedTuple):
    """What one call did to the labels of a scan."""

    key: str
    points: NDArray[np.int64]
    before: NDArray[np.uint32]
    after: NDArray[np.uint32]
    clicked: str
    """name of the class that the clicks count for, '' for an eraser"""
    clicks: int


Step = tuple[LabelChange, ...]
"""what is taken back at once: one change, or those of several scans that were labelled together"""


class ChangeLog:
    """The last steps of a folder, one small file each; whoever opens the folder next can take them back.

    A disk that takes no more must not cost a click: such a change is remembered until the program ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = sorted(path.name for path in folder.glob("*.npz")) if folder.is_dir() else []
        self._in_memory: dict[str, Step] = {}

    def __len__(self) -> int:
        return len(self._names)

    def push(self, step: Step) -> None:
        """Remember a step as the last one."""
        name, content = self.packed(step)
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomic(self._folder / name, content)
        except OSError:
            self._in_memory[name] = step
        self.is_stored(name)

    def packed(self, step: Step) -> tuple[str, bytes]:
        """(name, content) of the file of a step that comes after all others."""
        return f"{max(time.time_ns(), self._newest + 1):020d}.npz", _packed(step)

    def is_stored(self, name: str) -> None:
        """A step is stored under this name, or is about to be; it is the last one now."""
        self._names.append(name)
        for old in self._names[:-KEPT]:
            self._forget(old)
        del self._names[:-KEPT]

    @property
    def last_name(self) -> str:
        """The name of the last step's file, '' where there is none."""
        return self._names[-1] if self._names else ""

    def last(self) -> Step | None:
        """The last step, None where there is none; those that another program has taken back since are passed over."""
        while self._names:
            name = self._names[-1]
            step = self._in_memory.get(name) or _unpacked(self._folder / name)
            if step is not None:
                return step
            self._names.pop()
        return None

    def holds_other(self, key: str) -> bool:
        """Whether there is a change of a scan besides the last step here, also one that another program made."""
        last = self._names[-1:]
        stored = (_unpacked(path) for path in self._folder.glob("*.npz") if path.name not in last)
        remembered = (step for name, step in self._in_memory.items() if name not in last)
        return any(change.key == key for step in (*remembered, *stored) for change in step or ())

    def pop(self) -> None:
        """Forget the last step: it was taken back."""
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
        step = _unpacked(path)
        if step is not None:
            write_atomic(path, _packed(tuple(map(follow, step))))


def _packed(step: Step) -> bytes:
    """A change alone under plain names; several with their numbers, so that no older program takes the first for all."""
    arrays: dict[str, Any] = {
        name + (f"_{number}" if len(step) > 1 else ""): np.asarray(value)
        for number, change in enumerate(step)
        for name, value in change._asdict().items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(path: Path) -> Step | None:
    """The step in a file, None where it is gone or damaged."""
    try:
        with open_archive(path) as content:
            if "key" in content:
                return (_change(content, ""),)
            count = sum(name.startswith("key_") for name in content)
            return tuple(_change(content, f"_{number}") for number in range(count)) or None
    except (OSError, ValueError, KeyError):
        return None


def _change(content: Mapping[str, NDArray[Any]], end: str) -> LabelChange:
    """One change; KeyError and ValueError where it is damaged."""
    points, before, after = (content[name + end] for name in ("points", "before", "after"))
    if not (points.ndim == 1 and points.shape == before.shape == after.shape and points.dtype == np.int64):
        raise ValueError("no change")
    key, clicked, clicks = str(content["key" + end]), str(content["clicked" + end]), int(content["clicks" + end])
    return LabelChange(key, points, before.astype(np.uint32), after.astype(np.uint32), clicked, clicks)
