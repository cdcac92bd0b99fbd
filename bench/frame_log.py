# SPDX-License-Identifier: Apache-2.0
"""What the frame log costs a running node: latency with it and without, in turns, on good disks and bad ones.

    python bench/frame_log.py [--bundle models/street64 | --small] [--rounds 3] [--seconds 6] [--kills 5]

One node answers the same clouds at 10 Hz while its log is switched, round after round: off; on as shipped; on at ten times the
rate; with the 5 s before and the 2 s after each kept frame; on a disk of 8 MiB that is full; with its folder deleted every half
second. Every frame is worth keeping (log.min_distance 0), so that the rate alone holds it back. Then nodes are killed
with SIGKILL while they write, and every frame in the index is read back. Prints a markdown table and writes
runs/frame_log/summary.json. The full disk needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from end_to_end import SPEC, clouds_at, fresh_bundle
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import PointCloud2, PointField

from weakseg_ros.data.bags import RawMessage
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError
from weakseg_ros.files import write_json
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.improve.log.store import FrameWriter
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.encode import fill_message, pack_cloud
from weakseg_ros.ros.live import NodeProcess
from weakseg_ros.ros.replay_player import Player, ReplaySettings

RATE_HZ = 10.0
WARM_UP = 5
"""clouds at the start of each turn that are not counted: the switch itself opens a folder"""
ROOM_BYTES = 256 << 10
"""left on the full disk: enough for the log's folders, too little for a frame"""
TURNS = ("off", "on, 6 a minute", "on, 60 a minute", "seconds around", "full disk", "folder deleted")
AROUND = {"log.per_minute": 6.0, "log.before_s": 5.0, "log.after_s": 2.0}
NOTHING_AROUND = {"log.before_s": 0.0, "log.after_s": 0.0}
EAGER = {"log.per_minute": 60.0, "log.spacing_s": 0.0, "log.min_distance": 0.0, "log.min_free_mib": 0}


class Switch:
    """Sets parameters of the node."""

    def __init__(self, name: str) -> None:
        rclpy.init()
        self._node = rclpy.create_node("frame_log_bench")
        self._client = self._node.create_client(SetParametersAtomically, f"/{name}/set_parameters_atomically")

    def set(self, values: dict[str, Any]) -> None:
        """All of them, or RuntimeError with the node's reason."""
        if not self._client.wait_for_service(60.0):
            raise RuntimeError("the node does not answer")
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        future = self._client.call_async(SetParametersAtomically.Request(parameters=parameters))
        rclpy.spin_until_future_complete(self._node, future, timeout_sec=30.0)
        if future.result() is None or not future.result().result.successful:
            raise RuntimeError(f"parameters refused: {future.result()}")

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_node()
        rclpy.shutdown()


def messages(count: int, points: int) -> list[RawMessage]:
    """Serialized clouds at the rate, each of at most so many points."""
    found = []
    for cloud in clouds_at(RATE_HZ, count):
        message = PointCloud2()
        few = thinned(cloud, points)
        fill_message(message, pack_cloud(few), few, PointField)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(few.stamp_ns, 10**9)
        found.append(RawMessage(few.stamp_ns, bytes(serialize_message(message)), "sensor_msgs/msg/PointCloud2"))
    return found


