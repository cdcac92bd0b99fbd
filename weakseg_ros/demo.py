# SPDX-License-Identifier: Apache-2.0
"""`weakseg demo`: the whole chain on a simulated street, from a handful of clicks to a labelled ROS 2 topic and a report."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weakseg_ros.config import check_ranges, parse, setting
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError, counted, say
from weakseg_ros.extras import need
from weakseg_ros.files import check_can_write, content_of, write_json

if TYPE_CHECKING:
    from weakseg_ros.deploy.bundle import Bundle
    from weakseg_ros.weak.sparse_labels import SparseRecord

STAGES = 5
MARKER = ".weakseg_demo"
TOPIC = "/points"
TEST_STRIDE = 3
"""the test drive keeps every third sweep and is played three times as fast: 10 Hz"""
SEEDS_PER_DEMO = 1000
CHECK_STREET, TEST_STREET = 900, 910
"""numbers of the first streets apart from those that are trained on"""
CHECK_STREETS, TEST_STREETS = 3, 4
"""one street alone may lack whole classes"""
CHANNELS = ("log_range", "height", "intensity", "relief_left", "relief_right", "relief_above", "relief_below", "bend", "valid")
"""what the net is told: shapes and heights above the ground, which look alike in every direction, instead of x, y and z"""


@dataclass(frozen=True)
class DemoConfig:
    """Run the whole pipeline on this machine: simulate, label a few points, train, export, run the node over DDS, evaluate."""

    out: Path = Path("runs/demo")
    """Names the output folder of the demo; an earlier demo in it is replaced."""
    seed: int = setting(0, 0, 1_000_000)
    """Seeds the streets, the label draw and the initial weights (0 to 1000000)."""
    quick: bool = False
    """Runs every step within about a minute, to show that the pipeline works; the resulting model is poor."""
    streets: int = setting(24, 1, CHECK_STREET)
    """Sets the number of simulated streets to train on (1 to 900)."""
    scans_per_street: int = setting(6, 2, 20)
    """Sets the number of scans on each training street (2 to 20)."""
    test_scans_per_street: int = setting(15, 1, 100)
    """Sets the number of scans on each of the four unseen test streets (1 to 100)."""
    columns: int = setting(1024, 64, 2048)
    """Sets the width of the range image in columns (64 to 2048)."""
    label_ratio: float = setting(0.0006, 1e-6, 1.0)
    """Sets the fraction of the points of each class without objects that is clicked, at least one in each scan (1e-6 to 1); of
    classes with objects, such as cars and people, each object is clicked once in each scan."""
    steps: int = setting(850, 1)
    """Sets the number of training steps (1 or more)."""
    train_minutes: float = setting(4.0, 0.01, 600.0)
    """Limits the training time in minutes (0.01 to 600)."""
    init: str = ""
    """Names the bundle whose weights and input the training starts from; an empty string starts from random weights, so that
    the clicks alone make the model."""
    propagate_scans: int = setting(5, 0, 100, was="carry_scans")
    """Sets how many scans before and after its own a click also labels, by the poses of the scans (0 to 100)."""

    def __post_init__(self) -> None:
        check_ranges(self)


QUICK = {"streets": 2, "scans_per_street": 4, "test_scans_per_street": 2, "columns": 256, "steps": 20, "train_minutes": 0.5}


def main(argv: Sequence[str]) -> int:
    """The verb; 0 where the report is complete."""
    config = parse(DemoConfig, argv, "demo")
    summary = run_demo(dataclasses.replace(config, **QUICK) if config.quick else config)  # type: ignore[arg-type]
    return 0 if summary["scans_out"] == summary["scans_in"] else 1


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Run the chain and write report.html and summary.json; returns the summary. Raises what its parts raise."""
    begin_s = time.monotonic()
    need("torch", "lightning_fabric", "onnx", "onnxscript", "safetensors", "onnxruntime", "rosbags", "jinja2", "matplotlib")
    check_can_write(config.out, "--out")
    _make_room(config.out)
    _simulate(config)
    record = _label(config)
    train_s = _train(config)
    bundle = _export(config)
    story = {
        "training data": (
            f"{counted(config.streets * config.scans_per_street, 'simulated scan')} of {counted(config.streets, 'street')}"
        ),
        "start": f"weights of {config.init}, trained on other streets" if config.init else "random weights",
        "labels": f"{_clicked(record)}: one on each object of a scan, and {100 * config.label_ratio:g} % of the points of each "
        "other class in it, at least one",
        "propagated labels": _propagating(config),
        "training": f"{train_s:.0f} s on {environment()['machine']}",
        "test": f"{counted(TEST_STREETS * config.test_scans_per_street, 'scan')} of {TEST_STREETS} other streets, from a rosbag2",
    }
    evaluation = _run_and_evaluate(config, story)
    summary = _summary(config, bundle, evaluation, train_s)
    write_json(config.out / "summary.json", summary)
    _say_goodbye(config, summary, time.monotonic() - begin_s)
    return summary


