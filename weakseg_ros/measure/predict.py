# SPDX-License-Identifier: Apache-2.0
"""`weakseg predict`: a bundle's answers for a bag or scans, as files that other programs and SemanticKITTI's server read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from weakseg_ros.config import parse, setting
from weakseg_ros.data.many_bags import EXIT_PARTIAL, Row, Runner, are_whole, bags_for, each_bag, one_by_one, only_here
from weakseg_ros.data.prediction_files import ZIP, Predicted, PredictionFolder, check_submission, server_ids
from weakseg_ros.data.ray_settings import RaySettings, anywhere
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines.choice import pinned
from weakseg_ros.deploy.fit import Fit
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import CloudError, ConfigError, DataError, complain, counted, say
from weakseg_ros.files import check_can_write
from weakseg_ros.measure.inputs import Input, Item, open_input
from weakseg_ros.measure.verdict import not_answered
from weakseg_ros.points.labels import NO_LABELS, LabelMap, pack_raw
from weakseg_ros.progress import Progress
from weakseg_ros.registry import DEFAULT_BUNDLE


@dataclass(frozen=True)
class PredictConfig(RaySettings):
    """Write a bundle's predictions for a bag or a folder of scans, one file per scan."""

    data: Annotated[Path, tyro.conf.Positional] = Path()
    """Names a bag, a folder of bags, a quoted glob such as 'drives/*', or a folder of scans."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Lists further bags; the predictions of each are written to its own folder, under its name."""
    bundle: str = DEFAULT_BUNDLE
    """Names the model to run: the path of its folder, or the name of an installed one."""
    out: Path = Path("runs/predict")
    """Names the output folder for the predictions; existing files of the same scans are replaced."""
    format: Literal["semantickitti", "pcd", "ply", "las", "npy"] = "semantickitti"
    """Selects the file format: 'semantickitti' writes sequences/NN/predictions/KEY.label with a raw id and an instance for each
    point, 'npy' writes the same numbers as arrays, and the others write the points with label, instance, confidence and
    uncertainty."""
    submission: bool = False
    """Checks that each scan has a file with ids that SemanticKITTI's server accepts, and packs the files into
    submission.zip."""
    topic: str = ""
    """Names the topic of the clouds in a bag; it may be empty if there is only one."""
    split: str = ""
    """Selects a split of the data set, for example test; an empty string uses all of it."""
    engine: str = "auto"
    """Selects the inference engine by name, for example onnxruntime; 'auto' uses the fastest on this machine."""
    lift: Literal["auto", "pixel", "vote", "knn"] = "auto"
    """Selects how points get their class from the range image: 'pixel' copies their pixel's class, 'vote' lets the pixels around
    it vote that are at the same range, 'knn' is the vote of RangeNet++, and 'auto' does what the model was made for."""
    passes: int = setting(1, 1, 100)
    """Sets the minimum number of times that a network on points sees every point (1 to 100); the predictions vote, and papers
    report 20 votes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.submission and self.format != "semantickitti":
            raise ConfigError(f"submission: the server takes .label files, not {self.format}; leave --format out")


@dataclass
class PredictReport:
    """What was written."""

    points: dict[str, int] = field(default_factory=dict)
    """number of points by the key of the scan"""
    without_class: int = 0
    empty: int = 0
    """scans without a single point"""
    silent: int = 0
    """scans of which no point gets a class, although they contain some"""
    problems: list[str] = field(default_factory=list)
    """one sentence for each scan that was left out"""
    notes: list[str] = field(default_factory=list)
    fit: Fit | None = None
    """how far the predictions can be trusted; None where no scan tells"""


def main(argv: Sequence[str], runner_of: Callable[[RaySettings, Path], Runner] = only_here) -> int:
    """The verb, where `runner_of` tells where many bags are worked on.

    Exit code 1 where some scans have no predictions, 2 (by the error) where none has.
    """
    config = parse(PredictConfig, argv, "predict")
    if config.data == Path():
        raise DataError(f"no data is given; name a bag or a folder of scans ('weakseg predict scans --bundle {DEFAULT_BUNDLE}')")
    if bags := bags_for(config, config.data, config.more):
        return 0 if are_whole(predict_many(config, bags, runner_of(config, config.out))) else EXIT_PARTIAL
    return EXIT_PARTIAL if _say(config, predict(config)) else 0


def predict_many(config: PredictConfig, bags: Sequence[Path], over: Runner = one_by_one) -> list[Row]:
    """Predict each bag into `config.out`/NAME; what was written whole with this bundle and these settings stays."""
    check_can_write(config.out, "--out")
    bundle = Bundle.load(config.bundle)
    config = replace(config, engine=pinned(bundle, config.engine)) if config.ray else config
    asked = {"bundle": bundle.content_hash, "settings": str(anywhere(config, out=Path(), data=Path(), more=()))}

    def work(bag: Path, name: str) -> Row:
        one = replace(config, data=bag, more=(), out=config.out / name)
        report = predict(one)
        is_partial = _say(one, report)
        return {"complete": not is_partial, "scans": len(report.points), "without_class": report.without_class}

    def is_there(name: str) -> bool:
        return any((config.out / name).glob("*"))

    return each_bag(
        bags, config.out, asked, work, lambda row: counted(row["scans"], "scan"), is_there, over=over, fetch=config.fetch
    )


def _say(config: PredictConfig, report: PredictReport) -> bool:
    """Print what was written and what was not; whether the latter is something."""
    total = max(1, sum(report.points.values()))
    say(f"{counted(len(report.points), 'scan')}, {report.without_class / total:.1%} of the points without a class: {config.out}")
    for note in report.notes:
        say(f"note: {note}")
    if config.submission and not report.problems:
        say(f"for the server: {config.out / ZIP}")
    for problem in report.problems[:5]:
        complain(f"weakseg predict: left out: {problem}")
    if report.empty:
        complain(
            f"weakseg predict: {report.empty} of {counted(len(report.points), 'scan')} "
            f"{'contains' if report.empty == 1 else 'contain'} no points; check the topic and the driver"
        )
    if report.silent:
        complain(f"weakseg predict: {not_answered(report.silent, len(report.points))}")
    if report.fit is not None and report.fit.low:
        say(f"do not rely on these predictions: {report.fit}")
    return bool(report.problems or report.empty or report.silent)


def predict(config: PredictConfig) -> PredictReport:
    """Write the files; raises DataError where no scan can be read, or what was asked for cannot be written."""
    check_can_write(config.out, "--out")
    bundle = Bundle.load(config.bundle)
    ids = server_ids(bundle.labels) if config.submission else None
    source = open_input(config.data, NO_LABELS, config.topic, config.split, reading=config)
    segmenter = Segmenter(
        bundle,
        config.engine,
        config.engine_threads,
        config.lift,
        config.intensity_scale,
        allow_no_intensity=not config.intensity_field,
        passes=config.passes,
    )
    report = PredictReport()
    try:
        _write_all(config, source, segmenter, ids, report)
    except DataError as error:
        report.problems.append(str(error))
    finally:
        segmenter.close()
    report.problems += source.problems
    if not report.points:
        raise DataError(f"{config.data}: no scan could be answered; {next(iter(report.problems), 'it is empty')}")
    report.notes, report.fit = segmenter.domain_report(), segmenter.fit()
    if config.submission and not report.problems:
        report.notes += check_submission(config.out, report.points)
    return report


def _write_all(
    config: PredictConfig, source: Input, segmenter: Segmenter, ids: NDArray[np.uint16] | None, report: PredictReport
) -> None:
    folder = PredictionFolder(config.out, config.format)
    for item in Progress(source, what="predict", unit="scan"):
        try:
            answer = segmenter.run(item.cloud)
        except CloudError as error:
            report.problems.append(f"scan {item.key}: {error}")
            continue
        folder.write(item.key, _predicted(item, answer, segmenter.bundle.labels, ids))
        report.points[item.key] = len(item.cloud)
        report.empty += not len(item.cloud)
        without = int(np.count_nonzero(answer.class_id == 0))
        report.silent += 0 < without == len(item.cloud)
        report.without_class += without


def _predicted(item: Item, answer: Segmentation, labels: LabelMap, ids: NDArray[np.uint16] | None) -> Predicted:
    raw = labels.to_raw(answer.class_id)
    raw = raw if ids is None else ids[raw]
    return Predicted(
        item.cloud.xyz,
        item.cloud.intensity,
        pack_raw(raw, answer.instance_id),
        answer.class_id,
        answer.confidence,
        answer.uncertainty,
        labels.colors[answer.class_id],
    )
