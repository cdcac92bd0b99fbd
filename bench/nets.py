# SPDX-License-Identifier: Apache-2.0
"""What each net costs: parameters, one image in onnxruntime and in torch, a training step; and how the two engines agree.

    python bench/nets.py [--nets light salsanext] [--turns 3] [--threads 1] [--clock cpu]

An image is one simulated HDL-64E sweep at 64 x 2048 with 20 classes; a training step is forward, supervised losses and
backward in float32 on 4 crops of it, 32 x 512. Fresh weights. Prints a markdown table of medians. `--clock cpu` counts
processor time instead of wall time, for a machine that is shared; meant for one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from weakseg_ros import registry
from weakseg_ros.batches.batches import Batch
from weakseg_ros.deploy.bundle import BundleInfo, NetRule
from weakseg_ros.deploy.engines.onnxruntime import open_session
from weakseg_ros.deploy.frontends.range_numpy import range_input
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.deploy.tensors import ANSWERS
from weakseg_ros.environment import environment
from weakseg_ros.memory import keep_large_blocks
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.settings import SupervisedSettings
from weakseg_ros.methods.supervised import Supervised
from weakseg_ros.nets.build import build_net
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec, project
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor
from weakseg_ros.train.onnx_file import export_onnx

CHANNELS = ("range", "x", "y", "z", "intensity")
MEAN, STD = (12.1, 10.9, 0.2, -1.0, 0.2), (12.3, 11.5, 6.9, 0.9, 0.2)
SPEC = RangeSpec(height=64, width=2048, fov_up_deg=3.0, fov_down_deg=-25.0)
LABELS = LabelMap.load("semantickitti")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
Answers = Sequence[np.ndarray]


def street_image() -> Tensor:
    """(1, 5, 64, 2048), normalised."""
    cloud = next(iter(simulate(SimulateConfig(1, 1, sensor=load_sensor("hdl64e"))))).cloud
    told = InputSpec(geometry=SPEC, channels=CHANNELS, mean=MEAN, std=STD, intensity=IntensityRule(True))
    return torch.from_numpy(range_input(cloud, project(cloud, SPEC), told))[None]


def row(name: str, image: Tensor, turns: int, clock: Callable[[], float]) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    net = build_net(name, CHANNELS, MEAN, STD, LABELS.num_classes, {})
    count = sum(p.numel() for p in net.parameters())
    step = lap(lambda: training_step(net, image), turns, clock)
    graph = DeployGraph(net.eval(), LABELS.num_classes).eval()
    in_torch = lap(lambda: answer(graph, image), turns, clock)
    if getattr(net, "why_no_onnx", ""):
        return f"| {name} | {count / 1e6:.2f} M | - | {in_torch:.0f} | {step:.0f} | no ONNX |"
    rule = NetRule(name)
    info = BundleInfo(
        name=name,
        input=InputSpec(geometry=SPEC, channels=CHANNELS, mean=MEAN, std=STD, intensity=IntensityRule(True)),
        labels=LABELS,
        net=rule,
    )
    session = open_session(export_onnx(graph, info), torch.get_num_threads(), name, ["CPUExecutionProvider"])
    in_onnx = lap(lambda: run(session, image), turns, clock)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(run(session, image)[1:], answer(graph, image)[1:], strict=True))
    return f"| {name} | {count / 1e6:.2f} M | {in_onnx:.0f} | {in_torch:.0f} | {step:.0f} | {difference:.0e} |"


def training_step(net: nn.Module, image: Tensor) -> None:
    """Forward, losses, backward on four crops."""
    crops = torch.cat(image[:, :, 16:48].split(512, dim=-1))  # (4, 5, 32, 512)
    mask = (crops != 0).any(dim=1)
    labels = torch.arange(512).div(32, rounding_mode="floor").expand(mask.shape) * mask
    settings = SupervisedSettings(class_weights=False)
    method = Supervised(settings, Task(net, torch.ones(LABELS.num_classes), LABELS, settings))
    torch.stack(list(method.losses(Batch(crops, labels, mask), net(crops), 0.5).values())).sum().backward()


@torch.inference_mode()
def answer(graph: DeployGraph, image: Tensor) -> Answers:
    return [value.numpy() for value in graph(image)]


def run(session: onnxruntime.InferenceSession, image: Tensor) -> Answers:
    values: Answers = session.run(list(ANSWERS), {"image": image.numpy()})
    return values


def lap(action: Callable[[], object], turns: int, clock: Callable[[], float]) -> float:
    """Median milliseconds after one turn to warm up."""
    action()
    laps = []
    for _ in range(turns):
        start = clock()
        action()
        laps.append(1e3 * (clock() - start))
    return median(laps)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = {name: registry.load(registry.NETS, name) for name in registry.NETS}
    on_images = [name for name, kind in kinds.items() if getattr(kind, "representation", "range") == "range"]
    parser.add_argument("--nets", nargs="+", default=on_images, choices=on_images)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_large_blocks()
    print(f"{environment()['machine']}, {arguments.threads} threads, {arguments.clock} clock, ms\n")
    print("| net | parameters | onnxruntime 64 x 2048 | torch | training step 4 x 32 x 512 | difference |")
    print("|---|---|---|---|---|---|")
    image = street_image()
    for name in arguments.nets:
        print(row(name, image, arguments.turns, CLOCKS[arguments.clock]), flush=True)


if __name__ == "__main__":
    main()
