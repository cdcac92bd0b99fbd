# SPDX-License-Identifier: Apache-2.0
"""What a training needs before its first step: data, net, method, optimiser, run folder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from weakseg_ros import registry
from weakseg_ros.batches.batches import Batch, ImageSource, TrainingSource, untold
from weakseg_ros.config import dump_yaml, load_yaml
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.deploy.input_spec import InputSpec
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError
from weakseg_ros.files import write_atomic, write_json
from weakseg_ros.methods.combined import Combined, build_method, reads_instances
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.nets.build import build_net
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.average import WeightAverage
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.initial import begin_with, options_for_its_input, read_initial
from weakseg_ros.train.machine import check_accelerator, launch_fabric, precision_of, why_precision
from weakseg_ros.train.outputs import check_outputs
from weakseg_ros.train.resuming import as_kept, keep_settings, resumed
from weakseg_ros.train.run_data import classes_of_run
from weakseg_ros.train.run_folder import CONFIG, ENVIRONMENT, LABELS, SPEC, STATISTICS, RunFolder
from weakseg_ros.train.survey import DataStatistics, survey
from weakseg_ros.train.training_data import (
    follow_from_others,
    image_spec,
    labels_of,
    open_data,
    with_own_split,
    with_propagated_labels,
)
from weakseg_ros.train.validate import labelled_only
from weakseg_ros.weak.sparse_labels import RECORD, read_record

log = logging.getLogger(__name__)

OUTSIDE_WORTH_SAYING = 0.01
"""share of the points outside the range image"""


class Learner(nn.Module):
    """Net and method as one module, so that mixed precision and gradient exchange see a single forward."""

    def __init__(self, net: nn.Module, method: Method) -> None:
        super().__init__()
        self.net, self.method = net, method

    def forward(
        self,
        image: Tensor,
        labels: Tensor,
        mask: Tensor,
        progress: float,
        xyz: Tensor | None = None,
        instances: Tensor | None = None,
        weights: Tensor | None = None,
        *further: Tensor,
    ) -> dict[str, Tensor]:
        batch = Batch(image, labels, mask, xyz, instances, weights, further)
        return self.method.losses(batch, self.net(image, *further), progress)


HEADS = "extra"
"""the heads' file in a checkpoint, under the name that older versions gave it"""


@dataclass
class Position:
    """How far a training is; saved with each checkpoint."""

    step: int = 0
    """steps done"""
    elapsed_s: float = 0.0
    best_miou: float = -1.0


@dataclass(frozen=True)
class TrainingSession:
    """Everything a training holds."""

    config: TrainConfig
    fabric: Fabric
    run: RunFolder
    images: ImageSource
    val_scans: ScanSet | None
    statistics: DataStatistics
    input: InputSpec
    """what the net is told of a cloud"""
    learner: Learner
    """bare: its state is saved"""
    wrapped: Any
    """the same, as Fabric runs it"""
    average: WeightAverage[nn.Module]
    heads_average: WeightAverage[Heads] | None
    """of what the method adds for the robot, in step with the net's"""
    optimizer: torch.optim.Optimizer
    position: Position


