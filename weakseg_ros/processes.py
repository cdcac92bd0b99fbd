# SPDX-License-Identifier: Apache-2.0
"""Processes that help another one, and end with it."""

from __future__ import annotations

import os
import signal
import threading
import time

LOOK_S = 0.5


def end_with_parent(parent: int) -> None:
    """End this process soon after the process `parent`, which started it, has ended in whatever way.

    Ctrl+C, which a terminal sends to both, is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), name="weakseg-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)