def thinned(cloud: Cloud, points: int) -> Cloud:
    """Every so-manieth point."""
    index = np.arange(0, len(cloud), max(1, -(-len(cloud) // points)))
    columns = {"xyz": cloud.xyz[index], "intensity": cloud.intensity[index], "flags": cloud.flags[index]}
    return dataclasses.replace(cloud, **columns, ring=None, height=1, width=len(index))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of 8 MiB with nothing left on it; None where it cannot be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False)
    if made.returncode:
        yield None
        return
    (folder / "filler").write_bytes(bytes((8 << 20) - ROOM_BYTES))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def deleting(folder: Path) -> Iterator[None]:
    """Delete the folder every half second."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.5):
            shutil.rmtree(folder, ignore_errors=True)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    ended.set()
    thread.join()


def play(name: str, clouds: Sequence[RawMessage]) -> tuple[list[float], int]:
    """Milliseconds from publishing to answer of the clouds after the warm-up, and how many had no answer."""
    with Player(ReplaySettings(node=name, clock=False)) as player:
        player.connect("")
        player.play(clouds)
        result = player.result()
    return list(result.latency_samples_ms[WARM_UP:]), len(result.missing)


def turns(bundle: Bundle, clouds: Sequence[RawMessage], rounds: int, scratch: Path) -> dict[str, dict[str, Any]]:
    """The samples of each turn, all rounds together."""
    name = f"frame_log_bench_{os.getpid()}"
    options = ["--input-topic", f"/{name}/points", "--threads", str(os.environ.get("OMP_NUM_THREADS", 0)), "--ros-args"]
    found: dict[str, dict[str, Any]] = {turn: {"samples": [], "unanswered": 0} for turn in TURNS}
    command = [*options, "-r", f"__node:={name}"]
    with NodeProcess(bundle.folder, command) as process, small_disk(scratch / "disk") as disk:
        switch = Switch(name)
        for number in range(rounds):
            for turn in TURNS:
                print(f"round {number + 1} of {rounds}: {turn}", file=sys.stderr, flush=True)
                folder = scratch / turn.replace(" ", "_").replace(",", "")
                if turn == "full disk":
                    if disk is None:
                        continue
                    folder = disk / "log"
                rate = {"on, 6 a minute": {"log.per_minute": 6.0}, "seconds around": AROUND}.get(turn, {})
                switch.set({**EAGER, **NOTHING_AROUND, **rate, "log.folder": "" if turn == "off" else str(folder)})
                busy_s = cpu_s(process.pid)
                with deleting(folder) if turn == "folder deleted" else contextlib.nullcontext():
                    samples, missing = play(name, clouds)
                found[turn]["cpu_s"] = found[turn].get("cpu_s", 0.0) + cpu_s(process.pid) - busy_s
                found[turn]["rss_mib"] = rss_mib(process.pid)
                found[turn]["samples"] += samples
                found[turn]["unanswered"] += missing
                found[turn]["folder"] = folder
        switch.set({"log.folder": ""})
        time.sleep(1.0)
        switch.close()
        for turn in TURNS:
            found[turn]["frames"], found[turn]["damaged"] = look(found[turn].pop("folder", None))
    return found


def cpu_s(process: int) -> float:
    """Seconds of processor time that a process has used, all threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(process: int) -> float:
    """Memory that a process holds now, MiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def kill(bundle: Bundle, clouds: Sequence[RawMessage], kills: int, folder: Path) -> tuple[int, int]:
    """Kill writing nodes with SIGKILL; the frames in the log after all of it, and those that are not whole."""
    name = f"frame_log_bench_{os.getpid()}"
    options = ["--input-topic", f"/{name}/points", "--log-folder", str(folder), "--log-spacing-s", "0"]
    options += ["--log-per-minute", "6000", "--log-min-distance", "0", "--log-min-free-mib", "0"]
    for number in range(kills):
        print(f"kill {number + 1} of {kills}", file=sys.stderr, flush=True)
        with NodeProcess(bundle.folder, [*options, "--ros-args", "-r", f"__node:={name}"]) as node:
            with Player(ReplaySettings(node=name, clock=False, answer_timeout_s=0.1)) as player:
                player.connect("")
                player.play(clouds[: 12 + number % 7])
                os.kill(node.pid, signal.SIGKILL)
    return look(folder)


def look(folder: Path | None) -> tuple[int, int]:
    """Read every frame of a log back; the whole ones, and the others."""
    if folder is None or not (folder / "frames").is_dir():
        return 0, 0
    try:
        log = open_frames(folder)
    except DataError:
        return 0, 0
    damaged = len(log.problems)
    for scan in log.scans:
        class_id, _ = log.prediction(scan.key)
        if not len(scan.cloud) == len(class_id) == len(log.uncertainty(scan.key)):
            damaged += 1
    FrameWriter(folder, log.scans.labels, log.scans.spec, source="bench").close()
    return len(log), damaged + len(open_frames(folder).problems)


def main() -> None:
    """Print the table, write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="models/street64")
    parser.add_argument("--small", action="store_true", help="a light net of 32 x 512 with fresh weights, for slow machines")
    parser.add_argument("--points", type=int, default=130_000, help="of a cloud, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/frame_log"))
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        small = dataclasses.replace(SPEC, height=32, width=512)
        bundle = fresh_bundle("light", scratch / "bundle", small) if arguments.small else Bundle.load(arguments.bundle)
        clouds = messages(WARM_UP + round(arguments.seconds * RATE_HZ), arguments.points)
        found = turns(bundle, clouds, arguments.rounds, scratch)
        kept, damaged = kill(bundle, clouds, arguments.kills, scratch / "killed")
    base = float(np.percentile(found["off"]["samples"], 99))
    summary: dict[str, Any] = {"bundle": bundle.name, "rate_hz": RATE_HZ, "environment": environment()}
    columns = ("log", "answered", "p50 ms", "p99 ms", "p99 to off", "CPU ms a cloud", "MiB", "frames left", "not whole")
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    print(head)
    for turn, row in found.items():
        if not row["samples"]:
            print(f"| {turn} | not possible here | | | | | | | |")
            continue
        p50, p99 = (float(value) for value in np.percentile(row["samples"], (50, 99)))
        summary[turn] = {key: row[key] for key in ("unanswered", "frames", "damaged")}
        summary[turn] |= {"answered": len(row["samples"]), "p50_ms": p50, "p99_ms": p99, "p99_ratio": p99 / base}
        sent = arguments.rounds * len(clouds)
        summary[turn] |= {"cpu_ms_per_cloud": 1e3 * row["cpu_s"] / sent, "rss_mib": row["rss_mib"]}
        cost = f"{p50:.1f} | {p99:.1f} | {p99 / base:.2f} | {1e3 * row['cpu_s'] / sent:.1f} | {row['rss_mib']:.0f}"
        print(f"| {turn} | {len(row['samples'])} | {cost} | {row['frames']} | {row['damaged']} |")
    print(f"\n{arguments.kills} nodes killed while writing: {kept} frames in the index, {damaged} not whole")
    summary["killed"] = {"kills": arguments.kills, "frames": kept, "damaged": damaged}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "summary.json", summary)
    sys.exit(bool(damaged or any(row["damaged"] for row in found.values())))


if __name__ == "__main__":
    main()
