# SPDX-License-Identifier: Apache-2.0
"""The ROS side of a replay: find the node, connect both ways, publish at the recorded pace, collect the answers."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.data.bags import RawMessage
from weakseg_ros.data.scan_files import format_stamp
from weakseg_ros.data.steady_time import SteadyTime
from weakseg_ros.errors import CloudError, DataError, ReplayError, counted
from weakseg_ros.extras import need
from weakseg_ros.measure.latency import describe
from weakseg_ros.points.cdr import read_cdr_header
from weakseg_ros.ros.starting import start_ros
from weakseg_ros.ros.transport import apply_transport

log = logging.getLogger(__name__)

QUIET_S = 1.0
SETTLE_S = 2.0
GIVE_UP_AFTER = 3
LATEST_S = 2**31 - 1
"""that a stamp of ROS can hold"""
LOOK_AT_DROPS = "; look at the drops in /diagnostics"


@dataclass(frozen=True)
class Answer:
    """One cloud that went out, and the labelled cloud that came back for it."""

    stamp_ns: int
    """header stamp of both"""
    sent: bytes
    """the cloud as it was published, serialized"""
    message: Any
    """sensor_msgs/PointCloud2 with the fields of points/labelled.py"""
    latency_ms: float
    """from publishing the cloud to receiving the answer, on this process's clock"""


@dataclass(frozen=True)
class ReplayResult:
    """What a replay did."""

    sent: int
    answered: int
    missing: tuple[int, ...]
    """header stamps in ns that got no answer, in the order they were sent"""
    unasked: int
    """answers to stamps that were not under way: something else feeds the node, too"""
    latency_samples_ms: tuple[float, ...]
    duration_s: float

    def summary(self) -> dict[str, Any]:
        """Counts, missing stamps and latency percentiles for a JSON file."""
        values = asdict(self)
        values["latency_ms"] = describe(values.pop("latency_samples_ms"))
        return values


@dataclass(frozen=True)
class ReplaySettings:
    """Sets how a bag is played."""

    rate: float = setting(1.0, 0.001, 1000.0)
    """Sets the playback rate (0.001 to 1000); 2.0 plays twice as fast as recorded."""
    lossless: bool = False
    """Waits for each answer before it sends more, and fails if an answer is missing."""
    window: int = setting(1, 1, 64)
    """Sets the number of clouds in flight with `lossless` (1 to 64); more than 1 needs a node in replay mode, which queues
    them."""
    node: str = "weakseg"
    """Names the node, with its namespace if it has one, for example 'front/weakseg'."""
    to: str = ""
    """Names the topic to publish the clouds on; an empty string uses the one that the node subscribes to."""
    clock: bool = True
    """Publishes the bag's time on /clock before each cloud."""
    start_timeout_s: float = setting(20.0, 0.0)
    """Sets how long to wait for the node before anything is sent, in seconds (0 or more)."""
    answer_timeout_s: float = setting(10.0, 0.01)
    """Sets how long to wait for one answer, in seconds (0.01 or more)."""
    transport: Literal["tuned", "untouched"] = "tuned"
    """Selects the DDS transport: 'tuned' configures Fast DDS for large clouds unless you have set a profile yourself, and
    'untouched' changes nothing."""

    def __post_init__(self) -> None:
        check_ranges(self)