def open_training(config: TrainConfig, all_meant: bool = False) -> TrainingSession:
    """Assemble a training, new or resumed (`all_meant` as there). Raises DataError and ConfigError where the parts do not fit."""
    run = RunFolder(config.out)
    config = with_own_split(resumed(config, all_meant) if config.resume else config)
    check_accelerator(config)
    check_outputs(config)
    fabric = launch_fabric(config)
    if fabric.is_global_zero:
        log.info("precision: %s, because %s", *why_precision(config))
    train_scans, val_scans = open_data(config, classes_of_run(run, config) if config.resume else None)
    if val_scans is not None:
        val_scans = labelled_only(val_scans, config.max_val_scans)
    train_scans = with_propagated_labels(config, train_scans)
    sparse, spec = labels_of(config, train_scans), image_spec(config, train_scans)
    told = untold(spec, train_scans.intensity_full_scale, config.intensity == "ranks", config.level, config.points_spec)
    planes = (reads_instances(config.method), told, follow_from_others(config))
    kind: type[TrainingSource] = registry.load(registry.SOURCES, told.representation)
    images = kind(train_scans, sparse, spec, config.augment, config.cache_gib, *planes)
    initial = read_initial(config) if config.init and not config.resume else None
    statistics = _reopen(run, images, fabric) if config.resume else _look_at(images, config, fabric)
    if initial and initial.channels == statistics.channels and not config.mean:
        statistics = dataclasses.replace(statistics, mean=initial.mean, std=initial.std)  # what the weights expect
    if not config.resume:
        own = initial.lift if initial else statistics.lift
        statistics = dataclasses.replace(statistics, lift=own if config.lift == "auto" else config.lift)
    torch.manual_seed(config.seed)
    net = make_net(config, statistics, train_scans.labels.num_classes)
    if initial:
        begun = begin_with(net, initial, train_scans.labels, config.init)
        if fabric.is_global_zero:
            log.info("%s: %s", config.out, begun)
            if options := options_for_its_input(initial, config):
                log.warning("init: %s was trained on another input; to keep it, add %s", config.init, options)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    method = make_method(config, net, statistics, train_scans.labels)
    session = assemble(config, fabric, run, images, val_scans, statistics, net, method)
    if config.resume:
        load_checkpoint(session)
        if fabric.is_global_zero:
            keep_settings(run, config, session.position.step)
    elif fabric.is_global_zero:  # last, so that settings that do not fit leave no folder behind
        _begin(session)
    return session


def assemble(
    config: TrainConfig,
    fabric: Fabric,
    run: RunFolder,
    images: ImageSource,
    val_scans: ScanSet | None,
    statistics: DataStatistics,
    net: nn.Module,
    method: Method,
    told: InputSpec | None = None,
) -> TrainingSession:
    """A training at its first step from its parts; without `told`, the net's input follows from the statistics."""
    learner = Learner(net, method).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average: WeightAverage[nn.Module] = WeightAverage(net, config.average_decay)
    heads = method.deployable()
    heads_average = None if heads is None else WeightAverage(heads, config.average_decay)
    average.net.to(fabric.device)
    if heads_average is not None:
        heads_average.net.to(fabric.device)
    optimizer = torch.optim.AdamW(learner.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True)
    wrapped, optimizer = fabric.setup(learner, optimizer)
    parts = (learner, wrapped, average, heads_average, optimizer)
    spec = told or statistics.input_spec(images.spec, config.points_spec)
    return TrainingSession(config, fabric, run, images, val_scans, statistics, spec, *parts, Position())


def make_net(config: TrainConfig, statistics: DataStatistics, num_classes: int) -> nn.Module:
    """The net that the settings name, with fresh weights."""
    return build_net(config.net, statistics.channels, statistics.mean, statistics.std, num_classes, config.net_arguments)


def make_method(config: TrainConfig, net: nn.Module, statistics: DataStatistics, labels: LabelMap) -> Combined:
    """The method that the settings name, made of its parts."""
    labelled = sum(statistics.class_counts[1:])
    per_batch = config.batch_size * labelled / statistics.scans if statistics.scans else 0.0
    counts = torch.tensor(statistics.class_counts)
    task = Task(net, counts, labels, config.supervised, _protocol(config), config.steps, per_batch)
    return build_method(config.method, config.method_settings, task)


def _protocol(config: TrainConfig) -> str:
    """How the labels were drawn, now or when they were stored; 'full' for those that were not."""
    if config.sparse_labels is None or not (config.sparse_labels / RECORD).is_file():
        return config.draw.protocol
    stored = read_record(config.sparse_labels).draw
    return "full" if stored is None else stored.protocol


def save_checkpoint(session: TrainingSession) -> None:
    """Write everything that resuming needs."""
    tensors = {name: module.state_dict() for name, module in _stored(session).items()}
    session.run.save_last(tensors, session.optimizer.state_dict(), dataclasses.asdict(session.position))


