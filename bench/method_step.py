# SPDX-License-Identifier: Apache-2.0
"""What each method adds to a training step, on the same net and batch, alternating in one run.

    python bench/method_step.py [--nets light salsanext] [--turns 15] [--threads 1] [--clock cpu] [--option light:embedding=64]

A step is forward, losses, backward and optimiser, in the training precision, on 4 images of 32 x 512 with 1 % labels, half
way through the training. Prints a markdown table: median ms, median over the turns of the ratio to the supervised step
beside it, and the peak memory of a process that runs one net and method. Only the ratios should be quoted. `--clock cpu`
counts processor time instead of wall time, for a machine that is shared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from weakseg_ros import registry
from weakseg_ros.batches.batches import Batch
from weakseg_ros.config import from_mapping
from weakseg_ros.environment import environment
from weakseg_ros.memory import keep_large_blocks
from weakseg_ros.methods.combined import build_method
from weakseg_ros.methods.method import Task
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.machine import precision_of
from weakseg_ros.train.session import Learner

METHODS = ("supervised", "erda", "coarse3d", "erda+coarse3d")
CHANNELS, BATCH, HEIGHT, WIDTH = 5, 4, 32, 512
LABELS = LabelMap.load("semantickitti")
CLASSES = LABELS.num_classes
LABELLED, PROGRESS, WARM_UP = 0.01, 0.5, 8
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_batch() -> Batch:
    """Images that can be learnt: sectors of a class each, channels that tell the class, a fifth of the pixels empty."""
    torch.manual_seed(0)
    sector = torch.randint(1, CLASSES, (BATCH, HEIGHT // 8, WIDTH // 32))
    truth = sector.repeat_interleave(8, 1).repeat_interleave(32, 2)
    mask = torch.rand(BATCH, HEIGHT, WIDTH) > 0.2
    looks = torch.randn(CLASSES, CHANNELS)
    image = (looks[truth].permute(0, 3, 1, 2) + 0.5 * torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH)) * mask[:, None]
    labels = truth * (mask & (torch.rand(BATCH, HEIGHT, WIDTH) < LABELLED))
    return Batch(image.to(DEVICE, memory_format=torch.channels_last), labels.to(DEVICE), mask.to(DEVICE))


def make_step(net_name: str, method_name: str, options: dict[str, Any], batch: Batch) -> Callable[[], None]:
    """One training step of a net with a method, with the `options` of each part by its name."""
    torch.manual_seed(0)
    net = registry.load(registry.NETS, net_name)(CHANNELS, CLASSES, width=TrainConfig().net_width)
    config = from_mapping(TrainConfig, {**options, "method": method_name}, "--option")
    counts = torch.bincount(batch.labels.flatten(), minlength=CLASSES).cpu()
    method = build_method(method_name, config.method_settings, Task(net, counts, LABELS, config.supervised))
    learner = Learner(net, method).to(DEVICE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(learner.parameters(), 4e-3, fused=True)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision_of(TrainConfig()))

    def step() -> None:
        with torch.autocast(DEVICE.type, half) if half else nullcontext():
            losses = learner(batch.image, batch.labels, batch.mask, PROGRESS)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return step


def time_steps(net: str, options: dict[str, Any], turns: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every method's step in each turn."""
    batch = make_batch()
    steps = {method: make_step(net, method, options, batch) for method in METHODS}
    laps: dict[str, list[float]] = {method: [] for method in METHODS}
    for turn in range(WARM_UP + turns):
        for method, step in steps.items():
            start = clock()
            step()
            if turn >= WARM_UP:
                laps[method].append(clock() - start)
    return laps


def print_peak(net: str, method: str, options: dict[str, Any]) -> None:
    """MiB that a few steps need at most, on the GPU where there is one, else of the process beyond its imports."""
    before = most_resident()
    step = make_step(net, method, options, make_batch())
    for _ in range(4):
        step()
    print(torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else most_resident() - before)


def most_resident() -> float:
    """The most memory that this process has held, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def peak_memory(net: str, method: str, arguments: list[str]) -> float:
    """The same, of a fresh process."""
    command = [sys.executable, __file__, "--peak", net, method, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def options_of(net: str, given: list[str]) -> dict[str, Any]:
    """`net:method.name=value` arguments that are for this net, by method."""

    options: dict[str, Any] = {}
    for text in given:
        owner, _, setting = text.partition(":")
        name, _, value = setting.partition("=")
        part, _, name = name.partition(".")
        if owner == net:
            options.setdefault(part, {})[name] = yaml.safe_load(value)
    return options


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["light", "salsanext"])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--option", action="append", default=[], help="net:method.setting=value, e.g. light:coarse3d.anchors=64")
    parser.add_argument("--peak", nargs=2, metavar=("NET", "METHOD"), help="print the peak memory of this one only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_large_blocks()
    if arguments.peak:
        print_peak(*arguments.peak, options_of(arguments.peak[0], arguments.option))
        return
    machine, repeated = environment()["machine"], [word for option in arguments.option for word in ("--option", option)]
    print(
        f"{BATCH} x {HEIGHT} x {WIDTH}, {precision_of(TrainConfig())}, {arguments.threads} threads, {arguments.clock} time, ",
        end="",
    )
    print(f"{arguments.turns} turns, {machine}, {' '.join(arguments.option)}\n")
    print("| net | method | ms | x supervised | peak MiB | x supervised |\n|---|---|---|---|---|---|")
    for net in arguments.nets:
        laps = time_steps(net, options_of(net, arguments.option), arguments.turns, CLOCKS[arguments.clock])
        peaks = {method: peak_memory(net, method, ["--threads", str(arguments.threads), *repeated]) for method in METHODS}
        for method in METHODS:
            ratio = median(ours / base for ours, base in zip(laps[method], laps["supervised"], strict=True))
            peak = f"{peaks[method]:.0f} | {peaks[method] / peaks['supervised']:.2f}"
            print(f"| {net} | {method} | {median(laps[method]) * 1e3:.0f} | {ratio:.2f} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
