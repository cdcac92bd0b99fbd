# SPDX-License-Identifier: Apache-2.0
"""From a cloud to one answer per point: the same code on the robot, in bag replay, evaluation and retraining."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.domain import DomainMonitor
from weakseg_ros.deploy.engines import open_first
from weakseg_ros.deploy.engines.choice import chain_of
from weakseg_ros.deploy.frontends import FrontendSettings, Instances, Lift, open_frontend
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.cloud import Cloud

log = logging.getLogger(__name__)


class Segmenter:
    """A bundle, ready to run: its frontend encodes, an engine runs, the frontend decodes. One thread calls `run` at a time.

    `engine` is a name or a sequence of names, the first that works is taken (`auto`: what is fastest on this machine, see
    engines/choice.py); `chain` is the order in which they are tried and the reason for it, and `why_not` says why those before
    the one at work were not taken; `threads` are CPU threads of the engine, 0 leaves it to choose. The other arguments
    are the frontend's, see FrontendSettings; `settings` may be changed between two clouds.
    Raises BundleError where the network needs an input that clouds do not give, EngineError where no engine can run it.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str | Sequence[str] = "auto",
        threads: int = 0,
        lift: Lift = "pixel",
        intensity_scale: float = 0.0,
        allow_no_intensity: bool = False,
        instances: Instances = "auto",
    ) -> None:
        self.bundle = bundle
        self.frontend = open_frontend(bundle.info)
        self.chain = chain_of(bundle, [engine] if isinstance(engine, str) else engine, threads)
        if self.chain.why:
            log.info("%s: %s", bundle.name, self.chain.why)
        self.engine, self.why_not = open_first(bundle, self.chain.labels, threads)
        self.frontend.settings = FrontendSettings(lift, instances, intensity_scale, allow_no_intensity)
        self._monitor = DomainMonitor(bundle.info)

    @property
    def settings(self) -> FrontendSettings:
        """How clouds are read and answers brought back to their points."""
        settings: FrontendSettings = self.frontend.settings
        return settings

    def run(self, cloud: Cloud) -> Segmentation:
        """Answers for all N points, in order; class 0 and a flag where a point cannot be answered.

        An empty cloud has an empty answer, whatever the bundle requires.

        Raises CloudError (`no_intensity`, `no_ring`, `grid_size`) where the bundle needs what the cloud has not, EngineError
        where the network's answer is unusable.
        """
        timings = _Timings()
        inputs, view = self.frontend.encode(cloud, timings.lap)
        outputs = self.frontend.nothing() if self.frontend.sees_nothing(view) else self.engine.run(inputs)
        timings.lap("engine")
        answer: Segmentation = self.frontend.decode(outputs, view, timings.lap)
        self._monitor.add(view)
        timings.lap("monitor")
        return dataclasses.replace(answer, timings_ms=timings.laps_ms)

    def domain_report(self) -> list[str]:
        """Where the last clouds differ from what the model was trained on, one sentence each; empty = they look alike."""
        return self._monitor.report()

    def wrong_geometry(self) -> list[str]:
        """What is plainly wrong with the frame or unit of the last clouds, one sentence each; part of `domain_report`."""
        return self._monitor.geometry()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()


class _Timings:
    """Milliseconds by stage, each from the end of the one before."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps_ms[stage] = (now - self._last) * 1e3
        self._last = now
