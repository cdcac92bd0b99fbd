# SPDX-License-Identifier: Apache-2.0
"""Ends each verb before each of its changes of the file system, starts it again, and compares with a run that nobody ended.

    python bench/kill_sweep.py                       every verb, SIGKILL before up to 200 changes of each (make kill)
    python bench/kill_sweep.py --verbs sparse train --signals KILL TERM INT --most 40
    python bench/kill_sweep.py --full changes sizes room      instead: the disk is full at every write
    python bench/kill_sweep.py --out runs/kill/kill.json --resume     a run that was ended goes on

One process of this file imports the verbs once and forks a child for each try, so that a try takes as long as its work. What
torch's exporter makes of a net is remembered by the net's weights, and the streets are built once: both take most of the time
and change no file. A child counts its changes by an audit hook: what Python asks of the system, and what our ctypes call
exchanges.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import hashlib
import importlib
import importlib.util
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kill_cases import (
    FLOORS,
    READY,
    REFERRING_VERBS,
    STREETS,
    STREETS_OF_DEMO,
    TRAINED,
    Case,
    cases,
    content,
    fresh,
    in_child,
    prepare_data,
    run,
)

from weakseg_ros.files import write_atomic, write_json

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.symlink": 1, "os.rmdir": 0, "os.truncate": 0, "os.link": 1}
"""the audit events that change a folder, and which of their arguments is the path"""
FULL, PAGE = -1, 4096


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
    not_resumed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def left_of(self, steps: Sequence[int], options: Options) -> list[int]:
        """Which of all steps are to be tried, without those that were: all, or some drawn at random."""
        drawn = list(steps)
        random.Random(options.seed).shuffle(drawn)  # so that with more of them, those of before are among them
        return sorted(set(drawn[: options.most]) - set(self.tried))


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


def sweep_case(case: Case, scratch: Path, options: Options, number: int, tally: Tally, save: Callable[[], None]) -> None:
    """End a case before each of its changes, or some of them drawn at random, and start it again each time."""
    wanted, tally.changes = reference_of(case, scratch)
    for at in tally.left_of(range(1, tally.changes + 1), options):
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


def reference_of(case: Case, scratch: Path) -> tuple[dict[str, str], int]:
    """(content, number of changes) of a run that nobody ends; all further children have what it imported from the start."""
    with fresh(scratch / "reference", case):
        report = os.open(scratch / "count", os.O_RDWR | os.O_CREAT | os.O_TRUNC)

        def counted() -> int:
            code = hooked(case, 0, 0, report)
            (scratch / "modules").write_text("\n".join(list(sys.modules)))
            return code

        code, said = in_child(counted)
        if code not in case.codes:
            raise SystemExit(f"kill_sweep: {case.verb} ends with {code} when nobody ends it:\n{said}")
        changes = int(os.pread(report, 20, 0) or 0)
        os.close(report)
    for name in (scratch / "modules").read_text().splitlines():
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
                importlib.import_module(name)
    return content(scratch / "reference"), changes


def start_again(tally: Tally, at: int, case: Case, place: Path, wanted: dict[str, str]) -> None:
    """The same command once more, or its way to go on where that is refused; count what came of it."""
    code, said = in_child(lambda: run(case))
    if code not in case.codes and case.again:
        code, said = in_child(lambda: run(case, case.again))
    compare(tally, at, code in case.codes, said, wanted, content(place))


def hooked(case: Case, at: int, number: int, report: int = -1) -> int:
    """A run of a case that ends itself."""
    Hook(at, number, report)
    return run(case)


def compare(tally: Tally, at: int, resumed: bool, said: str, wanted: dict[str, str], found: dict[str, str]) -> None:
    """Count what the second start made of it."""
    if not resumed and found == wanted:
        tally.done_before += 1
        return
    if not resumed:
        tally.not_resumed.append(f"{at}: {said.strip().splitlines()[-1] if said.strip() else 'said nothing'}")
        return
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        tally.leftovers.append(f"{at}: {extra[0]}")
    other = sorted(name for name in wanted if found.get(name) != wanted[name])
    if other:
        tally.different.append(f"{at}: {other[0]}")


def full_disk(case: Case, scratch: Path, options: Options, kind: str, tally: Tally, save: Callable[[], None]) -> None:
    """Let the disk be full at each write: one sentence, nothing damaged, and the next start goes on.

    `changes`: from the K-th change on nothing new is taken (ENOSPC), for each K. `sizes`: files above a size are refused
    (RLIMIT_FSIZE). `room`: on a file system of its own with so many pages free.
    """
    wanted, changes = reference_of(case, scratch)
    place = scratch / "try"
    files = sizes_in(scratch / "reference")
    with fresh(place, case):
        there = [] if "--overwrite" in case.arguments else sizes_in(place)  # what is replaced stays until the new is whole
    steps = {
        "changes": range(1, changes + 1),
        "sizes": sorted({0, *(max(0, size - 1) for size in files), *(size // 2 for size in files)}),
        "room": range(max(1, pages(files) - pages(there))),
    }[kind]
    tally.changes = len(steps)
    for at in tally.left_of(steps, options):
        with fresh(place, case):
            before = content(place)
            code, said = without_room(case, kind, at, scratch)
            tally.tried.append(at)
            if "Traceback (most recent" in said or code not in (2, *case.codes):
                tally.tracebacks.append(f"{at}: exit {code}, {said.strip().splitlines()[-1] if said.strip() else ''}")
            after = content(place)
            hurt = [name for name in before if after.get(name) not in (before[name], wanted.get(name))]
            if code in case.codes:
                tally.not_ended += 1
            else:
                if hurt and case.verb not in CHANGES_WHAT_IS_THERE:
                    tally.damaged.append(f"{at}: {hurt[0]}")
                start_again(tally, at, case, place, wanted)
        save()


def sizes_in(folder: Path) -> list[int]:
    """Bytes of each file."""
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


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


KINDS = ("changes", "sizes", "room")
CHANGES_WHAT_IS_THERE = ("label",)
"""adds to what is there, click by click"""


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


def table(tallies: dict[str, Tally], what: str) -> str:
    """The figures as Markdown."""
    head = f"| verb | {what} | tried | not started again | other result | leftovers | tracebacks | earlier results damaged |"
    rows = [
        f"| {name} | {t.changes} | {len(t.tried)} | {len(t.not_resumed)} | {len(t.different)} | {len(t.leftovers)} "
        f"| {len(t.tracebacks)} | {len(t.damaged)} |"
        for name, t in tallies.items()
    ]
    return "\n".join([head, "|---|" + "---:|" * 7, *rows])


def main() -> int:
    """The sweep; exit code 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="*", default=[], help="only these, or one form of a verb: 'view --rrd'")
    parser.add_argument("--signals", nargs="*", default=["KILL"], choices=["KILL", "TERM", "INT"], help="what ends them")
    parser.add_argument("--most", type=int, default=200, help="tries of each verb and signal, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--full", nargs="+", default=[], choices=KINDS, help="fill the disk instead of ending the verb")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures, written after each try")
    parser.add_argument("--prepared", type=Path, default=None, help="folder that keeps what is prepared, for further sweeps")
    parser.add_argument("--resume", action="store_true", help="go on from the figures in --out")
    given = parser.parse_args()
    out = given.out.absolute() if given.out else None
    os.environ["WEAKSEG_AUTO"] = "onnxruntime"  # `auto` is decided by times: another engine would be another result
    stored = json.loads(out.read_text()) if given.resume and out and out.is_file() else {}
    tallies = {title: Tally(**row) for title, row in stored.items()}

    def save() -> None:
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, {title: vars(tally) for title, tally in tallies.items()})

    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weakseg_kill_")))
        kept = given.prepared.absolute() if given.prepared else scratch
        data = kept / "data"
        data.mkdir(parents=True, exist_ok=True)
        os.chdir(data)
        stack.callback(os.chdir, "/")
        named = {name.split()[0] for name in given.verbs}
        verbs = set() if given.prepared else named
        trained = not verbs or bool(TRAINED & verbs)
        import_all(trained)
        keep_streets(named)
        if trained:
            remember_exports(kept / "onnx")
        if not (data / READY).is_file():
            prepare_data(data, trained, not verbs or bool(REFERRING_VERBS & verbs))
        disk = stack.enter_context(small_file_system(scratch)) if "room" in given.full else scratch
        for case in cases(data).values():
            if given.verbs and not {case.verb, case.verb.split()[0]} & set(given.verbs):
                continue
            if case.needs and importlib.util.find_spec(case.needs) is None:
                print(f"{case.verb}: left out, {case.needs} is not installed", file=sys.stderr)
                continue
            for ending in given.full or given.signals:
                started, title = time.monotonic(), f"{case.verb}, {ending}"
                spent = cpu_seconds()
                tally = tallies.setdefault(title, Tally())
                options = Options(given.most, given.seed)
                if given.full:
                    full_disk(case, disk if ending == "room" else scratch, options, ending, tally, save)
                else:
                    sweep_case(case, scratch, options, getattr(signal, f"SIG{ending}"), tally, save)
                report(title, tally, time.monotonic() - started, cpu_seconds() - spent)
    print(table(tallies, "steps" if given.full else "changes"))
    save()
    return int(any(faults(tally) for tally in tallies.values()))


