# SPDX-License-Identifier: Apache-2.0
"""Which suggested point of a frame comes next; those that were passed over do not come again by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.improve.label.frame_source import Frame


class SuggestedPoints:
    """The walk through the suggested points of frames, forwards past what is labelled or passed over, backwards to any."""

    def __init__(self) -> None:
        self._passed: dict[str, set[int]] = {}

    def pass_over(self, frame: Frame, at: int) -> None:
        """Leave a suggestion out of the walk forwards."""
        self._passed.setdefault(frame.key, set()).add(at)

    def take_up(self, frame: Frame, at: int) -> None:
        """Let a suggestion come again, should its label be taken back."""
        self._passed.get(frame.key, set()).discard(at)

    def next(self, frame: Frame, class_id: NDArray[np.uint8], now: int | None) -> int | None:
        """The next suggestion without a label in `class_id` (N,), round to the start; None where all are done."""
        count, start = len(frame.suggestions), -1 if now is None else now
        passed = self._passed.get(frame.key, set())
        around: Iterator[int] = iter([*range(start + 1, count), *range(start + 1)])
        return next((at for at in around if at not in passed and not class_id[frame.suggestions[at].point]), None)

    def previous(self, frame: Frame, now: int | None) -> int | None:
        """The suggestion before this one, whether labelled or not; None before the first."""
        at = (len(frame.suggestions) if now is None else now) - 1
        return at if at >= 0 else None
