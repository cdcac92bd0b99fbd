# SPDX-License-Identifier: Apache-2.0
"""Objects from one click each on simulated streets: hand-crafted distances, the learned one step by step, full supervision.

    python bench/panoptic.py --short       (or `make panoptic`; about 8 minutes on two cores)
    python bench/panoptic.py               (three seeds, about 50 minutes on two cores)

Every row runs the same training on the same streets and clicks, and is exported and measured on streets of its own. Writes
OUT/summary.json (panoptic quality by row), OUT/pseudo_masks.png (how good the pseudo masks are along the training) and
OUT/rows.jsonl, from which an interrupted run continues; with --shard i/n several processes share the rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import panoptic_ceiling
import torch
from mask_quality import judge_run
from matplotlib.figure import Figure
from tqdm import tqdm

from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.config import from_mapping, shard_of, to_mapping
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.environment import environment
from weakseg_ros.files import sha256_of_parts, write_json
from weakseg_ros.locks import alone
from weakseg_ros.measure.evaluate import EvaluateConfig, evaluate
from weakseg_ros.methods.settings import PointPanopticSettings
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_run
from weakseg_ros.train.train import train
from weakseg_ros.weak.protocols import SparseConfig

PLAIN = {
    "rivals": "class",
    "class_power": 1.0,
    "radius_gate": False,
    "without_ground": False,
    "all_clicked": False,
}
"""a pixel that the net takes for a thing goes to the nearest click of its class, up to twice the reach; no more geometry"""
ROWS: dict[str, dict[str, Any]] = {
    "euclidean_plain": {"distance": "euclidean", **PLAIN},
    "traverse_plain": {"distance": "traverse", **PLAIN},
    "euclidean": {"distance": "euclidean", "reach": 1.0},  # the reach that suits it best
    "traverse": {"distance": "traverse"},
    "surface": {"distance": "surface"},
    "learned_0": {"rounds": 0},
    "learned_1": {"rounds": 1, "enhance": False},
    "learned_2": {"rounds": 1},
    "learned_3": {"rounds": 3},
    "learned_3_erda": {"rounds": 3},
    "learned_3_query": {"rounds": 3, "head": "query"},
    "perfect": {"distance": "euclidean"},
    "full": {"truth_instances": True},
}
"""settings of each row: hand-crafted distances, the ladder of the learned one and what can be joined to it, true masks for the
clicks, full supervision"""
METHODS = {"learned_3_erda": "erda+point_panoptic"}
"""methods of the rows that do not train point_panoptic by itself"""
OPTIONS = {"branch_width": 32, "branch_heads": 4, "branch_ffn": 64, "tie_pairs": 4000, "all_clicked": True}
CLICKS = SparseConfig(protocol="per_instance", ratio=0.001)
EVERY_LABEL = SparseConfig(protocol="full")
FIRST_STREET = {"train": 1000, "val": 8000, "test": 9000}
SPEC = RangeSpec(height=64, width=1024, fov_up_deg=3.3, fov_down_deg=-25.3, max_range_m=80.0)
LOOKS = (0.15, 0.3, 0.5, 0.75, 1.0)
"""shares of the training after which the pseudo masks are compared with the truth"""
JUDGED_SCANS = 48


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is simulated and trained."""

    streets: dict[str, int]
    scans: int
    steps: int
    seeds: int


SHORT = Size({"train": 40, "val": 1, "test": 12}, scans=2, steps=400, seeds=1)
LONG = Size({"train": 96, "val": 1, "test": 24}, scans=2, steps=1000, seeds=3)


