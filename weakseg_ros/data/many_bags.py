# SPDX-License-Identifier: Apache-2.0
"""One verb over several bags: which they are, and a row for each in a manifest, so that a second start does only the rest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from weakseg_ros.data.bag_files import bags_in, each_once
from weakseg_ros.data.fetching import fetched
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.errors import ConfigError, DataError, WeaksegError, complain, counted, refuse_bytes
from weakseg_ros.files import append_json_line, read_json_lines, read_regular, sweep, write_json
from weakseg_ros.reads import read_json

MANIFEST = "bags.json"
JOURNAL = "bags.jsonl"
EXIT_PARTIAL = 1
"""of a verb that could not do all that it was asked for"""
"""the rows of a run that goes on, one a line; the manifest takes them in when the run ends"""
LIST_SUFFIX = ".txt"
Row = dict[str, Any]
"""what became of a bag: bag, name, complete, what the verb counted, and `problem` where it could not be read"""
Work = Callable[[Path, str], Row]
"""works on one bag under its name; raises WeaksegError where the bag cannot be read"""


class Job(NamedTuple):
    """One bag, or one part of one, under a name that no other has."""

    bag: Path
    name: str


Runner = Callable[[Work, Sequence[Job]], Iterator[tuple[Job, Row]]]
"""Does the work for each job and gives its row, in the order in which they end: `one_by_one`, or `fleet.cluster`'s."""


def one_by_one(work: Work, jobs: Sequence[Job]) -> Iterator[tuple[Job, Row]]:
    """The jobs in this process, in order."""
    for job in jobs:
        yield job, tried(work, job)


def only_here(settings: Any, out: Path | None) -> Runner:
    """`one_by_one`, for callers that have no cluster at hand; ConfigError where the settings ask for one."""
    if settings.ray:
        raise ConfigError(f"ray: this call works in its own process; use the command line for '{settings.ray}'")
    return one_by_one


def tried(work: Work, job: Job) -> Row:
    """The row of one job; a bag that cannot be read has a `problem` in it."""
    row: Row = {"bag": str(job.bag), "name": job.name, "complete": False}
    try:
        return row | work(job.bag, job.name)
    except WeaksegError as error:
        return row | {"problem": str(error)}
    except PermissionError as error:
        if not str(error.filename).startswith(str(job.bag)):
            raise
        return row | {"problem": f"{error.filename}: {error.strerror}; check its permissions"}


def bags_of(first: Path, more: Sequence[Path] = (), is_elsewhere: bool = False) -> list[Path]:
    """The bags that the paths of a command line name, each once: bags, folders of bags, globs and lists; none for a single bag.

    A list is a text file (.txt) with one bag a line. Bags that lie `is_elsewhere` are taken as they are named, also a single one.
    """
    named = [line for path in (first, *more) for line in _listed(path)]
    if is_elsewhere:
        return list(dict.fromkeys(named))
    if not more and named == [first]:
        found = bags_in(first)
        refuse_bytes(map(str, found))
        return found
    every = [bag for path in named for bag in bags_in(path) or [path]]
    refuse_bytes(map(str, every))
    return each_once(every)


def bags_for(settings: RaySettings, first: Path, more: Sequence[Path] = ()) -> list[Path]:
    """The bags that the paths name, as `bags_of` gives them; where a cluster is asked for, a single bag is one, too."""
    return bags_of(first, more, bool(settings.fetch)) or ([first] if settings.ray else [])


