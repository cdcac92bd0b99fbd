# SPDX-License-Identifier: Apache-2.0
"""The full disk of bench/kill_sweep.py: at every change, for files above a size, and on a file system with so much room."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kill_place import HALF_WRITTEN, Case, content, fresh, in_child, run, sizes_in
from kill_tries import FULL, Reference, Tally, hooked, start_again

PAGE = 4096
NO_ROOM = (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG))
KINDS = ("changes", "sizes", "room")
CHANGES_WHAT_IS_THERE = ("label",)
"""adds to what is there, click by click"""


def steps_of(case: Case, scratch: Path, wanted: Reference, kind: str) -> Sequence[int]:
    """At what the disk can be full: `changes`, from the K-th on nothing new is taken (ENOSPC); `sizes`, files above are refused
    (RLIMIT_FSIZE); `room`, a file system of its own has so many pages free."""
    if kind == "changes":
        return range(1, wanted.changes + 1)
    if kind == "sizes":
        return sorted({0, *(max(0, size - 1) for size in wanted.sizes), *(size // 2 for size in wanted.sizes)})
    with fresh(scratch / "try", case):
        there = (
            [] if "--overwrite" in case.arguments else sizes_in(scratch / "try")
        )  # what is replaced stays until the new is whole
    return range(max(1, pages(wanted.sizes) - pages(there)))


def full_disk(
    case: Case, scratch: Path, wanted: Reference, steps: Sequence[int], kind: str, tally: Tally, save: Callable[[], None]
) -> None:
    """Let the disk be full at some of the steps: one sentence, nothing damaged, and the next start goes on."""
    place = scratch / "try"
    for at in steps:
        with fresh(place, case):
            before = content(place)
            code, said = without_room(case, kind, at, scratch)
            tally.tried.append(at)
            last = said.strip().splitlines()[-1] if said.strip() else ""
            silent = code == 2 and not is_one_sentence(case, said)
            if silent or "Traceback (most recent" in said or code not in (2, *case.codes):
                tally.tracebacks.append(f"{at}: exit {code}, {last}")
            if HALF_WRITTEN.search(said):
                tally.hidden.append(f"{at}: {last}")
            after = content(place)
            hurt = [name for name in before if after.get(name) not in (before[name], wanted.content.get(name))]
            if code in case.codes:
                tally.not_ended += 1
            else:
                if hurt and case.verb.split()[0] not in CHANGES_WHAT_IS_THERE:
                    tally.damaged.append(f"{at}: {hurt[0]}")
                start_again(tally, at, case, place, wanted)
        save()


def is_one_sentence(case: Case, said: str) -> bool:
    """Whether a verb that refused said so once; what it said before of the model or of bags that were finished does not count."""
    begin = f"weakseg {case.verb.split()[0]}: "
    sentences = [line for line in said.splitlines() if line.startswith(begin)]
    refusals = [line for line in sentences if any(words in line for words in NO_ROOM)]
    return case.own_call is not None or len(refusals or sentences) == 1


def pages(sizes: Sequence[int]) -> int:
    """What files of these sizes take of a tmpfs, and one more each for the moment at which an old one is still there."""
    return sum(-(-size // PAGE) + 1 for size in sizes)


def without_room(case: Case, kind: str, at: int, scratch: Path) -> tuple[int, str]:
    """(exit code, words) of a run whose disk is full."""
    if kind == "changes":
        return in_child(lambda: hooked(case, at, FULL))
    if kind == "sizes":
        return in_child(lambda: limited(case, at))
    filler = scratch / "filler"
    free = os.statvfs(scratch).f_bavail * os.statvfs(scratch).f_frsize
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - at * PAGE))
    try:
        return in_child(lambda: run(case))
    finally:
        filler.unlink()


@contextlib.contextmanager
def small_file_system(scratch: Path) -> Iterator[Path]:
    """A tmpfs of its own; needs the right to mount one."""
    place = scratch / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"kill_sweep: no tmpfs can be mounted here ({done.stderr.strip()}); leave 'room' out of --full")
    try:
        yield place
    finally:
        os.chdir("/")
        subprocess.run(["umount", place], check=True)


def limited(case: Case, limit: int) -> int:
    """A run of a case on a system that refuses files above `limit` bytes; its output goes to a pipe, which has no size."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        while block := os.read(reader, 65536):
            with contextlib.suppress(OSError):
                os.write(1, block)
        os._exit(0)
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        return run(case)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        with contextlib.suppress(ChildProcessError):
            os.wait()
