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
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from kill_cases import REFERRING_VERBS, TRAINED, cases
from kill_data import FLOORS, READY, STREETS, STREETS_OF_DEMO, prepare_data
from kill_full import KINDS, full_disk, small_file_system, steps_of
from kill_place import Case
from kill_tries import DoesNotRun, Options, Reference, Tally, reference_of, sweep_case

from weakseg_ros.files import write_atomic, write_json


def table(tallies: dict[str, Tally], what: str) -> str:
    """The figures as Markdown."""
    lost = "not started again | other result | leftovers | tracebacks | earlier results damaged | hidden names"
    head = f"| verb | {what} | tried | {lost} |"
    rows = [
        f"| {name} | {t.changes} | {len(t.tried)} | {len(t.not_resumed)} | {len(t.different)} | {len(t.leftovers)} "
        f"| {len(t.tracebacks)} | {len(t.damaged)} | {len(t.hidden)} |"
        for name, t in tallies.items()
    ]
    return "\n".join([head, "|---|" + "---:|" * 8, *rows])


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="*", default=[], help="only these, or one form of a verb: 'view --rrd'")
    parser.add_argument("--signals", nargs="*", default=["KILL"], choices=["KILL", "TERM", "INT"], help="what ends them")
    parser.add_argument("--most", type=int, default=200, help="tries of each verb and signal, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--full", nargs="+", default=[], choices=KINDS, help="fill the disk instead of ending the verb")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures, written after each try")
    parser.add_argument("--prepared", type=Path, default=None, help="folder that keeps what is prepared, for further sweeps")
    parser.add_argument("--resume", action="store_true", help="go on from the figures in --out")
    return parser.parse_args()


def main() -> int:
    """The sweep; exit code 1 where something was lost."""
    given = asked()
    out = given.out.absolute() if given.out else None
    os.environ["WEAKSEG_AUTO"] = "onnxruntime"  # `auto` is decided by times: another engine would be another result
    stored = json.loads(out.read_text()) if given.resume and out and out.is_file() else {}
    tallies = {title: Tally(**row) for title, row in stored.items()}
    lost: list[str] = []
    options = Options(given.most, given.seed)

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
        is_ready = (data / READY).is_file()
        if not is_ready or not named or {"simulate", "demo"} & named:
            keep_streets(named)
        if trained:
            remember_exports(kept / "onnx")
        if not is_ready:
            prepare_data(data, trained, not verbs or bool(REFERRING_VERBS & verbs))
        disk = stack.enter_context(small_file_system(scratch)) if "room" in given.full else scratch
        for case in cases(data).values():
            if given.verbs and not {case.verb, case.verb.split()[0]} & set(given.verbs):
                continue
            if case.needs and importlib.util.find_spec(case.needs) is None:
                print(f"{case.verb}: left out, {case.needs} is not installed", file=sys.stderr)
                continue
            wanted: Reference | None = None
            for ending in given.full or given.signals:
                started, title = time.monotonic(), f"{case.verb}, {ending}"
                spent = cpu_seconds()
                tally = tallies.setdefault(title, Tally())
                try:
                    if not tally.is_whole(options):
                        wanted = wanted or reference_of(case, scratch)
                        place = disk if ending == "room" else scratch
                        sweep_row(case, place, wanted, ending, options, tally, save)
                except DoesNotRun as error:
                    lost.append(title)
                    print(f"{title}: {error}", file=sys.stderr, flush=True)
                    break
                report(title, tally, time.monotonic() - started, cpu_seconds() - spent)
    print(table(tallies, "steps" if given.full else "changes"))
    save()
    return int(bool(lost) or any(faults(tally) for tally in tallies.values()))


def sweep_row(
    case: Case, place: Path, wanted: Reference, ending: str, options: Options, tally: Tally, save: Callable[[], None]
) -> None:
    """The tries of a row that are left: one way to end a verb, or to fill its disk."""
    if ending in KINDS:
        steps = steps_of(case, place, wanted, ending)
        tally.changes = len(steps)
        full_disk(case, place, wanted, tally.left_of(steps, options), ending, tally, save)
        return
    tally.changes = wanted.changes
    steps = tally.left_of(range(1, wanted.changes + 1), options)
    sweep_case(case, place, wanted, steps, getattr(signal, f"SIG{ending}"), tally, save)


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
    heavy = ("measure.evaluate", "improve.log.command", "train.train", "train.export", "benchmark.benchmark")
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
    kinds = ("not_resumed", "different", "leftovers", "tracebacks", "damaged", "hidden")
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
