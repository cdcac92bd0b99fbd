# SPDX-License-Identifier: Apache-2.0
"""Whether a frame may enter the log: decided when it comes, without knowing what comes after it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.improve.log.acquisition import Look
from weakseg_ros.improve.log.choice import FARTHEST, SCORE_FLOOR, distances_to

WINDOW = 600
"""frames that a new one is compared with: a minute at 10 Hz"""
LEAST_TOKENS = -1.0
"""how much drawn and asked frames may take of what the rate has yet to give"""
WARM_UP = 10
"""frames that are too few to compare with"""
EASING = 5.0
"""how fast the bar sinks: once a frame is due by the rate, the best (1 + EASING)^2 times as many would pass"""
BURST_S = 10.0
"""seconds of the rate that may be saved up"""


@dataclass(frozen=True)
class LogSettings:
    """Sets which frames the frame log keeps, where, and how many."""

    folder: str = ""
    """Names the folder in which frames worth labelling are kept; '' turns the log off."""
    per_minute: float = setting(6.0, 0.0, 6000.0)
    """Limits the average number of frames kept per minute (0 to 6000)."""
    spacing_s: float = setting(1.0, 0.0, 3600.0)
    """Sets the minimum time in seconds between two kept frames (0 to 3600); frames that are drawn at random or requested are
    exempt."""
    min_score: float = setting(0.0, 0.0, 1.0)
    """Sets the minimum acquisition score of a kept frame (0 to 1); with 0, only the rate limits what is kept."""
    min_distance: float = setting(0.05, 0.0, 2.0)
    """Sets the minimum descriptor distance between a new frame and the kept ones (0 to 2), where 0 means identical and 2 means
    nothing in common."""
    random_share: float = setting(0.05, 0.0, 1.0)
    """Sets the fraction of the kept frames that is drawn at random, regardless of their score (0 to 1), so that a model can be
    evaluated on the log."""
    points: int = setting(30, 0, 1000)
    """Limits the number of points suggested for labelling in a frame (0 to 1000)."""
    max_frames: int = setting(2000, 1, 1_000_000)
    """Limits the number of frames in the folder (1 to 1000000)."""
    max_mib: int = setting(4000, 1, 100_000_000)
    """Limits the disk space of the frames in the folder, in MiB (1 to 100000000)."""
    min_free_mib: int = setting(1000, 0, 100_000_000)
    """Sets the free disk space in MiB below which logging pauses (0 to 100000000); 0 lets the log fill the disk."""
    when_full: Literal["replace", "stop"] = "replace"
    """Selects what happens when max_frames or max_mib is reached: 'replace' deletes the least valuable unlabelled frame to make
    room for a better one, and 'stop' ends logging."""
    before_s: float = setting(0.0, 0.0, 60.0)
    """Sets how many seconds of clouds and of the topics in context_topics are kept from before each kept frame (0 to 60); 0 keeps
    none."""
    after_s: float = setting(0.0, 0.0, 60.0)
    """Sets how many seconds of clouds and of the topics in context_topics are kept from after each kept frame (0 to 60); 0 keeps
    none."""
    context_topics: str = ""
    """Lists additional topics to keep with before_s and after_s, separated by commas, for example a camera and the odometry."""
    context_mib: int = setting(256, 1, 100_000)
    """Limits the memory in MiB for the messages of before_s and after_s (1 to 100000); beyond it, the oldest messages are
    dropped."""
    seed: int = setting(0, 0, 2**31 - 1)
    """Seeds the random draw of frames (0 to 2147483647)."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def context_names(self) -> tuple[str, ...]:
        """The names in `context_topics`."""
        return tuple(filter(None, (name.strip() for name in self.context_topics.split(","))))


@dataclass(frozen=True)
class Decision:
    """Whether a frame is kept: for `reason`, or, where that is empty, passed over because of `obstacle`."""

    reason: str = ""
    obstacle: str = ""


class Admission:
    """Keeps the rate and the spacing, and tells the frames worth it: those that the last minute had few of.

    The worth of a frame is the product of its score and its distance to the frames kept so far, as in the offline
    choice (`select.choose_frames`). A frame is kept where its worth is among the highest of the last minute, as many of
    them as the rate allows; the longer none was kept, the less it takes. Frames drawn at random are drawn before anything
    else is looked at.
    """

    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self._rng = np.random.default_rng(settings.seed)
        self._tokens = 1.0 if settings.per_minute else 0.0
        self._last_offer_s: float | None = None
        self._last_kept_s = -np.inf
        self._interval_s = 0.1
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._distances: deque[float] = deque(maxlen=WINDOW)

    def decide(self, look: Look, known: NDArray[np.float32], now_s: float, asked: bool = False) -> Decision:
        """Whether to keep a frame that came at `now_s` (a clock that never runs backwards); `known` (n, D) was kept."""
        expected = self._advance(now_s)
        distance = float(distances_to(look.descriptor[None], known)[0]) if len(known) else FARTHEST
        decision = self._judge(look, distance, now_s, expected, asked)
        self._scores.append(look.score)
        self._distances.append(distance)
        if decision.reason:
            self._tokens = max(LEAST_TOKENS, self._tokens - 1.0)
            if decision.reason != "random":
                self._last_kept_s = now_s
        return decision

    def _advance(self, now_s: float) -> float:
        """Let the time pass; the share of frames that the rate allows."""
        rate_hz = self.settings.per_minute / 60.0
        if self._last_offer_s is not None:
            elapsed_s = max(0.0, now_s - self._last_offer_s)
            self._interval_s += 0.05 * (min(elapsed_s, 60.0) - self._interval_s)
            self._tokens = min(max(1.0, BURST_S * rate_hz), self._tokens + elapsed_s * rate_hz)
        self._last_offer_s = now_s
        return min(1.0, rate_hz * self._interval_s)

    def _judge(self, look: Look, distance: float, now_s: float, expected: float, asked: bool) -> Decision:
        if asked:
            return Decision("asked")
        drawn = self._rng.random() < self.settings.random_share * expected
        if drawn and self._tokens > LEAST_TOKENS:  # a draw may borrow from what comes, or it would depend on what was
            return Decision("random")
        obstacle = self._obstacle(look, distance, now_s, expected)
        if obstacle:
            return Decision(obstacle=obstacle)
        return Decision("novel" if self._is_novel(look.score, distance) else "uncertain")

    def _obstacle(self, look: Look, distance: float, now_s: float, expected: float) -> str:
        """What speaks against a frame first, or nothing."""
        settings = self.settings
        if self._tokens < 1.0:
            return "rate"
        if now_s - self._last_kept_s < settings.spacing_s:
            return "spacing"
        if look.score < settings.min_score:
            return "certain"
        if distance < settings.min_distance:
            return "similar"
        if len(self._scores) < WARM_UP:
            return ""
        overdue = (now_s - self._last_kept_s) * settings.per_minute / 60.0
        share = min(1.0, expected * (1.0 + EASING * overdue) ** 2)
        scores = np.array(self._scores)
        weights = SCORE_FLOOR * max(float(scores.max()), look.score) + (1.0 - SCORE_FLOOR) * np.append(scores, look.score)
        worths = weights * np.append(self._distances, distance)
        return "" if worths[-1] >= np.quantile(worths[:-1], 1.0 - share) else "ordinary"

    def _is_novel(self, score: float, distance: float) -> bool:
        """Whether the frame stands out by its looks more than by its doubt."""
        if not self._scores:
            return False
        return distance * (float(np.mean(self._scores)) + 1e-9) > score * (float(np.mean(self._distances)) + 1e-9)
