# SPDX-License-Identifier: Apache-2.0
"""What took long to find out or to build, kept in the user's cache folder: whole or not at all, and never needed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from weakseg_ros.files import make_folder, read_regular, write_atomic
from weakseg_ros.locks import in_turn

MAGIC = b"weakseg-cache-1\n"
MOST_BYTES = 1 << 33
log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """The user's cache folder of this program; None where the user has no home, as in some containers.

    A folder that everybody may write to would not do: what is in it is run.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        home = os.path.join(home, ".cache")
    return Path(home) / "weakseg_ros"


class Cache:
    """Contents by key in one folder. Every fault of the disk is a warning, and what was to be kept is made anew next time."""

    def __init__(self, kind: str, folder: Path | None = None) -> None:
        top = cache_folder() if folder is None else folder
        self.folder = None if top is None else top / kind

    def get(self, key: str) -> bytes | None:
        """The content under a key, None where there is none; a file that was cut short or altered is removed."""
        path = self._path(key)
        if path is None:
            return None
        try:
            stored = read_regular(path, MOST_BYTES)
        except OSError:
            return None
        content = stored[len(MAGIC) + 32 :]
        if stored == _sealed(content):
            return content
        log.warning("%s: is truncated or modified, so it is removed and built again", path)
        self.forget(key)
        return None

    def put(self, key: str, content: bytes) -> None:
        """Keep a content, or say why that cannot be."""
        path = self._path(key)
        if path is None:
            log.info("nothing is cached between runs: neither HOME nor XDG_CACHE_HOME is set")
            return
        try:
            make_folder(path.parent)
            write_atomic(path, _sealed(content))
        except OSError as error:
            log.warning("%s: cannot be written (%s); it will be built again next time", path, error.strerror)

    def forget(self, key: str) -> None:
        """Remove what lies under a key."""
        path = self._path(key)
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    def get_or_make(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The content under a key, made where there is none; of several processes one makes it and the others wait."""
        found = self.get(key)
        if found is not None:
            return found
        with contextlib.ExitStack() as turn:
            path = self._path(key)
            if path is not None:
                with contextlib.suppress(OSError):  # a folder that takes no lock takes no content either, which `put` says
                    turn.enter_context(in_turn(path.with_suffix(".lock")))
            found = self.get(key)
            if found is None:
                found = make()
                self.put(key, found)
            return found

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key


def _sealed(content: bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).digest() + content
