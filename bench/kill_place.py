# SPDX-License-Identifier: Apache-2.0
"""A try of bench/kill_sweep.py: a verb in a folder and a process of its own, and what it left there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TRY_LIMIT_S = 900
TEMPORARY = "tmp"
"""the system's temporary folder of a try, in its own folder, so that what stays in it is seen, too"""


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
    needs: str = ""
    """a library without which the case is left out"""


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
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
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


def run(case: Case, extra: Sequence[str] = ()) -> int:
    """The verb of a case in the current folder."""
    os.environ["TMPDIR"] = tempfile.tempdir = os.path.abspath(TEMPORARY)
    if case.own_call is not None:
        return case.own_call()
    return verb([case.verb.split()[0], *case.arguments, *extra])


def content(folder: Path) -> dict[str, str]:
    """What a run left, by path: a hash of what must be the same in every run."""
    paths = [path for path in sorted(folder.rglob("*")) if path.parent.name != UNDONE]
    return {str(path.relative_to(folder)): _of(path) for path in paths}


def state(folder: Path) -> str:
    """A hash of what lies in a folder, of all that a second start can tell apart: `content`, and the sizes of what it omits."""
    parts = []
    for path in sorted(folder.rglob("*")):
        name = HALF_WRITTEN.sub("", str(path.relative_to(folder)))
        if name.startswith(TEMPORARY + os.sep):
            name = BY_CHANCE.sub(".", name)
        undone = path.parent.name == UNDONE
        size = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        parts.append(repr((path.parent.name, size) if undone else (name, _of(path), size)))
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


HALF_WRITTEN = re.compile(r"\.\d+(-\d+)?(?=\.(tmp|new|old)\b)")
"""the process and the number in the name of what it was writing"""
BY_CHANCE = re.compile(r"\.[a-z0-9_]{8}(?=[./]|$)")
"""what Python's tempfile adds to a name"""
UNDONE = ".changes"
"""what a person can take back, named by the time of day; of a click under way when it was ended, only the click is kept"""
VOLATILE = re.compile(
    r"elapsed_s|wall_s|train_s|seconds|peak_mib|step_ms|made|time|latency|ms$|_ms|ms:|environment|machine|cores|command|histogram|hash|folder|path"
)
"""what a file says of when, where and how fast it was made, and the hashes over that"""
TOOK = re.compile(r"\d+ s on ")
"""a text that begins with how long something took on which machine"""
ENDS = {
    **{".html": b"</html>", ".png": b"IEND\xaeB`\x82", ".mcap": b"\x89MCAP0\r\n", ".npz": b"PK\x05\x06"},
    **{".md": b"", ".rrd": b""},
}
"""what the end of each kind of file holds, where something is known of that"""
LOCKS = ("_holder", ".lock")


def _of(path: Path) -> str:
    """A hash of what must be the same in every run; of a link, where it leads."""
    if path.is_symlink():
        return os.readlink(path)
    if path.is_dir():
        return "folder"
    if path.name.endswith(LOCKS):
        return path.suffix  # hold the process
    blob = path.read_bytes()
    if path.suffix in ENDS:  # hold the time of day
        return path.suffix if ENDS[path.suffix] in blob[-32:] else f"{path.suffix}, cut off"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:  # which holds the times of its files
            blob = repr([(entry.filename, entry.CRC) for entry in archive.infolist()]).encode()
    elif path.suffix == ".json":
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
    if isinstance(value, str) and TOOK.match(value):
        return "TIME"
    return "PATH" if isinstance(value, str) and value.startswith("/") else value


@contextlib.contextmanager
def fresh(place: Path, case: Case) -> Iterator[None]:
    """A folder of its own for a case, as the current one."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    before = os.getcwd()
    os.chdir(place)
    try:
        case.prepare(place)
        (place / TEMPORARY).mkdir()
        yield
    finally:
        os.chdir(before)


def sizes_in(folder: Path) -> list[int]:
    """Bytes of each file."""
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
