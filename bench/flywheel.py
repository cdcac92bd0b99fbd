# SPDX-License-Identifier: Apache-2.0
"""The whole loop on a simulated street, unattended: deploy, replay, log, label, retrain, gate, swap in the live node.

    python bench/flywheel.py [--seeds 3] [--shard i/n] [--out runs/flywheel]        (or `make flywheel`)

The deployed model knows one sensor by day and no trucks. Then come the night, another sensor and trucks. First frames and
points chosen by `ours` are held against random ones and against the highest entropies, by mIoU on streets of the new kind
that nobody labels. Then the loop is turned once in full: the node logs what it doubts while a drive is replayed to it over
DDS, a simulated person clicks, `weakseg retrain` trains and asks its gate, and the node takes the new model while the
replay goes on. Rows are kept in OUT/rows.jsonl: an interrupted run goes on, and shards may run beside one another.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from flywheel_loop import LoopConfig, World, loop_parser, run_and_compare, write
from simulated_annotator import AnnotatorConfig, annotate, truth_by_source

from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.improve.log.select import SelectConfig, select
from weakseg_ros.improve.retrain.config import RetrainConfig
from weakseg_ros.improve.retrain.gate import GateConfig, score
from weakseg_ros.improve.retrain.retrain import retrain
from weakseg_ros.improve.retrain.versions import Versions
from weakseg_ros.locks import in_turn
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import Shift, load_sensor
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_run
from weakseg_ros.train.train import train

SPEC = RangeSpec(height=32, width=256, fov_up_deg=23.0, fov_down_deg=-25.5, max_range_m=120.0)
COLUMNS = 384
DAY_SENSOR, NIGHT_SENSOR = "hdl64e", "os1_64"
NIGHT = Shift(intensity_gain=0.45, intensity_gamma=1.5, extra_drop=0.05, extra_noise_m=0.01)
UNKNOWN = "truck"
STREETS = {"base": (0, 6), "val": (1000, 3), "pool": (2000, 8), "test": (3000, 4)}
"""first street and number of streets of each part"""
SCANS, STRIDE = 12, 8
RATE_HZ = 10.0
SWAP_S = 3.0
"""within so long the node has loaded the new model and taken it"""
GATE = GateConfig(latency_ratio=1.5)
"""the default gate, but for latency: two nets of equal shape on a busy machine may differ by chance"""


@dataclasses.dataclass(frozen=True)
class Drive:
    """One street, written to a folder of its own."""

    folder: Path
    seed: int
    by_day: bool


def record_drive(drive: Drive) -> None:
    """Simulate and write; by day without any truck."""
    labels = LabelMap.load("street")
    sensor = load_sensor(DAY_SENSOR if drive.by_day else NIGHT_SENSOR)
    sensor = dataclasses.replace(sensor, columns=COLUMNS, intensity_full_scale=1.0)
    shift = Shift() if drive.by_day else NIGHT
    facts = {"source": f"simulated street {drive.seed}", "seed": drive.seed, "intensity_full_scale": 1.0, "sensor": sensor.name}
    with ScanWriter(drive.folder, labels, SPEC, **facts) as writer:
        for scan in simulate(SimulateConfig(drive.seed, SCANS, STRIDE, sensor, shift)):
            cloud, raw = scan.cloud, scan.raw_label
            if drive.by_day:
                hidden = labels.to_class(raw) == labels.id_of(UNKNOWN)
                xyz, intensity, raw = cloud.xyz.copy(), cloud.intensity.copy(), np.where(hidden, np.uint32(0), raw)
                xyz[hidden], intensity[hidden] = 0.0, 0.0
                grid = {"height": cloud.height, "width": cloud.width, "stamp_ns": cloud.stamp_ns, "frame_id": cloud.frame_id}
                cloud = make_cloud(xyz, intensity, cloud.ring, intensity_full_scale=1.0, **grid)
            stamp_ns = cloud.stamp_ns + drive.seed * 10**12  # no two streets share a stamp
            writer.write(dataclasses.replace(cloud, stamp_ns=stamp_ns), raw, scan.pose)


def make_world(out: Path, steps: int) -> World:
    """Streets by day and by night, and the model of the day, deployed."""
    root = out / "world"
    world = World(root / "base", root / "pool", root / "test", out / "models" / "day")
    with in_turn(out / ".world.lock"):
        if world.bundle.exists():  # written last, and whole
            return world
        shutil.rmtree(root, ignore_errors=True)
        drives = [
            Drive(root / name / f"{first + i:05d}", first + i, name in ("base", "val"))
            for name, (first, count) in STREETS.items()
            for i in range(count)
        ]
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            list(pool.map(record_drive, drives))
        settings = TrainConfig(
            data=world.base,
            val_data=root / "val",
            out=root / "run",
            net_width=16,
            channels=("range", "x", "y", "z", "intensity", "valid"),
            augment=AugmentConfig(intensity_gain=0.2, mix=0.0, drop=0.1),
            steps=steps,
            warmup_steps=steps // 10,
            average_decay=0.98,
            validate_every=0,
            seed=0,
        )
        export_run(train(settings).path, world.bundle)
    return world


def whole_loop(out: Path, world: World, clicks: int, per_frame: int, error_rate: float, loop: LoopConfig) -> dict[str, Any]:
    """Deploy, replay, log, label, retrain, gate, swap, replay; what came of it."""
    folder = out / "loop"
    shutil.rmtree(folder, ignore_errors=True)
    versions = Versions(folder / "models")
    deployed = versions.promote(shutil.copytree(world.bundle, versions.models / "day"))
    why_not_live = "" if importlib.util.find_spec("rclpy") else "rclpy is not installed here"
    frames = -(-clicks // per_frame)
    log = folder / "log"
    before_s = time.monotonic()
    if why_not_live:
        facts = {"bundle": str(versions.pointer), "frames": frames, "points": 3 * per_frame, "engine": "onnxruntime"}
        select(SelectConfig(data=world.pool, out=log, **facts))
    else:
        log_live(versions.pointer, world.pool, folder / "drive", log, frames, 3 * per_frame)
    store = ClickStore(log, deployed.labels)
    truth = truth_by_source(open_scans(world.pool, labels=deployed.labels))
    worthy = open_frames(log).frames[: frames + 1]
    spent = annotate(worthy, truth, store, AnnotatorConfig(clicks, per_frame, error_rate))
    outcome = retrain(
        RetrainConfig(
            frames=log,
            bundle=str(versions.pointer),
            models=versions.models,
            out=folder / "retrain",
            promote=False,
            learning_rate=loop.learning_rate,
            new_share=loop.new_share,
            spread_m=loop.spread_m,
            gate=GATE,
        )
    )
    miou = {name: measure(bundle, world.test) for name, bundle in (("before", deployed), ("after", outcome.bundle))}
    result: dict[str, Any] = {
        "miou_before": miou["before"],
        "miou_after": miou["after"],
        "frames_logged": len(open_frames(log)),
        "clicks": spent.clicks,
        "wrong_clicks": spent.wrong,
        "gate": {"passed": outcome.verdict.passed, "failed": outcome.summary["failed"]},
        "regression": {when: outcome.summary[when]["regression"]["miou"] for when in ("before", "after")},
        "frames_lost_in_swap": None,
        "why_not_live": why_not_live or ("" if outcome.verdict.passed else "the gate refused the new model"),
    }
    if not result["why_not_live"]:
        result |= swap_live(versions, outcome.bundle, world.test, folder / "test_drive")
    return {**result, "seconds": round(time.monotonic() - before_s, 1)}


def measure(bundle: Bundle, test: Path) -> float:
    """mIoU over the classes that occur, through the robot's own code."""
    scans = open_scans(test, labels=bundle.labels)
    segmenter = Segmenter(bundle)
    try:
        return round(score(segmenter, (scans[i] for i in range(len(scans)))).confusion.miou_present, 5)
    finally:
        segmenter.close()


