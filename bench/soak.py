# SPDX-License-Identifier: Apache-2.0
"""A long drive in one go: the real node at 10 Hz while everything around it changes; memory, latency and losses.

    python bench/soak.py --minutes 60        (make soak: the long form)
    python bench/soak.py --minutes 3         the short one

While clouds come in, the node keeps frames in a log, models/current changes, the clouds' layout changes, other subscribers come
and go, and the clouds' clock jumps by an hour. A cloud without an answer was lost by the middleware on its way to the node or
back, or by the node: the counts of /diagnostics tell which. Writes OUT/soak.json and OUT/soak.png.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from swaps import fresh_bundles, memory_mib, quiet_domain

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.environment import environment
from weakseg_ros.files import write_json
from weakseg_ros.improve.retrain.versions import Versions
from weakseg_ros.measure.latency import describe
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.ros.live import NodeProcess
from weakseg_ros.ros.transport import apply_transport
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

RATE_HZ = 10.0
WIDTH = 256
"""columns of the range image of the two nets: what is looked for does not depend on their size"""
SWAP_S, LAYOUT_S, VISITOR_S, JUMP_S, MEMORY_S = 20.0, 7.0, 5.0, 60.0, 5.0
"""how often the model, the layout, the further subscribers and the clock change, and how often memory is looked at"""
HOUR_NS = 3600 * 10**9
START_S = 600.0
WARM_SHARE = 0.1
"""memory is compared from here on: until then caches fill"""
MOST_GROWTH_MIB = 50.0
PARTS, MOST_MOMENTS = 6, 1000
LAYOUTS = {
    "packed": [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2")],
    "double": [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("t", "<u4"), ("intensity", "<u2"), ("ring", "u1")],
    "reordered": [("ring", "<u2"), ("z", "<f4"), ("y", "<f4"), ("x", "<f4"), ("time", "<f8"), ("intensity", "<f4")],
    "padded": [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("", "V4"), ("intensity", "<f4"), ("ring", "<u2"), ("_", "V10")],
}
COUNTED = ("received", "answered")
CODES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


@dataclass
class Outcome:
    """What was seen."""

    sent: dict[int, float] = field(default_factory=dict)
    """seconds by stamp in ns"""
    latency_ms: dict[int, float] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(moment in seconds, MiB)"""
    load: list[float] = field(default_factory=list)
    """processes of this machine that ran or wanted to, on average over a minute; as often as memory"""
    events: list[tuple[float, str]] = field(default_factory=list)
    """(moment in seconds, swap, layout, visitor or jump)"""
    before: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    """what the node says of its input before the drive, and last: received, answered, dropped by reason"""
    reports: int = 0
    models: list[str] = field(default_factory=list)

    def times(self, kind: str) -> int:
        """How often something was changed."""
        return sum(event == kind for _, event in self.events)

    def losses(self) -> dict[str, Any]:
        """Where the clouds without an answer were lost: by stage, and their moments with what was changed last before them."""
        counts = {key: value - self.before.get(key, 0) for key, value in self.counted.items()}
        missing = [at for stamp, at in self.sent.items() if stamp not in self.latency_ms]
        return {
            "never_reached_the_node": len(self.sent) - counts["received"],
            "dropped_by_the_node": counts["received"] - counts["answered"],
            "answers_that_never_came_back": counts["answered"] - len(self.latency_ms),
            "counts_of_the_node": counts,
            "when": [self._after(at) for at in missing[:MOST_MOMENTS]],
        }

    def _after(self, at: float) -> str:
        first = min(self.sent.values())
        last = max((event for event in self.events if event[0] <= at), default=(first, "start"))
        return f"{at - first:.1f} s, {at - last[0]:.2f} s after a {last[1]}"