def _simulate(config: DemoConfig) -> None:
    from weakseg_ros.simulate.record import RecordConfig, record

    _heading(
        1,
        f"Simulate {counted(config.streets, 'street')} for training, {CHECK_STREETS} for validation, {TEST_STREETS} for testing",
    )
    out, first = config.out, config.seed * SEEDS_PER_DEMO
    drive = RecordConfig(
        out=out / "train", seed=first, columns=config.columns, stride=8, scans_per_street=config.scans_per_street
    )
    record(dataclasses.replace(drive, streets=config.streets))
    record(dataclasses.replace(drive, out=out / "check", seed=first + CHECK_STREET, streets=CHECK_STREETS))
    test = dataclasses.replace(
        drive,
        out=out / "drive",
        bag=out / "drive_bag",
        topic=TOPIC,
        seed=first + TEST_STREET,
        streets=TEST_STREETS,
        stride=TEST_STRIDE,
        scans_per_street=config.test_scans_per_street,
    )
    record(test)
    _gather_labels(out / "drive", out / "drive_labels")


def _gather_labels(drive: Path, folder: Path) -> None:
    """The truth of every scan of the bag, numbered as the bag plays them, street after street."""
    folder.mkdir()
    for number, file in enumerate(sorted(drive.glob("*/labels/*.label"))):
        shutil.copy(file, folder / f"{number:06d}.label")


def _label(config: DemoConfig) -> SparseRecord:
    from weakseg_ros.data.scans import open_scans
    from weakseg_ros.weak.draw import draw_sparse
    from weakseg_ros.weak.protocols import SparseConfig

    _heading(2, f"Keep a label on each object and {100 * config.label_ratio:g} % of the others, as if a person had clicked them")
    draw = SparseConfig(protocol="per_instance", ratio=config.label_ratio, seed=config.seed)
    record = draw_sparse(open_scans(config.out / "train"), draw, config.out / "clicks").record
    say(_clicked(record))
    return record


def _propagating(config: DemoConfig) -> str:
    """What becomes of a click in the scans around its own, in words."""
    from weakseg_ros.weak.propagate import PropagateSettings

    if not config.propagate_scans:
        return "none"
    radius_m = PropagateSettings().radius_m
    return (
        f"a click also labels the points within {radius_m:g} m of its place, in its own scan and by the exact poses of the "
        f"simulator in up to {counted(config.propagate_scans, 'scan')} before and after; what may move, in one"
    )


