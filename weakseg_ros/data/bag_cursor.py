# SPDX-License-Identifier: Apache-2.0
"""Any message of a bag by its number, for a person who goes back and forth in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from weakseg_ros.data.bags import RawMessage, read_raw


class BagCursor:
    """One topic of a bag. The next message is read at once; an earlier one is found by the time at which it was recorded."""

    def __init__(self, path: Path, topic: str) -> None:
        self._path, self._topic = path, topic
        self._stamps: list[int] = []
        """when each message that was read so far was recorded, ns"""
        self._messages: Iterator[RawMessage] = iter(())
        self._gap: int | None = None
        """the first message before which some are lost"""
        self._next = -1
        """number of the message that comes next; -1 where none is being read"""

    def at(self, index: int) -> RawMessage:
        """Message number `index`; IndexError where the bag ends before it, DataError where it is damaged before it."""
        if not 0 <= self._next <= index:
            self._start_before(index)
        for message in self._messages:
            if self._next == len(self._stamps):
                self._stamps.append(message.stamp_ns)
                if message.follows_gap and self._gap is None:
                    self._gap = self._next
            self._next += 1
            if self._next > index:
                return message._replace(follows_gap=self._gap is not None and index >= self._gap)
        self._next = -1
        raise IndexError(f"{self._path}: has no message {index} of {self._topic}")

    def _start_before(self, index: int) -> None:
        """Begin at the message or before it: by its time, unless the times that are known do not rise up to it."""
        known = self._stamps[: index + 1]
        first = known.index(known[-1]) if known else 0
        rising = all(a <= b for a, b in pairwise(known))
        self._next = first if rising else 0
        start_ns = known[first] if known and rising else None
        self._messages = read_raw(self._path, self._topic, start_ns)
