# SPDX-License-Identifier: Apache-2.0
"""What happens to one cloud between its arrival and its answer, on the worker's thread; nothing escapes from here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rclpy.node import Node

from weakseg_ros.deploy.engines import DeviceLostError
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import CloudError, EngineError, printable
from weakseg_ros.points.cloud import Cloud, decode_cdr
from weakseg_ros.points.reading import followed_by, moved
from weakseg_ros.ros.diagnostics import FrameStatistics, Status, Throttle
from weakseg_ros.ros.following import Following
from weakseg_ros.ros.frame_recording import FrameRecording
from weakseg_ros.ros.model import Model
from weakseg_ros.ros.params import NodeConfig, Parameters
from weakseg_ros.ros.prompting import Prompting
from weakseg_ros.ros.publish import Outputs
from weakseg_ros.ros.transforms import Transforms

FAILURES_BEFORE_FALLBACK = 5


class Arrival(NamedTuple):
    """A serialized PointCloud2 and when it came."""

    data: bytes
    at_s: float
    """time.perf_counter()"""


class Pipeline:
    """decode -> segment -> follow objects -> publish -> answer the expression -> count.

    A cloud that cannot be answered is counted by its reason and said once in a while.

    `on_device_lost(text)` is called where only a new process helps. With `transforms` clouds are brought into
    `input.target_frame`.
    """

    def __init__(
        self,
        node: Node,
        model: Model,
        outputs: Outputs,
        following: Following,
        frame_recording: FrameRecording,
        parameters: Parameters,
        statistics: FrameStatistics,
        on_device_lost: Callable[[str], None],
        prompting: Prompting,
        transforms: Transforms | None = None,
    ) -> None:
        self.model = model
        self.outputs = outputs
        self.frame_recording = frame_recording
        self._following = following
        self._prompting = prompting
        self._node = node
        self._parameters = parameters
        self._statistics = statistics
        self._on_device_lost = on_device_lost
        self._throttle = Throttle()
        self._failures = 0
        self._transforms = transforms

    def close(self, model_too: bool = True) -> None:
        """Release model and topics; nobody may call `answer` any more. A model that still runs cannot be released."""
        self.frame_recording.close()
        self._following.close()
        self._prompting.close()
        self.outputs.close()
        if self._transforms is not None:
            self._transforms.close()
        if model_too:
            self.model.close()

    def following_status(self) -> Status | None:
        """The line of /diagnostics on odometry, None where none is wanted."""
        return self._following.status()

    def answer(self, arrival: Arrival) -> None:
        """Label one cloud and publish it, or count why not."""
        config = self._parameters.config
        try:
            self._answer(arrival, config)
            self._failures = 0
        except CloudError as error:
            self._drop(error.reason, str(error))
        except DeviceLostError as error:
            self._drop("device_lost", str(error))
            self._on_device_lost(str(error))
        except EngineError as error:
            self._drop("engine", str(error))
            self._failures += 1
            if self._failures % FAILURES_BEFORE_FALLBACK == 0:
                self._fall_back(config, str(error))
        except Exception as error:  # whatever a cloud brings up must not end the node
            if self._node.context.ok():
                self._drop("internal", f"{type(error).__name__}: {error}; please report this")

    def _answer(self, arrival: Arrival, config: NodeConfig) -> None:
        started = time.perf_counter()
        cloud = decode_cdr(arrival.data, config.input.intensity_field)
        config = self._in_frame(cloud, config)
        seen = moved(cloud, config.input)
        decoded = time.perf_counter()
        answer, bundle = self.model.run(seen, config, self._prompting.wants_features)
        answer = self._following.update(answer, seen, bundle.labels, config)
        labelled = time.perf_counter()
        sure = _confident(answer, config.min_confidence)
        self.outputs.send(cloud, sure, bundle.labels, config.publish_rgb, config.object_texts)
        referred = self._prompting.update(cloud, seen, answer, bundle, config.track_instances)
        sent = time.perf_counter()
        milliseconds = {
            "wait": (started - arrival.at_s) * 1e3,
            "decode": (decoded - started) * 1e3,
            **answer.timings_ms,
            "publish": (sent - labelled) * 1e3 - sum(referred.values()),
            **referred,
            "total": (sent - arrival.at_s) * 1e3,
        }
        self._statistics.answered(len(cloud), milliseconds)
        self._note_missing_intensity(cloud, config)
        self.frame_recording.offer(seen, answer, config, bundle, arrival.data)
        self.model.look()

    def _in_frame(self, cloud: Cloud, config: NodeConfig) -> NodeConfig:
        """The settings that bring this cloud into `input.target_frame`, too; CloudError where TF cannot."""
        frame = config.input.target_frame
        if self._transforms is None or frame == cloud.frame_id or not len(cloud):
            return config
        matrix = self._transforms.lookup(frame, cloud.frame_id, cloud.stamp_ns)
        return dataclasses.replace(config, input=followed_by(config.input, matrix))

    def _note_missing_intensity(self, cloud: Cloud, config: NodeConfig) -> None:
        needed = "intensity" in self.model.bundle.info.input.channels and config.input.intensity_field
        if needed and len(cloud) and not cloud.intensity_field and self._throttle.first("no_intensity"):
            self._node.get_logger().warning(
                f"{self._node.resolve_topic_name('points')}: the clouds have no intensity, so the model gets zeros; "
                "set the parameter input.intensity_field to the field that holds it, or to '' to confirm this"
            )

    def _drop(self, reason: str, text: str) -> None:
        self._statistics.dropped(reason)
        if not self._throttle.passes(reason):
            return
        sentence = printable(f"cloud dropped: {text}")  # names of fields and frames are whatever a publisher sent
        if reason == "no_xyz":
            self._node.get_logger().error(sentence)
        else:
            self._node.get_logger().warning(sentence)

    def _fall_back(self, config: NodeConfig, reason: str) -> None:
        failed = self.model.engine
        try:
            self.model.fall_back(config, reason)
        except EngineError as error:
            if self._throttle.passes("fall_back"):
                self._node.get_logger().error(printable(error))
            return
        self._node.get_logger().error(printable(f"{failed}: fails on every cloud ({reason}); {self.model.engine} takes over"))


def _confident(answer: Segmentation, min_confidence: float) -> Segmentation:
    """The answer without the classes that are less sure than `min_confidence`."""
    if min_confidence <= 0.0:
        return answer
    sure = answer.confidence >= np.float32(min_confidence)
    return dataclasses.replace(answer, class_id=answer.class_id * sure, instance_id=answer.instance_id * sure)
