# SPDX-License-Identifier: Apache-2.0
"""The frame log of a running robot: it decides at once, writes in a thread of its own, and outlives a full disk."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.frame_log import FrameRecord, bytes_per_point
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import DataError, WeaksegError
from weakseg_ros.files import users_path
from weakseg_ros.improve.log.acquisition import Look, descriptor_size, look_at
from weakseg_ros.improve.log.admission import Admission, LogSettings
from weakseg_ros.improve.log.choice import suggest_points
from weakseg_ros.improve.log.context import Context, TimedMessage, context_size, write_context
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

QUEUE = 2
"""frames that wait for the disk; each may be some megabytes"""
RETRY_S = 5.0
"""seconds between two attempts while the disk refuses"""
PATIENCE_S = 5.0
"""seconds that the robot's shutdown waits for a slow disk"""
CONTEXT_LOOK_S = 0.5
"""seconds between two looks whether the time after a kept frame is over"""
FOREVER_NS = 1 << 63
NICER = 10
"""how much the writer's thread steps back in the scheduler"""
RECORD_BYTES = 8192
"""what record, index and the file system's rounding add to a frame, about"""
MIB = 1 << 20
LASTING = ("random", "asked")
"""reasons of frames that are kept whatever their score: the sample would be none any more, and the request was someone's"""


@dataclass(frozen=True)
class LogStatus:
    """Figures of a log at this moment."""

    kept: dict[str, int]
    """frames that this process kept, by reason"""
    dropped: dict[str, int]
    """frames that were passed over, by obstacle"""
    frames: int
    """frames in the folder"""
    bytes: int
    """what they take"""
    free_bytes: int | None
    """free space of the disk; None before the first look"""
    fault: str
    """why nothing can be kept now; empty = all is well"""
    full: bool = False
    """the last frame found no room, and no frame that may be removed"""
    context_bytes: int = 0
    """memory that the messages of the last seconds take"""
    context_cut: int = 0
    """messages that were to be kept beside a frame and were not, since log.context_mib was used up"""


class Request(NamedTuple):
    """Somebody wants the next frame."""

    tag: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Job:
    cloud: Cloud
    answer: Segmentation
    origin: Origin
    look: Look
    reason: str
    came_ns: int
    request: Request | None


class _NoRoom(Exception):
    """A budget of the user's is used up; the obstacle: no frame may be removed, or none is less worth than the new one."""

    def __init__(self, obstacle: str) -> None:
        super().__init__(obstacle)
        self.obstacle = obstacle


@dataclass
class _Counts:
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


