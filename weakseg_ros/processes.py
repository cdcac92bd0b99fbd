# SPDX-License-Identifier: Apache-2.0
"""Processes that help another one, and end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

LOOK_S, CLEAR_UP_S = 0.5, 5.0
"""between two looks at the parent, and how long a process that was asked to end is left alone"""
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""what asks a program to end: Ctrl+C, whoever manages it, and the end of its terminal"""


def when_asked_to_end(act: Callable[[], object]) -> None:
    """Let the signals that ask for the end call `act` and raise nothing; a SIGHUP that nohup keeps away stays away."""
    for number in ENDS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: act())


@contextlib.contextmanager
def kept_from_signals() -> Iterator[None]:
    """Processes that are started inside never get Ctrl+C nor the end of their terminal, which are their parent's affair.

    Its own wait until the block has ended.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def attended(*arguments: str) -> list[str]:
    """The command of another `weakseg ARGUMENTS`, which ends with this process in whatever way that ends."""
    code = (
        "import runpy, sys; from weakseg_ros.processes import end_with_parent; end_with_parent(int(sys.argv.pop(1)));"
        "runpy.run_module('weakseg_ros', run_name='__main__')"
    )
    return [sys.executable, "-c", code, str(os.getpid()), *arguments]


def end_with_parent(parent: int) -> None:
    """End this process soon after the process `parent`, which started it, has ended in whatever way."""
    threading.Thread(target=_watch, args=(parent,), name="weakseg-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLEAR_UP_S)
    os._exit(1)
