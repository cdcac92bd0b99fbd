# SPDX-License-Identifier: Apache-2.0
"""Ends each verb before each of its changes of the file system, starts it again, and compares with a run that nobody ended.

    python bench/kill_sweep.py                       every verb, SIGKILL before up to 200 changes of each (make kill)
    python bench/kill_sweep.py --verbs sparse train --signals KILL TERM INT --most 40
    python bench/kill_sweep.py --full                instead: every write is refused from some size on (RLIMIT_FSIZE)

One process of this file imports the verbs once and forks a child for each try, so that a try takes as long as its work. A
child counts its changes by an audit hook: what Python asks of the system, and what our ctypes call exchanges.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from fuzz_inputs import tiny_bundle

SENSOR = "name: tiny\nbeams: 8\ncolumns: 64\nmount_height_m: 1.6\n"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.symlink": 1, "os.rmdir": 0, "os.truncate": 0, "os.link": 1}
"""the audit events that change a folder, and which of their arguments is the path"""
TRY_LIMIT_S = 300
TRAIN = (
    *("--steps", "3", "--warmup-steps", "1", "--batch-size", "1", "--net-width", "16", "--validate-every", "1"),
    *("--log-every", "1", "--accelerator", "cpu", "--precision", "32-true", "--hold-out", "0.4"),
)


@dataclass(frozen=True)
class Case:
    """A verb on the smallest data there is."""

    verb: str
    arguments: tuple[str, ...]
    """in a folder of its own, beside which `data` lies"""
    prepare: Callable[[Path], None] = lambda folder: None
    """what has to be there before"""
    again: tuple[str, ...] = ()
    """further arguments of the second start"""
    codes: tuple[int, ...] = (0,)
    """exit codes of a run that did its work"""
    own_call: Callable[[], int] | None = None
    """instead of the verb, where it would wait for a person"""


@dataclass
class Tally:
    """What became of the tries at one verb."""

    changes: int = 0
    tries: int = 0
    not_resumed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def cases(data: Path) -> dict[str, Case]:
    """Every verb that writes, by name."""
    street, sim = str(data / "bundle"), str(data / "sim")
    sensor = ("--sensor", str(data / "tiny.yaml"), "--workers", "1")

    def models(folder: Path) -> None:
        for name in ("a", "b"):
            shutil.copytree(data / "bundle", folder / name)
        quietly(["promote", "a"])

    def deployed_twice(folder: Path) -> None:
        models(folder)
        quietly(["promote", "b"])

    def a_run(folder: Path) -> None:
        shutil.copytree(data / "run", folder / "run")

    def a_run_and_a_bundle(folder: Path) -> None:
        a_run(folder)
        shutil.copytree(data / "bundle", folder / "models" / "mine")

    def clicked(folder: Path) -> None:
        shutil.copytree(data / "sim", folder / "log")
        for key in ("000000", "000001", "000002", "000003"):
            click(folder / "log", key)

    def scans(folder: Path) -> None:
        shutil.copytree(data / "sim", folder / "scans")

    def old_scans(folder: Path) -> None:
        shutil.copytree(data / "other", folder / "out")

    rows = [
        Case("simulate", ("--scans", "2", "--streets", "2", "--out", "out", "--bag", "bag", *sensor)),
        Case("simulate --overwrite", ("--scans", "2", "--out", "out", "--overwrite", *sensor), old_scans),
        Case("import", (str(data / "bag"), "--out", "out")),
        Case("sparse", (sim, "--out", "out", "--ratio", "0.05")),
        Case("sparse --overwrite", (sim, "--out", "out", "--ratio", "0.05", "--overwrite"), drawn(data)),
        Case("train", (sim, "--out", "run", "--out-bundle", "models/mine", *TRAIN), again=("--resume",)),
        Case("export", ("run", "--out", "models/mine", "--overwrite"), a_run_and_a_bundle),
        Case("benchmark", (sim, "--config", str(data / "table.yaml"), "--out", "out")),
        Case("evaluate", (sim, "--bundle", street, "--out", "out", "--engine", "onnxruntime"), codes=(0, 1)),
        Case("select", (sim, "--bundle", street, "--out", "log", "--frames", "3", "--points", "2")),
        Case("label", (), scans, own_call=label),
        Case("promote", ("b",), models),
        Case("rollback", (), deployed_twice),
        Case("retrain", (*RETRAIN, "--frames", "log", "--bundle", street, "--replay", sim), clicked, codes=(0, 1)),
    ]
    return {row.verb: row for row in rows}


RETRAIN = (
    *("--steps", "2", "--batch-size", "2", "--gate.new-gain", "-1", "--gate.latency-ratio", "100", "--gate.miou-drop", "1"),
    *("--gate.class-drop", "1", "--gate.pq-drop", "1"),
)


def drawn(data: Path) -> Callable[[Path], None]:
    """Sparse labels of another draw in the place of the new ones."""
    return lambda folder: quietly(["sparse", str(data / "sim"), "--out", "out", "--ratio", "0.1", "--seed", "5"])


def click(folder: Path, key: str) -> None:
    """A person names three points of a scan, otherwise than its own labels do; what is there already is not clicked again."""
    from weakseg_ros.data.scans import open_scans
    from weakseg_ros.improve.label.clicks import ClickStore

    store, truth = ClickStore(folder), open_scans(folder)
    class_id = truth[list(truth.keys).index(key)].class_id
    assert class_id is not None
    for point in class_id.nonzero()[0][:3]:
        wanted = int(class_id[point]) % (truth.labels.num_classes - 1) + 1
        if store.labelled(key)[0][point] != wanted:
            store.add(key, [int(point)], wanted)


def label() -> int:
    """The clicks of a person on two scans; whoever was ended clicks on."""
    from weakseg_ros.errors import WeaksegError

    try:
        for key in ("000000", "000001"):
            click(Path("scans"), key)
    except WeaksegError as error:  # the page shows the sentence
        print(error)
        return 2
    return 0


TRAINED = {"train", "export", "benchmark", "evaluate", "select", "retrain"}
"""verbs that need torch, or a model that was trained"""


def prepare_data(data: Path, trained: bool) -> None:
    """The smallest scans, bag, run, bundle and table; a bundle that cannot run where nobody runs it."""
    (data / "tiny.yaml").write_text(SENSOR)
    sensor = ["--sensor", str(data / "tiny.yaml"), "--workers", "1"]
    quietly(["simulate", "--scans", "5", "--out", "sim", "--bag", "bag", "--stride", "5", *sensor])
    quietly(["simulate", "--scans", "3", "--out", "other", "--seed", "1", *sensor])
    if trained:
        quietly(["train", str(data / "sim"), "--out", "run", "--out-bundle", "bundle", *TRAIN])
    else:
        tiny_bundle(data / "bundle")
    table: dict[str, Any] = {"nets": ["light"], "methods": ["supervised"], "ratios": [0.05], "seeds": [0], "step_turns": 0}
    table["train"] = {
        "steps": 3,
        "warmup_steps": 1,
        "batch_size": 1,
        "net_width": 16,
        "validate_every": 1,
        "precision": "32-true",
    }
    (data / "table.yaml").write_text(json.dumps({**table, "hold_out": 0.4}))


def quietly(argv: Sequence[str]) -> None:
    """A verb that has to succeed."""
    code, said = in_child(lambda: verb(argv))
    if code:
        raise SystemExit(f"kill_sweep: weakseg {' '.join(argv)} ended with {code}:\n{said}")


def verb(argv: Sequence[str]) -> int:
    """A verb in this process."""
    from weakseg_ros.cli import main

    return main(list(argv))


def in_child(work: Callable[[], int], log: Path | None = None) -> tuple[int, str]:
    """(exit code, minus the signal's number where one ended it; what it said) of a forked child."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            signal.alarm(TRY_LIMIT_S)
            code = 70
            try:
                code = work()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError):
                        stream.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read()


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
        self._count += 1
        if self._report >= 0:
            os.pwrite(self._report, b"%d" % self._count, 0)
        if self._count == self._at:
            os.kill(os.getpid(), self._number)


