# SPDX-License-Identifier: Apache-2.0
"""An mcap file that a reader refuses although its messages are sound, made readable; the file on disk stays as it is.

A recorder that was killed, or a copy that was cut off, leaves a file without summary and footer although all but the last
record is whole. `mcap convert` of a ROS 1 bag writes the profile ros1 and schemas of ros1msg, other tools no profile at all,
and Foxglove's tools topics in JSON or Protobuf beside those of ROS.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from weakseg_ros.data.mcap_chunks import CHUNK, LENGTH, RECORD_HEAD, is_sound, text_at

MAGIC = b"\x89MCAP0\r\n"
_FOOTER = b"\x02" + struct.pack("<QQQI", 20, 0, 0, 0) + MAGIC
"""says that there is no summary, so that the records are scanned"""
_LAST_OPCODE = 0x0F
_HEADER, _FOOTER_OPCODE, _SCHEMA = 0x01, 0x02, 0x03
_PROFILE = b"ros2"
_SCHEMAS = (b"ros1msg", b"ros2msg")
"""an encoding that the reader does not know, and the one of the same length under which the definition is passed on"""
_KNOWN_ENCODINGS = (b"ros2msg", b"ros2idl", b"omgidl", b"")


class _Record(NamedTuple):
    opcode: int
    start: int
    body: int
    """offset of what follows opcode and length"""
    end: int


class MendedMcap:
    """Stands in for the path of an mcap file where a reader takes one."""

    suffix = ".mcap"

    def __init__(self, path: Path, leaves_out: bool = False) -> None:
        """Damaged chunks are looked for, and left out, with `leaves_out`."""
        self.path = path
        records = list(_whole_records(path))
        self.is_complete = bool(records) and records[-1].opcode == _FOOTER_OPCODE
        """whether the file has its end, so that all of it can be read"""
        self._pieces = _pieces(path, records, self.is_complete, leaves_out)

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """As of a path."""
        return self.path.exists()

    def is_dir(self) -> bool:
        """As of a path."""
        return False

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The whole records, and a footer where that is missing, as one seekable binary stream; `mode` can only be reading."""
        if mode != "rb":
            raise ValueError(f"a mended file is opened as 'rb', not '{mode}'")
        return io.BufferedReader(_Spliced(self.path, self._pieces), buffer_size=1 << 20)


def _whole_records(path: Path) -> Iterator[_Record]:
    """The complete records of a file in order, up to its footer where the closing magic follows it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        start = len(MAGIC)
        while len(head := file.read(RECORD_HEAD.size)) == RECORD_HEAD.size:
            opcode, length = RECORD_HEAD.unpack(head)
            body, end = start + RECORD_HEAD.size, start + RECORD_HEAD.size + length
            if not 0 < opcode <= _LAST_OPCODE or end > size:
                return
            file.seek(end)
            if opcode == _FOOTER_OPCODE and file.read(len(MAGIC) + 1) != MAGIC:
                return
            yield _Record(opcode, start, body, end)
            if opcode == _FOOTER_OPCODE:
                return
            start = end


Piece = bytes | tuple[int, int]
"""new bytes, or a stretch (start, end) of the file"""


def _pieces(path: Path, records: list[_Record], is_complete: bool, leaves_out: bool) -> list[Piece]:
    """What the mended file consists of, in order."""
    if not records:
        return []
    pieces: list[Piece] = []
    at = 0
    with open(path, "rb") as file:
        for start, end, new in _changes(file, records, leaves_out):
            pieces += [(at, start), new]
            is_complete &= len(new) == end - start  # offsets in the summary count from the start of the file
            at = end
    if is_complete:
        return [*pieces, (at, path.stat().st_size)]
    data = [record for record in records if record.opcode != _FOOTER_OPCODE]
    return [*pieces, (at, data[-1].end), _FOOTER] if data else []


def _changes(file: Any, records: list[_Record], leaves_out: bool) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, new bytes) of what the reader would refuse."""
    for record in records:
        if record.opcode not in (_HEADER, _SCHEMA) and not (record.opcode == CHUNK and leaves_out):
            continue
        file.seek(record.start)
        old = file.read(record.end - record.start)
        if record.opcode == CHUNK:
            if not is_sound(old):
                yield record.start, record.end, b""
            continue
        new = _with_profile(old) if record.opcode == _HEADER else _with_known_encoding(old.replace(*_SCHEMAS, 1))
        if new != old:
            yield record.start, record.end, new


def _with_profile(header: bytes) -> bytes:
    """The header record with the profile ros2, of the same length where the library's name leaves room."""
    try:
        profile, at = text_at(header, RECORD_HEAD.size)
        library, _ = text_at(header, at)
    except struct.error:
        return header
    if profile == _PROFILE:
        return header
    room = max(0, len(profile) + len(library) - len(_PROFILE))
    texts = (_PROFILE, library[:room].ljust(room))
    body = b"".join(LENGTH.pack(len(text)) + text for text in texts)
    return RECORD_HEAD.pack(_HEADER, len(body)) + body


def _with_known_encoding(schema: bytes) -> bytes:
    """The schema record, of the same length, without an encoding that the reader does not know: other topics may be of ROS 2."""
    try:
        _, at = text_at(schema, RECORD_HEAD.size + 2)
        encoding, end = text_at(schema, at)
        data, _ = text_at(schema, end)
    except struct.error:
        return schema
    if encoding in _KNOWN_ENCODINGS:
        return schema
    texts = (b"", data + b" " * len(encoding))
    return schema[:at] + b"".join(LENGTH.pack(len(text)) + text for text in texts)


class _Spliced(io.RawIOBase):
    """Stretches of a file and new bytes, one after the other."""

    def __init__(self, path: Path, pieces: list[Piece]) -> None:
        self._file = open(path, "rb")
        self._pieces: list[tuple[int, int, Piece]] = []
        self._at = self._end = 0
        for piece in pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            if length:
                self._pieces.append((self._end, self._end + length, piece))
                self._end += length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(0, min(base + offset, self._end))
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = next((piece for piece in self._pieces if piece[0] <= self._at < piece[1]), None)
        if found is None:
            return 0
        start, end, piece = found
        view = view[: end - self._at]
        if isinstance(piece, bytes):
            part = piece[self._at - start :][: len(view)]
            count = len(part)
            view[:count] = part
        else:
            self._file.seek(piece[0] + self._at - start)
            count = self._file.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
