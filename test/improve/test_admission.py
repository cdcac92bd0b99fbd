# SPDX-License-Identifier: Apache-2.0
"""Which frames enter the log: rate and spacing hold, the better ones come in, and the drawn ones are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np

from weakseg_ros.improve.log.acquisition import Look
from weakseg_ros.improve.log.admission import Admission, LogSettings


def decide(settings: LogSettings, looks: list[Look], rate_hz: float = 10.0) -> list[str]:
    """The reason or obstacle for each of these frames, coming one after the other."""
    admission, known, words = Admission(settings), np.zeros((0, 4), np.float32), []
    for i, look in enumerate(looks):
        decision = admission.decide(look, known, i / rate_hz)
        words.append(decision.reason or decision.obstacle)
        if decision.reason:
            known = np.concatenate([known, look.descriptor[None]])
    return words


def looks(count: int, seed: int = 0, score: float | None = None) -> list[Look]:
    rng = np.random.default_rng(seed)
    scores = rng.random(count) if score is None else np.full(count, score)
    return [Look(float(s), float(s), rng.random(4, dtype=np.float32)) for s in scores]


def test_with_every_frame_uncertain_the_rate_and_the_spacing_hold() -> None:
    settings = LogSettings(per_minute=12, spacing_s=2.0, random_share=0.0, min_distance=0.0)
    words = decide(settings, looks(3000, score=1.0))
    kept_at = [i for i, word in enumerate(words) if word in ("uncertain", "novel")]
    assert 30 <= len(kept_at) <= 62, "5 minutes at 12 a minute, and what was saved up"
    assert np.diff(kept_at).min() >= 20
    assert kept_at[-1] > 2800, "it does not dry up"


def test_the_better_frames_are_kept() -> None:
    stream = looks(6000)
    words = decide(LogSettings(per_minute=6, spacing_s=0, random_share=0, min_distance=0), stream)
    scores = [look.score for look, word in zip(stream, words, strict=True) if word in ("uncertain", "novel")]
    assert len(scores) >= 20
    assert np.mean(scores) > 0.65, "all of them have 0.5 on average"


def test_frames_like_a_kept_one_and_certain_ones_are_not_kept() -> None:
    same = [Look(0.9, 0.9, np.ones(4, np.float32))] * 500
    assert Counter(decide(LogSettings(per_minute=600, spacing_s=0, random_share=0), same))["similar"] >= 490
    assert set(decide(LogSettings(min_score=0.5, random_share=0, per_minute=600, spacing_s=0), looks(50, score=0.4))) == {
        "certain"
    }


def test_the_random_share_is_drawn_whatever_the_score() -> None:
    settings = LogSettings(per_minute=60, random_share=0.5, min_score=1.0, spacing_s=5.0)
    stream = looks(6000, seed=7)
    drawn = [look.score for look, word in zip(stream, decide(settings, stream), strict=True) if word == "random"]
    assert 200 <= len(drawn) <= 400, "half of 60 a minute, for ten minutes"
    assert abs(np.mean(drawn) - 0.5) < 0.06
    assert decide(settings, stream) == decide(settings, stream)


def test_a_rate_of_nothing_keeps_nothing() -> None:
    assert set(decide(LogSettings(per_minute=0), looks(200))) == {"rate"}


def test_many_requests_do_not_silence_the_log_for_long() -> None:
    admission, known = Admission(LogSettings(per_minute=60, spacing_s=0, min_distance=0)), np.zeros((0, 4), np.float32)
    assert {admission.decide(look, known, 0.0, asked=True).reason for look in looks(50)} == {"asked"}
    later = [admission.decide(look, known, 1.0 + i / 10).reason for i, look in enumerate(looks(100))]
    assert 5 <= len([reason for reason in later if reason]) <= 12
