# SPDX-License-Identifier: Apache-2.0
"""How long things took: samples by stage, their percentiles and their histogram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 95, 99)
MOST_SAMPLES = 50_000
"""of a stage; an hour and a half at 10 Hz"""


class StageTimes:
    """Milliseconds by stage, in the order in which the stages were first seen; addable across processes.

    Beyond MOST_SAMPLES of a stage every second one is let go, of all stages alike, as often as needed: `stride` says that every
    so-manieth scan is kept, so that a thousand bags take no more memory than ten. The largest are remembered apart.
    """

    def __init__(
        self,
        samples_ms: Mapping[str, Iterable[float]] | None = None,
        stride: int = 1,
        worst_ms: Mapping[str, float] | None = None,
    ) -> None:
        self.samples_ms: dict[str, list[float]] = {stage: list(samples) for stage, samples in (samples_ms or {}).items()}
        self.stride = stride
        self.worst_ms = dict(worst_ms or {stage: max(samples) for stage, samples in self.samples_ms.items() if samples})
        self._scans = 0
        self._thin()

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """One scan's timings."""
        keep = self._scans % self.stride == 0
        self._scans += 1
        for stage, milliseconds in timings_ms.items():
            self.worst_ms[stage] = max(self.worst_ms.get(stage, 0.0), float(milliseconds))
            samples = self.samples_ms.setdefault(stage, [])
            if keep:
                samples.append(float(milliseconds))
        self._thin()

    def __add__(self, other: StageTimes) -> StageTimes:
        stride = max(self.stride, other.stride)
        joined: dict[str, list[float]] = {}
        for part in (self, other):
            for stage, samples in part.samples_ms.items():
                joined.setdefault(stage, []).extend(samples[:: stride // part.stride])
        stages = dict.fromkeys((*self.worst_ms, *other.worst_ms))
        worst = {stage: max(self.worst_ms.get(stage, 0.0), other.worst_ms.get(stage, 0.0)) for stage in stages}
        return StageTimes(joined, stride, worst)

    def _thin(self) -> None:
        while any(len(samples) > MOST_SAMPLES for samples in self.samples_ms.values()):
            self.samples_ms = {stage: samples[::2] for stage, samples in self.samples_ms.items()}
            self.stride *= 2

    def summary(self) -> dict[str, dict[str, float]]:
        """{stage: {p50, p95, p99, mean, max, count}} in ms of the samples that are kept; stages without one are left out."""
        found = {stage: describe(samples) for stage, samples in self.samples_ms.items() if samples}
        return {stage: {**figures, "max": round(self.worst_ms[stage], 3)} for stage, figures in found.items()}


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
