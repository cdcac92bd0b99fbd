# SPDX-License-Identifier: Apache-2.0
"""The answers of a running node as frames to view: the last ones are kept, so that a person can pause and go back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from weakseg_ros.errors import CloudError, DataError, ReplayError, printable
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.labelled import unpack_labelled
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.reading import read_message
from weakseg_ros.ros.live import segmentation_of
from weakseg_ros.ros.starting import start_ros
from weakseg_ros.ros.transport import apply_transport
from weakseg_ros.view.command import ViewConfig
from weakseg_ros.view.frames import Model, Shown, answered, by_name, open_models

KEPT = 100
"""answers that are kept, ten seconds at 10 Hz"""
WAITING = 20
"""clouds that are kept until the node has answered them"""
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
CLOUD = "sensor_msgs/msg/PointCloud2"


class NodeFrames:
    """The last answers of a node, the oldest first. Messages arrive on one thread, frames are read on another.

    Without models the points are those of the answer. With models the node's input is heard, too, since an answer does not
    hold the intensity that a model needs; an answer whose cloud did not arrive is left out.
    """

    live = True

    def __init__(self, node: str, labels: LabelMap, models: Sequence[Model], reading: InputSettings) -> None:
        self.labels = labels
        self.models = (f"node {node.strip('/')}", *(model.name for model in models))
        self.notes = [note for model in models for note in model.notes]
        self._answering, self._reading = models, reading
        self._kept: deque[Shown] = deque(maxlen=KEPT)
        self._waiting: OrderedDict[int, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def frame(self, index: int) -> Shown:
        try:
            shown = self._kept[index]
        except IndexError:
            raise DataError(f"scan {index} is no longer kept; only the last {KEPT} are") from None
        if len(shown.answers) == len(self.models):
            return shown
        whole = answered(shown, self._answering)
        for at in range(len(self._kept) - 1, -1, -1):  # it has moved where answers came meanwhile
            if self._kept[at] is shown:
                self._kept[at] = whole
                break
        return whole

    def ask(self, text: str) -> bool:
        """Look for what an expression means in the clouds that are kept and in later ones; the node's own prompt stays."""
        for at, shown in enumerate(self._kept):
            self._kept[at] = dataclasses.replace(shown, answers=shown.answers[:1], found=(), problems=())
        return any([model.ask(text) for model in self._answering])

    def on_cloud(self, serialized: bytes, stamp_ns: int) -> None:
        """Keep a cloud until its answer comes."""
        self._waiting[stamp_ns] = serialized
        while len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)

    def on_labels(self, message: Any) -> None:
        """Take an answer."""
        columns = unpack_labelled(message)
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        cloud = self._cloud_of(columns, stamp_ns, message.header.frame_id)
        if cloud is not None and len(cloud) == len(columns["class_id"]):
            self._kept.append(Shown(f"{stamp_ns * 1e-9:.3f} s", cloud, None, None, (segmentation_of(columns),)))

    def _cloud_of(self, columns: dict[str, Any], stamp_ns: int, frame_id: str) -> Cloud | None:
        if not self._answering:
            xyz = np.stack([columns[axis] for axis in "xyz"], axis=1)
            return make_cloud(xyz, stamp_ns=stamp_ns, frame_id=frame_id)
        serialized = self._waiting.pop(stamp_ns, None)
        return None if serialized is None else read_message(serialized, self._reading)


@contextlib.contextmanager
def node_frames(config: ViewConfig) -> Iterator[NodeFrames]:
    """Listen to the node `config.node` while the block runs; ReplayError where there is none, or it is not active."""
    apply_transport(own_settings=False)
    from rclpy.context import Context
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    context = Context()
    start_ros(context=context)
    import rclpy

    node = rclpy.create_node(f"weakseg_view_{os.getpid()}", context=context, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    listener: _Listener | None = None
    worker = threading.Thread(target=_spin, args=(executor, ExternalShutdownException), daemon=True)
    try:
        listener = _Listener(node, executor, config)
        worker.start()
        yield listener.frames
    finally:
        executor.shutdown(timeout_sec=STOP_TIMEOUT_S)
        if worker.is_alive():
            worker.join(STOP_TIMEOUT_S)
        node.destroy_node()
        context.try_shutdown()
        if listener is not None:
            for model in listener.models:
                model.segmenter.close()


def _spin(executor: Any, ended: type[BaseException]) -> None:
    with contextlib.suppress(ended):
        executor.spin()


class _Listener:
    """Finds the node, learns its classes, and subscribes to what it says."""

    def __init__(self, node: Any, executor: Any, config: ViewConfig) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import PointCloud2
        from std_msgs.msg import String

        self._node, self._executor, self._config = node, executor, config
        self._said: list[str] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(String, self._topic("classes"), lambda message: self._said.append(message.data), latched)
        self._wait(lambda: self._said)
        labels = labels_of(self._said[-1])
        self.models = open_models(config.bundle, labels, config.engine, config, by_name)
        self.frames = NodeFrames(config.node, labels, self.models, config)
        lossy = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        if self.models:
            source = self._wait(self._input_topic)
            node.create_subscription(PointCloud2, source, self._on_cloud, lossy, raw=True)
        node.create_subscription(PointCloud2, self._topic("labels"), self._on_labels, lossy)

    def _on_cloud(self, serialized: bytes) -> None:
        from weakseg_ros.points.cdr import read_cdr_header

        with contextlib.suppress(CloudError):  # the node says on /diagnostics what is wrong with it
            self.frames.on_cloud(bytes(serialized), read_cdr_header(serialized).stamp_ns)

    def _on_labels(self, message: Any) -> None:
        try:
            self.frames.on_labels(message)
        except CloudError as error:
            self._node.get_logger().warning(printable(f"an answer is left out: {error}"), throttle_duration_sec=10.0)

    def _topic(self, name: str) -> str:
        return f"/{self._config.node.strip('/')}/{name}"

    def _input_topic(self) -> str:
        namespace, _, name = f"/{self._config.node.strip('/')}".rpartition("/")
        found = self._node.get_subscriber_names_and_types_by_node(name, namespace or "/")
        return next((topic for topic, types in found if CLOUD in types), "")

    def _wait(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise ReplayError(
                    f"{self._config.node}: no active node of that name within {START_TIMEOUT_S:g} s; start it ('weakseg node'), "
                    "activate it, and use the same ROS_DOMAIN_ID"
                )
            self._executor.spin_once(timeout_sec=0.05)
        return found


def labels_of(said: str) -> LabelMap:
    """The label map that a node announces on ~/classes; it does not say raw ids, so each class has its own id as one."""
    content = json.loads(said)
    rows = [LabelClass(row["id"], row["name"], tuple(row["color"]), row["thing"], (row["id"],)) for row in content["classes"]]
    return LabelMap(content["labels"], tuple(rows))
