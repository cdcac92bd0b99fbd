# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a bundle on newly labelled scans, mixed with some of those it was trained on."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import shlex
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from weakseg_ros import registry
from weakseg_ros.batches.batches import ImageSource, TrainingSource
from weakseg_ros.data.scan_sets import ChangedScans, Scan, ScanSet
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, BundleInfo, TrainingStatistics
from weakseg_ros.deploy.engines.torch import load_graph, rules_of, stores_half
from weakseg_ros.environment import environment
from weakseg_ros.errors import ConfigError
from weakseg_ros.memory import keep_large_blocks
from weakseg_ros.methods.combined import reads_instances
from weakseg_ros.methods.method import Method
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.points.intensity import QUANTILES
from weakseg_ros.train.calibrate import fit_temperature
from weakseg_ros.train.commands import parse_training
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.experience_replay import ReplayMethod, mixed
from weakseg_ros.train.export import export_bundle, measure_scans
from weakseg_ros.train.machine import launch_fabric
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.session import assemble, make_method, write_start
from weakseg_ros.train.survey import DataStatistics, survey
from weakseg_ros.train.train import run_session
from weakseg_ros.train.training_data import labels_of

log = logging.getLogger(__name__)

THEN = "&&"
"""the word between the commands of a bundle that was trained and then retrained"""
COUNTS = 1_000_000
"""what the class shares are counted in where two kinds of scans are mixed"""


class ModelScans(ChangedScans):
    """Scans as a bundle sees them: its range image, and intensity on the scale it was trained with.

    `intensity_scale` multiplies the intensity; 0 = by the full scales of sensor and training data, as on the robot.
    """

    def __init__(self, scans: ScanSet, info: BundleInfo, intensity_scale: float = 0.0) -> None:
        super().__init__(scans)
        self._scale, self._rule = intensity_scale, info.input.intensity
        self.labels, self.spec, self.intensity_full_scale = info.labels, info.input.geometry, info.input.intensity.full_scale

    def changed(self, scan: Scan, index: int) -> Scan:
        theirs, ours = scan.cloud.intensity_full_scale, self.intensity_full_scale
        scale = self._rule.scale_of(scan.cloud, self._scale)
        if scale == 1.0 and theirs == ours:
            return scan
        scaled = (scan.cloud.intensity * scale).astype(np.float32)
        return dataclasses.replace(scan, cloud=dataclasses.replace(scan.cloud, intensity=scaled, intensity_full_scale=ours))


@dataclass(frozen=True)
class Refined:
    """A bundle's net after more training, on the CPU wherever it was trained."""

    net: nn.Module
    heads: Heads | None
    """the bundle's heads, trained on; None where it has none, or the method adds others"""
    statistics: DataStatistics
    """of the scans it was trained on now; channels, mean and std are the bundle's own"""


def commands_of(info: BundleInfo) -> list[list[str]]:
    """The words of the commands that made a bundle, from its provenance: the training, then each retraining."""
    text = info.provenance.command
    try:
        words = shlex.split(text)
    except ValueError:  # written before paths were quoted, with an apostrophe in one
        words = text.split()
    return [list(command) for is_border, command in groupby(words, THEN.__eq__) if not is_border]


def training_of(info: BundleInfo) -> TrainConfig | None:
    """The settings that a bundle was first trained with, from its provenance; None where that does not say."""
    words = next(iter(commands_of(info)), [])
    if words[:2] != ["weakseg", "train"]:
        return None
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return parse_training(words[2:])
    except (SystemExit, ConfigError):  # written by another version, or by hand
        return None


def refine(bundle: Bundle, new: ScanSet, replay: ScanSet | None, config: TrainConfig, new_share: float) -> Refined:
    """Train the bundle's net from its weights on; `config.out` becomes the run folder.

    `new` and `replay` are `ModelScans`, or made of them: the former has class ids where something was clicked; of those of
    the latter, `config.draw` may leave a part. A batch holds `new_share` new scans (at least one of each kind), and so much
    do they weigh. Net, classes, range image and normalisation stay the bundle's. Raises DataError where no new scan has a
    labelled point.
    """
    keep_large_blocks()
    info, run = bundle.info, RunFolder(config.out)
    fabric = launch_fabric(config)
    torch.manual_seed(config.seed)
    graph = load_graph(bundle)
    told = dataclasses.replace(info.input, intensity=dataclasses.replace(info.input.intensity, required=False))
    options = (
        info.input.geometry,
        config.augment,
        config.cache_gib,
        reads_instances(config.method),
        told,
        bool(config.propagate.scans),
    )
    kind: type[TrainingSource] = registry.load(registry.SOURCES, told.representation)
    fresh = kind(new, lambda scan: scan.class_id, *options)
    counted = survey(fresh, info.input.channels, info.labels.num_classes)
    images: ImageSource = fresh
    new_per_batch = config.batch_size
    if replay is not None:
        new_per_batch = min(max(round(new_share * config.batch_size), 1), config.batch_size - 1)
        known = kind(replay, labels_of(config, replay), *options)
        images = mixed(fresh, known, new_per_batch)
        counted = _joined(counted, survey(known, info.input.channels, info.labels.num_classes), new_share)
    statistics = dataclasses.replace(counted, mean=info.input.mean, std=info.input.std, lift=info.input.lift)
    if fabric.is_global_zero:
        run.create()
        write_start(run, config, info.input.geometry, info.labels, statistics, _facts(bundle, config, images, str(fabric.device)))
    net = graph.net.train()
    method = _method(bundle, config, net, statistics, graph.heads)
    whole = method if replay is None else ReplayMethod(method, new_per_batch, new_share)
    session = assemble(config, fabric, run, images, None, statistics, net, whole, info.input)
    run_session(session)
    heads = None if session.heads_average is None else session.heads_average.net.cpu()
    return Refined(session.average.net.eval().cpu(), heads if rules_of(heads) == info.heads else None, statistics)


