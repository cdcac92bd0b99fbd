# SPDX-License-Identifier: Apache-2.0
"""What else the robot received around a kept frame: the last seconds in memory, bounded in bytes, and files of them.

context/KEY.msgs is a row of messages in the order of arrival: the length of a JSON header as a little-endian uint32, the
header (topic, type, stamp_ns, size), and the message as ROS sent it (CDR). `weakseg export-frames` makes bags of them.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from weakseg_ros.errors import DataError
from weakseg_ros.files import write_atomic
from weakseg_ros.reads import parse_json

CONTEXT = "context"
NANOSECONDS = 1_000_000_000
_LENGTH = struct.Struct("<I")
LARGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class TimedMessage:
    """One message as it came."""

    topic: str
    type: str
    """'sensor_msgs/msg/Image'"""
    stamp_ns: int
    """when it arrived, by the machine's clock"""
    data: bytes


class Context:
    """The messages of the last seconds, at most `max_bytes` of them, and the windows around kept frames that are to be saved.

    Any thread may call. Where the bytes are used up the oldest messages give way; `cut` counts those that a window still
    wanted.
    """

    def __init__(self, before_s: float, after_s: float, max_bytes: int) -> None:
        self._before_ns, self._after_ns = int(before_s * NANOSECONDS), int(after_s * NANOSECONDS)
        self._max_bytes = max_bytes
        self._messages: deque[TimedMessage] = deque()
        self._windows: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()
        self.bytes = 0
        self.cut = 0

    def add(self, message: TimedMessage) -> None:
        """Remember a message; those that no window reaches any more are forgotten."""
        with self._lock:
            self._messages.append(message)
            self.bytes += len(message.data)
            oldest = min([message.stamp_ns, *(came for _, came in self._windows)]) - self._before_ns
            while self._messages and (self._messages[0].stamp_ns < oldest or self.bytes > self._max_bytes):
                gone = self._messages.popleft()
                self.bytes -= len(gone.data)
                self.cut += any(_inside(gone.stamp_ns, came, self._before_ns, self._after_ns) for _, came in self._windows)

    def want(self, key: str, came_ns: int) -> None:
        """Save what lies around the frame `key`, which arrived at `came_ns`, once its seconds afterwards are over."""
        with self._lock:
            self._windows.append((key, came_ns))

    def due(self, now_ns: int) -> list[tuple[str, list[TimedMessage]]]:
        """The windows that are over at `now_ns`, each with its messages; they are asked for once."""
        found = []
        with self._lock:
            while self._windows and self._windows[0][1] + self._after_ns <= now_ns:
                key, came = self._windows.popleft()
                inside = [m for m in self._messages if _inside(m.stamp_ns, came, self._before_ns, self._after_ns)]
                found.append((key, inside))
        return found


def context_path(folder: Path, key: str) -> Path:
    """Where the messages around a frame lie."""
    return folder / CONTEXT / f"{key}.msgs"


def write_context(folder: Path, key: str, messages: Iterable[TimedMessage]) -> int:
    """Write the messages around a frame; the number of bytes. OSError where the disk does not take them."""
    parts = []
    for message in messages:
        facts = {"topic": message.topic, "type": message.type, "stamp_ns": message.stamp_ns, "size": len(message.data)}
        header = json.dumps(facts).encode()
        parts += [_LENGTH.pack(len(header)), header, message.data]
    content = b"".join(parts)
    context_path(folder, key).parent.mkdir(exist_ok=True)
    write_atomic(context_path(folder, key), content)
    return len(content)


def read_context(folder: Path, key: str) -> Iterator[TimedMessage]:
    """The messages around a frame in the order of arrival; none where none were kept. DataError for a damaged file."""
    path = context_path(folder, key)
    if not path.is_file():
        return
    with open(path, "rb") as file:
        while length := file.read(_LENGTH.size):
            try:
                size = _LENGTH.unpack(length)[0]
                header = parse_json(file.read(min(size, LARGEST_HEADER)))
                data = file.read(int(header["size"]))
                message = TimedMessage(str(header["topic"]), str(header["type"]), int(header["stamp_ns"]), data)
            except (struct.error, ValueError, KeyError, TypeError, OverflowError, MemoryError):
                raise DataError(f"{path}: is damaged; copy the frame again, or remove this file") from None
            if len(data) != header["size"]:
                raise DataError(f"{path}: ends in the middle of a message; copy the frame again, or remove this file")
            yield message


def context_size(folder: Path) -> int:
    """Bytes that the messages around all frames take on the disk."""
    try:
        with os.scandir(folder / CONTEXT) as entries:
            return sum(entry.stat().st_size for entry in entries)
    except OSError:
        return 0


def _inside(stamp_ns: int, came_ns: int, before_ns: int, after_ns: int) -> bool:
    """Whether a time lies in the window around another one."""
    return came_ns - before_ns <= stamp_ns <= came_ns + after_ns