def message_of(cloud: Cloud, layout: str) -> Any:
    """A cloud in one of the layouts, without a stamp."""
    from sensor_msgs.msg import PointCloud2, PointField

    names = [name or f"pad{i}" for i, (name, _) in enumerate(LAYOUTS[layout])]
    dtype = np.dtype({"names": names, "formats": [kind for _, kind in LAYOUTS[layout]]})
    points = np.zeros(len(cloud), dtype)
    for axis, name in enumerate("xyz"):
        points[name] = cloud.xyz[:, axis]
    points["intensity"] = cloud.intensity if dtype["intensity"].kind == "f" else cloud.intensity * 65535
    assert cloud.ring is not None
    points["ring"] = cloud.ring
    assert dtype.fields is not None
    places = {name: place for name, place in dtype.fields.items() if place[0].kind != "V"}
    fields = [PointField(name=n, offset=p[1], datatype=CODES[p[0].str[1:]], count=1) for n, p in places.items()]
    message = PointCloud2(height=cloud.height, width=cloud.width, fields=fields, point_step=dtype.itemsize)
    message.row_step, message.is_dense = dtype.itemsize * cloud.width, False
    message.data = array.array("B", points.tobytes())
    message.header.frame_id = "lidar"
    return message


class Driver:
    """The driver of the sensor, and one listener: sends clouds at the rate and notes what comes back."""

    def __init__(self, name: str, messages: dict[str, list[Any]]) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import PointCloud2
        from std_msgs.msg import String

        self.seen, self._messages, self._name = Outcome(), messages, name
        self._node = rclpy.create_node("soak")
        self._deep = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self._node.create_publisher(PointCloud2, f"/{name}/points", self._deep)
        unreliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._labels = self._node.create_subscription(PointCloud2, f"/{name}/labels", self._on_answer, unreliable)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(String, f"/{name}/classes", self._on_classes, latched)
        self._visitor: Any = None
        self._kind, self._best_effort = PointCloud2, unreliable
        self._offset_ns, self._numbers = 0, count(1)
        self.layout = next(iter(messages))

    def wait_for_node(self, check: Callable[[], None]) -> None:
        """Until an answer has come back once."""
        deadline = time.monotonic() + START_S
        while not self.seen.latency_ms:
            check()
            if time.monotonic() > deadline:
                raise SystemExit("soak: the node gave no answer")
            self.send()
            self.spin_until(time.monotonic() + 0.5)
        self.wait_for_counts()
        self.seen = Outcome(models=self.seen.models, before=self.seen.counted)

    def wait_for_counts(self) -> None:
        """Until the node has said twice in a row that nothing came in between: its counts are then those of all that was sent."""
        deadline, last = time.monotonic() + START_S, None
        while time.monotonic() < deadline:
            reports = self.seen.reports
            self.spin_until(time.monotonic() + 0.2)
            if self.seen.reports > reports:
                if last == self.seen.counted:
                    return
                last = self.seen.counted
        raise SystemExit("soak: the node says no counts on /diagnostics")

    def note(self, kind: str) -> None:
        """Something was changed now."""
        self.seen.events.append((time.monotonic(), kind))

    def send(self) -> None:
        """One cloud, under a stamp that no other has."""
        number = next(self._numbers)
        stamp_ns = 1_700_000_000 * 10**9 + round(number * 1e9 / RATE_HZ) + self._offset_ns
        message = self._messages[self.layout][number % len(self._messages[self.layout])]
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        self.seen.sent[stamp_ns] = time.monotonic()
        self._publisher.publish(message)

    def spin_until(self, due: float) -> None:
        """Take what comes until a moment."""
        import rclpy

        while (left := due - time.monotonic()) > 0:
            rclpy.spin_once(self._node, timeout_sec=left)

    def jump(self) -> None:
        """The clock of the clouds goes an hour back or forth, to moments that it has not had."""
        self.note("jump")
        jumps = self.seen.times("jump")
        self._offset_ns = HOUR_NS * (-1) ** jumps * (jumps // 2 + 1)

    def visit(self) -> None:
        """Another subscriber comes, or goes."""
        self.note("visitor")
        if self._visitor is None:
            topic, quality = f"/{self._name}/labels", self._best_effort
            self._visitor = self._node.create_subscription(self._kind, topic, lambda message: None, quality)
        else:
            self._node.destroy_subscription(self._visitor)
            self._visitor = None

    def _on_answer(self, message: Any) -> None:
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        if stamp_ns in self.seen.sent and stamp_ns not in self.seen.latency_ms:
            self.seen.latency_ms[stamp_ns] = (time.monotonic() - self.seen.sent[stamp_ns]) * 1e3

    def _on_diagnostics(self, message: Any) -> None:
        inputs = [status for status in message.status if status.name.endswith(": input")]
        values = {value.key: value.value for status in inputs for value in status.values}
        if values:
            self.seen.reports += 1
            self.seen.counted = {key: int(n) for key, n in values.items() if key in COUNTED or key.startswith("dropped ")}

    def _on_classes(self, message: Any) -> None:
        self.seen.models.append(json.loads(message.data)["hash"])


def soak(minutes: float, versions: Versions, folders: list[Path], messages: dict[str, list[Any]], log: Path) -> Outcome:
    """The drive."""
    name = "weakseg_soak"
    options = ["--watch-bundle", "0.2", "--log-folder", str(log), "--input-topic", f"/{name}/points"]
    with NodeProcess(versions.pointer, [*options, "--ros-args", "-r", f"__node:={name}"]) as process:
        driver = Driver(name, messages)
        driver.wait_for_node(process.check)
        started = time.monotonic()
        due = dict.fromkeys(("swap", "layout", "visitor", "jump", "memory"), started)
        for number in range(round(60 * minutes * RATE_HZ)):
            now = time.monotonic()
            if now >= due["memory"]:
                due["memory"] += MEMORY_S
                process.check()
                driver.seen.memory.append((now, memory_mib(process.pid)))
                driver.seen.load.append(os.getloadavg()[0])
            if now >= due["swap"] + SWAP_S:
                due["swap"] += SWAP_S
                driver.note("swap")
                versions.promote(folders[driver.seen.times("swap") % len(folders)])
            if now >= due["layout"] + LAYOUT_S:
                due["layout"] += LAYOUT_S
                driver.note("layout")
                driver.layout = list(LAYOUTS)[driver.seen.times("layout") % len(LAYOUTS)]
            if now >= due["visitor"] + VISITOR_S:
                due["visitor"] += VISITOR_S
                driver.visit()
            if now >= due["jump"] + JUMP_S:
                due["jump"] += JUMP_S
                driver.jump()
            driver.send()
            driver.spin_until(started + (number + 1) / RATE_HZ)
        driver.wait_for_counts()
        driver.seen.memory.append((time.monotonic(), memory_mib(process.pid)))
        driver.seen.load.append(os.getloadavg()[0])
    if process.exit_code:
        raise SystemExit(f"soak: the node ended with exit code {process.exit_code}")
    return driver.seen


def picture(outcome: Outcome, path: Path) -> None:
    """Memory and latency over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below, machine) = pyplot.subplots(3, 1, sharex=True, figsize=(9, 8))
    first = min(outcome.sent.values())
    moments = [at - first for at, _ in outcome.memory]
    above.plot(moments, [mib for _, mib in outcome.memory])
    above.set_ylabel("memory of the node, MiB")
    machine.plot(moments, outcome.load)
    machine.set_ylabel("load of the machine")
    rows = sorted((outcome.sent[stamp] - first, latency) for stamp, latency in outcome.latency_ms.items())
    below.plot([at for at, _ in rows], [latency for _, latency in rows], ".", markersize=2)
    below.set_yscale("log")
    below.set_ylabel("cloud to answer, ms")
    for stamp, at in outcome.sent.items():
        if stamp not in outcome.latency_ms:
            below.axvline(at - first, color="red", linewidth=0.5, alpha=0.2, zorder=0)
    machine.set_xlabel("s")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def summary_of(outcome: Outcome, minutes: float, frames: int) -> dict[str, Any]:
    """The figures."""
    latencies = [outcome.latency_ms[stamp] for stamp in outcome.sent if stamp in outcome.latency_ms]
    quarter = max(1, len(latencies) // 4)
    warm_s = min(outcome.sent.values()) + WARM_SHARE * 60 * minutes
    warm = [mib for at, mib in outcome.memory if at >= warm_s]
    return {
        "minutes": minutes,
        "sent": len(outcome.sent),
        "without_an_answer": len(outcome.sent) - len(outcome.latency_ms),
        "lost": outcome.losses(),
        "swaps": outcome.times("swap"),
        "models_announced": len(outcome.models),
        "layouts": outcome.times("layout"),
        "visitors": outcome.times("visitor"),
        "clock_jumps": outcome.times("jump"),
        "frames_logged": frames,
        "latency_ms": describe(latencies),
        "latency_ms_of_the_first_quarter": describe(latencies[:quarter]),
        "latency_ms_of_the_last_quarter": describe(latencies[-quarter:]),
        "memory_mib": {"warm": round(warm[0], 1), "end": round(warm[-1], 1), "growth": round(warm[-1] - warm[0], 1)},
        "parts": parts_of(outcome),
        "load_of_the_machine": describe(outcome.load),
        "niceness": os.nice(0),
        "environment": environment(),
    }


def parts_of(outcome: Outcome) -> list[dict[str, Any]]:
    """The drive in six parts of equal length: load of the machine, clouds without an answer, latency and memory of each."""
    first, last = min(outcome.sent.values()), max(outcome.sent.values())
    looked = list(zip(outcome.memory, outcome.load, strict=True))
    rows = []
    for number in range(PARTS):
        low, high = (first + (last - first + 1e-3) * part / PARTS for part in (number, number + 1))
        stamps = [stamp for stamp, at in outcome.sent.items() if low <= at < high]
        answered = [outcome.latency_ms[stamp] for stamp in stamps if stamp in outcome.latency_ms]
        seen = [(mib, load) for (at, mib), load in looked if low <= at < high]
        rows.append(
            {
                "minutes": [round((low - first) / 60, 1), round((high - first) / 60, 1)],
                "load_of_the_machine": round(float(np.median([load for _, load in seen])), 1) if seen else None,
                "sent": len(stamps),
                "without_an_answer": sum(stamp not in outcome.latency_ms for stamp in stamps),
                "latency_ms": describe(answered) if answered else None,
                "memory_mib": round(float(np.median([mib for mib, _ in seen])), 1) if seen else None,
            }
        )
    return rows


def main() -> int:
    """Drive, measure, print; exit code 1 where the node lost a cloud or its memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long")
    parser.add_argument("--bundles", nargs="*", type=Path, default=[], help="bundles that take turns; none: two fresh nets")
    parser.add_argument("--sensor", default="vlp16", help="sensor model of the clouds")
    parser.add_argument("--columns", type=int, default=512, help="columns of its range image")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="folder for soak.json and soak.png")
    options = parser.parse_args()
    quiet_domain()
    apply_transport()
    import dataclasses

    import rclpy

    rclpy.init(args=[])
    with tempfile.TemporaryDirectory(prefix="weakseg_soak_") as name:
        scratch = Path(name)
        versions = Versions(scratch / "models")
        folders = options.bundles or fresh_bundles(scratch / "models", WIDTH)
        versions.promote(folders[0])
        sensor = dataclasses.replace(load_sensor(options.sensor), columns=options.columns)
        clouds = [scan.cloud for scan in simulate(SimulateConfig(1, 5, stride=5, sensor=sensor))]
        messages = {layout: [message_of(cloud, layout) for cloud in clouds] for layout in LAYOUTS}
        outcome = soak(options.minutes, versions, folders, messages, scratch / "log")
        frames = len(list((scratch / "log").glob("frames/*.yaml")))
        summary = summary_of(outcome, options.minutes, frames)
        summary["bundles"] = [Bundle.load(folder).content_hash[:12] for folder in folders]
    rclpy.try_shutdown()
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "soak.json", summary)
    picture(outcome, options.out / "soak.png")
    print(told(summary))
    lost = summary["lost"]
    return int(lost["dropped_by_the_node"] > 0 or summary["memory_mib"]["growth"] > MOST_GROWTH_MIB)


def told(summary: dict[str, Any]) -> str:
    """The figures in a sentence."""
    p99 = [summary[key]["p99"] for key in ("latency_ms_of_the_first_quarter", "latency_ms_of_the_last_quarter")]
    lost, memory = summary["lost"], summary["memory_mib"]
    return (
        f"{summary['sent']} clouds in {summary['minutes']:g} min: {lost['dropped_by_the_node']} lost by the node, "
        f"{lost['never_reached_the_node']} never reached it, {lost['answers_that_never_came_back']} answers never came back; "
        f"{summary['swaps']} swaps, {summary['layouts']} layouts, {summary['visitors']} visitors, "
        f"{summary['clock_jumps']} jumps, {summary['frames_logged']} frames kept; "
        f"p99 {p99[0]:.1f} ms in the first quarter, {p99[1]:.1f} ms in the last; "
        f"memory {memory['warm']:.0f} -> {memory['end']:.0f} MiB; load {summary['load_of_the_machine']['p50']:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
