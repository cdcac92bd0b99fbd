# SPDX-License-Identifier: Apache-2.0
"""The bags of a verb as the tasks of a Ray cluster: a task for each, tried again where its worker or node is lost.

What a task finds lies in files of the output folder, which all nodes share; through Ray goes a row of a few hundred bytes.
A bag's files are written under its own name and appear whole, so a second attempt replaces the first and nothing counts twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weakseg_ros.data.many_bags import Job, Row, Runner, Work, one_by_one, tried
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.errors import ConfigError, complain, counted
from weakseg_ros.extras import need
from weakseg_ros.files import check_can_write, make_folder, write_atomic
from weakseg_ros.progress import Progress

LOCAL = "local"
STORE_BYTES = 128 * 2**20
"""object store of a cluster of our own: rows are small, and Ray's default would take a third of the memory"""
STARTS = 4
"""attempts to start a cluster of our own"""
OWN_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_health_check_failure_threshold": "100",
}
"""of a cluster of our own: it reports to nobody, and is patient where the machine is busy, since its one node cannot get lost"""
TASKS_A_WORKER = 50
"""bags after which a worker process is replaced, so that what a library leaks does not add up"""
LOOK_AGAIN_S = 10.0
"""how often the cluster is asked how many bags fit: nodes come and go"""
ATTEMPTS = ".attempts"
"""folder with a folder for each command at work here, whose notes say who works on what, so that a lost worker is named"""
FORGOTTEN_S = 7 * 24 * 3600.0
"""age of the last note after which a command is taken to have been killed"""


def runner_of(settings: RaySettings, out: Path | None) -> Runner:
    """Where the settings want the bags to be worked on; `out` is the folder that the work writes to, None where it writes none.

    Raises MissingLibraryError where Ray is asked for and not installed, ConfigError where its cluster cannot be reached.
    """
    if not settings.ray:
        return one_by_one
    need("ray")
    return _OverRay(settings, out)


@dataclass
class _Try:
    """A job that is being worked on, or waits to be."""

    job: Job
    failures: list[str] = field(default_factory=list)
    """one sentence for each attempt that brought nothing"""


class _OverRay:
    """Runs jobs as tasks of a cluster, never more at once than fit, so that neither queue nor object store grows."""

    def __init__(self, settings: RaySettings, out: Path | None) -> None:
        self._settings, self._out = settings, out

    def __call__(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[Job, Row]]:
        if not jobs:
            return
        with cluster(self._settings) as ray, _notes(self._out) as notes:
            task = _task_of(ray, self._settings)
            packed = ray.put((work, notes.place, os.getcwd()))
            yield from self._watched(ray, lambda job: task.remote(packed, job), jobs, notes)

    def _watched(self, ray: Any, start: Callable[[Job], Any], jobs: Sequence[Job], notes: _Notes) -> Iterator[tuple[Job, Row]]:
        waiting = deque(_Try(job) for job in jobs)
        running: dict[Any, _Try] = {}
        slots = _Slots(ray, self._settings)
        bar: Progress[None] = Progress(what="cluster", unit="bag", total=len(jobs))
        with bar:
            while waiting or running:
                while waiting and len(running) < slots.count():
                    attempt = waiting.popleft()
                    running[start(attempt.job)] = attempt
                bar.note(f"{len(running)} in progress on {counted(slots.nodes, 'node')}")
                ended, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_AGAIN_S)
                for reference in ended:
                    attempt = running.pop(reference)
                    row = self._row_of(ray, reference, attempt, notes)
                    if row is None:
                        waiting.append(attempt)
                    else:
                        bar.update()
                        yield attempt.job, row

    def _row_of(self, ray: Any, reference: Any, attempt: _Try, notes: _Notes) -> Row | None:
        """The job's row; None where it is to be tried again."""
        row: Row = {"bag": str(attempt.job.bag), "name": attempt.job.name, "complete": False}
        try:
            row = ray.get(reference)
            failure = row.get("problem", "")
        except ray.exceptions.RayError as error:
            failure = f"{notes.who(attempt.job)} was lost ({_first_line(error)})"
        if failure:
            attempt.failures.append(failure)
            if len(attempt.failures) <= self._settings.ray_retries:
                complain(f"{attempt.job.name}: {failure}; it will be retried")
                return None
            row["problem"] = failure
        lost = [text for text in attempt.failures if text != row.get("problem")]
        return {**row, "attempts": len(attempt.failures) + ("problem" not in row), **({"failures": lost} if lost else {})}


class _Slots:
    """How many bags may be at work at once."""

    def __init__(self, ray: Any, settings: RaySettings) -> None:
        self._ray, self._settings = ray, settings
        self._next_look, self._count = 0.0, 1
        self.nodes = 1

    def count(self) -> int:
        """As many as the CPUs and GPUs of the cluster allow now, at most the settings' number; at least one."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_AGAIN_S
            has = self._ray.cluster_resources()
            fits = int(has.get("CPU", 0) / self._settings.ray_cpus)
            if self._settings.ray_gpus:
                fits = min(fits, int(has.get("GPU", 0) / self._settings.ray_gpus))
            self._count = max(1, min(fits, self._settings.ray_workers or fits))
            self.nodes = sum(node["Alive"] for node in self._ray.nodes())
        return self._count


def _task_of(ray: Any, settings: RaySettings) -> Any:
    """The remote function; we count the attempts ourselves, since Ray's own retries leave no trace."""
    made = ray.remote(max_retries=0, max_calls=TASKS_A_WORKER, num_cpus=settings.ray_cpus, num_gpus=settings.ray_gpus)
    return made(_run_on_worker)