def record_street(folder: Path, part: str, seed: int, scans: int) -> None:
    """Simulate a street, one scan a second, unless it is there or another process is at it."""
    street = folder / part / f"{seed:05d}"
    sensor = dataclasses.replace(load_sensor("generic64"), columns=SPEC.width)
    with alone(folder / f".{seed:05d}.lock") as mine:
        if not mine or (street / "complete").exists():
            return
        facts = {"source": f"simulated street {seed}", "seed": seed, "overwrite": True}
        with ScanWriter(street, LabelMap.load("street"), SPEC, intensity_full_scale=1.0, **facts) as writer:
            for scan in simulate(SimulateConfig(seed, scans, stride=10, sensor=sensor)):
                writer.write(scan.cloud, scan.raw_label, scan.pose)
        (street / "complete").touch()


def settings_of(name: str, seed: int, size: Size, out: Path) -> TrainConfig:
    """The training of one row."""
    return TrainConfig(
        data=out / "data" / "train",
        val_data=out / "data" / "val",
        out=out / "runs" / f"{name}-s{seed}",
        draw=EVERY_LABEL if name == "full" else dataclasses.replace(CLICKS, seed=seed),
        method=METHODS.get(name, "point_panoptic"),
        point_panoptic=from_mapping(PointPanopticSettings, {**OPTIONS, **ROWS[name]}, f"row {name}"),
        net_width=16,
        height=32,
        width=256,
        steps=size.steps,
        warmup_steps=size.steps // 10,
        batch_size=4,
        average_decay=0.97,
        augment=AugmentConfig(mix=0.0),
        validate_every=0,
        seed=seed,
        accelerator="cpu",
        precision="32-true",
    )


def finish_row(name: str, seed: int, size: Size, out: Path) -> None:
    """Run a row and write its line, unless it is finished or another process is at it."""
    torch.set_num_threads(1)
    config, file = settings_of(name, seed, size, out), RowFile(out)
    settings, data_hash = sha256_of_parts([str(to_mapping(config)), str(size)]), str(size.streets)
    facts = {"key": f"{name}-s{seed}", "name": name, "seed": seed, "steps": size.steps}
    with alone(out / f".{facts['key']}.lock") as mine:
        if mine and not file.finished(str(facts["key"]), settings, data_hash):
            with panoptic_ceiling.every_instance_shown() if name == "perfect" else nullcontext():
                figures = run_row(name, seed, size, out)
            file.append({**facts, "settings": settings, "data_hash": data_hash, **figures})


def run_row(name: str, seed: int, size: Size, out: Path) -> dict[str, Any]:
    """Train, look at the pseudo masks on the way, export, and measure on the test streets."""
    config, started = settings_of(name, seed, size, out), time.monotonic()
    shutil.rmtree(config.out, ignore_errors=True)  # what an interruption left
    masks: dict[str, dict[str, Any]] = {}
    for share in LOOKS:
        train(dataclasses.replace(config, resume=config.out.exists()), stop_at=round(share * config.steps))
        gc.collect()
        if name != "full":
            masks[str(share)] = judge_run(config.out, JUDGED_SCANS).to_mapping()
    seconds = time.monotonic() - started
    bundle = export_run(config.out, out / "bundles" / config.out.name, scans=4)
    data, report = out / "data" / "test", out / "reports" / config.out.name
    _, summary = evaluate(EvaluateConfig(data, bundle=str(bundle.folder), out=report, track=False))
    figures = {"panoptic": summary["panoptic"], "miou": summary["miou"], "mask_iou": masks}
    return {**figures, "train_s": round(seconds, 1), "environment": environment()}


def summarise(out: Path, size: Size) -> dict[str, Any]:
    """summary.json and the picture from the rows that are finished."""
    by_row: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in RowFile(out).latest().values():
        if "error" not in row and row["steps"] == size.steps:
            by_row[row["name"]].append(row)
    names = [name for name in ROWS if by_row[name]]

    def table(figure: str) -> dict[str, float]:
        return {name: _mean([row["panoptic"][figure] for row in by_row[name]]) for name in names}

    quality = [row["panoptic"]["pq_present"] for name in names for row in by_row[name]]
    summary = {
        "pq": table("pq_present"),
        "pq_things": table("pq_things"),
        "pq_std": {name: _spread([row["panoptic"]["pq_present"] for row in by_row[name]]) for name in names},
        "miou": {name: _mean([row["miou"] for row in by_row[name]]) for name in names},
        "mask_iou": {name: _mask_figures(by_row[name]) for name in names if name != "full"},
        "seeds": sorted({row["seed"] for name in names for row in by_row[name]}),
        "steps": size.steps,
        "trainings": len(quality),
        "train_s": {name: _mean([row["train_s"] for row in by_row[name]]) for name in names},
        "environment": environment(),
    }
    write_json(out / "summary.json", summary)
    draw_masks(summary["mask_iou"], out / "pseudo_masks.png")
    return summary


