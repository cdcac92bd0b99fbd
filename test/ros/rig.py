# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own, and a client that talks to it over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import String
from std_srvs.srv import Trigger

from support import PATIENCE_S, optional
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, BundleInfo, NetRule, write_bundle
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

CLASSES = 5
AGAIN_S = 20.0
"""after which a cloud or a transition without an answer is sent again"""
LEADS_TO = {
    Transition.TRANSITION_CONFIGURE: "inactive",
    Transition.TRANSITION_ACTIVATE: "active",
    Transition.TRANSITION_DEACTIVATE: "inactive",
    Transition.TRANSITION_CLEANUP: "unconfigured",
}


class NodeProcess:
    """`weakseg node` in a namespace of its own."""

    count = 0

    def __init__(self, folder: Path, *arguments: str, program: Path | None = None, **environment: str) -> None:
        NodeProcess.count += 1
        self.namespace = f"/robot{NodeProcess.count}"
        self.log = folder / f"node{NodeProcess.count}.log"
        options, ros = list(arguments), ["--ros-args"]
        if "--ros-args" in options:
            at = options.index("--ros-args")
            options, ros = options[:at], options[at:]
        start = [str(program)] if program else ["-m", "weakseg_ros", "node"]
        command = [sys.executable, *start, *options, *ros, "-r", f"__ns:={self.namespace}"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment}, cwd=folder)

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for_text(self, part: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while part not in self.text():
            assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.text()}"
            assert time.monotonic() < deadline, f"'{part}' never appeared in:\n{self.text()}"
            time.sleep(0.02)

    def end(self, *signals: int) -> int:
        """Send the signals, wait for the end; the exit code."""
        for number in signals or (signal.SIGINT,):
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the node did not end:\n{self.text()}")

    def close(self) -> None:
        """End it where a test has not; a killed process would leave its shared memory behind."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Client:
    """Publishes clouds to one node, keeps its answers by stamp, calls its services."""

    def __init__(self, namespace: str, publish: QoSProfile | None = None, listen: QoSProfile | None = None) -> None:
        self.node = rclpy.create_node("tester", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        deep = QoSProfile(depth=200, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
        unreliable = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.answers: list[PointCloud2] = []
        self.status: dict[str, DiagnosticStatus] = {}
        self.classes: list[str] = []
        self.clients: dict[str, Any] = {}
        self.points = self.node.create_publisher(PointCloud2, "points", publish or deep)
        self.labels = self.node.create_subscription(PointCloud2, "weakseg/labels", self.answers.append, listen or unreliable)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)
        self.node.create_subscription(String, "weakseg/classes", lambda m: self.classes.append(m.data), latched)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.status[status.name.partition(": ")[2]] = status

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
        """Spin until `condition` holds; its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            self.executor.spin_once(timeout_sec=0.05)
        return value

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def connect(self) -> Client:
        """Wait until clouds reach the node and its answers reach us."""
        self.wait(lambda: self.points.get_subscription_count() and self.node.count_publishers(self.labels.topic_name), "the node")
        self.wait(lambda: self.answer_to(make_cloud(np.ones((1, 4))), seconds=0.5), "a first answer")
        return self

    def answer_to(self, message: PointCloud2, seconds: float = PATIENCE_S) -> PointCloud2 | None:
        """Publish a cloud; the answer with its stamp, or None.

        Labels are best effort as a robot has them, so that a starved process may miss one: the cloud is sent again then.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.points.publish(message)
            if (answer := self._answer_within(min(left, AGAIN_S), message.header.stamp)) is not None:
                return answer
        return None

    def _answer_within(self, seconds: float, stamp: Time) -> PointCloud2 | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for answer in self.answers:
                if answer.header.stamp == stamp:
                    self.answers.remove(answer)
                    return answer
            self.executor.spin_once(timeout_sec=left)
        return None

    def value(self, status: str, key: str) -> str:
        """A figure of the latest diagnostics; empty where there is none."""
        found = self.status.get(status)
        return next((item.value for item in found.values if item.key == key), "") if found else ""

    def call(self, kind: Any, name: str, request: Any, seconds: float = PATIENCE_S) -> Any:
        """Call a service of the node; its response."""
        if name not in self.clients:
            self.clients[name] = self.node.create_client(kind, f"weakseg/{name}")
            self.wait(self.clients[name].service_is_ready, f"the service {name}")
            self.spin(0.5)  # ready means that requests arrive; the way back may take a little longer to be found
        deadline = time.monotonic() + seconds
        while True:
            future = self.clients[name].call_async(request)
            try:
                self.wait(future.done, f"an answer of {name}", min(3.0, deadline - time.monotonic()) if _asks(name) else seconds)
            except AssertionError:  # an answer may be sent before its way back is found; asking again changes nothing
                if not _asks(name) or time.monotonic() >= deadline:
                    raise
            else:
                return future.result()

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def change(self, transition: int) -> bool:
        """Whether a transition succeeded. Its answer may be lost before its way back is found; then the state tells."""
        request = ChangeState.Request(transition=Transition(id=transition))
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return bool(self.call(ChangeState, "change_state", request, AGAIN_S).success)
            except AssertionError:
                if self.state() == LEADS_TO.get(transition):
                    return True
                if time.monotonic() > deadline:
                    raise

    def set(self, **values: Any) -> str:
        """Set parameters atomically; the reason of the refusal, or nothing."""
        parameters: list[ParameterMessage] = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        result = self.call(SetParametersAtomically, "set_parameters_atomically", request).result
        assert result.successful != bool(result.reason), "a refusal must have a reason"
        return str(result.reason)

    def reload(self) -> Trigger.Response:
        return self.call(Trigger, "reload", Trigger.Request())

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()


def _asks(service: str) -> bool:
    """Whether a service only reads, so that it may be called twice."""
    return service.startswith(("get_", "describe_", "list_"))


_stamps = iter(range(1, 1 << 30))


def next_stamp() -> Time:
    """A stamp that no other cloud of this run has."""
    return Time(sec=1_700_000_000, nanosec=next(_stamps))


def make_cloud(points: np.ndarray, **changes: Any) -> PointCloud2:
    """A PointCloud2 of (N, 4) x, y, z, intensity in float32; `changes` are set on the message."""
    data = np.asarray(points, np.float32)
    fields = [
        PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(("x", "y", "z", "intensity"))
    ]
    message = PointCloud2(height=1, width=len(data), fields=fields, point_step=16, row_step=16 * len(data), is_dense=True)
    message.header.stamp, message.header.frame_id = next_stamp(), "lidar"
    message.data = data.tobytes()
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def street_points(count: int, seed: int = 0) -> np.ndarray:
    """(count, 4) points around the sensor, all inside the tiny bundle's image."""
    rng = np.random.default_rng(seed)
    azimuth, inclination = rng.uniform(-np.pi, np.pi, count), np.radians(rng.uniform(-20, 10, count))
    distance = rng.uniform(3, 60, count)
    xyz = np.stack((np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination), np.sin(inclination)), 1)
    return np.column_stack((xyz * distance[:, None], rng.uniform(0, 1, count))).astype(np.float32)


