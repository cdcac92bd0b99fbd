# SPDX-License-Identifier: Apache-2.0
"""Names of what is being written or replaced beside its target, and whether somebody still writes it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from weakseg_ros.errors import WeaksegError
from weakseg_ros.locks import is_claimed

_OURS = re.compile(r"\..+\.\d+(-\d+)?\.(tmp|new|old)")
"""`.NAME.PID-n.tmp` is to become the file NAME, `.new` the folder; `.old` is a folder that is being replaced"""
_numbers = itertools.count()


def is_ours(name: str) -> bool:
    """Whether a name is that of something half-written of this program, which never counts as content."""
    return bool(_OURS.fullmatch(name))


def name_beside(path: Path, kind: str) -> Path:
    """A name that nobody else takes, for what is to become `path`; `kind` is tmp, new or old."""
    return path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.{kind}")


@contextlib.contextmanager
def told_as(wanted: Path, written: Path) -> Iterator[None]:
    """Let errors name `wanted`, which somebody asked for, where they name `written`, in which it is prepared.

    The system names no file where a disk is full; then they name `wanted`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(wanted)
        error.filename, error.filename2 = (_retold(name, wanted, written) for name in (error.filename, error.filename2))
        raise
    except WeaksegError as error:
        error.args = tuple(_retold(part, wanted, written) for part in error.args)
        raise


def _retold(part: object, wanted: Path, written: Path) -> object:
    """A path or a text with the names exchanged; what is prepared under its own name in a folder aside is asked for, too."""
    if not isinstance(part, (str, os.PathLike)):
        return part
    return str(part).replace(str(written / wanted.name), str(wanted)).replace(str(written), str(wanted))


def remove(path: Path) -> None:
    """Remove a file, a link, or as much of a folder as can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink(missing_ok=True)


def is_dead(path: Path) -> bool:
    """Whether nobody writes what lies at `path` any more.

    A living process of the number in the name may not have claimed it yet. In a container the number may be that of another
    process, or our own; a link cannot be claimed.
    """
    number = int(path.name.split(".")[-2].partition("-")[0])
    return (number == os.getpid() or not _runs(number)) and (path.is_symlink() or not is_claimed(path))


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
