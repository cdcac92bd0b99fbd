# SPDX-License-Identifier: Apache-2.0
"""From a cloud to one answer per point: the same code on the robot, in bag replay, evaluation and retraining."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.domain import WITHOUT_INTENSITY, DomainMonitor
from weakseg_ros.deploy.engines import open_engine
from weakseg_ros.deploy.instances import Instances, ObjectFinder
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import CloudError
from weakseg_ros.points.cloud import FLAG_OUT_OF_RANGE, Cloud
from weakseg_ros.points.lift import knn_vote, lift
from weakseg_ros.points.projection import RangeView, network_input, nothing_seen, project

Lift = Literal["pixel", "knn"]
FULL_CIRCLE_DEG = 359.9
MAX_DEVIATIONS = 1e4
"""intensity farther from the mean, in standard deviations, is cut: one absurd value would become NaN inside the network"""


class Segmenter:
    """A bundle, ready to run. One thread calls `run` at a time.

    `engine` is a name or a sequence of names, the first that works is taken (`auto`: onnxruntime, then torch) and `why_not`
    says why those before it were not; `threads` are CPU threads of the engine, 0 leaves it to choose. `lift="pixel"` gives a
    point the answer of its pixel, `"knn"` lets its neighbours in the image vote on its class. `instances` says how points
    of countable classes become objects, see ObjectFinder. `intensity_scale` multiplies
    the intensity, 0 = automatic: integer datatypes are scaled to the training data's full scale, floats are taken as they
    are. With `allow_no_intensity` a cloud without intensity is fed zeros although the bundle requires it.
    Raises EngineError where no engine can run the bundle.
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
        self.lift = lift
        self.instances = instances
        self.intensity_scale = intensity_scale
        self.allow_no_intensity = allow_no_intensity
        self.engine, self.why_not = open_engine(bundle, [engine] if isinstance(engine, str) else engine, threads)
        self._full_circle = bundle.info.spec.fov_left_deg - bundle.info.spec.fov_right_deg >= FULL_CIRCLE_DEG
        self._objects = ObjectFinder(bundle.info, self._full_circle)
        self._monitor = DomainMonitor(bundle.info)

    def run(self, cloud: Cloud) -> Segmentation:
        """Answers for all N points, in order; class 0 and a flag where a point cannot be answered.

        An empty cloud has an empty answer, whatever the bundle requires.

        Raises CloudError (`no_intensity`, `no_ring`, `grid_size`) where the bundle needs what the cloud has not, EngineError
        where the network's answer is unusable.
        """
        info, timings = self.bundle.info, _Timings()
        scale = self._check_intensity(cloud)
        view = project(cloud, info.spec) if len(cloud) else nothing_seen(info.spec)
        timings.lap("project")
        image = network_input(cloud, view, info.channels, info.mean, info.std, scale)
        if "intensity" in info.channels:
            plane = image[info.channels.index("intensity")]
            np.clip(plane, -MAX_DEVIATIONS, MAX_DEVIATIONS, out=plane)
        timings.lap("image")
        outputs = self._infer(image, view)
        timings.lap("engine")
        class_image, instance_image = self._objects.find(outputs, cloud.xyz, view, self.instances)
        timings.lap("group")
        of_points = self._lift(outputs, class_image, instance_image, view)
        unseen = cloud.valid & (view.pixel_of_point < 0)
        flags = np.where(unseen, np.uint8(FLAG_OUT_OF_RANGE), cloud.flags)
        timings.lap("lift")
        self._monitor.add(cloud, view, scale)
        timings.lap("monitor")
        return Segmentation(
            **of_points, flags=flags, class_image=class_image, instance_image=instance_image, timings_ms=timings.laps_ms
        )

    def domain_report(self) -> list[str]:
        """Where the last clouds differ from what the model was trained on, one sentence each; empty = they look alike."""
        return self._monitor.report()

    def wrong_geometry(self) -> list[str]:
        """What is plainly wrong with the frame or unit of the last clouds, one sentence each; part of `domain_report`."""
        return self._monitor.geometry()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    def _check_intensity(self, cloud: Cloud) -> float:
        """The factor for this cloud's intensity; CloudError where it has none and the bundle requires one."""
        rule = self.bundle.info.intensity
        if rule.required and len(cloud) and not cloud.intensity_field and not self.allow_no_intensity:
            raise CloudError(
                f"cloud: has no intensity, which models/{self.bundle.name} was trained with; set intensity_field to the "
                f"field that holds it, or '' to feed zeros; where there is none, a model trained without it answers better "
                f"({WITHOUT_INTENSITY})",
                "no_intensity",
            )
        if self.intensity_scale:
            return self.intensity_scale
        if cloud.intensity_full_scale and rule.full_scale:
            return rule.full_scale / cloud.intensity_full_scale
        return 1.0

    def _infer(self, image: NDArray[np.float32], view: RangeView) -> dict[str, NDArray[Any]]:
        """The network's (H, W) images, 0 where no point is; without any point the network is not asked."""
        empty = view.point_of_pixel < 0
        if empty.all():
            images = ("confidence", "uncertainty", *(name for name in self.bundle.info.outputs if name == "novelty"))
            nothing = {name: np.zeros(empty.shape, np.float32) for name in images}
            return {"class_id": np.zeros(empty.shape, np.uint8), **nothing}
        outputs = {name: values[0] for name, values in self.engine.run(image[None]).items()}
        outputs["class_id"] = np.where(empty, np.uint8(0), outputs["class_id"])
        return outputs

    def _lift(
        self,
        outputs: dict[str, NDArray[Any]],
        class_image: NDArray[np.uint8],
        instance_image: NDArray[np.uint16],
        view: RangeView,
    ) -> dict[str, NDArray[Any]]:
        """The answers of every point, (N,) each, by their names in Segmentation."""
        voted = self.lift == "knn"
        class_id = knn_vote(class_image, view, self._full_circle) if voted else lift(class_image, view, 0)
        names = [name for name in ("confidence", "uncertainty", "novelty") if name in outputs]
        return {
            "class_id": class_id,
            "instance_id": self._objects.lift(instance_image, class_image, class_id, view, voted),
            **{name: lift(outputs[name], view, 0.0) for name in names},
        }


class _Timings:
    """Milliseconds by stage, each from the end of the one before."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps_ms[stage] = (now - self._last) * 1e3
        self._last = now