SURE = 5


def make_bundle(folder: Path, name: str = "tiny", seed: int = 0, poisoned: bool = False, **changes: Any) -> Bundle:
    """A bundle around a random 1 x 1 convolution; a `poisoned` one answers NaN."""
    facts = {
        "name": name,
        "geometry": RangeSpec(height=16, width=128, fov_up_deg=15.0, fov_down_deg=-25.0, max_range_m=80.0),
        "channels": ("range", "z", "intensity"),
        "mean": (20.0, 0.0, 0.5),
        "std": (15.0, 5.0, 0.3),
        "labels": LabelMap("five", tuple(LabelClass(i, f"class {i}", (i * 40, 9, 0), False, (i * 10,)) for i in range(CLASSES))),
        "net": NetRule("light"),
        "intensity": IntensityRule(required=False, full_scale=1.0),
        **changes,
    }
    told = {key: facts.pop(key) for key in ("geometry", "channels", "mean", "std", "intensity")}
    info = BundleInfo(**facts, input=InputSpec(**told))
    content = tiny_onnx(len(info.input.channels), info.labels.num_classes, seed, poisoned)
    return write_bundle(folder / name, info, {"model.onnx": (KIND_ONNX, content)}, "for tests\n")


def tiny_onnx(channels: int, classes: int, seed: int, poisoned: bool) -> bytes:
    """The deploy graph of a random 1 x 1 convolution, about 1 KB."""
    optional("onnxruntime")
    onnx = optional("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(seed).normal(size=(classes - 1, channels, 1, 1)).astype(np.float32)
    weight *= SURE  # a model that hesitates everywhere has a low fit, and what is said of that hides the rest
    scale = np.float32(np.nan if poisoned else 1 / np.log(classes - 1))
    constants = {
        "weight": weight,
        "one": np.uint8(1),
        "minus": np.float32(-1),
        "scale": scale,
        "axis": np.array([1]),
        "tiny": np.float32(1e-9),
    }
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["best_u8"], to=TensorProto.UINT8),
        helper.make_node("Add", ["best_u8", "one"], ["class_id"]),
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        helper.make_node("ReduceMax", ["p", "axis"], ["confidence"], keepdims=0),
        helper.make_node("Add", ["p", "tiny"], ["p_safe"]),
        helper.make_node("Log", ["p_safe"], ["log_p"]),
        helper.make_node("Mul", ["p", "log_p"], ["terms"]),
        helper.make_node("ReduceSum", ["terms", "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "minus"], ["entropy"]),
        helper.make_node("Mul", ["entropy", "scale"], ["uncertainty"]),
    ]
    kinds = {"class_id": TensorProto.UINT8, "confidence": TensorProto.FLOAT, "uncertainty": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", channels, "H", "W"])],
        [helper.make_tensor_value_info(name, kind, ["B", "H", "W"]) for name, kind in kinds.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