def load_checkpoint(session: TrainingSession) -> None:
    """Continue where the last checkpoint was written; later lines of metrics.jsonl are dropped."""
    tensors, optimizer, position = session.run.load_last()
    for name, module in _stored(session).items():
        if name in tensors:  # checkpoints of older versions hold no heads
            restore(session.run, "heads" if name == HEADS else name, module, tensors[name])
    session.optimizer.load_state_dict(optimizer)
    for name, value in position.items():
        setattr(session.position, name, value)
    if session.fabric.is_global_zero:
        session.run.forget_after(session.position.step)


def restore(run: RunFolder, name: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module, `name` in messages, the state that a run folder holds; DataError where that is of another version."""
    try:
        module.load_state(tensors) if isinstance(module, Combined) else module.load_state_dict(tensors)
    except RuntimeError:
        raise DataError(
            f"{run.path}: this version expects another layout of the weights of the {name}; continue with the version "
            "that started the run, or start a new one"
        ) from None


def _stored(session: TrainingSession) -> dict[str, nn.Module]:
    """The modules of a checkpoint by name."""
    modules = {"net": session.learner.net, "average": session.average.net, "method": session.learner.method}
    return modules if session.heads_average is None else {**modules, HEADS: session.heads_average.net}


def _begin(session: TrainingSession) -> None:
    """Write what is known before the first step."""
    config, images, val_scans = session.config, session.images, session.val_scans
    session.run.create()
    facts = {
        "seed": config.seed,
        "data": {"name": images.scans.name, "hash": images.scans.content_hash, "scans": len(images)},
        "val": {"name": val_scans.name, "hash": val_scans.content_hash, "scans": len(val_scans)} if val_scans else None,
        "device": str(session.fabric.device),
        "precision": precision_of(config),
    }
    write_start(session.run, config, images.spec, images.scans.labels, session.statistics, facts)


def _look_at(images: TrainingSource, config: TrainConfig, fabric: Fabric) -> DataStatistics:
    """What the training scans look like; normalised as the settings say, where they do."""
    whose = (fabric.global_rank, fabric.world_size, partial(_gathered, fabric.world_size))
    statistics = survey(images, config.channels, images.scans.labels.num_classes, *whose)
    outside, spec = statistics.clouds.outside_share, images.spec
    if outside > OUTSIDE_WORTH_SAYING and fabric.is_global_zero:
        log.warning(
            "%s: %.1f %% of the points lie outside the range image (%g..%g deg, up to %g m) and are not learnt or classified; "
            "set its edges with --fov-up-deg and --fov-down-deg",
            images.scans.name,
            100 * outside,
            spec.fov_down_deg,
            spec.fov_up_deg,
            spec.max_range_m,
        )
    return dataclasses.replace(statistics, mean=config.mean, std=config.std) if config.mean else statistics


def _gathered(world: int, own: list[Any]) -> list[list[Any]]:
    """The lists of all processes, by rank."""
    if world == 1:
        return [own]
    every: list[list[Any]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(every, own)
    return every


def write_start(
    run: RunFolder,
    config: TrainConfig,
    spec: RangeSpec,
    labels: LabelMap,
    statistics: DataStatistics,
    facts: Mapping[str, Any],
) -> None:
    """Write what is known before the first step: settings, statistics, and `facts` about data and device."""
    write_json(run.path / ENVIRONMENT, {**facts, **environment()})
    write_atomic(run.path / CONFIG, dump_yaml(as_kept(config)))
    write_atomic(run.path / STATISTICS, dump_yaml(statistics))
    write_atomic(run.path / SPEC, dump_yaml(spec))
    write_atomic(run.path / LABELS, dump_yaml(labels))


def _reopen(run: RunFolder, images: TrainingSource, fabric: Fabric) -> DataStatistics:
    if fabric.is_global_zero:
        run.hold()
    known = run.environment()["data"]["hash"]
    if known != images.scans.content_hash:
        raise DataError(f"{run.path}: was trained on other scans than {images.scans.name} holds now; start a new run")
    return load_yaml(DataStatistics, run.path / STATISTICS)
