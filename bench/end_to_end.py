# SPDX-License-Identifier: Apache-2.0
"""Stamp to answer over DDS: the real node process and a simulated sensor at its rate; clouds lost, latency, memory.

    python bench/end_to_end.py [--bundle models/street | --net light] [--minutes 5] [--untouched]

Two sensors, one after the other: 64 x 2048 at 10 Hz for `--minutes`, and 32 x 1024 at 20 Hz for a fifth of that. Before each of
them a bare node that returns every cloud as it came is measured in the same way for a tenth of the time: what the transport
takes of the latency, with no work done. Clouds go out best effort, and the newest one wins, as on a robot. With --net the bundle
is exported with fresh weights for 64 x 2048 and 20 classes, as speed does not depend on weights; --untouched plays to the node
once more without our transport profile.

Prints a markdown table, and adds to runs/bench/summary.json `end_to_end_ms`, `transport_ms` (p50 of the bare node),
`frames_lost` and `rss_growth_mb` of the first sensor, and `drives` with all figures of both, beside those of stages.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from beside import SUMMARY, add_to_summary
from nets import CHANNELS, LABELS, MEAN, SPEC, STD, street_image
from swaps import memory_mib, quiet_domain, restamped

from weakseg_ros.data.bags import RawMessage
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, NetRule
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.environment import environment
from weakseg_ros.measure.latency import describe
from weakseg_ros.nets.build import build_net
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.encode import fill_message, pack_cloud
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.ros.live import NodeProcess
from weakseg_ros.ros.replay_player import Player, ReplayResult, ReplaySettings
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor
from weakseg_ros.train.export import export_bundle

REAL_SCANS = Path("../shared/data/semantickitti_seq00")
STREET, SCANS = 30_003, 20
"""a street that no shipped model was trained on, and how many of its scans are sent over and over"""
START_S, MEMORY_S = 120.0, 5.0
WARM_SHARE = 0.1
"""memory is compared from here on: until then caches fill"""


@dataclass(frozen=True)
class Drive:
    """A sensor at its rate."""

    name: str
    sensor: str
    columns: int
    rate_hz: float
    share: float
    """of the minutes that were asked for"""


DRIVES = (Drive("64 x 2048 at 10 Hz", "generic64", 2048, 10.0, 1.0), Drive("32 x 1024 at 20 Hz", "vlp32c", 1024, 20.0, 0.2))


def clouds_at(rate_hz: float, count: int) -> Iterator[Cloud]:
    """`count` clouds of about 124k points, stamped at the rate: SemanticKITTI's where they are there, else simulated."""
    if REAL_SCANS.is_dir():
        scans = open_scans(REAL_SCANS)
        few = [scans[i].cloud for i in range(len(scans))]
    else:
        few = [scan.cloud for scan in simulate(SimulateConfig(1, 5, sensor=load_sensor("hdl64e")))]
    for number, cloud in enumerate(islice(cycle(few), count)):
        yield dataclasses.replace(cloud, stamp_ns=1_000_000_000 + round(number * 1e9 / rate_hz))


def fresh_bundle(net: str, folder: Path, spec: RangeSpec = SPEC, options: Mapping[str, Any] | None = None) -> Bundle:
    """A bundle of the net with random weights, for 20 classes."""
    torch.manual_seed(0)
    model = build_net(net, CHANNELS, MEAN, STD, LABELS.num_classes, options or {})
    info = BundleInfo(
        name=net,
        input=InputSpec(geometry=spec, channels=CHANNELS, mean=MEAN, std=STD, intensity=IntensityRule(True)),
        labels=LABELS,
        net=NetRule(net, dict(options or {})),
    )
    image = torch.nn.functional.interpolate(street_image(), (spec.height, spec.width), mode="nearest")
    return export_bundle(model, info, folder, image.numpy())


def messages_of(drive: Drive) -> list[RawMessage]:
    """Serialized clouds of a simulated street as this sensor sees it."""
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import PointCloud2, PointField

    sensor = dataclasses.replace(load_sensor(drive.sensor), columns=drive.columns)
    out = []
    for scan in simulate(SimulateConfig(STREET, SCANS, sensor=sensor)):
        message = PointCloud2()
        fill_message(message, pack_cloud(scan.cloud), scan.cloud, PointField)
        out.append(RawMessage(0, bytes(serialize_message(message)), "sensor_msgs/msg/PointCloud2"))
    return out