def log_live(pointer: Path, drive: Path, bag: Path, log: Path, frames: int, points: int) -> None:
    """Replay a drive to the node, which logs what it doubts."""
    from swaps import play, write_bag

    scans = open_scans(drive)
    write_bag(bag, (scans[i].cloud for i in range(len(scans))))
    minutes = len(scans) / RATE_HZ / 60
    settings = LogSettings(
        folder=str(log), per_minute=1.5 * frames / minutes, spacing_s=0.0, points=points, max_frames=frames + 1, min_free_mib=0
    )
    options = [word for name, value in vars(settings).items() for word in (f"--log-{name}".replace("_", "-"), str(value))]
    play(pointer, bag, rate_hz=RATE_HZ, arguments=options)


def swap_live(versions: Versions, candidate: Bundle, drive: Path, bag: Path) -> dict[str, Any]:
    """Replay to the node that follows models/current, and promote the candidate on the way."""
    from swaps import play, write_bag

    scans = open_scans(drive)
    write_bag(bag, (scans[i].cloud for i in range(len(scans))))

    swap_at = len(scans) // 2

    def promote(number: int) -> None:
        if number == swap_at:
            versions.promote(candidate.folder, "passed the gate")

    outcome = play(versions.pointer, bag, promote, frames=2 * len(scans), rate_hz=RATE_HZ)
    return {
        "frames_lost_in_swap": sum(swap_at <= number <= swap_at + SWAP_S * RATE_HZ for number in outcome.missing),
        "frames_lost": len(outcome.missing),
        "frames_sent": outcome.sent,
        "swapped": outcome.announced[-1:] == (candidate.content_hash,) and len(outcome.announced) == 2,
    }