def keep_streets(verbs: Set[str]) -> None:
    """Let all children find the streets and floors that they drive through; to build one takes seconds and changes no file."""
    from weakseg_ros.simulate import record
    from weakseg_ros.simulate.rooms import scans

    record._street = functools.lru_cache(None)(record.build_street)  # type: ignore[assignment]
    for seed in (*STREETS, *(STREETS_OF_DEMO if not verbs or "demo" in verbs else ())):
        record._street(seed, False)
    for floor in range(FLOORS if not verbs or "simulate" in verbs else 0):
        scans._floor_and_walk(0, floor)


def import_all(trained: bool) -> None:
    """What the verbs import, once for all children."""
    light = ("simulate.record", "data.importer", "weak.draw", "improve.retrain.versions")
    heavy = ("measure.evaluate", "improve.log.select", "train.train", "train.export", "benchmark.benchmark")
    for name in (*light, *heavy, "improve.retrain.retrain") if trained else light:
        importlib.import_module(f"weakseg_ros.{name}")
    if trained:
        importlib.import_module("torch").set_num_threads(1)


def remember_exports(folder: Path) -> None:
    """Let the exporter work once for each net; the children share what it made in a folder where nobody is ended."""
    from weakseg_ros.train import export, referring_export

    def remembering(really: Callable[..., bytes], told: Callable[..., str]) -> Callable[..., bytes]:
        def remembered(graph: Any, *rest: Any) -> bytes:
            digest = hashlib.sha256(f"{type(graph).__name__} {told(*rest)}".encode())
            for name, value in graph.state_dict().items():
                digest.update(name.encode() + value.numpy().tobytes())
            file = folder / digest.hexdigest()
            if not file.is_file():
                write_atomic(file, really(graph, *rest))
            return file.read_bytes()

        return remembered

    folder.mkdir(exist_ok=True)
    export.export_onnx = remembering(
        export.export_onnx, lambda info, half=False: f"{half} {info.inputs} {info.outputs} {info.labels} {info.input.geometry}"
    )
    referring_export._to_onnx = remembering(referring_export._to_onnx, lambda inputs, *tables: f"{tables}")


def faults(tally: Tally) -> Counter[str]:
    """How often what was lost."""
    kinds = ("not_resumed", "different", "leftovers", "tracebacks", "damaged")
    return Counter({kind: len(getattr(tally, kind)) for kind in kinds if getattr(tally, kind)})


def cpu_seconds() -> float:
    """What this process and its children have used of the CPU."""
    return sum(os.times()[:4])


def report(title: str, tally: Tally, seconds: float, used: float) -> None:
    """One line now, and an example of each kind of fault."""
    found = faults(tally)
    what = dict(found) or "nothing lost"
    tried = f"{len(tally.tried)} of {tally.changes}"
    print(f"{title}: {tried} in {seconds:.0f} s, {used:.0f} s of the CPU: {what}", file=sys.stderr, flush=True)
    for kind in found:
        for line in getattr(tally, kind)[:4]:
            print(f"    {kind} at {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
