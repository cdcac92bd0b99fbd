# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself: counters that two threads write, warnings that do not flood, /diagnostics."""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from weakseg_ros.deploy.fit import Fit
from weakseg_ros.errors import counted
from weakseg_ros.ros.params import NodeConfig
from weakseg_ros.ros.transport import PROFILE, profile_variables

if TYPE_CHECKING:
    from weakseg_ros.ros.cloud_source import CloudSource
    from weakseg_ros.ros.model import Model
    from weakseg_ros.ros.publish import Outputs

SEVERITY = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.STALE, DiagnosticStatus.ERROR)
"""an error that explains the silence counts more than the silence"""
OVERLOAD_REASONS = ("superseded", "lost_in_transport")
"""drops that say nothing against the clouds themselves"""
RECENT_S = 10.0
"""a drop is worth a warning for so long, and the rate is that of this time"""
WINDOW = 200
"""frames over which percentiles are taken, and at most the rate"""


class FrameStatistics:
    """What came in, what went out and what was dropped, and why. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._answered = 0
        self._empty = 0
        self._dropped: Counter[str] = Counter()
        self._last_drop_s: dict[str, float] = {}
        self._arrivals_s: deque[float] = deque(maxlen=WINDOW)
        self._milliseconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def arrived(self) -> None:
        """A cloud has come in."""
        with self._lock:
            self._received += 1
            self._arrivals_s.append(time.monotonic())

    def answered(self, points: int, milliseconds: Mapping[str, float]) -> None:
        """A labelled cloud has gone out; `milliseconds` by stage."""
        with self._lock:
            self._answered += 1
            self._empty += points == 0
            for stage, value in milliseconds.items():
                self._milliseconds[stage].append(value)

    def dropped(self, reason: str, count: int = 1) -> None:
        """A cloud got no answer."""
        with self._lock:
            self._dropped[reason] += count
            self._last_drop_s[reason] = time.monotonic()

    def snapshot(self) -> FrameSummary:
        """The figures of this moment."""
        now = time.monotonic()
        with self._lock:
            latest_s = self._arrivals_s[-1] if self._arrivals_s else None
            arrivals = [at_s for at_s in self._arrivals_s if now - at_s < RECENT_S]
            stages = {stage: list(values) for stage, values in self._milliseconds.items()}
            counts = (self._received, self._answered, self._empty, dict(self._dropped))
            recent = tuple(reason for reason, last_s in self._last_drop_s.items() if now - last_s < RECENT_S)
        span = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
        return FrameSummary(
            *counts,
            dropping=recent,
            rate_hz=(len(arrivals) - 1) / span if span > 0 else 0.0,
            age_s=None if latest_s is None else now - latest_s,
            milliseconds={stage: _percentiles(values) for stage, values in stages.items()},
        )


@dataclass(frozen=True)
class FrameSummary:
    """Figures of the frames so far."""

    received: int
    answered: int
    empty: int
    dropped: dict[str, int]
    """by reason, since the start"""
    dropping: tuple[str, ...]
    """reasons of the last RECENT_S seconds"""
    rate_hz: float
    age_s: float | None
    """seconds since the last cloud; None where none came yet"""
    milliseconds: dict[str, tuple[float, float]]
    """median and 95th percentile by stage"""


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)


class Throttle:
    """Lets each cause pass once, and then again only after `period_s`."""

    def __init__(self, period_s: float = 10.0) -> None:
        self._period_s = period_s
        self._last_s: dict[str, float] = {}

    def passes(self, cause: str) -> bool:
        """Whether `cause` may be said now."""
        now = time.monotonic()
        if now - self._last_s.get(cause, -np.inf) < self._period_s:
            return False
        self._last_s[cause] = now
        return True

    def first(self, cause: str) -> bool:
        """Whether `cause` was never said before."""
        return cause not in self._last_s and self.passes(cause)


@dataclass
class Status:
    """One line of /diagnostics: the worst sentence is its message, figures are its values."""

    name: str
    message: str = "ok"
    level: bytes = DiagnosticStatus.OK
    values: dict[str, object] = field(default_factory=dict)

    def worsen(self, level: bytes, message: str) -> None:
        """Say `message` at `level`, unless something as bad has been said already."""
        if SEVERITY.index(level) > SEVERITY.index(self.level):
            self.level, self.message = level, message


def input_status(summary: FrameSummary, config: NodeConfig, source: CloudSource | None) -> Status:
    """Rate and age of the clouds, drops by reason, and why none comes."""
    status = Status("input", values={"received": summary.received, "answered": summary.answered, "empty": summary.empty})
    status.values |= {f"dropped {reason}": count for reason, count in sorted(summary.dropped.items())}
    status.values |= {"rate_hz": f"{summary.rate_hz:.2f}", "age_s": "never" if summary.age_s is None else f"{summary.age_s:.2f}"}
    if source is None:
        status.message = "the node is not active and processes no clouds"
        return status
    reliability = source.reliability.name.lower()
    status.values |= {"topic": source.topic, "publishers": source.publishers, "reliability": reliability, "mode": config.mode}
    if source.problem:
        status.worsen(DiagnosticStatus.ERROR, source.problem)
    malformed = [f"{summary.dropped[reason]} {reason}" for reason in summary.dropping if reason not in OVERLOAD_REASONS]
    if malformed:
        status.worsen(DiagnosticStatus.WARN, "clouds dropped: " + ", ".join(malformed))
    silent = summary.age_s is None or summary.age_s > config.stale_after_s
    if silent and not source.publishers:
        status.worsen(DiagnosticStatus.STALE, f"{source.topic}: nobody publishes; remap 'points' to the LiDAR's topic")
    elif silent and source.seconds_with_publishers > config.stale_after_s:
        status.worsen(DiagnosticStatus.STALE, _why_silent(summary, source))
    return status


def _why_silent(summary: FrameSummary, source: CloudSource) -> str:
    if summary.age_s is not None:
        return f"{source.topic}: no cloud for {summary.age_s:.1f} s"
    return (
        f"{source.topic}: has {counted(source.publishers, 'publisher')} but no cloud arrives; either none is sent, or they are "
        "above 512 KiB, which needs the transport profile in the driver's process, too: "
        f"set {' and '.join(profile_variables())} to {PROFILE} there"
    )


def inference_status(summary: FrameSummary, model: Model | None) -> Status:
    """The engine at work, why not another one, and milliseconds by stage."""
    status = Status("inference")
    if model is None:
        status.worsen(DiagnosticStatus.WARN, "no model is loaded; configure the node")
        return status
    status.values["engine"] = model.engine
    if model.why:
        status.values["why_this_engine"] = model.why
    status.values |= {f"refused {text.partition(':')[0]}": text for text in model.refused}
    for stage, (p50, p95) in summary.milliseconds.items():
        status.values |= {f"{stage}_p50_ms": f"{p50:.2f}", f"{stage}_p95_ms": f"{p95:.2f}"}
    if "engine" in summary.dropping:
        status.worsen(DiagnosticStatus.WARN, f"{counted(summary.dropped['engine'], 'cloud')} lost to a failing engine")
    return status


def model_status(model: Model | None, config: NodeConfig, fault: str, loading: str = "") -> Status:
    """The bundle at work, and the last sentence on why another one is not, or that the first one is under way."""
    status = Status("model", values={"wanted": config.bundle})
    if model is not None:
        info = model.bundle.info
        status.values |= {
            "bundle": info.name,
            "hash": info.content_hash,
            "labels": info.labels.name,
            "classes": info.labels.num_classes,
        }
    if loading:
        status.worsen(DiagnosticStatus.WARN, loading)
    elif fault:
        status.worsen(DiagnosticStatus.ERROR, fault)
    elif model is None:
        status.worsen(DiagnosticStatus.WARN, "the node is not configured, so no model is loaded")
    return status


def device_status(model: Model | None) -> Status:
    """Where the network runs, and how much memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory_mib = pages * resource.getpagesize() // 2**20
    return Status("device", values={"device": model.device if model else "none", "memory_mib": memory_mib})