def run(case: Case, extra: Sequence[str] = ()) -> int:
    """The verb of a case in the current folder."""
    if case.own_call is not None:
        return case.own_call()
    return verb([case.verb.split()[0], *case.arguments, *extra])


def content(folder: Path) -> dict[str, str]:
    """What a run left, by path: a hash of what must be the same in every run."""
    paths = [path for path in sorted(folder.rglob("*")) if path.parent.name != UNDONE]
    return {str(path.relative_to(folder)): _of(path) for path in paths}


UNDONE = ".changes"
"""what a person can take back, named by the time of day; of a click under way when it was ended, only the click is kept"""
VOLATILE = re.compile(
    r"elapsed_s|wall_s|peak_mib|step_ms|made|time|latency|ms$|_ms|ms:|environment|machine|cores|command|histogram|hash|folder|path"
)
"""what a file says of when, where and how fast it was made, and the hashes over that"""
LOCKS = ("_holder", ".lock")


def _of(path: Path) -> str:
    """A hash of what must be the same in every run; of a link, where it leads."""
    if path.is_symlink():
        return os.readlink(path)
    if path.is_dir():
        return "folder"
    if path.suffix in (".html", ".png", ".mcap", ".md", ".npz") or path.name.endswith(LOCKS):
        return path.suffix  # hold the time of day, or the process
    blob = path.read_bytes()
    if path.suffix == ".json":
        blob = json.dumps(_lasting(json.loads(blob))).encode()
    elif path.suffix == ".jsonl":
        blob = json.dumps([_lasting(json.loads(line)) for line in blob.splitlines() if line.strip()]).encode()
    elif path.suffix == ".yaml":
        blob = json.dumps(_lasting(yaml.safe_load(blob)), default=str).encode()
    elif path.parent.name == "sessions":
        blob = json.dumps(_lasting(json.loads(blob))).encode()
    return hashlib.sha256(blob).hexdigest()[:12]


