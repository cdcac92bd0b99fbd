# SPDX-License-Identifier: Apache-2.0
"""One thread that does the work, and the box between it and the thread that receives."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

STOP_S = 10.0
"""the longest wait for the item at hand"""
LOOK_S = 0.1
"""between two looks whether the process is to end"""


class Mailbox(Generic[T]):
    """What waits for the worker: the newest item only, or every item.

    Live (`capacity` 0) an item that nobody took yet is replaced. With a capacity nothing is lost: `put` waits while
    the box is full, so that the middleware's own flow control reaches the sender; once `ending` is set it waits no longer.
    """

    def __init__(self, capacity: int = 0, ending: threading.Event | None = None) -> None:
        self._capacity = capacity
        self._ending = ending or threading.Event()
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Leave an item; True where an older one had to go for it. A closed box takes nothing."""
        with self._changed:
            while self._capacity and len(self._items) >= self._capacity and not self._closed:
                if self._ending.is_set():
                    return False
                self._changed.wait(LOOK_S)  # a signal sets `ending` and wakes nobody
            replaced = not self._capacity and bool(self._items)
            if replaced:
                self._items.clear()
            if not self._closed:
                self._items.append(item)
            self._changed.notify_all()
            return replaced

    def take(self) -> T | None:
        """The oldest item, waiting for one; None once the box is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items))
            if self._closed:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Drop what waits and wake everyone who waits."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


class Worker(Generic[T]):
    """A thread that hands the mailbox's items to `work`, one after the other, until it is stopped."""

    def __init__(self, work: Callable[[T], None], mailbox: Mailbox[T]) -> None:
        self.mailbox = mailbox
        self._work = work
        self._thread = threading.Thread(target=self._run, name="weakseg-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self.mailbox.take()) is not None:
            self._work(item)

    def stop(self) -> bool:
        """Finish the item at hand, drop the rest, end the thread; False where the item at hand does not end."""
        self.mailbox.close()
        self._thread.join(STOP_S)
        return not self._thread.is_alive()
