# SPDX-License-Identifier: Apache-2.0
"""The time that passes along stamps in a row, also where the clock that gave them was set."""

from __future__ import annotations

LONGEST_PAUSE_S = 3600.0
"""a longer step is no pause, but that of a clock: a simulation's before its first tick, a sensor's before it is synchronised"""
USUAL_STEP_S = 0.1


class SteadyTime:
    """Seconds since the first of some stamps. A step back, or beyond an hour, counts as the step before it.

    With `repeats_count` so does a step of nothing, as of a driver that writes no stamps.
    """

    def __init__(self, repeats_count: bool = False) -> None:
        self._repeats_count = repeats_count
        self._last_ns: int | None = None
        self._step_s = USUAL_STEP_S
        self._now_s = 0.0

    def at(self, stamp_ns: int) -> float:
        """The time at the next stamp."""
        if self._last_ns is not None:
            step_s = (stamp_ns - self._last_ns) * 1e-9
            is_step = 0 <= step_s <= LONGEST_PAUSE_S and not (self._repeats_count and step_s == 0)
            self._now_s += step_s if is_step else self._step_s
            self._step_s = step_s if is_step and step_s else self._step_s
        self._last_ns = stamp_ns
        return self._now_s
