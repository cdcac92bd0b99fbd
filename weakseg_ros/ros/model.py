# SPDX-License-Identifier: Apache-2.0
"""The model at work in the node: opened as the parameters say, replaced between two frames, never half of each."""

from __future__ import annotations

import threading
from collections.abc import Callable

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines import label_of
from weakseg_ros.deploy.fit import Fit
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import EngineError
from weakseg_ros.memory import give_back_free_blocks
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.ros.params import NodeConfig


def open_segmenter(config: NodeConfig, bundle: Bundle) -> Segmenter:
    """A bundle in the engine that the parameters name, loaded and warmed up; EngineError says why not."""
    return Segmenter(bundle, engine=config.engines, threads=config.threads, watch="later")


class Model:
    """Holds one open segmenter. Any thread may call; a replacement waits for the frame at hand."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._lock = threading.Lock()
        self._segmenter = segmenter
        self._refused = list(segmenter.why_not)

    def __str__(self) -> str:
        return f"{self.bundle.name} ({self.bundle.content_hash[:12]}) on {self.engine}, {self.device}"

    @property
    def bundle(self) -> Bundle:
        """The bundle at work."""
        return self._segmenter.bundle

    @property
    def engine(self) -> str:
        """The engine at work, with its arithmetic where that is not float32."""
        return label_of(self._segmenter.engine)

    @property
    def why(self) -> str:
        """Why `auto` took the engine at work; '' where the parameters name it."""
        return self._segmenter.chain.why

    @property
    def device(self) -> str:
        """Where the engine runs."""
        return self._segmenter.engine.device

    @property
    def refused(self) -> list[str]:
        """Why the engines before this one are not used, one sentence each."""
        return list(self._refused)

    def run(self, cloud: Cloud, config: NodeConfig, refer: bool = False) -> tuple[Segmentation, Bundle]:
        """Segment with the settings of this moment, and say which bundle did; see Segmenter.run for the errors.

        `refer` keeps the features that an expression is answered from.
        """
        with self._lock:
            settings = self._segmenter.settings
            settings.lift, settings.instances = config.lift, config.instances
            settings.intensity_scale = config.input.intensity_scale
            settings.allow_no_intensity = not config.input.intensity_field
            settings.refer = refer
            return self._segmenter.run(cloud), self._segmenter.bundle

    def look(self) -> None:
        """Do a part of looking whether answers can be trusted; the worker's, after it has published."""
        with self._lock:
            self._segmenter.look_on()

    def fit(self) -> Fit | None:
        """How far the answers so far can be trusted; None where no cloud tells."""
        return self._segmenter.fit()

    def domain_report(self) -> list[str]:
        """Where the recent clouds differ from the training data."""
        return self._segmenter.domain_report()

    def wrong_geometry(self) -> list[str]:
        """What is plainly wrong with the frame or unit of the recent clouds."""
        return self._segmenter.wrong_geometry()

    def replace(self, segmenter: Segmenter, announce: Callable[[Bundle], None] | None = None) -> None:
        """Take another segmenter from the next frame on, and close the old one.

        `announce` is called between the last frame of the one and the first of the other.
        """
        with self._lock:
            if announce is not None:
                announce(segmenter.bundle)
            old, self._segmenter, self._refused = self._segmenter, segmenter, list(segmenter.why_not)
        old.close()
        del old
        give_back_free_blocks()

    def fall_back(self, config: NodeConfig, reason: str) -> None:
        """Open the next engine after the one at work.

        EngineError where there is none, or where another model was taken meanwhile; all stays as it is then.
        """
        with self._lock:
            failing, refused = self._segmenter, self._refused
        failed, names = label_of(failing.engine), failing.chain.labels
        rest = names[names.index(failed) + 1 :] if failed in names else ()
        if not rest:
            raise EngineError(f"{failed}: fails on every cloud and no other engine is left; {reason}")
        other = Segmenter(failing.bundle, engine=rest, threads=config.threads, watch="later")
        with self._lock:
            swapped = self._segmenter is not failing
            if not swapped:
                self._segmenter, self._refused = other, [*refused, f"{failed}: {reason}", *other.why_not]
        (other if swapped else failing).close()
        give_back_free_blocks()
        if swapped:
            raise EngineError(f"{failed}: fails on every cloud ({reason}); {self} was loaded meanwhile and stays in use")

    def close(self) -> None:
        """Release the engine; nobody may call `run` any more."""
        self._segmenter.close()
