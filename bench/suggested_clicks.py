# SPDX-License-Identifier: Apache-2.0
"""Clicks on suggested points of real scans, and on random ones: what fine-tuning the shipped model on them brings.

    python bench/suggested_clicks.py [--data SEMANTICKITTI_RANGE] [--clicks 31 124] [--seeds 1 2 3 4 5] [--hold-out 0]

The model is asked for CLICKS points in each of the first 16 scans, which are named from the truth as `weakseg label` would store
them; the fine-tuned model is tested on the last 5. `--hold-out 0.25` tests on the last of the 16 instead, to choose settings.
Finished rows are kept in OUT/rows.jsonl; OUT/summary.json has the means and the paired differences to random points.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from flywheel_real import copy
from simulated_annotator import Annotator, AnnotatorConfig

from weakseg_ros.benchmark.paired import paired
from weakseg_ros.benchmark.table import BenchmarkConfig, base_settings
from weakseg_ros.config import load_yaml
from weakseg_ros.data.scan_sets import ScanSet, Subset
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.files import append_json_line, write_json
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.log.choice import suggest_points
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.train import train
from weakseg_ros.weak.propagate import PropagateSettings

TRAINED_ON = 16
STRATEGIES = ("random", "spread", "ours")
CONFIG = Path("config/benchmark/semantickitti_clicks.yaml")
SPARE = 2
"""suggested points by click, as the truth has no class for some of them"""


def main() -> int:
    """Copy the scans, click, train and test what is not there yet, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/semantickitti_range"))
    parser.add_argument("--clicks", type=int, nargs="+", default=[31, 124], help="clicks in each scan")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--propagate-scans", type=int, default=0, help="to which a click is propagated, before and after its own")
    parser.add_argument("--lift", default="auto", help="how points get their class; auto does as models/street")
    parser.add_argument("--hold-out", type=float, default=0.0, help="of the first 16 scans, to test on in place of the last 5")
    parser.add_argument("--out", type=Path, default=Path("runs/suggested"))
    asked = parser.parse_args()
    scans = open_scans(asked.data, labels="street")
    kept = round(TRAINED_ON * (1.0 - asked.hold_out))
    tested = range(kept, TRAINED_ON) if asked.hold_out else range(TRAINED_ON, len(scans))
    parts = {"train": Subset(scans, list(range(kept))), "test": Subset(scans, list(tested))}
    for name, part in parts.items():
        if not (asked.out / name).exists():
            copy(part, asked.out / name, with_labels=name == "test")
    base = load_yaml(BenchmarkConfig, CONFIG)
    settings = dataclasses.replace(
        base_settings(dataclasses.replace(base, data=asked.out / "train")),
        val_data=asked.out / "test",
        init="street",
        steps=asked.steps,
        learning_rate=asked.learning_rate,
        propagate=PropagateSettings(scans=asked.propagate_scans),
        lift=asked.lift,
    )
    options = {"steps": asked.steps, "rate": asked.learning_rate, "propagated": asked.propagate_scans, "lift": asked.lift}
    file = asked.out / "rows.jsonl"
    for seed in asked.seeds:
        for clicks in asked.clicks:
            for strategy in asked.strategies:
                row = {"strategy": strategy, "clicks": clicks, "seed": seed, **options}
                if not any(row.items() <= there.items() for there in _read(file)):
                    append_json_line(file, {**row, **_measure(settings, parts["train"], strategy, clicks, seed)})
    write_json(asked.out / "summary.json", _summary([row for row in _read(file) if options.items() <= row.items()]))
    print((asked.out / "summary.json").read_text(encoding="utf-8"))
    return 0


def _measure(settings: TrainConfig, truth: ScanSet, strategy: str, clicks: int, seed: int) -> dict[str, Any]:
    """Click, fine-tune and test; the mIoU over the classes that occur, and the IoU by class."""
    name = f"{strategy}-{clicks}-s{seed}"
    done = _click(settings.data, truth, name, strategy, clicks, seed)
    out = settings.data.parent / "runs" / name
    shutil.rmtree(out, ignore_errors=True)
    labels = settings.data / "sparse" / name
    run = train(dataclasses.replace(settings, out=out, sparse_labels=labels, seed=seed))
    judged = [row for row in run.metrics() if "class_iou" in row][-1]
    shutil.rmtree(out)
    print(f"{name}: {done} clicks, mIoU {judged['miou_present']:.4f}", flush=True)
    return {"clicked": done, "miou": judged["miou_present"], "class_iou": judged["class_iou"]}


def _click(folder: Path, truth: ScanSet, name: str, strategy: str, clicks: int, seed: int) -> int:
    """The shipped model suggests points of each scan, and the truth names them; returns the number of clicks."""
    scans = open_scans(folder, labels="street")
    shutil.rmtree(folder / "sparse" / name, ignore_errors=True)
    annotator = Annotator(ClickStore(folder, scans.labels, name), AnnotatorConfig(clicks * len(scans), clicks, 0.0, seed))
    segmenter = Segmenter(Bundle.load("models/street"), "onnxruntime", watch="never")
    for number, key in enumerate(scans.keys):
        cloud = scans[number].cloud
        told = suggest_points(cloud, segmenter.run(cloud), SPARE * clicks, strategy=strategy, seed=1000 * seed + number)
        annotator.label(key, [each.point for each in told], truth[number])
    return annotator.clicks


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By clicks in each scan and strategy: the mean mIoU, its deviation, and the paired difference to random points."""
    found: dict[str, Any] = {"environment": environment()}
    for clicks in sorted({row["clicks"] for row in rows}):
        by = {
            name: {row["seed"]: row["miou"] for row in rows if (row["clicks"], row["strategy"]) == (clicks, name)}
            for name in STRATEGIES
        }
        found[str(clicks)] = {
            name: {
                "miou": float(np.mean(list(mious.values()))),
                "deviation": float(np.std(list(mious.values()), ddof=1)) if len(mious) > 1 else None,
                "over_random": "" if (gain := paired(mious, by["random"])) is None else gain.words,
            }
            for name, mious in by.items()
            if mious
        }
    return found


if __name__ == "__main__":
    sys.exit(main())