def output_status(outputs: Outputs | None) -> Status:
    """Whether every subscriber can hear the answers."""
    status = Status("output")
    if outputs is not None and outputs.problem:
        status.worsen(DiagnosticStatus.ERROR, outputs.problem)
    return status


def domain_status(sentences: Sequence[str], wrong_geometry: Sequence[str] = (), fit: Fit | None = None) -> Status:
    """Whether the clouds look like what the model was trained on, and its answers can be trusted.

    An error where their frame or unit is plainly wrong, or the fit is low.
    """
    status = Status("domain", values={f"difference {i + 1}": text for i, text in enumerate(sentences)})
    if fit is not None:
        status.values |= {"fit": f"{fit.value:.2f}", **{f"fit {name}": f"{value:.2f}" for name, value in fit.parts.items()}}
    if wrong_geometry:
        status.worsen(DiagnosticStatus.ERROR, wrong_geometry[0])
    elif fit is not None and fit.low:
        status.worsen(DiagnosticStatus.ERROR, f"the answers are not reliable, {fit}")
    elif sentences:
        status.worsen(DiagnosticStatus.WARN, sentences[0])
    return status


def to_message(statuses: Iterable[Status], node: str, stamp: Time) -> DiagnosticArray:
    """The statuses as /diagnostics wants them, under the node's fully qualified name."""
    array = DiagnosticArray()
    array.header.stamp = stamp
    for status in statuses:
        values = [KeyValue(key=key, value=str(value)) for key, value in status.values.items()]
        array.status.append(
            DiagnosticStatus(
                level=status.level, name=f"{node}: {status.name}", message=status.message, hardware_id=node, values=values
            )
        )
    return array
