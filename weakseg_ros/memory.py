# SPDX-License-Identifier: Apache-2.0
"""How this process asks the system for memory: large arrays stay mapped from frame to frame.

glibc returns every block above 128 KiB to the kernel on free and maps fresh pages for the next one; for clouds and
range images these page faults cost more than the arithmetic on them.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping

# numbers of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_LARGE_BLOCKS = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 512 << 20, _M_TOP_PAD: 32 << 20}


def keep_large_blocks() -> bool:
    """Tell glibc to keep freed blocks of up to 32 MiB; call it before the first cloud or tensor is made.

    True where glibc took all settings; False, with nothing changed for the caller, on systems without `mallopt`.
    """
    return _set(_LARGE_BLOCKS)


def share_free_blocks() -> bool:
    """Let all threads take their blocks from two pools; call it in a process that lives long and changes its model.

    glibc gives each new thread a pool of its own, up to eight for each core. A model is opened by a new thread, and what one pool
    has free serves no other, so the process would grow with each change until all pools are filled.
    True where glibc took the setting; False, with nothing done, on systems without `mallopt`.
    """
    return _set({_M_ARENA_MAX: 2})


def give_back_free_blocks() -> bool:
    """Hand what is free back to the system, some milliseconds' work; call it after something large has gone for good.

    A model's parts lie between blocks that stay, so without this each change of model leaves holes, and the process grows.
    False, with nothing done, on systems without `malloc_trim`.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError, TypeError):
        return False


def _set(settings: Mapping[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(name, value) == 1 for name, value in settings.items()])


_LACKS = {
    r"(?i)out of memory|can't allocate memory|cannot allocate memory|bad_alloc|failed to allocate": (
        "there is not enough memory",
        "use smaller batches or images, end other programs, or raise the limit ('ulimit -v')",
    ),
    r"can't start new thread|failed to create thread|pthread_create": (
        "no further thread can be started",
        "end other programs, or raise the limit of processes ('ulimit -u')",
    ),
}
"""what libraries say where the system gives them no more: a lack, and what to do about it"""


def lack_told_by(error: BaseException) -> str:
    """A sentence on what the system had not enough of, where that is what an error means; else an empty text."""
    words = "out of memory" if isinstance(error, MemoryError) else str(error)
    for pattern, (lack, advice) in _LACKS.items():
        if re.search(pattern, words):
            detail = re.sub(r"\s+", " ", re.split(r"\.\s|\n", str(error))[0])
            return f"{lack}{f' ({detail})' if detail else ''}; {advice}"
    return ""