def sentences(result: dict[str, Any]) -> Sequence[str]:
    """The whole loop, for the report."""
    gate = "passed the gate" if result["gate"]["passed"] else f"was refused: {'; '.join(result['gate']['failed'])}"
    lost = result["frames_lost_in_swap"]
    live = (
        f"The running node took it between two frames: {lost} frames lost in the swap, {result['frames_lost']} of "
        f"{result['frames_sent']} in the whole replay."
        if lost is not None
        else f"No swap in a live node: {result['why_not_live']}."
    )
    old = result["regression"]
    return (
        "## The whole loop, once",
        "",
        f"{result['frames_logged']} frames were logged; {result['clicks']} clicks on them, {result['wrong_clicks']} wrong ones, "
        f"made mIoU {result['miou_before']:.3f} into {result['miou_after']:.3f} on streets of the new kind, and "
        f"{old['before']:.3f} into {old['after']:.3f} on those it knew. The new model {gate}. {live}",
    )


def main() -> int:
    """Run the units that are missing, compare, turn the whole loop once."""
    parser = loop_parser(__doc__.splitlines()[0], out="runs/flywheel", rounds=4, steps=240)
    parser.add_argument("--error-rate", type=float, default=0.02, help="share of wrong clicks")
    arguments = parser.parse_args()
    out, begin_s = arguments.out, time.monotonic()
    loop = LoopConfig(arguments.rounds, arguments.frames, arguments.clicks, arguments.error_rate, arguments.steps, 1e-3)
    world = make_world(out, arguments.base_steps)
    comparison = run_and_compare(arguments, lambda seed: world, loop)
    if comparison is None:
        return 0
    budget = arguments.rounds * arguments.frames * arguments.clicks
    result = whole_loop(out, world, budget, arguments.clicks, arguments.error_rate, loop)
    summary = {**comparison, **result, "loop": vars(loop), "minutes": round((time.monotonic() - begin_s) / 60, 1)}
    write(out, summary, "Clicks after a change of sensor, light and traffic", sentences(result))
    print("\n".join(sentences(result)[2:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
