# SPDX-License-Identifier: Apache-2.0
"""The messages of an mcap file chunk by chunk, so that a damaged chunk costs itself alone.

The records are those of https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from weakseg_ros.data.bag_chunks import Chunk, Message
from weakseg_ros.data.bag_files import zstd_module

CHUNK, MESSAGE = 0x06, 0x05
LAST_OPCODE = 0x0F
RECORD_HEAD = struct.Struct("<BQ")
"""opcode and length of what follows"""
LENGTH = struct.Struct("<I")
_CHUNK_HEAD = struct.Struct("<QQQI")
"""first and last time of its messages in ns, size of its unpacked content, checksum of that (0: none)"""
_MESSAGE_HEAD = struct.Struct("<HIQQ")
"""channel, sequence, when it was recorded and when it was published in ns"""


def mcap_chunks(storage: Any, connections: Sequence[Any], from_ns: int | None) -> Iterator[Chunk]:
    """The chunks of an indexed file, open in the reader of rosbags, that may hold messages of some topics from that time on."""
    topics = {connection.id: connection for connection in connections}
    for chunk in storage.chunks:
        counts = chunk.channel_count  # empty where the file has no index of its messages
        is_wanted = not counts or any(counts.get(topic) for topic in topics)
        if is_wanted and (from_ns is None or chunk.message_end_time >= from_ns):
            read = partial(_wanted, storage.bio, chunk, topics, from_ns)
            yield Chunk(chunk.message_start_time, chunk.chunk_start_offset, read)


def _wanted(file: Any, chunk: Any, topics: Mapping[int, Any], from_ns: int | None) -> Iterator[Message]:
    """The messages of some topics in a chunk as the index describes it."""
    file.seek(chunk.chunk_start_offset)
    for topic, stamp_ns, data in _messages_in(_content(file.read(chunk.chunk_length))):
        if topic in topics and (from_ns is None or stamp_ns >= from_ns):
            yield topics[topic], stamp_ns, data


def messages_in_order(
    storage: Any, connections: Sequence[Any], from_ns: int | None, on_damage: Callable[[], None]
) -> Iterator[Message]:
    """The messages of some topics of a file without an index, in the order of the file, from that time on.

    Times may fall in it, as they do where topics are recorded side by side or the time of a simulation starts again. A chunk
    that is damaged anywhere is left out, and `on_damage` is called for it.
    """
    topics = {connection.id: connection for connection in connections}
    at = storage.data_start
    while at < storage.data_end:
        storage.bio.seek(at)
        head = storage.bio.read(RECORD_HEAD.size)
        opcode, length = RECORD_HEAD.unpack(head)
        at += RECORD_HEAD.size + length
        if opcode not in (CHUNK, MESSAGE) or at > storage.data_end:
            continue
        record = head + storage.bio.read(length)
        try:
            found = list(_messages_in(_content(record) if opcode == CHUNK else record))
        except Exception:  # the decompressors raise anything
            on_damage()
            continue
        for topic, stamp_ns, data in found:
            if topic in topics and (from_ns is None or stamp_ns >= from_ns):
                yield topics[topic], stamp_ns, data


def is_sound(record: bytes) -> bool:
    """Whether the whole record of a chunk can be unpacked, and its messages told apart."""
    try:
        for _ in _messages_in(_content(record)):
            pass
    except Exception:  # the decompressors raise anything
        return False
    return True


def text_at(blob: bytes, at: int) -> tuple[bytes, int]:
    """A text with its length in front, and the offset behind it."""
    start = at + LENGTH.size
    end = start + LENGTH.unpack_from(blob, at)[0]
    return blob[start:end], end


def _content(record: bytes) -> bytes:
    """The unpacked content of a chunk's record; raises anything where it is damaged."""
    opcode, _ = RECORD_HEAD.unpack_from(record)
    _, _, size, checksum = _CHUNK_HEAD.unpack_from(record, RECORD_HEAD.size)
    compression, at = text_at(record, RECORD_HEAD.size + _CHUNK_HEAD.size)
    (packed_size,) = struct.unpack_from("<Q", record, at)
    packed = record[at + 8 : at + 8 + packed_size]
    content = _unpacked(packed, compression)
    if opcode != CHUNK or len(content) != size or (checksum and zlib.crc32(content) != checksum):
        raise ValueError("the chunk is damaged")
    return content


def _unpacked(packed: bytes, compression: bytes) -> bytes:
    if not compression:
        return packed
    if compression == b"zstd":
        return bytes(zstd_module().decompress(packed))
    if compression == b"lz4":
        import lz4.frame

        return bytes(lz4.frame.decompress(packed))
    raise ValueError(f"unknown compression {compression!r}")


def _messages_in(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(channel, when it was recorded in ns, data) of each message in a chunk; ValueError where a record is cut off."""
    at = 0
    while at < len(content):
        opcode, length = RECORD_HEAD.unpack_from(content, at)
        body, at = at + RECORD_HEAD.size, at + RECORD_HEAD.size + length
        if not 0 < opcode <= LAST_OPCODE or at > len(content):
            raise ValueError("a record is damaged")
        if opcode == MESSAGE:
            channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(content, body)
            yield channel, stamp_ns, content[body + _MESSAGE_HEAD.size : at]