def _mask_figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds: along the training for all objects and near their borders, by class at the end."""
    looks = [[row["mask_iou"][str(share)] for row in rows] for share in LOOKS]
    classes = sorted({name for look in looks[-1] for name in look["by_class"]})
    return {
        "along": [_mean([look["mean"] for look in looks_then]) for looks_then in looks],
        "border": [_mean([look["border"] for look in looks_then]) for looks_then in looks],
        "by_class": {name: _mean([look["by_class"].get(name, 0.0) for look in looks[-1]]) for name in classes},
    }


def draw_masks(figures: dict[str, Any], path: Path) -> None:
    """Mean IoU of the pseudo masks along the training, near borders, and by class at its end."""
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    whole, border, classes = figure.subplots(1, 3)
    names = sorted({name for row in figures.values() for name in row["by_class"]})
    for number, (row, values) in enumerate(figures.items()):
        whole.plot(LOOKS, values["along"], marker="o", label=row)
        border.plot(LOOKS, values["border"], marker="o")
        places = [i + (number - len(figures) / 2) * 0.8 / len(figures) for i in range(len(names))]
        classes.bar(places, [values["by_class"].get(name, 0.0) for name in names], 0.8 / len(figures))
    for axes, title in ((whole, "pseudo masks"), (border, "within a pixel of their borders"), (classes, "by class, at the end")):
        axes.set(title=title, ylim=(0.0, 1.0), ylabel="mean IoU with the true object")
    whole.set_xlabel("share of the training")
    border.set_xlabel("share of the training")
    classes.set_xticks(range(len(names)), names)
    figure.legend(*whole.get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=110)


def _mean(values: list[float]) -> float:
    return round(statistics.fmean(values), 4)


def _spread(values: list[float]) -> float:
    return round(statistics.stdev(values), 4) if len(values) > 1 else 0.0


def _wait(jobs: list[Future[None]], what: str) -> None:
    for job in tqdm(as_completed(jobs), total=len(jobs), desc=what, disable=None):
        job.result()


def main() -> int:
    """Run the rows of this shard that are not finished, then sum up all that are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/panoptic"))
    parser.add_argument("--short", action="store_true", help="fewer streets and steps, one seed")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, default=0, help="so many of the seeds; 0: all")
    parser.add_argument("--shard", default="", help="i/n: every n-th row from the i-th on, 1 first")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="rows at a time, a core each")
    parser.add_argument("--report-only", action="store_true", help="only sum up what is finished")
    arguments = parser.parse_args()
    size, out = SHORT if arguments.short else LONG, arguments.out
    table = [(name, seed) for seed in range(1, (arguments.seeds or size.seeds) + 1) for name in arguments.rows]
    first, stride = shard_of(arguments.shard)
    if not arguments.report_only:
        with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn")) as pool:
            streets = [(part, FIRST_STREET[part] + i) for part, count in size.streets.items() for i in range(count)]
            jobs = [pool.submit(record_street, out / "data", part, seed, size.scans) for part, seed in streets]
            _wait(jobs, "streets")
            _wait([pool.submit(finish_row, *row, size, out) for row in table[first::stride]], "rows")
    summary = summarise(out, size)
    print("\n".join(f"{name:19} PQ {value:.3f} +- {summary['pq_std'][name]:.3f}" for name, value in summary["pq"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
