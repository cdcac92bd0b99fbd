# SPDX-License-Identifier: Apache-2.0
"""The messages of a file of chunks in the order of their times, where a damaged chunk costs itself alone."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

Message = tuple[Any, int, bytes]
"""connection, when it was recorded in ns, data"""


class Chunk(NamedTuple):
    """Messages that are read together."""

    start_ns: int
    """when its first message was recorded"""
    offset: int
    """in the file; tells which of two messages of one time comes first"""
    read: Callable[[], Iterable[Message]]
    """its messages; raises anything where it is damaged"""


def by_time(chunks: Iterable[Chunk], on_damage: Callable[[], None]) -> Iterator[Message]:
    """The messages of some chunks, which may overlap, in the order of their times.

    A chunk is read when it is due, so that few are in memory. One that is damaged is left out, and `on_damage` is called.
    """
    waiting: list[tuple[int, int, int, Any, bytes]] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.start_ns):
        while waiting and waiting[0][0] < chunk.start_ns:
            yield _next(waiting)
        try:
            found = list(chunk.read())
        except Exception:  # the parser of a damaged chunk raises anything
            on_damage()
            continue
        for number, (connection, stamp_ns, data) in enumerate(found):
            heapq.heappush(waiting, (stamp_ns, chunk.offset, number, connection, data))
    while waiting:
        yield _next(waiting)


def _next(waiting: list[tuple[int, int, int, Any, bytes]]) -> Message:
    stamp_ns, _, _, connection, data = heapq.heappop(waiting)
    return connection, stamp_ns, data


def ros1_chunks(reader: Any, connections: Sequence[Any], from_ns: int | None) -> Iterator[Chunk]:
    """The chunks of a ROS 1 bag, open in the reader of rosbags, that hold messages of some topics from that time on."""
    entries: dict[int, dict[int, list[Any]]] = defaultdict(lambda: {connection.id: [] for connection in connections})
    for connection in connections:
        for entry in reader.indexes[connection.id]:
            if from_ns is None or entry.time >= from_ns:
                entries[entry.chunk_pos][connection.id].append(entry)

    for offset, index in entries.items():
        start_ns = min(entry.time for found in index.values() for entry in found)
        yield Chunk(start_ns, offset, partial(_indexed, reader, connections, index))


def _indexed(reader: Any, connections: Sequence[Any], index: dict[int, list[Any]]) -> Iterator[Message]:
    """The messages that some entries of the index stand for."""
    reader.indexes = index
    yield from reader.messages(connections)
