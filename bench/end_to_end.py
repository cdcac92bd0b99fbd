# SPDX-License-Identifier: Apache-2.0
"""Stamp to answer over DDS: the real node process, real scans at 10 Hz, with our transport profile and without.

    python bench/end_to_end.py [--net light | --bundle models/street64] [--clouds 100] [--rate-hz 10]

The clouds are SemanticKITTI scans (about 124k points) where the folder is there, else simulated ones of the same size.
With --net the bundle is exported with fresh weights for 64 x 2048 and 20 classes: speed does not depend on weights.
Adds `end_to_end_ms` and `frames_lost` of the tuned transport to runs/bench/summary.json, beside the figures of stages.py.
Prints a markdown table: clouds answered, and p50, p95, p99 of publishing a cloud to receiving its labels.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import torch
from beside import SUMMARY, add_to_summary
from nets import CHANNELS, LABELS, MEAN, SPEC, STD, street_image

from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, NetRule
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.files import environment
from weakseg_ros.nets.build import build_net
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.ros.live import NodeProcess
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor
from weakseg_ros.train.export import export_bundle

REAL_SCANS = Path("../shared/data/semantickitti_seq00")
TOPIC = "/bench/points"


def clouds_at(rate_hz: float, count: int) -> Iterator[Cloud]:
    """`count` clouds, stamped at the rate."""
    if REAL_SCANS.is_dir():
        scans = open_scans(REAL_SCANS)
        few = [scans[i].cloud for i in range(len(scans))]
    else:
        few = [scan.cloud for scan in simulate(SimulateConfig(1, 5, sensor=load_sensor("hdl64e")))]
    for number, cloud in enumerate(islice(cycle(few), count)):
        yield dataclasses.replace(cloud, stamp_ns=1_000_000_000 + round(number * 1e9 / rate_hz))


def fresh_bundle(net: str, folder: Path, spec: RangeSpec = SPEC) -> Bundle:
    """A bundle of the net with random weights, for 20 classes."""
    torch.manual_seed(0)
    model = build_net(net, CHANNELS, MEAN, STD, LABELS.num_classes, {})
    info = BundleInfo(
        name=net,
        input=InputSpec(geometry=spec, channels=CHANNELS, mean=MEAN, std=STD, intensity=IntensityRule(True)),
        labels=LABELS,
        net=NetRule(net),
    )
    image = street_image()[..., :: SPEC.height // spec.height, :: SPEC.width // spec.width]
    return export_bundle(model, info, folder, image.numpy())


def run(bundle: Bundle, bag: Path, transport: str) -> dict[str, object]:
    """Play the bag into a node of its own; returns the replay's summary."""
    out = bag.parent / f"{transport}.json"
    replay = ["weakseg_ros", "replay", str(bag), "--transport", transport, "--out", str(out), "--no-clock"]
    with NodeProcess(bundle.folder, ["--input-topic", TOPIC, "--transport", transport]):
        done = subprocess.run([sys.executable, "-m", *replay], capture_output=True, text=True)
    if not out.exists():
        raise SystemExit(f"the replay failed: {done.stderr[-500:]}")
    summary: dict[str, object] = json.loads(out.read_text())
    return summary


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="light", help="a row of registry.NETS, with fresh weights at 64 x 2048")
    parser.add_argument("--bundle", default="", help="a bundle, in place of --net")
    parser.add_argument("--clouds", type=int, default=100)
    parser.add_argument("--rate-hz", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=SUMMARY)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bag = Path(scratch) / "bag"
        with CloudBagWriter(bag, TOPIC) as writer:
            for cloud in clouds_at(arguments.rate_hz, arguments.clouds):
                writer.write(cloud)
        bundle = Bundle.load(arguments.bundle) if arguments.bundle else fresh_bundle(arguments.net, Path(scratch) / "bundle")
        spec = bundle.info.input.geometry
        machine, rate = environment()["machine"], arguments.rate_hz
        print(f"{bundle.name}, {spec.height} x {spec.width}, {len(cloud)} points at {rate:g} Hz, {machine}\n")
        print("| transport | sent | answered | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|---|")
        for transport in ("tuned", "untouched"):
            summary = run(bundle, bag, transport)
            latency = summary["latency_ms"]
            if transport == "tuned":
                lost = int(summary["sent"]) - int(summary["answered"])  # type: ignore[call-overload]
                add_to_summary(arguments.out, {"end_to_end_ms": latency, "frames_lost": lost, "machine": machine})
            figures = " | ".join(
                f"{latency[name]:.1f}" if latency.get(name) is not None else "-" for name in ("p50", "p95", "p99")
            )
            print(f"| {transport} | {summary['sent']} | {summary['answered']} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
