# SPDX-License-Identifier: Apache-2.0
"""Whether a difference between two rows of a table is more than chance: paired over seeds, with an interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as students_t

LEVEL = 0.95
ENOUGH_SEEDS = 5
"""with fewer, an interval is so wide that only very large differences are resolved"""


@dataclass(frozen=True)
class Paired:
    """The mean difference between two rows with the same labels and seeds, and its interval."""

    mean: float
    low: float
    """lower bound of the 95 % interval; -inf for a single seed"""
    high: float
    seeds: int

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0.0 or self.high < 0.0

    @property
    def words(self) -> str:
        """In points: '+5.3 [+1.2, +9.4]', and that it is not resolved where the interval holds 0."""
        interval = "" if math.isinf(self.low) else f" [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{100 * self.mean:+.1f}{interval}" + ("" if self.resolved else ", not resolved")

    def to_mapping(self) -> dict[str, Any]:
        """Plain figures for a JSON file; no bounds for a single seed."""
        known = not math.isinf(self.low)
        bounds = {"low": round(self.low, 6), "high": round(self.high, 6)} if known else {"low": None, "high": None}
        return {"mean": round(self.mean, 6), **bounds, "seeds": self.seeds, "resolved": self.resolved}


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired | None:
    """The difference of two figures by seed, over the seeds that both have, with Student's t interval; None without one."""
    gains = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
    if not gains:
        return None
    mean, count = statistics.fmean(gains), len(gains)
    if count == 1:
        return Paired(mean, -math.inf, math.inf, count)
    half = float(students_t.ppf(0.5 + LEVEL / 2, count - 1)) * statistics.stdev(gains) / math.sqrt(count)
    return Paired(mean, mean - half, mean + half, count)
