# SPDX-License-Identifier: Apache-2.0
"""What tests of the labelling page wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

from support import PATIENCE_S


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s in vain for: {what}"
        time.sleep(0.05)