class Player:
    """One replay, as a context manager; `connect`, `play` and `result` once each. It has a ROS context of its own.

    `on_answer` is called for each answer; `check` is called while waiting and may raise where waiting has become vain.
    """

    def __init__(
        self,
        settings: ReplaySettings,
        on_answer: Callable[[Answer], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._on_answer = on_answer
        self._check = check
        self._under_way: dict[int, deque[tuple[float, bytes]]] = {}
        self._missing: list[int] = []
        self._latencies_ms: list[float] = []
        self._sent = self._unasked = self._lost_in_a_row = 0
        self._duration_s = 0.0
        self._connected = False

    def __enter__(self) -> Player:
        apply_transport(own_settings=self._settings.transport == "untouched")
        need("rclpy")
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor

        self._context = Context()
        start_ros(context=self._context)
        self._node = rclpy.create_node(f"weakseg_replay_{os.getpid()}", context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    def connect(self, bag_topic: str) -> None:
        """Wait for the node and for both directions to stand; ReplayError after `start_timeout_s`."""
        from rclpy.qos import QoSProfile
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import PointCloud2

        deadline = time.monotonic() + self._settings.start_timeout_s
        topic = self._wait(lambda: self._settings.to or self._input_of_node(bag_topic), deadline)
        self._wait(lambda: self._node.count_publishers(self._topic("labels")), deadline)
        self._publisher = self._node.create_publisher(PointCloud2, topic, QoSProfile(depth=max(10, self._settings.window)))
        self._clock = self._node.create_publisher(Clock, "/clock", QoSProfile(depth=10)) if self._settings.clock else None
        self._listen()
        self._wait(lambda: self._connected and self._publisher.get_subscription_count(), deadline)
        if self._settings.lossless:
            # a node that suits its reliability to its publishers subscribes anew once it has seen this one
            settled_s = time.monotonic() + SETTLE_S
            while not self._heard_reliably() and time.monotonic() < settled_s:
                self._spin(0.05)
            self._wait(self._publisher.get_subscription_count, deadline)

    def parameters(self, names: Sequence[str]) -> dict[str, Any]:
        """Values of the node's parameters by name; ReplayError where it does not answer within `start_timeout_s`."""
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        client: Any = self._node.create_client(GetParameters, self._topic("get_parameters"))
        deadline = time.monotonic() + self._settings.start_timeout_s
        self._wait(client.service_is_ready, deadline)
        future = client.call_async(GetParameters.Request(names=list(names)))
        self._wait(future.done, deadline)
        self._node.destroy_client(client)
        return {name: parameter_value_to_python(value) for name, value in zip(names, future.result().values, strict=True)}

    def play(self, clouds: Iterable[RawMessage]) -> None:
        """Publish every cloud at its recorded distance from the first, divided by `rate`, then wait for what is under way.

        Steps of the recorded time that are no pauses are left out, see `SteadyTime`.
        """
        begin_s = time.monotonic()
        try:
            self._play(clouds, begin_s)
        except DataError:  # the bag ends early: what went out is still answered
            self._wait_for_rest()
            raise
        self._wait_for_rest()
        self._duration_s = time.monotonic() - begin_s

    def result(self) -> ReplayResult:
        """Counts and latencies; in lossless mode ReplayError, with the stamps, where an answer is missing."""
        result = ReplayResult(
            sent=self._sent,
            answered=len(self._latencies_ms),
            missing=tuple(self._missing),
            unasked=self._unasked,
            latency_samples_ms=tuple(self._latencies_ms),
            duration_s=round(self._duration_s, 3),
        )
        if self._settings.lossless and result.missing:
            raise ReplayError(_missing_text(self._settings.node, result))
        return result

    def _play(self, clouds: Iterable[RawMessage], begin_s: float) -> None:
        recorded = SteadyTime()
        for cloud in clouds:
            self._spin_until(begin_s + recorded.at(cloud.stamp_ns) / self._settings.rate)
            if self._settings.lossless:
                self._wait_for_room()
            self._publish(cloud)

    def _topic(self, name: str) -> str:
        return f"/{self._settings.node.strip('/')}/{name}"

    def _input_of_node(self, bag_topic: str) -> str:
        namespace, _, name = f"/{self._settings.node.strip('/')}".rpartition("/")
        if (name, namespace or "/") not in self._node.get_node_names_and_namespaces():
            return ""
        inputs = [
            topic
            for topic, types in self._node.get_subscriber_names_and_types_by_node(name, namespace or "/")
            if "sensor_msgs/msg/PointCloud2" in types
        ]
        return bag_topic if bag_topic in inputs else next(iter(inputs), "")

    def _heard_reliably(self) -> bool:
        from rclpy.qos import ReliabilityPolicy

        name = self._settings.node.rpartition("/")[2]
        ears = self._node.get_subscriptions_info_by_topic(self._publisher.topic_name)
        return any(ear.node_name == name and ear.qos_profile.reliability == ReliabilityPolicy.RELIABLE for ear in ears)

    def _listen(self) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import PointCloud2
        from std_msgs.msg import String

        offered = self._node.get_publishers_info_by_topic(self._topic("labels"))
        reliable = all(info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in offered)
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        quality = QoSProfile(depth=64, reliability=reliability)
        self._labels = self._node.create_subscription(PointCloud2, self._topic("labels"), self._on_labels, quality)
        # Made after the one above: the middleware announces both in order, so once the kept label map arrives here,
        # the node also knows of the subscription above, and its first answer cannot be lost.
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._classes = self._node.create_subscription(String, self._topic("classes"), self._on_classes, kept)

    def _on_classes(self, _: Any) -> None:
        self._connected = True

    def _on_labels(self, message: Any) -> None:
        now_s = time.perf_counter()
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        waiting = self._under_way.get(stamp_ns)
        if not waiting:
            self._unasked += 1
            return
        sent_s, sent = waiting.popleft()
        if not waiting:
            del self._under_way[stamp_ns]
        self._lost_in_a_row = 0
        self._latencies_ms.append((now_s - sent_s) * 1e3)
        _check_fit(self._settings.node, message, sent, stamp_ns)
        if self._on_answer is not None:
            self._on_answer(Answer(stamp_ns, sent, message, self._latencies_ms[-1]))

    def _publish(self, cloud: RawMessage) -> None:
        seconds, nanoseconds = divmod(cloud.stamp_ns, 1_000_000_000)
        if self._clock is not None and 0 <= seconds <= LATEST_S:
            from rosgraph_msgs.msg import Clock

            tick = Clock()
            tick.clock.sec, tick.clock.nanosec = seconds, nanoseconds
            self._clock.publish(tick)
        data = bytes(cloud.data)
        try:
            stamp_ns = read_cdr_header(data).stamp_ns
        except CloudError as error:  # those behind it may be sound
            log.warning("left out: %s", error)
            return
        self._under_way.setdefault(stamp_ns, deque()).append((time.perf_counter(), data))
        self._publisher.publish(data)
        self._sent += 1
        self._forget_late()

    def _count_under_way(self) -> int:
        return sum(map(len, self._under_way.values()))

    def _forget_late(self) -> None:
        """Count as missing what was sent longer ago than an answer may take; memory stays bounded."""
        limit_s = time.perf_counter() - self._settings.answer_timeout_s
        for stamp_ns in list(self._under_way):
            waiting = self._under_way[stamp_ns]
            while waiting and waiting[0][0] < limit_s:
                waiting.popleft()
                self._missing.append(stamp_ns)
                self._lost_in_a_row += 1
            if not waiting:
                del self._under_way[stamp_ns]

    def _wait_for_room(self) -> None:
        while self._count_under_way() >= self._settings.window:
            self._spin(0.02)
            self._forget_late()
        if self._lost_in_a_row >= GIVE_UP_AFTER:
            self.result()

    def _wait_for_rest(self) -> None:
        """Lossless: until each is answered or late. Else until nothing came for a second."""
        patience_s = self._settings.answer_timeout_s if self._settings.lossless else QUIET_S
        answered, since_s = len(self._latencies_ms), time.monotonic()
        while self._under_way and time.monotonic() - since_s < patience_s:
            self._spin(0.02)
            if len(self._latencies_ms) != answered:
                answered, since_s = len(self._latencies_ms), time.monotonic()
        self._missing += [stamp_ns for stamp_ns, waiting in self._under_way.items() for _ in waiting]
        self._under_way.clear()

    def _spin(self, seconds: float) -> None:
        if self._check is not None:
            self._check()
        self._executor.spin_once(timeout_sec=seconds)

    def _spin_until(self, due_s: float) -> None:
        while (left_s := due_s - time.monotonic()) > 0:
            self._spin(left_s)

    def _wait(self, condition: Callable[[], Any], deadline: float) -> Any:
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise ReplayError(self._absent())
            self._spin(0.05)
        return found

    def _absent(self) -> str:
        names = [f"{namespace.rstrip('/')}/{name}" for name, namespace in self._node.get_node_names_and_namespaces()]
        others = sorted(name for name in names if name != f"/{self._node.get_name()}")
        topics = sorted(
            topic for topic, types in self._node.get_topic_names_and_types() if "sensor_msgs/msg/PointCloud2" in types
        )
        return (
            f"{self._settings.node}: no active node of that name within {self._settings.start_timeout_s:g} s; start it "
            "('weakseg node'), activate it, and use the same ROS_DOMAIN_ID and discovery range; "
            f"nodes here: {', '.join(others) or 'none'}; cloud topics: {', '.join(topics) or 'none'}"
        )


def _check_fit(node: str, message: Any, sent: bytes, stamp_ns: int) -> None:
    header = read_cdr_header(sent)
    expected = (header.height, header.width, header.frame_id)
    found = (message.height, message.width, message.header.frame_id)
    if found != expected:
        raise ReplayError(
            f"{node}: the answer to stamp {format_stamp(stamp_ns)} is {found[0]} x {found[1]} in frame '{found[2]}', "
            f"the cloud was {expected[0]} x {expected[1]} in '{expected[2]}'; this is an error of the node"
        )


def _missing_text(node: str, result: ReplayResult) -> str:
    shown = ", ".join(map(format_stamp, result.missing[:8]))
    more = f" and {len(result.missing) - 8} more" if len(result.missing) > 8 else ""
    return (
        f"{node}: answered {result.answered} of {counted(result.sent, 'cloud')}; no "
        f"answer to the stamps {shown}{more}{LOOK_AT_DROPS}"
    )
