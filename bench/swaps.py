# SPDX-License-Identifier: Apache-2.0
"""Swaps under load: the real node at 10 Hz while models/current changes a hundred times; frames lost, latency, memory.

    python bench/swaps.py [--swaps 100] [--rate-hz 10] [--frames-apart 10] [--bundles models/a models/b]

Without --bundles two light nets with fresh weights take turns, at 64 x 1024 and 20 classes: what is measured does not
depend on weights. Prints a line, and writes OUT/summary.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType

import numpy as np

from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import RawMessage, read_raw
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.environment import environment
from weakseg_ros.files import write_json
from weakseg_ros.improve.retrain.versions import Versions
from weakseg_ros.measure.latency import describe
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.ros.live import NodeProcess
from weakseg_ros.ros.replay_player import Player, ReplaySettings
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

TOPIC = "/bench/points"
WATCH_S = 0.1
WARM_SWAPS = 10
"""memory is compared from here on: until then caches fill"""
START_TIMEOUT_S = 60.0
FIRST_NS = 1_000_000_000


@dataclass(frozen=True)
class LivePlay:
    """What came of playing clouds into a node that follows models/current."""

    sent: int
    missing: tuple[int, ...]
    """which clouds got no answer, counted from 0 where they were restamped"""
    latency_ms: tuple[float, ...]
    announced: tuple[str, ...]
    """hash of each bundle that the node announced, in order"""
    memory_mib: tuple[float, ...]
    """of the node, after each cloud"""


def quiet_domain() -> None:
    """Keep this process's DDS traffic, and its children's, to itself."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def write_bag(bag: Path, clouds: Iterable[Cloud]) -> Path:
    """Clouds as a bag, under their own stamps."""
    with CloudBagWriter(bag, TOPIC) as writer:
        for cloud in clouds:
            writer.write(cloud)
    return bag


def play(
    pointer: Path,
    bag: Path,
    before_cloud: Callable[[int], None] = lambda number: None,
    frames: int = 0,
    rate_hz: float = 10.0,
    arguments: Sequence[str] = (),
) -> LivePlay:
    """Start a node on `pointer`, send it the bag's clouds at the rate, and call back before each of them.

    With `frames` the bag is sent over and over, up to so many clouds, each under a stamp of its own; without, once, under the
    clouds' own stamps. `arguments` go to the node.
    """
    name = f"weakseg_swaps_{os.getpid()}"
    options = ["--watch-bundle", str(WATCH_S), "--input-topic", TOPIC, *arguments, "--ros-args", "-r", f"__node:={name}"]
    settings = ReplaySettings(node=name, clock=False, start_timeout_s=START_TIMEOUT_S)
    memory: list[float] = []
    with (
        NodeProcess(pointer, options) as process,
        Player(settings, check=process.check) as player,
        Announced(name) as announced,
    ):

        def messages() -> Iterator[RawMessage]:
            clouds = list(read_raw(bag, TOPIC))
            for number, message in enumerate(islice(cycle(clouds), frames or len(clouds))):
                before_cloud(number)
                memory.append(memory_mib(process.pid))
                due_ns = FIRST_NS + round(number * 1e9 / rate_hz)
                yield restamped(message, due_ns) if frames else message._replace(stamp_ns=due_ns)

        player.connect(TOPIC)
        player.play(messages())
        result = player.result()
    missing = tuple(round((stamp_ns - FIRST_NS) * rate_hz / 1e9) for stamp_ns in result.missing)
    return LivePlay(result.sent, missing, result.latency_samples_ms, tuple(announced.hashes), tuple(memory))