def _give_way() -> None:
    """Let the threads that label the next cloud go first; only Linux knows of priorities of threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICER)


class FrameLog:
    """Keeps the frames worth labelling in `settings.folder`. `offer` never waits for the disk and raises nothing.

    Where the disk refuses (full, read-only, gone), logging pauses, `status().fault` and `say(sentence, is_fault)` tell
    so once, and it resumes by itself. A folder that was deleted is made again. Frames are chosen by `settings`;
    `on_kept(record, cloud, answer)` is called for each frame in the log. Both callbacks run in the writer's thread.
    """

    def __init__(
        self,
        settings: LogSettings,
        labels: LabelMap,
        spec: RangeSpec,
        *,
        source: str = "",
        say: Callable[[str, bool], None] = lambda text, is_fault: None,
        on_kept: Callable[[FrameRecord, Cloud, Segmentation], None] = lambda record, cloud, answer: None,
    ) -> None:
        self.folder = Path(os.path.expanduser(settings.folder))
        self.labels = labels
        self.settings = settings
        self._spec, self._source = spec, source
        self._say, self._on_kept = say, on_kept
        self._admission = Admission(self.settings)
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._known = np.zeros((0, descriptor_size(labels.num_classes)), np.float32)
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._pending: list[NDArray[np.float32]] = []
        self._asked: deque[Request] = deque()
        self._context = _context(settings)
        self._fault, self._retry_at_s = "", 0.0
        self._full = False
        self._free_bytes: int | None = None
        self._frames, self._bytes = 0, 0
        self._writer: FrameWriter | None = None
        self._jobs: queue.Queue[_Job | None] = queue.Queue(QUEUE + 1)  # one place more for the None that ends it
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="weakseg-frame-log", daemon=True)
        self._thread.start()

    def ask(self, tag: str = "", note: str = "") -> None:
        """Keep the next frame, whatever its score, under a tag and with a note; or the first one after it that can be kept."""
        with self._lock:
            self._asked.append(Request(tag, note))

    def remember(self, topic: str, kind: str, data: bytes) -> None:
        """A message came that may be kept beside a frame; nothing where no seconds around frames are kept."""
        if self._context is not None:
            self._context.add(TimedMessage(topic, kind, time.time_ns(), data))

    def offer(self, cloud: Cloud, answer: Segmentation, origin: Origin) -> str:
        """Decide on a frame in about a millisecond; the reason it is kept for, or '' where it is passed over."""
        now_s = time.monotonic()
        look = look_at(cloud, answer, self.labels.num_classes)
        with self._lock:
            if self._closed or not len(cloud):
                return self._drop("closed" if self._closed else "empty")
            if self._fault and now_s < self._retry_at_s:
                return self._drop("paused")
            if len(self._pending) >= QUEUE:
                return self._drop("queue")
            known = np.concatenate([self._known, *(descriptor[None] for descriptor in self._pending)])
            decision = self._admission.decide(look, known, now_s, bool(self._asked))
            if not decision.reason:
                return self._drop(decision.obstacle)
            request = self._asked.popleft() if self._asked else None
            self._pending.append(look.descriptor)
            self._jobs.put_nowait(_Job(cloud, answer, origin, look, decision.reason, time.time_ns(), request))
            return decision.reason

    def status(self) -> LogStatus:
        """The figures of this moment."""
        with self._lock:
            kept, dropped = dict(self._counts.kept), dict(self._counts.dropped)
            context = (self._context.bytes, self._context.cut) if self._context else (0, 0)
            return LogStatus(kept, dropped, self._frames, self._bytes, self._free_bytes, self._fault, self._full, *context)

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Write what waits and end the thread, which is left to itself where the disk takes longer than `patience_s`."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put_nowait(None)
        self._thread.join(patience_s)

    # the writer's thread

    def _run(self) -> None:
        _give_way()
        try:
            self._open()
        except (OSError, WeaksegError) as error:
            self._pause(error)
        while (job := self._next_job()) is not None:
            obstacle = self._handle(job)
            with self._lock:
                self._pending.pop(0)
                if obstacle:
                    self._counts.dropped[obstacle] += 1
                    self._asked.extendleft([job.request] if job.request else [])
                else:
                    self._counts.kept[job.reason] += 1
        self._save_contexts(at_once=True)
        if self._writer is not None:
            self._writer.close()

    def _next_job(self) -> _Job | None:
        """What is to be written next; while waiting, the seconds around earlier frames are written once they are over."""
        while self._context is not None:
            self._save_contexts()
            with contextlib.suppress(queue.Empty):
                return self._jobs.get(timeout=CONTEXT_LOOK_S)
        return self._jobs.get()

    def _save_contexts(self, at_once: bool = False) -> None:
        """Write the messages around frames whose seconds are over, or of all frames that wait, as far as they came."""
        if self._context is None:
            return
        for key, messages in self._context.due(FOREVER_NS if at_once else time.time_ns()):
            writer = self._writer
            if writer is None or key not in writer.records:
                continue
            try:
                self._look_at_disk(sum(len(message.data) for message in messages))
                write_context(self.folder, key, messages)
            except (OSError, DataError) as error:
                self._pause(error)

    def _handle(self, job: _Job) -> str:
        """Write one frame; the obstacle, or ''. Nothing escapes: a log that fails must not end the robot's perception."""
        try:
            record = self._keep(job)
        except _NoRoom as error:
            self._full = error.obstacle == "budget"
            self._resume()  # the disk was looked at before the budget was
            return error.obstacle
        except (OSError, WeaksegError) as error:
            self._pause(error)
            return "disk"
        except Exception as error:
            self._pause(DataError(f"{self.folder}: {type(error).__name__}: {error}; please report this"))
            return "internal"
        self._full = False
        self._resume()
        try:
            self._on_kept(record, job.cloud, job.answer)
        except Exception as error:
            self._say(f"{self.folder}: frame {record.key} was kept, but could not be announced: {error}", True)
        return ""

    def _keep(self, job: _Job) -> FrameRecord:
        writer = self._writer
        if writer is None or not writer.is_whole():
            writer = self._open()
        need = RECORD_BYTES + bytes_per_point(job.cloud.rgb is not None) * len(job.cloud)
        self._look_at_disk(need)
        writer.refresh()
        self._take_stock(writer)
        self._make_room(writer, need, np.inf if job.reason in LASTING else job.look.score)
        seed = self.settings.seed + sum(self._counts.kept.values())
        suggestions = suggest_points(job.cloud, job.answer, self.settings.points, seed=seed)
        request = job.request or Request()
        worth = Worth(job.look.score, job.reason, job.look.descriptor.tolist(), suggestions, request.tag, request.note)
        record = writer.write(job.cloud, job.answer, job.origin, worth)
        if self._context is not None:
            self._context.want(record.key, job.came_ns)
        self._take_stock(writer)
        return record

    def _open(self) -> FrameWriter:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        users_path(self.settings.folder)  # the home of nobody is no name of a folder
        writer = FrameWriter(self.folder, self.labels, self._spec, source=self._source)
        for note in writer.notes:
            self._say(note, False)
        self._writer = writer
        self._take_stock(writer)
        return writer

    def _look_at_disk(self, need: int) -> None:
        free = shutil.disk_usage(self.folder).free
        with self._lock:
            self._free_bytes = free
        least = self.settings.min_free_mib
        if least and free - need < least * MIB:
            raise DataError(f"{self.folder}: {free // MIB} MiB are free, {least} MiB must stay free (log.min_free_mib)")

    def _make_room(self, writer: FrameWriter, need: int, score: float) -> None:
        """Remove frames until another one fits; _NoRoom where that cannot be."""
        settings = self.settings
        limit = settings.max_mib * MIB
        while len(writer.records) >= settings.max_frames or self._bytes + need > limit:
            if settings.when_full == "stop" or need > limit:
                raise _NoRoom("budget")
            writer.remove(self._victim(writer, score).key)
            self._take_stock(writer)

    def _victim(self, writer: FrameWriter, score: float) -> FrameRecord:
        """The frame that a new one of this score replaces; frames with clicks and those asked for stay.

        Drawn frames beyond their share of the log give way, the oldest first, which leaves a sample; then the least worthy of
        the others. A new frame with a score without limit, drawn or asked for, may take the place of the last drawn ones.
        """
        free = writer.unclicked()
        drawn = [record for record in free if record.reason == "random"]
        scored = [record for record in free if record.reason not in LASTING]
        share = sum(record.reason == "random" for record in writer.records.values())
        if drawn and share > max(1.0, self.settings.random_share * len(writer.records)):
            return drawn[0]
        if scored:
            least = min(scored, key=lambda record: record.score)
            if least.score < score:
                return least
            raise _NoRoom("outdone")
        if drawn and score == np.inf:
            return drawn[0]
        raise _NoRoom("budget")

    def _take_stock(self, writer: FrameWriter) -> None:
        """Bring what is known of the folder up to date with what the writer has in it."""
        width, records = self._known.shape[1], writer.records
        known = [_row(self._rows, record) for record in records.values() if len(record.descriptor) == width]
        self._rows = {key: row for key, row in self._rows.items() if key in records}
        matrix = np.stack(known) if known else np.zeros((0, width), np.float32)
        total = sum(RECORD_BYTES + bytes_per_point(record.colored) * record.points for record in records.values())
        total += context_size(self.folder)
        with self._lock:
            self._known, self._frames, self._bytes = matrix, len(records), total

    def _pause(self, error: Exception) -> None:
        if isinstance(error, OSError):
            text = f"{error.filename or self.folder}: {error.strerror or error}"
        else:
            text = str(error)
        with self._lock:
            is_new, self._fault = not self._fault, text
            self._retry_at_s = time.monotonic() + RETRY_S
        if is_new:
            self._say(f"frame log paused: {text}; it resumes by itself when this is fixed", True)

    def _resume(self) -> None:
        with self._lock:
            was, self._fault = self._fault, ""
        if was:
            self._say(f"frame log resumed: {self.folder}", False)

    def _drop(self, obstacle: str) -> str:
        self._counts.dropped[obstacle] += 1
        return ""


def _context(settings: LogSettings) -> Context | None:
    """The memory of the last seconds, None where none are to be kept."""
    if not settings.before_s and not settings.after_s:
        return None
    return Context(settings.before_s, settings.after_s, settings.context_mib * MIB)


def _row(rows: dict[str, NDArray[np.float32]], record: FrameRecord) -> NDArray[np.float32]:
    """A record's descriptor as an array, made once."""
    if record.key not in rows:
        rows[record.key] = np.array(record.descriptor, np.float32)
    return rows[record.key]
