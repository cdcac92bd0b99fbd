# SPDX-License-Identifier: Apache-2.0
"""Tasks on several processes, their results in order, a few ahead; the processes end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from weakseg_ros.errors import WeaksegError, counted
from weakseg_ros.processes import end_with_parent, kept_from_signals

MOST_WORKERS = 8
Result = TypeVar("Result")


def in_order(
    function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]], workers: int = 0
) -> Generator[Result, None, None]:
    """function(*task) for each task, in the tasks' order; one worker is this process, 0 takes one per core, at most 8."""
    workers = workers or min(os.cpu_count() or 1, MOST_WORKERS)
    waiting_tasks = iter(tasks)
    if workers == 1:
        yield from (function(*task) for task in waiting_tasks)
        return
    # Fresh processes: a fork of one that holds threads (torch, onnxruntime) may hang.
    with kept_from_signals():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent, (os.getpid(),))

    def submitted(count: int) -> list[Future[Result]]:
        with kept_from_signals():
            return [pool.submit(function, *task) for task in islice(waiting_tasks, count)]

    with pool:
        try:
            waiting = deque(submitted(3 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(submitted(1))
        except BrokenProcessPool:
            raise WeaksegError(
                f"one of {counted(workers, 'worker process', 'worker processes')} was ended, perhaps because memory ran out; "
                "run the command again with fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
