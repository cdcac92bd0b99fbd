# SPDX-License-Identifier: Apache-2.0
"""How long things took: samples by stage, their percentiles and their histogram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 95, 99)


class StageTimes:
    """Milliseconds by stage, in the order in which the stages were first seen; addable across processes."""

    def __init__(self, samples_ms: Mapping[str, Iterable[float]] | None = None) -> None:
        self.samples_ms: dict[str, list[float]] = {stage: list(samples) for stage, samples in (samples_ms or {}).items()}

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """One scan's timings."""
        for stage, milliseconds in timings_ms.items():
            self.samples_ms.setdefault(stage, []).append(float(milliseconds))

    def __add__(self, other: StageTimes) -> StageTimes:
        total = StageTimes(self.samples_ms)
        for stage, samples in other.samples_ms.items():
            total.samples_ms.setdefault(stage, []).extend(samples)
        return total

    def summary(self) -> dict[str, dict[str, float]]:
        """{stage: {p50, p95, p99, mean, max, count}} in ms; stages without a sample are left out."""
        return {stage: describe(samples) for stage, samples in self.samples_ms.items() if samples}


def describe(samples_ms: Iterable[float]) -> dict[str, float]:
    """{p50, p95, p99, mean, max, count} of some milliseconds, rounded to a microsecond; count alone where there are none."""
    samples = np.asarray(list(samples_ms), dtype=np.float64)
    if not len(samples):
        return {"count": 0}
    percentiles = {f"p{percent}": round(float(np.percentile(samples, percent)), 3) for percent in PERCENTILES}
    return {**percentiles, "mean": round(float(samples.mean()), 3), "max": round(float(samples.max()), 3), "count": len(samples)}


def histogram(samples_ms: Iterable[float], bins: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts (bins,) and edges (bins + 1,) in ms; the last bin also holds what lies beyond the 99th percentile.

    One slow first scan would otherwise squeeze all others into a single bar. 0 bins: as many as the samples fill well.
    """
    samples = np.asarray(list(samples_ms), dtype=np.float64)
    bins = bins or int(np.clip(2 * np.sqrt(len(samples)), 6, 30))
    if not len(samples):
        return np.zeros(bins, np.int64), np.linspace(0.0, 1.0, bins + 1)
    low, high = float(samples.min()), float(np.percentile(samples, 99))
    if high <= low:
        high = low + max(1e-3, 0.01 * low)
    return np.histogram(np.clip(samples, low, high), bins=bins, range=(low, high))
