# SPDX-License-Identifier: Apache-2.0
"""How long a training step of each of several trainings takes, measured in turns so that a shared machine treats all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from weakseg_ros import registry
from weakseg_ros.batches.batches import TrainingSource, step_generator, untold
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.machine import launch_fabric
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.session import TrainingSession, assemble, make_method, make_net
from weakseg_ros.train.survey import DataStatistics
from weakseg_ros.train.train import take_step, to_device
from weakseg_ros.train.training_data import image_spec, labels_of

PROGRESS = 0.5
"""where in the training the steps are: past all warm-ups"""
WARM_UP = 3


@dataclass(frozen=True)
class StepTime:
    """One training's step among several."""

    ms: float
    """median over the turns"""
    share: float
    """median over the turns of the ratio to the first training's step beside it"""


def time_in_turns(configs: Mapping[str, TrainConfig], scans: ScanSet, facts: DataStatistics, turns: int) -> dict[str, StepTime]:
    """Forward, losses, backward and optimiser of each training in turn, on one batch of `scans`; nothing is written.

    All trainings see the same labels; `facts` are the statistics of these scans. The first one is what the others are
    compared with.
    """
    sessions = {name: _open(config, scans, facts) for name, config in configs.items()}
    first = next(iter(sessions.values()))
    images, config = first.images, first.config
    numbers = images.of_step(0, config.batch_size, 0, 1, config.seed)
    drawn = images.batch(first.input, numbers, step_generator(0, 0, config.seed))
    batch = to_device(drawn, first.fabric.device)
    laps: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(WARM_UP + turns):
        for name, session in sessions.items():
            started = time.perf_counter()
            take_step(session, batch, PROGRESS)
            if session.fabric.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                laps[name].append(time.perf_counter() - started)
    baseline = next(iter(laps.values()))
    return {
        name: StepTime(
            1000 * statistics.median(own), statistics.median(ours / base for ours, base in zip(own, baseline, strict=True))
        )
        for name, own in laps.items()
    }


def _open(config: TrainConfig, scans: ScanSet, facts: DataStatistics) -> TrainingSession:
    """The training at its first step, without a run folder."""
    ranks, spec = config.intensity == "ranks", image_spec(config, scans)
    told = untold(spec, scans.intensity_full_scale, ranks, config.level, config.points_spec)
    kind: type[TrainingSource] = registry.load(registry.SOURCES, told.representation)
    images = kind(scans, labels_of(config, scans), spec, config.augment, told=told)
    torch.manual_seed(config.seed)
    net = make_net(config, facts, scans.labels.num_classes)
    method = make_method(config, net, facts, scans.labels)
    return assemble(config, launch_fabric(config), RunFolder(Path()), images, None, facts, net, method)
