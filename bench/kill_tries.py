# SPDX-License-Identifier: Apache-2.0
"""The tries of bench/kill_sweep.py: a verb is ended before its K-th change of the file system, and started again."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kill_place import HALF_WRITTEN, Case, content, fresh, in_child, run, sizes_in, state

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.symlink": 1, "os.rmdir": 0, "os.truncate": 0, "os.link": 1}
"""the audit events that change a folder, and which of their arguments is the path"""
FULL = -1


@dataclass(frozen=True)
class Options:
    """How much is tried."""

    most: int
    seed: int


@dataclass
class Tally:
    """What became of the tries at one verb."""

    changes: int = 0
    tried: list[int] = field(default_factory=list)
    done_before: int = 0
    """tries after which the second command was refused, as everything was there already"""
    not_ended: int = 0
    """tries that had done their work before the K-th change came"""
    seen_before: int = 0
    """tries that left exactly what an earlier one had left, from which the second start was known to succeed"""
    not_resumed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """sentences that name a folder of ours which nobody asked for"""

    def left_of(self, steps: Sequence[int], options: Options) -> list[int]:
        """Which of all steps are to be tried, without those that were: all, or some drawn at random."""
        drawn = list(steps)
        random.Random(options.seed).shuffle(drawn)  # so that with more of them, those of before are among them
        return sorted(set(drawn[: options.most]) - set(self.tried))

    def is_whole(self, options: Options) -> bool:
        """Whether nothing is left to try."""
        return 0 < self.changes and len(self.tried) >= min(self.changes, options.most)


class DoesNotRun(Exception):
    """A case that does not do its work when nobody ends it."""


class Hook:
    """Counts the changes below the current folder, and sends this process a signal before one of them."""

    def __init__(self, at: int, number: int, report: int = -1) -> None:
        self._root, self._at, self._number, self._count, self._report = os.getcwd(), at, number, 0, report
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        path: Any = None
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            path = arguments[0]
        elif event in CHANGES:
            path = arguments[CHANGES[event]]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(self._root + os.sep):
            return
        if self._number == FULL and event in ("os.remove", "os.rmdir"):
            return  # these make room
        self._count += 1
        if self._report >= 0:
            os.pwrite(self._report, b"%d" % self._count, 0)
        if self._number == FULL and self._count >= self._at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None)
        if self._count == self._at:
            os.kill(os.getpid(), self._number)


@dataclass
class Reference:
    """What a case leaves that nobody ends."""

    content: dict[str, str]
    changes: int
    sizes: list[int]
    """of the files, in bytes"""
    sound: set[str] = field(default_factory=set)
    """what was left by tries from which the second start came to the same content, see `state`"""


def sweep_case(
    case: Case, scratch: Path, wanted: Reference, steps: Sequence[int], number: int, tally: Tally, save: Callable[[], None]
) -> None:
    """End a case before some of its changes, and start it again each time."""
    for at in steps:
        with fresh(scratch / "try", case):
            ended, said = in_child(lambda at=at: hooked(case, at, number))
            tally.tried.append(at)
            if "Traceback (most recent" in said:
                tally.tracebacks.append(f"{at}: {said.strip().splitlines()[-1]}")
            if ended in case.codes:
                tally.not_ended += 1  # the changes of a run may differ by one or two: this one had ended before
            else:
                start_again(tally, at, case, scratch / "try", wanted)
        save()


def reference_of(case: Case, scratch: Path) -> Reference:
    """A run that nobody ends; all further children have what it imported from the start. Raises DoesNotRun."""
    with fresh(scratch / "reference", case):
        report = os.open(scratch / "count", os.O_RDWR | os.O_CREAT | os.O_TRUNC)

        def counted() -> int:
            code = hooked(case, 0, 0, report)
            (scratch / "modules").write_text("\n".join(list(sys.modules)))
            return code

        before = state(scratch / "reference")
        code, said = in_child(counted)
        if code not in case.codes:
            raise DoesNotRun(f"ends with {code} when nobody ends it:\n{said}")
        if HALF_WRITTEN.search(said):
            raise DoesNotRun(f"names a folder that nobody asked for:\n{said}")
        changes = int(os.pread(report, 20, 0) or 0)
        os.close(report)
    import_for_all((scratch / "modules").read_text().splitlines())
    return Reference(content(scratch / "reference"), changes, sizes_in(scratch / "reference"), {before})


def import_for_all(names: Sequence[str]) -> None:
    """Import modules in this process, so that its children have them."""
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that no child looks through all that was imported


def start_again(tally: Tally, at: int, case: Case, place: Path, wanted: Reference) -> None:
    """The same command once more, or its way to go on where that is refused; count what came of it.

    What an ended run left is the same for many tries, most often what was there before: it is started again from each once.
    """
    left = state(place)
    if left in wanted.sound:
        tally.seen_before += 1
        return
    code, said = in_child(lambda: run(case))
    if code not in case.codes and case.again:
        code, said = in_child(lambda: run(case, case.again))
    if compare(tally, at, code in case.codes, said, wanted.content, content(place)):
        wanted.sound.add(left)


def hooked(case: Case, at: int, number: int, report: int = -1) -> int:
    """A run of a case that ends itself."""
    Hook(at, number, report)
    return run(case)


def compare(tally: Tally, at: int, resumed: bool, said: str, wanted: dict[str, str], found: dict[str, str]) -> bool:
    """Count what the second start made of it; whether that is what was wanted."""
    if not resumed and found == wanted:
        tally.done_before += 1
        return True
    if not resumed:
        tally.not_resumed.append(f"{at}: {said.strip().splitlines()[-1] if said.strip() else 'said nothing'}")
        return False
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        tally.leftovers.append(f"{at}: {extra[0]}")
    other = sorted(name for name in wanted if found.get(name) != wanted[name])
    if other:
        tally.different.append(f"{at}: {other[0]}")
    return not extra and not other