def export_refined(
    refined: Refined, bundle: Bundle, regression: ScanSet, folder: Path, facts: dict[str, Any], command: str
) -> Bundle:
    """The refined net as a bundle at `folder`, calibrated on the regression scans.

    `facts` become its metrics, and `command` is added to the commands that made `bundle`.
    """
    info = bundle.info
    images, logits, class_id = measure_scans(refined.net, regression, info.input, 24)
    fit = dataclasses.asdict(fit_temperature(logits, class_id))
    source = info.provenance
    changed = dataclasses.replace(
        info,
        name=folder.name,
        temperature=fit.pop("temperature"),
        metrics={**facts, **fit},
        statistics=refined.statistics.clouds,
        provenance=dataclasses.replace(
            source,
            command=f" {THEN} ".join(filter(None, [source.command, command])),
            environment=environment(),
        ),
        heads=rules_of(refined.heads),
        outputs={},
        files={},
        parity={},
        content_hash="",
    )
    made = export_bundle(refined.net, changed, folder, images, stores_half(bundle), refined.heads)
    for name in sorted(set(info.head_names) - set(made.info.head_names)):
        log.warning("%s: has no head '%s', because its features have changed; train the head again", folder.name, name)
    if not info.variants or made.file_of(KIND_ONNX) is None:
        return made
    from weakseg_ros.train.variants import add_variants, in_words  # the tools take seconds to import

    again, found = add_variants(made, folder, tuple(info.variants), regression, regression)
    for line in in_words(found):
        log.info("%s: %s", folder.name, line)
    return again


def _method(bundle: Bundle, config: TrainConfig, net: nn.Module, statistics: DataStatistics, heads: Heads | None) -> Method:
    """The method, what it adds for the robot beginning where the bundle's is."""
    method = make_method(_with_prototypes_of(bundle, config), net, statistics, bundle.labels)
    fresh = method.deployable()
    if heads is None or fresh is None or rules_of(fresh) != bundle.info.heads:
        return method
    fresh.load_state_dict(heads.state_dict())
    return method


def _with_prototypes_of(bundle: Bundle, config: TrainConfig) -> TrainConfig:
    """The settings, with as many prototypes as the bundle's novelty head has, whose prototypes are trained on."""
    rule = next((rule for rule in bundle.info.heads if rule.name == "novelty" and rule.kwargs), None)
    if rule is None or not rule.kwargs:
        return config
    count = int(rule.kwargs["prototypes"])
    return config.with_section("coarse3d", prototypes_per_class=count, fewest_prototypes=count)


def _joined(new: DataStatistics, known: DataStatistics, new_share: float) -> DataStatistics:
    """The statistics of both; classes by the share in which their labels are trained on."""
    shares = [np.array(part.class_counts[1:]) / max(1, sum(part.class_counts[1:])) for part in (new, known)]
    counts = np.ceil(COUNTS * (new_share * shares[0] + (1.0 - new_share) * shares[1])).astype(int)
    ours, theirs = new.clouds, known.clouds
    clouds = TrainingStatistics(
        intensity=_pooled(ours.intensity, theirs.intensity),
        range_m=_pooled(ours.range_m, theirs.range_m),
        inclination_deg=_pooled(ours.inclination_deg, theirs.inclination_deg),
        outside_share=(ours.outside_share + theirs.outside_share) / 2,
        filled_share=(ours.filled_share + theirs.filled_share) / 2,
        beams=max(ours.beams, theirs.beams),
    )
    unlabelled = new.class_counts[0] + known.class_counts[0]
    return dataclasses.replace(new, class_counts=(unlabelled, *counts.tolist()), clouds=clouds, scans=0)


def _pooled(ours: dict[float, float], theirs: dict[float, float]) -> dict[float, float]:
    """Quantiles of two data sets together, each counting half, from the quantiles of each."""
    if not (ours and theirs):
        return ours or theirs
    levels = np.linspace(min(QUANTILES), max(QUANTILES), 197)
    values = np.concatenate([np.interp(levels, list(part), list(part.values())) for part in (ours, theirs)])
    return {q: float(value) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def _facts(bundle: Bundle, config: TrainConfig, images: ImageSource, device: str) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "data": {"name": images.scans.name, "hash": images.scans.content_hash, "scans": len(images)},
        "val": None,
        "bundle": {"name": bundle.name, "hash": bundle.content_hash},
        "device": device,
    }