def _train(config: DemoConfig) -> float:
    """Train on the clicks; returns seconds."""
    from weakseg_ros.batches.settings import AugmentConfig
    from weakseg_ros.train.config import TrainConfig
    from weakseg_ros.train.train import train
    from weakseg_ros.weak.propagate import PropagateSettings

    start = f", from the weights of {config.init}" if config.init else ""
    _heading(3, f"Train a light net on these clicks{start}, for {counted(config.train_minutes, 'minute', spec='g')} at most")
    begin_s = time.monotonic()
    train(
        TrainConfig(
            **_input_of(config.init),
            data=config.out / "train",
            out=config.out / "run",
            val_data=config.out / "check",
            sparse_labels=config.out / "clicks",
            propagate=PropagateSettings(scans=config.propagate_scans),
            # minutes are too short to learn what heavy variation teaches; half the width makes twice the steps
            width=config.columns // 2,
            lift="vote",  # the single mistakes of a short training are outvoted
            augment=AugmentConfig(mix=0.0, drop=0.0),
            steps=config.steps,
            warmup_steps=min(50, config.steps // 2),
            max_minutes=config.train_minutes,
            validate_every=0,
            seed=config.seed,
        )
    )
    return time.monotonic() - begin_s


def _input_of(bundle: str) -> dict[str, Any]:
    """The settings of a training that goes on from a bundle's weights: what its net is fed, and a smaller learning rate."""
    if not bundle:
        return {"channels": CHANNELS}
    from weakseg_ros.deploy.bundle import Bundle

    info = Bundle.load(bundle).info
    ranks = "ranks" if info.input.intensity.ranks else "scaled"
    return {"init": bundle, "channels": info.input.channels, "intensity": ranks, "level": info.input.level, "learning_rate": 2e-3}


def _export(config: DemoConfig) -> Bundle:
    from weakseg_ros.train.export import export_run

    _heading(4, "Export to ONNX, compare with torch, calibrate the confidence")
    bundle = export_run(config.out / "run", config.out / "model", name="demo")
    say(f"{config.out / 'model'}: {counted(bundle.num_classes - 1, 'class')}, {bundle.content_hash[:12]}")
    return bundle


def _run_and_evaluate(config: DemoConfig, story: dict[str, str]) -> dict[str, Any]:
    """Through the real node process over DDS where rclpy is here, and directly; returns the evaluation's summary."""
    from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
    from weakseg_ros.ros.live import live_answers

    live = importlib.util.find_spec("rclpy") is not None
    if live:
        _heading(5, "Start the ROS 2 node, replay the bag to it over DDS, and evaluate its answers")
        # the demo's own traffic stays on this machine
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    else:
        _heading(5, "Measure the model on the bag")
        say("rclpy is not installed here, so the model runs on the bag directly, without the node (see 'weakseg doctor')")
    settings = EvaluateConfig(
        data=config.out / "drive_bag",
        bundle=str(config.out / "model"),
        topic=TOPIC,
        truth=config.out / "drive_labels",
        out=config.out / "evaluation",
        live=live,
        log=config.out / "log" if live else None,
        rate=TEST_STRIDE,
    )
    title = "weakseg demo: from clicks to a labelled ROS 2 topic"
    report, evaluation = evaluate(settings, {"title": title, "story": story}, live_answers)
    os.replace(report, config.out / "report.html")
    return evaluation


def _summary(config: DemoConfig, bundle: Bundle, evaluation: dict[str, Any], train_s: float) -> dict[str, Any]:
    live = evaluation.get("live")
    latency_ms = live["latency_ms"] if live else evaluation["latency_ms"]["total"]
    return {
        "miou": evaluation["miou"],
        "class_iou": evaluation["class_iou"],
        "latency_ms": {name: latency_ms[name] for name in ("p50", "p95", "p99")},
        "scans_in": live["sent"] if live else evaluation["scans"],
        "scans_out": live["answered"] if live else evaluation["scans"],
        "points_per_scan": evaluation["points_per_scan"],
        "frames_logged": len(list((config.out / "log" / "frames").glob("*.yaml"))),
        "train_s": round(train_s, 1),
        "bundle": str(config.out / "model"),
        "engine": evaluation["engine"],
        "over_dds": live is not None,
        "bundle_hash": bundle.content_hash,
        "seed": config.seed,
        "init": config.init,
        "data_hash": evaluation["data_hash"],
        "environment": environment(),
    }


def _clicked(record: SparseRecord) -> str:
    """How many labels the training is given, of how many points."""
    share = 100 * record.clicks / record.points
    return f"{counted(record.clicks, 'click', spec=',')} on {counted(record.points, 'point', spec=',')} ({share:.2f} %)"


def _say_goodbye(config: DemoConfig, summary: dict[str, Any], seconds: float) -> None:
    way = "over DDS, p95 from cloud to answer" if summary["over_dds"] else "p95 per scan"
    say(
        f"\nDone in {counted(seconds / 60, 'minute', spec='.1f')}: mIoU {summary['miou']:.3f} on unseen streets, "
        f"{summary['scans_out']} of {counted(summary['scans_in'], 'scan')} answered {way} {summary['latency_ms']['p95']:.0f} ms\n"
        f"\n  report   {(config.out / 'report.html').absolute()}"
        f"\n  figures  {(config.out / 'summary.json').absolute()}\n"
        "\nNext steps:\n"
        f"{_next_frames(config, summary)}"
        f"  weakseg node --bundle {summary['bundle']} --input-topic /your/points    label a live sensor\n"
        f"  weakseg evaluate YOUR_BAG --bundle {summary['bundle']}                  evaluate it on your bag\n"
        "  weakseg import YOUR_BAG --out scans                                  turn your bag into scans to label and train on"
    )


def _next_frames(config: DemoConfig, summary: dict[str, Any]) -> str:
    """A line on the frames that the node kept, where it kept some."""
    count = summary["frames_logged"]
    if not count:
        return ""
    frames = "the frame" if count == 1 else f"the {count} frames"
    return f"  weakseg label {config.out / 'log'}    label {frames} that the node was least sure of\n"


def _heading(number: int, text: str) -> None:
    say(f"\n{number}/{STAGES}  {text}")


def _make_room(out: Path) -> None:
    """An empty folder, marked as ours; DataError for one that holds anything but an earlier demo."""
    if content_of(out) and not (out / MARKER).is_file():
        raise DataError(f"{out}: is not empty and holds no demo; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()  # it stays until all else is gone, so that a demo that was ended here can be run again
    for entry in out.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != MARKER:
            entry.unlink()
