# SPDX-License-Identifier: Apache-2.0
"""From a cloud to one answer per point: the same code on the robot, in bag replay, evaluation and retraining."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.domain import DomainMonitor
from weakseg_ros.deploy.engines import open_first
from weakseg_ros.deploy.engines.choice import chain_of
from weakseg_ros.deploy.fit import Fit, FitMonitor, combine, ground_classes, measure, tells, thinned
from weakseg_ros.deploy.frontends import FrontendSettings, Instances, open_frontend
from weakseg_ros.deploy.frontends import answer as ask
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import EngineError
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.lift import AskedLift

Watch = Literal["now", "later", "never"]
T = TypeVar("T")
Parts: TypeAlias = Generator[bool, None, T]
"""work in parts with a run of the engine at most, True between them"""
BETTER_FIT = 0.02
"""an intensity factor is advised where it brings the fit up by this much"""

log = logging.getLogger(__name__)


class Segmenter:
    """A bundle, ready to run: its frontend encodes, an engine runs, the frontend decodes. One thread calls `run` at a time.

    `engine` is a name or a sequence of names, the first that works is taken (`auto`: what is fastest on this machine, see
    engines/choice.py); `chain` is the order in which they are tried and the reason for it, and `why_not` says why those before
    the one at work were not taken; `threads` are CPU threads of the engine, 0 leaves it to choose. `watch` says when it is
    looked at whether the answers can be trusted: in `run`, whenever `look` or `look_on` is called, or never. The other arguments
    are the frontend's, see FrontendSettings; `settings` may be changed between two clouds.
    Raises BundleError where the network needs an input that clouds do not give, EngineError where no engine can run it.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str | Sequence[str] = "auto",
        threads: int = 0,
        lift: AskedLift = "auto",
        intensity_scale: float = 0.0,
        allow_no_intensity: bool = False,
        instances: Instances = "auto",
        watch: Watch = "now",
        passes: int = 1,
    ) -> None:
        self.bundle = bundle
        self.frontend = open_frontend(bundle.info)
        self.chain = chain_of(bundle, [engine] if isinstance(engine, str) else engine, threads)
        if self.chain.why:
            log.info("%s: %s", bundle.name, self.chain.why)
        self.engine, self.why_not = open_first(bundle, self.chain.labels, threads)
        self.frontend.settings = FrontendSettings(lift, instances, intensity_scale, allow_no_intensity, passes=passes)
        self._monitor = DomainMonitor(bundle.info)
        self._fit, self._ground, self._watch = FitMonitor(bundle.info), ground_classes(bundle.labels), watch
        self._last: tuple[Any, Segmentation] | None = None
        """the last cloud as it was seen, and its answer, until it was looked at"""
        self._looking: Parts[None] | None = None
        """the rest of what is to be done to look at a cloud"""
        self._known: Fit | None = None

    @property
    def settings(self) -> FrontendSettings:
        """How clouds are read and answers brought back to their points."""
        settings: FrontendSettings = self.frontend.settings
        return settings

    def run(self, cloud: Cloud) -> Segmentation:
        """Answers for all N points, in order; class 0 and a flag where a point cannot be answered.

        An empty cloud has an empty answer, whatever the bundle requires. Where the fit is low, no answer is more certain than
        the fit.

        Raises CloudError (`no_intensity`, `no_ring`, `grid_size`) where the bundle needs what the cloud has not, EngineError
        where the network's answer is unusable.
        """
        timings = _Timings()
        inputs, view = self.frontend.encode(cloud, timings.lap)
        outputs = ask(self.frontend, self.engine.run, inputs, view)
        timings.lap("engine")
        answer: Segmentation = self.frontend.decode(outputs, view, timings.lap)
        self._monitor.add(view)
        timings.lap("monitor")
        self._last = view, answer
        if self._watch == "now":
            self.look()
        return dataclasses.replace(_doubted(answer, self._known), timings_ms=timings.laps_ms)

    def look(self) -> None:
        """Look whether the answer to the last cloud can be trusted, where its turn has come: a run or two of the engine."""
        while self.look_on():
            pass

    def look_on(self) -> bool:
        """Do a part of `look`, a run of the engine at most; whether there is more to do.

        Called once after each cloud it spreads the work over some of them, so that none waits for all of it; the clouds until
        then are not looked at.
        """
        last, self._last = self._last, None
        if last is not None and self._watch != "never" and self._fit.due(busy=self._looking is not None):
            self._looking = self._look_at(*last)
        more = False
        if self._looking is not None:
            with contextlib.suppress(EngineError):  # which the next cloud meets again
                more = next(self._looking, False)
        if not more:
            self._looking = None
        return more

    def fit(self) -> Fit | None:
        """How far the answers to the clouds so far can be trusted; None where none of them tells."""
        return self._fit.fit(self.wrong_geometry())

    def forget(self) -> None:
        """Forget the clouds so far: what follows is of another sensor."""
        self._monitor, self._fit = DomainMonitor(self.bundle.info), FitMonitor(self.bundle.info)
        self._last = self._looking = self._known = None

    def _look_at(self, view: Any, answer: Segmentation) -> Parts[None]:
        """Measure an answer, and with it how far the next ones can be trusted."""
        if not tells(view.cloud):
            return
        fewer = yield from self._classes(thinned(view.cloud))
        found = measure(view, answer, fewer, self.bundle.info, self._ground)
        self._fit.note(view.cloud, found)
        yield True
        self._known = self.fit()
        factor = self._monitor.untried_factor()
        if factor is not None:
            yield True
            better = yield from self._fit_with(factor, view, answer)
            self._monitor.tried(factor, _without(better) >= _without(found) + BETTER_FIT)

    def _fit_with(self, factor: float, view: Any, answer: Segmentation) -> Parts[dict[str, float]]:
        """What would be measured with a factor on the intensity."""
        class_id = yield from self._classes(view.cloud, factor)
        yield True
        fewer = yield from self._classes(thinned(view.cloud), factor)
        scaled, other = dataclasses.replace(view, intensity_scale=factor), dataclasses.replace(answer, class_id=class_id)
        return measure(scaled, other, fewer, self.bundle.info, self._ground)

    def _classes(self, cloud: Cloud, intensity_scale: float | None = None) -> Parts[NDArray[np.uint8]]:
        """The class of each point, and nothing else; nothing is remembered of it."""
        scale = self.settings.intensity_scale if intensity_scale is None else intensity_scale
        asked = dataclasses.replace(self.settings, instances="none", allow_no_intensity=True, intensity_scale=scale)
        with self._asking(asked):
            inputs, view = self.frontend.encode(cloud)
        yield True
        with self._asking(asked):  # at once, as an engine may write its next answer over this one
            outputs = ask(self.frontend, self.engine.run, inputs, view)
            class_id: NDArray[np.uint8] = self.frontend.decode(outputs, view).class_id
            return class_id

    @contextlib.contextmanager
    def _asking(self, asked: FrontendSettings) -> Iterator[None]:
        """Other settings for a while."""
        kept, self.frontend.settings = self.settings, asked
        try:
            yield
        finally:
            self.frontend.settings = kept

    def domain_report(self) -> list[str]:
        """Where the last clouds differ from what the model was trained on, one sentence each; empty = they look alike."""
        return self._monitor.report()

    def wrong_geometry(self) -> list[str]:
        """What is plainly wrong with the frame or unit of the last clouds, one sentence each; part of `domain_report`."""
        return self._monitor.geometry()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()


def _without(parts: dict[str, float]) -> float:
    """The fit without what a factor on the intensity changes or nobody knows with it.

    The intensity was looked at before, and the clarity is of the classes without the factor.
    """
    return combine({name: value for name, value in parts.items() if name not in ("intensity", "clarity")}).value


def _doubted(answer: Segmentation, fit: Fit | None) -> Segmentation:
    """The answer, no more certain than a low fit."""
    if fit is None or not fit.low:
        return answer
    answered, most = answer.class_id > 0, np.float32(fit.value)
    return dataclasses.replace(
        answer,
        confidence=np.minimum(answer.confidence, most),
        uncertainty=np.where(answered, np.maximum(answer.uncertainty, 1 - most), answer.uncertainty),
    )


class _Timings:
    """Milliseconds by stage, each from the end of the one before."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps_ms[stage] = (now - self._last) * 1e3
        self._last = now
