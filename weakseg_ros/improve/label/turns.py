# SPDX-License-Identifier: Apache-2.0
"""Turns at changing a folder: one process at a time, each told whether another one was there since its last turn."""

from __future__ import annotations

import fcntl
import secrets
from io import FileIO
from pathlib import Path


class Turns:
    """One program's turns. The lock file says whose the last one was; a file's time stamp is too coarse for that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = b""

    def take(self) -> tuple[FileIO, bool]:
        """(the lock, to be closed at the end of the turn, whether another had a turn since), once it is our turn.

        Raises OSError where the disk does not take the mark; the lock is given up then.
        """
        lock = open(self._path, "a+b", buffering=0)  # kept open: it carries the lock; a refused write must not wait in a buffer
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            others = lock.read() != self._mark
            self._mark = secrets.token_hex(8).encode()
            lock.truncate(0)
            lock.write(self._mark)
        except OSError:
            lock.close()
            raise
        return lock, others
