# SPDX-License-Identifier: Apache-2.0
"""Reading what others wrote: it ends, whatever lies at the path, and what is wrong with it is an OSError or a ValueError."""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weakseg_ros.files import read_regular


def check_regular(path: Path) -> Path:
    """The path as it came; OSError where a pipe or a device lies there, which may never end, or nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def read_json(path: Path) -> Any:
    """The content of a JSON file; OSError where it cannot be read or is no regular file, ValueError where it is not JSON."""
    return parse_json(read_regular(path).decode("utf-8"))


def parse_json(text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """What a JSON text holds; ValueError, too, where its brackets are nested deeper than Python reads them.

    `object_hook` is json's own: what each object is replaced by.
    """
    try:
        return json.loads(text, object_hook=object_hook)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
