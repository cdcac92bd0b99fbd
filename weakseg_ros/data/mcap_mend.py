# SPDX-License-Identifier: Apache-2.0
"""An mcap file whose end is missing, made readable: its complete records, closed by a footer that is not on disk.

A recorder that was killed, or a copy that was cut off, leaves a file without summary and footer, which readers refuse
although all but the last record is whole.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

MAGIC = b"\x89MCAP0\r\n"
_FOOTER = b"\x02" + struct.pack("<QQQI", 20, 0, 0, 0) + MAGIC
"""says that there is no summary, so that the records are scanned"""
_LAST_DATA_OPCODE = 0x0C
_RECORD_HEAD = struct.Struct("<BQ")


class MendedMcap:
    """Stands in for the path of a truncated mcap file where a reader takes one; the file itself stays as it is."""

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = last_whole_record(path)

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """As of a path."""
        return self.path.exists()

    def is_dir(self) -> bool:
        """As of a path."""
        return False

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The whole records and a footer, as one seekable binary stream; `mode` can only be reading."""
        if mode != "rb":
            raise ValueError(f"a mended file is opened as 'rb', not '{mode}'")
        return io.BufferedReader(_Spliced(self.path, self.end, _FOOTER), buffer_size=1 << 20)


def last_whole_record(path: Path) -> int:
    """Offset behind the last record of the data section that is complete; 0 where the file is no mcap."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return 0
        end = len(MAGIC)
        while len(head := file.read(_RECORD_HEAD.size)) == _RECORD_HEAD.size:
            opcode, length = _RECORD_HEAD.unpack(head)
            behind = end + _RECORD_HEAD.size + length
            if not 0 < opcode <= _LAST_DATA_OPCODE or opcode == _FOOTER[0] or behind > size:
                break
            end = file.seek(behind)
    return end


class _Spliced(io.RawIOBase):
    """The first `end` bytes of a file, then `tail`."""

    def __init__(self, path: Path, end: int, tail: bytes) -> None:
        self._file = open(path, "rb")
        self._end, self._tail, self._at = end, tail, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end + len(self._tail)}[whence]
        self._at = max(0, min(base + offset, self._end + len(self._tail)))
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._at < self._end:
            self._file.seek(self._at)
            count = self._file.readinto(view[: self._end - self._at])
        else:
            part = self._tail[self._at - self._end :][: len(view)]
            count = len(part)
            view[:count] = part
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