def restamped(message: RawMessage, stamp_ns: int) -> RawMessage:
    """A serialized cloud under another stamp: a header begins with seconds and nanoseconds, after CDR's own four bytes."""
    data = bytearray(message.data)
    data[4:12] = np.array([stamp_ns // 10**9, stamp_ns % 10**9], "<u4" if data[1] & 1 else ">u4").tobytes()
    return RawMessage(stamp_ns, bytes(data), message.msgtype)


def memory_mib(process_id: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


class Announced:
    """Listens to a node's ~/classes; `hashes` are those of the bundles it announced, without repeats in a row."""

    def __init__(self, node: str) -> None:
        self.hashes: list[str] = []
        self._name = node

    def __enter__(self) -> Announced:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rclpy.signals import SignalHandlerOptions
        from std_msgs.msg import String

        self._context = Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(f"{self._name}_listener", context=self._context)
        kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(String, f"/{self._name}/classes", self._on_classes, kept)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        while not self._ended.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _on_classes(self, message: object) -> None:
        found = json.loads(message.data)["hash"]  # type: ignore[attr-defined]
        if self.hashes[-1:] != [found]:
            self.hashes.append(found)


def fresh_bundles(folder: Path, width: int = 1024) -> list[Path]:
    """Two light nets with other weights each, for images of `width` columns, as bundles."""
    import torch
    from nets import CHANNELS, LABELS, MEAN, SPEC, STD, street_image

    from weakseg_ros.deploy.bundle import BundleInfo, NetRule
    from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
    from weakseg_ros.nets.build import build_net
    from weakseg_ros.train.export import export_bundle

    stated = {"channels": CHANNELS, "mean": MEAN, "std": STD, "intensity": IntensityRule(True)}
    told = InputSpec(geometry=dataclasses.replace(SPEC, width=width), **stated)
    image = street_image().numpy()
    image = image[..., :: image.shape[-1] // width]
    for seed in range(2):
        torch.manual_seed(seed)
        net = build_net("light", CHANNELS, MEAN, STD, LABELS.num_classes, {})
        info = BundleInfo(name=f"net-{seed}", input=told, labels=LABELS, net=NetRule("light"))
        export_bundle(net, info, folder / info.name, image)
    return [folder / f"net-{seed}" for seed in range(2)]


def main() -> int:
    """Swap, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--rate-hz", type=float, default=10.0)
    parser.add_argument("--frames-apart", type=int, default=10, help="clouds from one swap to the next")
    parser.add_argument("--bundles", nargs="*", type=Path, default=[], help="bundles that take turns; none: two fresh nets")
    parser.add_argument("--sensor", default="hdl64e")
    parser.add_argument("--out", type=Path, default=Path("runs/swaps"))
    arguments = parser.parse_args()
    quiet_domain()
    with tempfile.TemporaryDirectory() as scratch:
        folders = arguments.bundles or fresh_bundles(Path(scratch) / "models")
        versions = Versions(Path(scratch) / "models")
        versions.promote(folders[0])
        drive = simulate(SimulateConfig(1, 5, sensor=load_sensor(arguments.sensor)))
        bag = write_bag(Path(scratch) / "bag", (scan.cloud for scan in drive))

        def swap(number: int) -> None:
            if number and number % arguments.frames_apart == 0 and number // arguments.frames_apart <= arguments.swaps:
                versions.promote(folders[number // arguments.frames_apart % len(folders)])

        frames = (arguments.swaps + 2) * arguments.frames_apart
        outcome = play(versions.pointer, bag, swap, frames, arguments.rate_hz)
        expected = [Bundle.load(folders[number % len(folders)]).content_hash for number in range(arguments.swaps + 1)]
    memory = outcome.memory_mib[:: arguments.frames_apart]
    summary = {
        "swaps": arguments.swaps,
        "swaps_seen": len(outcome.announced) - 1,
        "in_order": list(outcome.announced) == expected,
        "sent": outcome.sent,
        "lost": len(outcome.missing),
        "latency_ms": describe(outcome.latency_ms),
        "memory_mib": {"start": memory[0], "warm": memory[min(WARM_SWAPS, len(memory) - 1)], "end": memory[-1]},
        "memory_mib_every_ten_swaps": [round(value, 1) for value in memory[::10]],
        "rate_hz": arguments.rate_hz,
        "environment": environment(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "summary.json", summary)
    print(
        f"{summary['swaps_seen']} of {arguments.swaps} swaps, {len(outcome.missing)} of {outcome.sent} clouds lost, p50 "
        f"{summary['latency_ms']['p50']:.1f} and p99 {summary['latency_ms']['p99']:.1f} ms, memory "
        + " -> ".join(f"{value:.0f}" for value in summary["memory_mib"].values())
        + f" MiB (start, after {WARM_SWAPS} swaps, end)"
    )
    return 0 if not outcome.missing and summary["in_order"] else 1


if __name__ == "__main__":
    sys.exit(main())