def _lasting(value: Any) -> Any:
    """What a file holds, without the entries whose name says that they change from run to run."""
    if isinstance(value, dict) and VOLATILE.search(str(value.get("name", ""))):
        return value["name"]  # a check of the gate on the time per scan
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if not VOLATILE.search(str(key).lower())}
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    return "PATH" if isinstance(value, str) and value.startswith("/") else value


def sweep_case(case: Case, scratch: Path, most: int, number: int, seed: int) -> Tally:
    """End a case before each of its changes, or `most` of them drawn at random, and start it again each time."""
    tally, reference = Tally(), scratch / "reference"
    with fresh(reference, case):
        report = os.open(scratch / "count", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        code, said = in_child(lambda: hooked(case, 0, number, report))
        if code not in case.codes:
            raise SystemExit(f"kill_sweep: {case.verb} ends with {code} when nobody ends it:\n{said}")
        tally.changes = int(os.pread(report, 20, 0) or 0)
        os.close(report)
    wanted = content(reference)
    numbers = list(range(1, tally.changes + 1))
    if len(numbers) > most:
        numbers = sorted(random.Random(seed).sample(numbers, most))
    for at in numbers:
        place = scratch / "try"
        with fresh(place, case):
            ended, said = in_child(lambda at=at: hooked(case, at, number))
            tally.tries += 1
            if "Traceback (most recent" in said:
                tally.tracebacks.append(f"{at}: {said.strip().splitlines()[-1]}")
            if ended in case.codes and number == signal.SIGKILL:
                continue  # the changes of a run may differ by one or two: this one had ended before
            code, said = in_child(lambda: run(case))
            if code not in case.codes and case.again:
                code, said = in_child(lambda: run(case, case.again))
            compare(tally, at, code in case.codes, said, wanted, content(place))
    return tally


def hooked(case: Case, at: int, number: int, report: int = -1) -> int:
    """A run of a case that ends itself."""
    Hook(at, number, report)
    return run(case)


def compare(tally: Tally, at: int, resumed: bool, said: str, wanted: dict[str, str], found: dict[str, str]) -> None:
    """Count what the second start made of it."""
    if not resumed:
        tally.not_resumed.append(f"{at}: {said.strip().splitlines()[-1] if said.strip() else 'said nothing'}")
        return
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        tally.leftovers.append(f"{at}: {extra[0]}")
    other = sorted(name for name in wanted if found.get(name) != wanted[name])
    if other:
        tally.different.append(f"{at}: {other[0]}")


@contextlib.contextmanager
def fresh(place: Path, case: Case) -> Any:
    """A folder of its own for a case, as the current one."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    before = os.getcwd()
    os.chdir(place)
    try:
        case.prepare(place)
        yield
    finally:
        os.chdir(before)


def full_disk(case: Case, scratch: Path, most: int, seed: int) -> Tally:
    """Refuse files above a size, for many sizes: one sentence, nothing damaged, and the next start goes on."""
    tally, reference = Tally(), scratch / "reference"
    with fresh(reference, case):
        code, said = in_child(lambda: run(case))
        if code not in case.codes:
            raise SystemExit(f"kill_sweep: {case.verb} ends with {code}:\n{said}")
    wanted = content(reference)
    sizes = sorted({path.stat().st_size for path in reference.rglob("*") if path.is_file()})
    limits = sorted({0, *(max(0, size - 1) for size in sizes), *(size // 2 for size in sizes)})
    if len(limits) > most:
        limits = sorted(random.Random(seed).sample(limits, most))
    tally.changes = len(limits)
    for limit in limits:
        with fresh(scratch / "try", case):
            before = content(scratch / "try")
            code, said = in_child(lambda limit=limit: limited(case, limit))
            tally.tries += 1
            if "Traceback (most recent" in said or code not in (2, *case.codes):
                tally.tracebacks.append(f"{limit}: exit {code}, {said.strip().splitlines()[-1] if said.strip() else ''}")
            after = content(scratch / "try")
            hurt = [name for name in before if name in after and after[name] != before[name]]
            gone = [name for name in before if name not in after]
            if code in case.codes:
                continue
            if code == 2 and (hurt or gone) and case.verb not in CHANGES_WHAT_IS_THERE:
                tally.damaged.append(f"{limit}: {(hurt + gone)[0]}")
            code, said = in_child(lambda: run(case))
            if code not in case.codes and case.again:
                code, said = in_child(lambda: run(case, case.again))
            compare(tally, limit, code in case.codes, said, wanted, content(scratch / "try"))
    return tally


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
        f"| {name} | {t.changes} | {t.tries} | {len(t.not_resumed)} | {len(t.different)} | {len(t.leftovers)} "
        f"| {len(t.tracebacks)} | {len(t.damaged)} |"
        for name, t in tallies.items()
    ]
    return "\n".join([head, "|---|" + "---:|" * 7, *rows])


def main() -> int:
    """The sweep; exit code 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="*", default=[], help="only these")
    parser.add_argument("--signals", nargs="*", default=["KILL"], choices=["KILL", "TERM", "INT"], help="what ends them")
    parser.add_argument("--most", type=int, default=200, help="tries of each verb and signal, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--full", action="store_true", help="refuse files above a size instead of ending the verb")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures")
    options = parser.parse_args()
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="weakseg_kill_") as name:
        scratch, data = Path(name), Path(name) / "data"
        data.mkdir()
        os.chdir(data)
        trained = not options.verbs or bool(TRAINED & set(options.verbs))
        import_all(trained)
        prepare_data(data, trained)
        chosen = [case for case in cases(data).values() if not options.verbs or case.verb.split()[0] in options.verbs]
        for case in chosen:
            for ending in ["full"] if options.full else options.signals:
                started = time.monotonic()
                title = case.verb if options.full or len(options.signals) == 1 else f"{case.verb}, {ending}"
                if options.full:
                    tallies[title] = full_disk(case, scratch, options.most, options.seed)
                else:
                    number = getattr(signal, f"SIG{ending}")
                    tallies[title] = sweep_case(case, scratch, options.most, number, options.seed)
                report(title, tallies[title], time.monotonic() - started)
        os.chdir("/")
    print(table(tallies, "sizes" if options.full else "changes"))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({name: vars(tally) for name, tally in tallies.items()}, indent=2) + "\n")
    return int(any(faults(tally) for tally in tallies.values()))


def import_all(trained: bool) -> None:
    """What the verbs import, once for all children."""
    light = ("simulate.record", "data.importer", "weak.draw", "improve.retrain.versions")
    heavy = ("measure.evaluate", "improve.log.select", "train.train", "train.export", "benchmark.benchmark")
    for name in (*light, *heavy, "improve.retrain.retrain") if trained else light:
        importlib.import_module(f"weakseg_ros.{name}")
    if trained:
        importlib.import_module("torch").set_num_threads(1)


def faults(tally: Tally) -> Counter[str]:
    """How often what was lost."""
    kinds = ("not_resumed", "different", "leftovers", "tracebacks", "damaged")
    return Counter({kind: len(getattr(tally, kind)) for kind in kinds if getattr(tally, kind)})


def report(title: str, tally: Tally, seconds: float) -> None:
    """One line now, and an example of each kind of fault."""
    found = faults(tally)
    print(f"{title}: {tally.tries} of {tally.changes} in {seconds:.0f} s: {dict(found) or 'nothing lost'}", file=sys.stderr)
    for kind in found:
        for line in getattr(tally, kind)[:4]:
            print(f"    {kind} at {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