def _listed(path: Path) -> list[Path]:
    """The lines of a list of bags, or the path itself where it is none."""
    if path.suffix != LIST_SUFFIX:
        return [path]
    try:
        lines = read_regular(path).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a list of bags ({error}); write one bag a line") from None
    found = [Path(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise DataError(f"{path}: lists no bag; write one bag a line")
    return found


def each_bag(
    bags: Sequence[Path],
    out: Path | None,
    asked: Mapping[str, Any],
    work: Work,
    line: Callable[[Row], str],
    is_there: Callable[[str], bool] = lambda name: True,
    *,
    over: Runner = one_by_one,
    fetch: str = "",
    parts: int = 1,
) -> list[Row]:
    """Call `work(bag, name)` for each bag, where `name` is like that of no other; returns the rows in order.

    `out`/bags.json holds the rows, and a bag whose row is complete, was `asked` for in the same way and `is_there` is not done
    again. A bag that cannot be read gets a row with its sentence, and the others go on. `line` is printed to stderr for each
    row. `over` says where the work is done; with `parts` there are so many jobs for each bag, and as many rows. Raises DataError
    where none can be read.
    """
    names = names_of(bags, names_before(out) if out is not None else {})
    jobs = [Job(bag, part) for bag, name in zip(bags, names, strict=True) for part in _parts_of(name, parts)]
    with _Manifest(out, asked, jobs) as manifest:
        for job in jobs:
            row = manifest.before.get((str(job.bag), job.name), {})
            if row.get("complete") and is_there(job.name):
                manifest.keep(job, row)
                complain(f"{job.name}: {line(row)}, done before")
        here = fetched(work, fetch) if fetch else work
        for job, row in over(here, [job for job in jobs if job not in manifest.rows]):
            manifest.add(job, row)
            complain(f"{job.name}: {row['problem']}" if "problem" in row else f"{job.name}: {line(row)}")
        rows = manifest.in_order()
    if all("problem" in row for row in rows):
        raise DataError(f"none of the {counted(len(bags), 'bag')} could be read; {rows[0]['problem']}")
    return rows


def _parts_of(name: str, parts: int) -> list[str]:
    """The names of the jobs of one bag; each of several ends in its shard, see `config.shard_of`."""
    return [name] if parts == 1 else [f"{name}/{part}of{parts}" for part in range(1, parts + 1)]


class _Manifest:
    """The rows of a run, on the disk as soon as they are there and the output folder is."""

    def __init__(self, out: Path | None, asked: Mapping[str, Any], jobs: Sequence[Job]) -> None:
        self._out, self._asked, self._jobs = out, dict(asked), jobs
        self.rows: dict[Job, Row] = {}
        self._states = {bag: _state_of(bag) for bag in {job.bag for job in jobs}}
        self._waiting: list[Row] = []
        known = _rows_before(out) if out is not None else []
        fresh = [row for row in known if row.get("asked") == asked and "name" in row and self._is_as_it_was(row)]
        self.before = {(row["bag"], row["name"]): row for row in fresh}

    def __enter__(self) -> _Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        """Gather all rows in the manifest, also where the run was ended; what a killed one leaves is its journal."""
        if self._out is not None and self._out.is_dir() and self.rows:
            sweep(self._out / MANIFEST)
            write_json(self._out / MANIFEST, self.in_order())
            (self._out / JOURNAL).unlink(missing_ok=True)

    def _is_as_it_was(self, row: Row) -> bool:
        """Whether a bag was not recorded again since, as far as one can tell: it may be gone, or lie on another machine."""
        states = {row.get("state", ""), self._states.get(Path(row["bag"]), "")} - {""}
        return len(states) < 2

    def keep(self, job: Job, row: Row) -> None:
        """Take over a row of an earlier run."""
        self.rows[job] = row

    def add(self, job: Job, row: Row) -> None:
        """Take a new row; one line is written, so that ten thousand bags cost ten thousand lines."""
        self.rows[job] = {**row, "asked": self._asked, "state": self._states[job.bag]}
        self._waiting.append(self.rows[job])
        if self._out is not None and self._out.is_dir():  # the first bag that can be read makes it
            for waiting in self._waiting:
                append_json_line(self._out / JOURNAL, waiting)
            self._waiting = []

    def in_order(self) -> list[Row]:
        """The rows that there are, in the order of the bags."""
        return [self.rows[job] for job in self._jobs if job in self.rows]


def _state_of(bag: Path) -> str:
    """Size of a bag and when it was written last; empty where it does not lie on this machine."""
    try:
        files = [bag] if bag.is_file() else [file for file in bag.iterdir() if file.is_file()]
        facts = [file.stat() for file in files]
    except OSError:
        return ""
    return f"{sum(fact.st_size for fact in facts)} bytes, {max((fact.st_mtime_ns for fact in facts), default=0)} ns"


def are_whole(rows: Sequence[Row]) -> bool:
    """Whether every bag was read to its end."""
    return all(row["complete"] for row in rows)


def names_of(bags: Sequence[Path], before: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """A name for each bag that no other has: that of its folder or file, with a number in front where two share it.

    A bag that had a name `before` keeps it, so that what was done stays done when more bags come.
    """
    own = [bag.name if bag.is_dir() else bag.name.split(".")[0] for bag in bags]
    counts = Counter(own)  # also of those that have another name by now: the others are numbered as if none had
    names = [before.get(str(bag), name) for bag, name in zip(bags, own, strict=True)]
    taken = {*before.values(), *names}
    for index, bag in enumerate(bags):
        if str(bag) in before or (counts[names[index]] == 1 and names[index] not in before.values()):
            continue
        numbered = (f"{number}_{names[index]}" for number in count(index + 1))
        names[index] = next(name for name in numbered if name not in taken)
        taken.add(names[index])
    return names


def read_rows(out: Path) -> list[Row]:
    """The rows of a run over many bags, ended or not; DataError where `out` holds none."""
    rows = _rows_before(out)
    if not rows:
        raise DataError(
            f"{out}: holds no {MANIFEST} of a run over several bags; give the folder that one was written to with --out"
        )
    return rows


def names_before(out: Path) -> dict[str, str]:
    """The name that each bag has in the manifest, without the part of a bag that is shared out."""
    return {row["bag"]: str(row["name"]).partition("/")[0] for row in _rows_before(out) if row.get("name")}


def _rows_before(out: Path) -> list[Row]:
    """The rows of the manifest, and those of a journal in place of them."""
    content: Any = []
    with contextlib.suppress(OSError, ValueError):
        content = read_json(out / MANIFEST)
    rows = [row for row in content if isinstance(row, dict) and "bag" in row] if isinstance(content, list) else []
    later = read_json_lines(out / JOURNAL, "bag")
    return list({(row["bag"], row.get("name")): row for row in (*rows, *later)}.values())
