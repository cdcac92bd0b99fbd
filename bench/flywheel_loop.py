# SPDX-License-Identifier: Apache-2.0
"""The loop of select, click, retrain, as both flywheel benches turn it, and what is made of its rows."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save as save_safetensors
from simulated_annotator import Annotator, AnnotatorConfig, truth_by_source

from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.config import shard_of
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import KIND_WEIGHTS, Bundle, write_bundle
from weakseg_ros.environment import environment
from weakseg_ros.errors import ConfigError
from weakseg_ros.files import write_atomic, write_json
from weakseg_ros.improve.label.clicks import ClickStore, clicked_scans
from weakseg_ros.improve.log.choice import Strategy
from weakseg_ros.improve.log.frame_folder import open_frames
from weakseg_ros.improve.log.select import SelectConfig, select
from weakseg_ros.measure.metrics import ConfusionMatrix
from weakseg_ros.train.finetune import ModelScans, Refined, refine, training_of
from weakseg_ros.train.validate import validate
from weakseg_ros.weak.neighbourhood import SpreadScans

STRATEGIES: tuple[Strategy, ...] = ("ours", "random", "entropy")
COLORS = {"ours": "#d1495b", "random": "#7f8c8d", "entropy": "#2e86ab"}
SPARE_SUGGESTIONS = 3
"""suggested points for each click: some have no true class, and nobody can name them"""


@dataclass(frozen=True)
class World:
    """Where a deployed model and the data around it lie."""

    base: Path
    """what the model was trained on, for replay"""
    pool: Path
    """unlabelled scans to choose from; their labels are the simulated person's knowledge"""
    test: Path
    """scans to be measured on"""
    bundle: Path


@dataclass(frozen=True)
class LoopConfig:
    """How much is labelled, and how it is learnt."""

    rounds: int
    frames: int
    """frames chosen in each round"""
    clicks: int
    """clicks in each frame"""
    error_rate: float
    """share of wrong clicks"""
    steps: int
    """of each retraining"""
    learning_rate: float
    new_share: float = 0.25
    spread_m: float = 0.3


@dataclass(frozen=True)
class Unit:
    """What one process does at a time, and does anew where it was interrupted."""

    strategy: Strategy
    seed: int


def strategy_of(unit: Unit, number: int) -> Strategy:
    """How a round chooses: ours spreads its first clicks, since a model that knows nothing of a place is in doubt everywhere."""
    return "spread" if unit.strategy == "ours" and number == 1 else unit.strategy


