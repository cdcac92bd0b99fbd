# SPDX-License-Identifier: Apache-2.0
"""How far a long work is: a bar on a terminal, and a line now and then in a log file, which a bar would leave empty or litter."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar

from weakseg_ros.errors import complain, counted

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


class Progress(Generic[T]):
    """Iterate over `items`, or call `update` for each of `total`; the progress goes to stderr unless it is not `shown`.

    On a terminal it is tqdm's bar. Elsewhere it is a line each ten seconds, none where the work takes less.
    """

    def __init__(
        self,
        items: Iterable[T] | None = None,
        *,
        what: str,
        unit: str,
        total: int | None = None,
        shown: bool = True,
        stays: bool = True,
    ) -> None:
        self._items = () if items is None else items
        self._what, self._unit = what, unit
        self._total = len(items) if total is None and isinstance(items, Sized) else total
        self._done, self._note = 0, ""
        self._shown = shown
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=what, unit=unit, leave=stays)
        self._started = self._last = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> Progress[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._shown and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            complain(self._line(self._last - self._started))

    def note(self, text: str) -> None:
        """Show `text` behind the figures from now on."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Leave the terminal's line as it is."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, elapsed_s: float) -> str:
        done = counted(self._done, self._unit) if self._total is None else f"{self._done} of {counted(self._total, self._unit)}"
        words = f"{self._what}: {done} after {duration(elapsed_s)}"
        if self._total is not None and self._total > self._done >= _enough_to_judge(self._total):
            words += f", about {duration(elapsed_s / self._done * (self._total - self._done))} left"
        return f"{words}; {self._note}" if self._note else words


def _enough_to_judge(total: int) -> int:
    """After how many items the time left is told; the first ones of each worker wait for its start."""
    return max(2, min(total // 20, 20))


def duration(seconds: float) -> str:
    """A time for people: `40 s`, `2 min 5 s`, `1 h 20 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"
