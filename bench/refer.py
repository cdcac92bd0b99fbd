# SPDX-License-Identifier: Apache-2.0
"""Referring segmentation with masks for few expressions: masks alone, a threshold, TSCS, QDW and both, on simulated streets.

    python bench/refer.py                      (or `make refer`: a short form, one seed, masks for 3 %, some 270 expressions)
    python bench/refer.py --streets 220 --ratios 0.01 0.05 0.1 --seeds 0 1 2 --steps 3000 --full-steps 12000

Writes runs/refer/summary.json: `miou`, `acc25` and `acc50` by row, `full` (the mIoU with masks for all), `gate` (supervised
over full), and with several seeds the paired differences to the supervised row. Interrupted, it goes on where it was: scans,
encoded scans and finished rows are kept. The burn-in on masks alone is the same for all rows of a seed, and trained once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.environment import environment
from weakseg_ros.files import append_json_line, write_json
from weakseg_ros.simulate.record import RecordConfig, record
from weakseg_ros.train.referring import begin, draw_labelled, evaluate, train
from weakseg_ros.train.referring_config import ReferringTraining
from weakseg_ros.train.referring_data import ReferringData, Views

RUNS = Path("runs/refer")
ROWS = ("supervised", "threshold", "tscs", "qdw", "both")
MEASURES = ("miou", "acc25", "acc50", "unique_miou", "multiple_miou", "false_positive_rate", "ceiling", "pool")
FIRST_STREET, FIRST_TEST_STREET, STRIDE, SENSOR = 20_000, 30_000, 12, "os1_64"


def main() -> int:
    """Simulate, encode, train and measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.03], help="shares of the expressions that have a mask")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=400, help="of the rows with few masks; half of them on masks alone")
    parser.add_argument("--full-steps", type=int, default=1500, help="of the row with masks for all")
    parser.add_argument("--full-seeds", type=int, default=1, help="of the first seeds, how many are trained with masks for all")
    parser.add_argument("--batch", type=int, default=128, help="expressions with a mask in a batch, and as many without")
    parser.add_argument("--streets", type=int, default=64, help="training streets of five scans each")
    parser.add_argument("--test-streets", type=int, default=20, help="streets of four scans each to measure on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RUNS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    _simulate(asked.out, asked.streets, asked.test_streets)
    bundle = Bundle.load("models/street")
    data, test = (ReferringData(asked.out / part, bundle, asked.out / "cache" / part) for part in ("train", "test"))
    words, file = data.vocabulary(), asked.out / "rows.jsonl"
    views = [Views(each, words, np.random.default_rng(0)) for each in (data, test)]
    for number, seed in enumerate(asked.seeds):
        for ratio in (*asked.ratios, *([1.0] if number < asked.full_seeds else [])):
            rows, steps = (("supervised",), asked.full_steps) if ratio == 1.0 else (ROWS, asked.steps)
            config = ReferringTraining(ratio=ratio, seed=seed, steps=steps, burn_in=steps // 2, batch=asked.batch)
            _train_rows(config, rows, views, bundle, file)
    write_json(asked.out / "summary.json", _summary(_read(file), len(data), len(test)))
    print((asked.out / "summary.json").read_text(encoding="utf-8"))
    return 0


def _simulate(out: Path, streets: int, test_streets: int) -> None:
    common = {"stride": STRIDE, "sensor": SENSOR}
    record(RecordConfig(out / "train", seed=FIRST_STREET, streets=streets, scans_per_street=5, expressions=28, **common))
    told = {"expressions": 14, "expression_words": "test"}
    record(RecordConfig(out / "test", seed=FIRST_TEST_STREET, streets=test_streets, scans_per_street=4, **told, **common))


def _train_rows(config: ReferringTraining, rows: tuple[str, ...], views: list[Views], bundle: Bundle, file: Path) -> None:
    """The rows of one seed and ratio that the file does not hold yet."""
    there = {(row["method"], row["ratio"], row["seed"], row["steps"]) for row in _read(file)}
    due = [row for row in rows if (row, config.ratio, config.seed, config.steps) not in there]
    if not due:
        return
    train_views, test_views = views
    labelled = draw_labelled(train_views.data, config.ratio, config.seed)
    config = dataclasses.replace(config, method="supervised")
    burnt_in = begin(train_views.data, bundle.num_classes, config, train_views.vocabulary)
    train_views.rng = np.random.default_rng([config.seed, 0])
    train(burnt_in, train_views, labelled, config, config.burn_in)
    for row in due:
        own = dataclasses.replace(config, method=row)
        state = burnt_in.turned_to(own)
        train_views.rng = np.random.default_rng([config.seed, 1])
        losses = train(state, train_views, labelled, own, config.steps)
        facts = {"method": row, "ratio": config.ratio, "seed": config.seed, "steps": config.steps, "masks": len(labelled)}
        append_json_line(file, {**facts, **evaluate(state.teacher, test_views), "pool": losses["pool"]})


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _summary(rows: list[dict[str, Any]], expressions: int, tested: int) -> dict[str, Any]:
    """Means over the seeds by row, of the smallest ratio; `by_ratio` has all; `gate` is supervised over full."""
    ratios = sorted({row["ratio"] for row in rows})
    full = [row["miou"] for row in rows if row["ratio"] == 1.0]
    by_ratio = {f"{ratio:g}": {name: _means(rows, ratio, name) for name in ROWS} for ratio in ratios}
    first = by_ratio[f"{ratios[0]:g}"]
    measures = {key: {name: part[key] for name, part in first.items() if part} for key in ("miou", "acc25", "acc50")}
    supervised = measures["miou"].get("supervised")
    return {
        **measures,
        "full": mean(full) if full else None,
        "gate": supervised / mean(full) if full and supervised else None,
        "over_supervised": {
            f"{ratio:g}": {name: _paired(rows, ratio, name) for name in ROWS[1:]} for ratio in ratios if ratio < 1
        },
        "by_ratio": by_ratio,
        "seeds": sorted({row["seed"] for row in rows}),
        "expressions": {"train": expressions, "test": tested},
        "environment": environment(),
    }


def _means(rows: list[dict[str, Any]], ratio: float, name: str) -> dict[str, float]:
    found = [row for row in rows if row["ratio"] == ratio and row["method"] == name]
    return {key: mean(row[key] for row in found) for key in MEASURES} if found else {}


def _paired(rows: list[dict[str, Any]], ratio: float, name: str) -> dict[str, Any]:
    """The differences of the mIoU to the supervised row of the same seed, their mean, and its 95 % interval by Student's t."""
    miou = {(row["method"], row["seed"]): row["miou"] for row in rows if row["ratio"] == ratio}
    apart = [
        miou[name, seed] - value for (method, seed), value in miou.items() if method == "supervised" and (name, seed) in miou
    ]
    if not apart:
        return {}
    half = stdev(apart) / len(apart) ** 0.5 * float(t.ppf(0.975, len(apart) - 1)) if len(apart) > 1 else None
    return {"by_seed": apart, "mean": mean(apart), "plus_minus_95": half}


if __name__ == "__main__":
    sys.exit(main())
