# SPDX-License-Identifier: Apache-2.0
"""Loading a model in a thread of its own: it may take minutes, or for ever, and neither the next one nor the end waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from weakseg_ros.errors import BundleError

T = TypeVar("T")

LIMIT_S = 900.0
"""an engine that is built anew takes minutes; what takes longer is given up"""
PATIENCE_S = 20.0
"""how long a newer request lets an earlier one go on"""
JOIN_S = 5.0


class Loading(Generic[T]):
    """One attempt. A thread cannot be stopped, but what it makes after it was given up is not used.

    `work(loading)` does it in the thread, after `former` has ended or was given up; `on_end` is called once, from any thread.
    """

    def __init__(
        self, work: Callable[[Loading[T]], T], former: Loading[T] | None = None, on_end: Callable[[], None] | None = None
    ) -> None:
        self.over = threading.Event()
        self._work, self._former, self._on_end = work, former, on_end
        self._lock = threading.RLock()
        self._outcome: T | Exception | None = None
        self._limit = threading.Timer(LIMIT_S, self.give_up, [f"it did not end within {LIMIT_S:g} s"])
        self._limit.daemon = True
        self._thread = threading.Thread(target=self._run, name="weakseg-loader", daemon=True)

    def start(self) -> Loading[T]:
        """Begin; returns itself."""
        self._limit.start()
        self._thread.start()
        return self

    def result(self) -> T:
        """What came of it, once it is over; raises what it raised, or BundleError where it was given up."""
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome  # type: ignore[return-value]

    def unless_given_up(self, action: Callable[[], None]) -> bool:
        """Do what makes use of the new model, and let nobody give it up meanwhile; False where somebody has."""
        with self._lock:
            if self.over.is_set():
                return False
            action()
            return True

    def give_up(self, why: str) -> None:
        """Use nothing that still comes of it; harmless where it is over."""
        self._end(BundleError(f"loading was aborted: {why}"))

    def join(self) -> bool:
        """Wait a little for the thread; False where it goes on."""
        self._thread.join(JOIN_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        former, self._former = self._former, None
        if former is not None and not former.over.wait(PATIENCE_S):
            former.give_up(f"a newer one was asked for and it had not ended {PATIENCE_S:g} s later")
        try:
            outcome: T | Exception = self._work(self)
        except Exception as error:
            outcome = error
        self._end(outcome)

    def _end(self, outcome: T | Exception) -> None:
        with self._lock:
            if self.over.is_set():
                return
            self._outcome = outcome
            self.over.set()
        self._limit.cancel()
        if self._on_end is not None:
            self._on_end()
