# SPDX-License-Identifier: Apache-2.0
"""Who may write now. Every lock is the kernel's, so it is free again when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """True inside where nobody else holds the lock file `path`; else False, at once."""
    descriptor = _opened(path)
    try:
        yield try_claim(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Waits until nobody else holds the lock file `path`, and holds it inside."""
    descriptor = _opened(path)
    try:
        wait_for(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn_at(folder: Path) -> Iterator[None]:
    """Waits until nobody else holds a folder that is there, and holds it inside; nothing is written into it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        wait_for(descriptor)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


class Turns:
    """One program's turns at changing a folder, each told whether another program had one since.

    The lock lies at `path`, and a mark beside it says whose the last turn was; a file's time stamp is too coarse for that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark_path = path.with_name(f"{path.name}_holder")
        self._mark = b""

    @contextlib.contextmanager
    def take(self) -> Iterator[bool]:
        """Waits for our turn; inside, whether another had one since our last. OSError where the disk refuses the mark."""
        with in_turn(self._path):
            others = not self._mark or _content(self._mark_path) != self._mark
            if others:
                self._mark = secrets.token_hex(8).encode()
                self._mark_path.write_bytes(self._mark)
            yield others


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def claim(descriptor: int) -> None:
    """Say that an open file or folder is being written, until the descriptor is closed or this process ends."""
    try_claim(descriptor)  # nobody else writes under a name of ours


def try_claim(descriptor: int) -> bool:
    """As `claim`; False where another has claimed it. A file system without locks lets everyone have everything."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def wait_for(descriptor: int) -> None:
    """As `claim`, once nobody else has claimed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # as NFS without its lock service, and some file systems of users
        _tell_once()


@cache
def _tell_once() -> None:
    log.warning("the file system has no locks; let only one program at a time write to a folder on it")


def is_claimed(path: Path) -> bool:
    """Whether a living process claims a file or folder; True, too, where that cannot be found out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


_held: dict[Path, int] = {}


def hold(folder: Path) -> bool:
    """Take a folder for this process until `let_go`; False where another process has it."""
    let_go(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    if not try_claim(descriptor):
        os.close(descriptor)
        return False
    _held[folder.resolve()] = descriptor
    return True


def let_go(folder: Path) -> None:
    """Give a folder back that this process may have taken."""
    descriptor = _held.pop(folder.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)