def at_rate(few: list[RawMessage], drive: Drive, minutes: float) -> Iterator[RawMessage]:
    """The messages over and over, each under a stamp of its own."""
    for number, message in enumerate(islice(cycle(few), round(minutes * 60 * drive.rate_hz))):
        yield restamped(message, 1_700_000_000 * 10**9 + round(number * 1e9 / drive.rate_hz))


def play(few: list[RawMessage], drive: Drive, minutes: float, process: Any, name: str) -> tuple[ReplayResult, list[float]]:
    """Send the clouds to the process; what came back, and the process's memory in MiB every few seconds."""
    memory: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(MEMORY_S):
            memory.append(memory_mib(process.pid))

    settings = ReplaySettings(node=name, clock=False, start_timeout_s=START_S)
    watcher = threading.Thread(target=watch, daemon=True)
    with Player(settings, check=process.check) as player:
        player.connect("")
        watcher.start()
        player.play(at_rate(few, drive, minutes))
        ended.set()
        watcher.join()
        return player.result(), memory


class BareNode(AbstractContextManager["BareNode"]):
    """bare_node.py as a process of its own."""

    def __init__(self, name: str) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("bare_node.py")), name]

    def __enter__(self) -> BareNode:
        self._process = subprocess.Popen(self._command)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def check(self) -> None:
        """SystemExit where the process has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"the bare node ended with exit code {self._process.returncode}")


@contextmanager
def segmenting_node(bundle: Bundle, name: str, transport: str) -> Iterator[NodeProcess]:
    """The package's node."""
    arguments = ["--input-topic", f"/{name}/points", "--transport", transport, "--ros-args", "-r", f"__node:={name}"]
    with NodeProcess(bundle.folder, arguments) as process:
        yield process


def growth_mib(memory: list[float]) -> float:
    """From the first tenth after the start to the last tenth of the drive, medians."""
    warm = memory[round(len(memory) * WARM_SHARE) :]
    part = max(1, len(warm) // 10)
    return round(median(warm[-part:]) - median(warm[:part]), 1) if warm else 0.0


def measured(few: list[RawMessage], drive: Drive, minutes: float, who: str, open_node: Callable[[str], Any]) -> dict[str, Any]:
    """Play to one node and print its line."""
    name = f"weakseg_bench_{os.getpid()}_{next(_NUMBERS)}"
    with open_node(name) as process:
        result, memory = play(few, drive, minutes, process, name)
    latency = {key: describe(result.latency_samples_ms)[key] for key in ("p50", "p95", "p99")}
    lost, growth = len(result.missing), growth_mib(memory)
    shown = " | ".join(f"{value:.1f}" for value in latency.values())
    print(f"| {drive.name} | {who} | {result.sent} | {lost} | {shown} | {growth:g} |", flush=True)
    return {"sent": result.sent, "frames_lost": lost, "end_to_end_ms": latency, "rss_growth_mb": growth, "rss_mb": memory[-1:]}


_NUMBERS = count()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="models/street")
    parser.add_argument("--net", default="", help="a row of registry.NETS with fresh weights, in place of the bundle")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the first sensor is played")
    parser.add_argument("--untouched", action="store_true", help="once more without our transport profile")
    parser.add_argument("--out", type=Path, default=SUMMARY)
    arguments = parser.parse_args()
    quiet_domain()
    drives: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        bundle = fresh_bundle(arguments.net, Path(scratch)) if arguments.net else Bundle.load(arguments.bundle)
        machine, spec = environment()["machine"], bundle.info.input.geometry
        print(f"{bundle.name}, {spec.height} x {spec.width}, {machine}\n")
        print(
            "| sensor | node | sent | lost | p50 ms | p95 ms | p99 ms | memory grew by MiB |\n|---|---|---|---|---|---|---|---|"
        )
        for drive in DRIVES:
            few, minutes = messages_of(drive), arguments.minutes * drive.share
            found = {"bare": measured(few, drive, minutes / 10, "bare", BareNode)}
            for transport in ("tuned", *(["untouched"] if arguments.untouched else [])):
                found[transport] = measured(
                    few, drive, minutes, transport, lambda name, transport=transport: segmenting_node(bundle, name, transport)
                )
            drives[drive.name] = found
    first = drives[DRIVES[0].name]
    told = {key: first["tuned"][key] for key in ("end_to_end_ms", "frames_lost", "rss_growth_mb")}
    summary = {**told, "transport_ms": first["bare"]["end_to_end_ms"]["p50"], "drives": drives, "machine": machine}
    add_to_summary(arguments.out, summary)


if __name__ == "__main__":
    main()