def _run_on_worker(packed: tuple[Work, _Place | None, str], job: Job) -> Row:
    """One attempt, in a worker of any node."""
    work, place, folder = packed
    row: Row = {"bag": str(job.bag), "name": job.name, "complete": False}
    host = socket.gethostname()
    try:
        os.chdir(folder)  # relative paths mean the same everywhere
    except OSError:
        return {**row, "problem": f"{host} has no folder {folder}; start the command in a folder that all nodes share"}
    if place is not None and not place.is_seen():
        problem = f"{host} cannot access {place.folder}, or has a different one; put --out on storage that all nodes share"
        return {**row, "problem": problem}
    if place is not None:
        place.note(job, f"worker {os.getpid()} on {host}")
    begin, cpu_begin = time.perf_counter(), time.process_time()
    try:
        row = tried(work, job)
    except OSError as error:  # of the storage, which may be better at the next attempt
        row = {**row, "problem": f"{job.bag}: {host}: {error.strerror or error}; check the storage"}
    except Exception as error:  # a fault of ours must not end the work on the other bags
        problem = f"{job.bag}: an unexpected {type(error).__name__} ({error}); report it with the traceback in the manifest"
        row = {**row, "problem": problem, "traceback": traceback.format_exc()}
    spent = {"seconds": round(time.perf_counter() - begin, 3), "cpu_seconds": round(time.process_time() - cpu_begin, 3)}
    return {**row, "host": host, **spent}


@dataclass(frozen=True)
class _Place:
    """The output folder as a worker finds it."""

    folder: Path
    token: str

    def is_seen(self) -> bool:
        """Whether this machine sees the folder of the process that started the work."""
        return self._notes.is_dir()

    def note(self, job: Job, who: str) -> None:
        """Say who works on a job; only a lost worker is ever asked for it."""
        with contextlib.suppress(OSError):
            write_atomic(self._path(job), json.dumps(who))

    def who(self, job: Job) -> str:
        """Who worked on a job last."""
        try:
            return str(json.loads(self._path(job).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return "a worker"

    @property
    def _notes(self) -> Path:
        """A folder of this command alone: another one that writes to the same output folder clears only its own away."""
        return self.folder / ATTEMPTS / self.token

    def _path(self, job: Job) -> Path:
        return self._notes / job.name.replace("/", "_")

    def begin(self) -> None:
        """Make the folder by which workers know that they see the output folder."""
        make_folder(self._notes)

    def clear(self) -> None:
        """Take the notes of this command away, and those of commands that were killed long ago."""
        shutil.rmtree(self._notes, ignore_errors=True)
        with contextlib.suppress(OSError):
            for other in self._notes.parent.iterdir():
                if time.time() - other.stat().st_mtime > FORGOTTEN_S:
                    shutil.rmtree(other, ignore_errors=True)
            self._notes.parent.rmdir()


@dataclass(frozen=True)
class _Notes:
    """What workers note in the output folder, where there is one."""

    place: _Place | None

    def who(self, job: Job) -> str:
        """The worker that had the job."""
        return self.place.who(job) if self.place else "a worker"


@contextlib.contextmanager
def _notes(out: Path | None) -> Iterator[_Notes]:
    """Make the output folder known to the workers, and clear their notes away at the end."""
    if out is None:
        yield _Notes(None)
        return
    check_can_write(out, "--out")
    place = _Place(out.absolute(), f"token-{secrets.token_hex(8)}")
    place.begin()
    try:
        yield _Notes(place)
    finally:
        place.clear()


@contextlib.contextmanager
def cluster(settings: RaySettings) -> Iterator[Any]:
    """A connection to the cluster that the settings name; one of our own ends with the block. ConfigError where there is none."""
    import ray

    if ray.is_initialized():  # by whoever called us
        yield ray
        return
    for name, value in (OWN_CLUSTER if settings.ray == LOCAL else {}).items():
        os.environ.setdefault(name, value)
    try:
        _connect(ray, settings)
    except Exception as error:  # Ray raises bare exceptions, too
        advice = "start one with 'ray start --head' and give its address, or give --ray local"
        raise ConfigError(f"ray: no cluster at '{settings.ray}' ({_first_line(error)}); {advice}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, settings: RaySettings) -> None:
    """Join the cluster, or start one; a busy machine may need a second attempt, as Ray waits for its own processes for 30 s."""
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if settings.ray != LOCAL:
        ray.init(address=settings.ray, **quiet)
        return
    own = {"object_store_memory": STORE_BYTES, "num_cpus": _local_cpus(settings), "include_dashboard": False}
    for attempts_left in reversed(range(STARTS)):
        try:
            ray.init(address=LOCAL, **own, **quiet)  # without it, Ray joins a cluster that runs already, or RAY_ADDRESS
            return
        except Exception as error:
            ray.shutdown()
            if not attempts_left:
                raise
            complain(f"ray: did not start ({_first_line(error)}); it will be retried")


def _local_cpus(settings: RaySettings) -> int:
    """CPUs of a cluster of our own: those of this machine, or what the workers that are asked for take."""
    asked = settings.ray_workers * settings.ray_cpus
    return max(1, round(asked)) if asked else max(1, len(os.sched_getaffinity(0)))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