def units_of(seeds: int, shard: str = "") -> list[Unit]:
    """Every pair of strategy and seed, or the part `i/n` of them."""
    units = [Unit(strategy, seed) for seed in range(seeds) for strategy in STRATEGIES]
    first, stride = shard_of(shard)
    return units[first::stride]


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of all shards; the last one counts where a unit was done twice."""
    return sorted(RowFile(out).latest().values(), key=lambda row: (row["strategy"], row["seed"], row["round"]))


def is_done(unit: Unit, rows: Sequence[Mapping[str, Any]], config: LoopConfig) -> bool:
    """Whether every round of a unit has its row."""
    found = {row["round"] for row in rows if (row["strategy"], row["seed"]) == (unit.strategy, unit.seed)}
    return found >= set(range(config.rounds + 1))


def run_units(units: Sequence[Unit], world_of: Mapping[int, World], config: LoopConfig, out: Path, jobs: int) -> None:
    """Run those units that are not done, `jobs` of them at a time on one core each; worlds are by seed."""
    rows = read_rows(out)
    left = [unit for unit in units if not is_done(unit, rows, config)]
    with ProcessPoolExecutor(jobs, get_context("spawn"), _one_core) as pool:
        for done in [pool.submit(run_unit, unit, world_of[unit.seed], config, out) for unit in left]:
            done.result()


def run_and_compare(arguments: argparse.Namespace, world_of: Callable[[int], World], config: LoopConfig) -> dict[str, Any] | None:
    """The comparison of all units, once those of this shard are done; None, and a word on it, where others are missing."""
    units = units_of(arguments.seeds, arguments.shard)
    run_units(units, {seed: world_of(seed) for seed in {unit.seed for unit in units}}, config, arguments.out, arguments.jobs)
    rows = read_rows(arguments.out)
    missing = [unit for unit in units_of(arguments.seeds) if not is_done(unit, rows, config)]
    if missing:
        print(f"{len(missing)} units are left to other shards; run this again without --shard to compare")
        return None
    comparison = compare(rows, arguments.target)
    print(f"clicks to mIoU {comparison['target_miou']:.3f}: {comparison['clicks_to_target']}; {arguments.out / 'report.md'}")
    return comparison


def loop_parser(description: str, out: str, rounds: int, steps: int) -> argparse.ArgumentParser:
    """The options of both benches."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--frames", type=int, default=6, help="frames in a round")
    parser.add_argument("--clicks", type=int, default=10, help="clicks in a frame")
    parser.add_argument("--base-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=steps, help="of a retraining")
    parser.add_argument("--target", type=float, default=0.0, help="mIoU to reach; 0: random's with its whole budget")
    parser.add_argument("--jobs", type=int, default=2, help="units at a time, on one core each")
    parser.add_argument("--shard", default="", help="i/n: only this part of the units, 1 first")
    return parser


def _one_core() -> None:
    import torch

    torch.set_num_threads(1)  # small images: two trainings side by side are faster than one on two cores


def run_unit(unit: Unit, world: World, config: LoopConfig, out: Path) -> None:
    """Select, click, retrain, measure, round after round; the rows are appended once the last round is done.

    Each round's net is trained from the deployed bundle on all clicks so far, and chooses the next round's frames.
    """
    folder = out / "work" / f"{unit.strategy}-{unit.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    deployed = Bundle.load(world.bundle)
    at_work, log = deployed, folder / "log"
    before = measure_net(deployed, None, world.test)
    rows = [_row(unit, 0, 0, 0, 0, before, 0.0)]
    truth = truth_by_source(open_scans(world.pool, labels=deployed.labels))
    clicks = wrong = 0
    for number in range(1, config.rounds + 1):
        begin_s = time.monotonic()
        keys = select(
            SelectConfig(
                data=world.pool,
                bundle=str(at_work.folder),
                out=log,
                frames=config.frames,
                points=SPARE_SUGGESTIONS * config.clicks,
                strategy=strategy_of(unit, number),
                random_share=0.0,
                engine="torch",
                seed=1000 * unit.seed + number,
            )
        ).keys
        spent = click(log, keys, truth, deployed, config, seed=1000 * unit.seed + number)
        clicks, wrong = clicks + spent.clicks, wrong + spent.wrong
        refined = learn(deployed, log, world, config, folder / f"run-{number}", unit.seed)
        after = measure_net(deployed, refined, world.test)
        frames = len(ClickStore(log, deployed.labels).clicked)
        rows.append(_row(unit, number, clicks, wrong, frames, after, time.monotonic() - begin_s))
        print(f"{unit.strategy:8} seed {unit.seed} round {number}: {clicks} clicks, mIoU {after.miou_present:.4f}", flush=True)
        if number < config.rounds:
            at_work = store(refined, deployed, folder / f"net-{number}")
    for row in rows:
        RowFile(out).append(row)
    shutil.rmtree(folder)


def click(log: Path, keys: Sequence[str], truth: Any, bundle: Bundle, config: LoopConfig, seed: int) -> Annotator:
    """A simulated person labels the suggested points of these frames."""
    frames = open_frames(log)
    budget = len(keys) * config.clicks
    settings = AnnotatorConfig(budget, config.clicks, config.error_rate, seed)
    annotator = Annotator(ClickStore(log, bundle.labels), settings)
    for key in keys:
        record = frames.record(key)
        annotator.label(key, [suggestion.point for suggestion in record.suggestions], truth(record))
    return annotator


def learn(bundle: Bundle, log: Path, world: World, config: LoopConfig, run: Path, seed: int) -> Refined:
    """Retrain the deployed bundle on every click in the log, beside what it was trained on."""
    training = training_of(bundle.info)
    if training is None:
        raise ConfigError(f"{bundle.folder}: does not say how it was trained; remove it, and it is trained anew")
    training = dataclasses.replace(
        training,
        out=run,
        sparse_labels=None,
        steps=config.steps,
        warmup_steps=max(1, config.steps // 10),
        learning_rate=config.learning_rate,
        max_minutes=0.0,
        average_decay=0.97,
        validate_every=0,
        log_every=config.steps,
        seed=seed,
    )
    new = SpreadScans(ModelScans(clicked_scans(log, bundle.labels), bundle.info), config.spread_m)
    replay = ModelScans(open_scans(world.base, labels=bundle.labels), bundle.info)
    refined = refine(bundle, new, replay, training, config.new_share)
    shutil.rmtree(run)
    return refined


def measure_net(bundle: Bundle, refined: Refined | None, test: Path) -> ConfusionMatrix:
    """How a bundle, or a net refined from it, does on labelled scans."""
    from weakseg_ros.deploy.engines.torch import load_graph

    info = bundle.info
    net = load_graph(bundle).net if refined is None else refined.net
    scans = ModelScans(open_scans(test, labels=bundle.labels), info)
    return validate(net, scans, info.input)


def store(refined: Refined, bundle: Bundle, folder: Path) -> Bundle:
    """A refined net as a bundle for torch alone: the selection needs no ONNX file."""
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in refined.net.state_dict().items()}
    files = {"weights.safetensors": (KIND_WEIGHTS, save_safetensors(weights))}
    info = dataclasses.replace(bundle.info, name=folder.name, files={}, parity={}, content_hash="")
    return write_bundle(folder, info, files, "A round of the flywheel bench.\n")


def _row(unit: Unit, number: int, clicks: int, wrong: int, frames: int, found: ConfusionMatrix, seconds: float) -> dict[str, Any]:
    return {
        "key": f"{unit.strategy}-s{unit.seed}-r{number}",
        "strategy": unit.strategy,
        "seed": unit.seed,
        "round": number,
        "clicks": clicks,
        "wrong_clicks": wrong,
        "frames": frames,
        "miou": round(found.miou_present, 5),
        "class_iou": [round(float(iou), 4) for iou in found.iou[1:]],
        "seconds": round(seconds, 1),
    }


@dataclass(frozen=True)
class Curve:
    """mIoU against clicks, the mean over seeds."""

    clicks: np.ndarray
    miou: np.ndarray
    """(rounds + 1,)"""
    each: np.ndarray
    """(seeds, rounds + 1)"""


def curve_of(rows: Sequence[Mapping[str, Any]], strategy: str) -> Curve:
    """The curve of a strategy over all seeds in the rows."""
    seeds = sorted({row["seed"] for row in rows if row["strategy"] == strategy})
    own = {(row["seed"], row["round"]): row for row in rows if row["strategy"] == strategy}
    rounds = 1 + max(number for _, number in own)
    miou = np.array([[own[seed, number]["miou"] for number in range(rounds)] for seed in seeds])
    clicks = np.array([[own[seed, number]["clicks"] for number in range(rounds)] for seed in seeds], float)
    return Curve(clicks.mean(axis=0), miou.mean(axis=0), miou)


def clicks_to(curve: Curve, target: float) -> float | None:
    """Clicks at which a curve first reaches a mIoU, between two rounds by a straight line; None where it never does."""
    for i in range(len(curve.miou)):
        if curve.miou[i] >= target:
            if not i:
                return 0.0
            share = (target - curve.miou[i - 1]) / (curve.miou[i] - curve.miou[i - 1])
            return round(float(curve.clicks[i - 1] + share * (curve.clicks[i] - curve.clicks[i - 1])), 1)
    return None


def compare(rows: Sequence[Mapping[str, Any]], target: float = 0.0) -> dict[str, Any]:
    """Clicks to the target by strategy; the target is what random reaches with its whole budget, unless one is given."""
    curves = {strategy: curve_of(rows, strategy) for strategy in STRATEGIES}
    goal = target or float(curves["random"].miou[-1])
    return {
        "target_miou": round(goal, 5),
        "target": "given" if target else "what random reaches with its whole budget",
        "clicks_to_target": {name: clicks_to(curve, goal) for name, curve in curves.items()},
        "curves": {
            name: {
                "clicks": curve.clicks.tolist(),
                "miou": curve.miou.round(5).tolist(),
                "std": curve.each.std(axis=0).round(5).tolist(),
            }
            for name, curve in curves.items()
        },
        "seeds": sorted({row["seed"] for row in rows}),
    }


def draw(comparison: Mapping[str, Any], title: str, path: Path) -> None:
    """The curves as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, curve in comparison["curves"].items():
        clicks, miou, std = (np.array(curve[key]) for key in ("clicks", "miou", "std"))
        axes.plot(clicks, miou, marker="o", markersize=4, color=COLORS[name], label=name)
        axes.fill_between(clicks, miou - std, miou + std, color=COLORS[name], alpha=0.15, linewidth=0)
    axes.axhline(comparison["target_miou"], color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("clicks")
    axes.set_ylabel("mIoU on the shifted test set")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report(comparison: Mapping[str, Any], title: str, more: Sequence[str] = ()) -> str:
    """The Markdown report."""
    goal = comparison["clicks_to_target"]
    lines = [
        f"# {title}",
        "",
        f"Clicks to a mIoU of {comparison['target_miou']:.3f} ({comparison['target']}), mean over seeds "
        f"{', '.join(map(str, comparison['seeds']))}: "
        + ", ".join(f"{name} {'never' if value is None else format(value, '.0f')}" for name, value in goal.items())
        + ".",
        "",
        "![mIoU against clicks](flywheel.png)",
        "",
        "| clicks | " + " | ".join(STRATEGIES) + " |",
        "|---|" + "---|" * len(STRATEGIES),
    ]
    curves = comparison["curves"]
    for i, clicks in enumerate(curves["random"]["clicks"]):
        cells = [f"{curves[name]['miou'][i]:.3f} ± {curves[name]['std'][i]:.3f}" for name in STRATEGIES]
        lines.append(f"| {clicks:.0f} | " + " | ".join(cells) + " |")
    made = ", ".join(f"{name} {value}" for name, value in environment().items())
    return "\n".join([*lines, "", *more, "", f"Made by: {made}.", ""])


def write(out: Path, summary: Mapping[str, Any], title: str, more: Sequence[str] = ()) -> None:
    """summary.json, flywheel.png and report.md."""
    draw(summary, title, out / "flywheel.png")
    write_atomic(out / "report.md", report(summary, title, more))
    write_json(out / "summary.json", {**summary, "environment": environment()})
