# SPDX-License-Identifier: Apache-2.0
"""How fast a person labels."""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

PAUSE_S = 60.0
"""longer gaps between two clicks are a break, not work"""


@dataclass
class Pace:
    """How fast the work goes."""

    gaps_s: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    last_s: float = -np.inf

    def beat(self) -> None:
        """One click was made."""
        now = time.monotonic()
        if now - self.last_s < PAUSE_S:
            self.gaps_s.append(now - self.last_s)
        self.last_s = now

    @property
    def seconds(self) -> float | None:
        """The median time of the last clicks, None before the second one."""
        return statistics.median(self.gaps_s) if self.gaps_s else None
