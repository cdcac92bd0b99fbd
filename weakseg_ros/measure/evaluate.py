# SPDX-License-Identifier: Apache-2.0
"""`weakseg evaluate`: run a bundle over a bag or scans, write a report one can read and a JSON one can add up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from weakseg_ros.config import parse, setting, shard_of
from weakseg_ros.data.many_bags import EXIT_PARTIAL, Runner, bags_for
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.engines import label_of
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.deploy.tracking import Tracker
from weakseg_ros.errors import CloudError, ConfigError, DataError, ReplayError, complain, counted, say
from weakseg_ros.extras import need
from weakseg_ros.files import check_can_write
from weakseg_ros.measure.evaluation import SUMMARY_FILE, Evaluation
from weakseg_ros.measure.inputs import Input, Item, open_input
from weakseg_ros.measure.label_files import compare_files, in_words
from weakseg_ros.measure.many import evaluate_many
from weakseg_ros.measure.merge import merge
from weakseg_ros.measure.summary import Unanswered
from weakseg_ros.measure.verdict import not_answered, not_to_trust
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.progress import Progress
from weakseg_ros.registry import DEFAULT_BUNDLE


@dataclass(frozen=True)
class EvaluateConfig(RaySettings):
    """Run a bundle over a bag or a folder of scans, and write report.html and summary.json."""

    data: Annotated[Path, tyro.conf.Positional] = Path()
    """Names a bag (folder, .mcap, .db3, .bag), a folder of bags, a quoted glob such as 'drives/*', or a folder of scans."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Lists further bags; they are evaluated one by one and summed in one report."""
    bundle: str = DEFAULT_BUNDLE
    """Names the model to evaluate: the path of its folder, or the name of an installed one."""
    topic: str = ""
    """Names the topic of the clouds in a bag; it may be empty if there is only one."""
    split: str = ""
    """Selects the split of the data set to evaluate on, for example val; an empty string uses all of it."""
    truth: Path | None = field(default=None, metadata={"was": "labels"})
    """Names a folder with one .label file per scan, as ground truth for a bag or instead of the scans' own labels."""
    predictions: Path | None = None
    """Names a folder of label files from any model, to compare with those in --truth instead of running a bundle."""
    label_map: str = ""
    """Selects the label map that lists the raw ids in label files, by name or as a YAML file; an empty string takes that of the
    data, and 'semantickitti' with --predictions."""
    out: Path = Path("runs/evaluate")
    """Names the output folder for report.html and summary.json."""
    engine: str = "auto"
    """Selects the inference engine by name, for example onnxruntime; 'auto' uses the fastest on this machine."""
    lift: Literal["auto", "pixel", "vote", "knn"] = "auto"
    """Selects how points get their class from the range image: 'pixel' copies their pixel's class, 'vote' lets the pixels around
    it vote that are at the same range, 'knn' is the vote of RangeNet++, and 'auto' does what the model was made for."""
    passes: int = setting(1, 1, 100)
    """Sets the minimum number of times that a network on points sees every point (1 to 100); the predictions vote, and papers
    report 20 votes."""
    unanswered: Unanswered = "wrong"
    """Selects how labelled points without a predicted class count: 'wrong' counts them as errors, and 'left_out' excludes them
    from all figures, as published evaluations do."""
    track: bool = True
    """Tracks objects from scan to scan, as the node does, and counts how often their ids change."""
    shard: str = ""
    """Evaluates one part of the work, given as i/n: process i (from 1) of n takes every n-th scan, and --merge sums the
    results."""
    merge: tuple[Path, ...] = ()
    """Sums the summary.json files of earlier evaluations instead of running a new one."""
    pictures: bool = True
    """Draws scans in the report; without them, a report over thousands of bags is written several times faster and is
    smaller."""
    parts: int = setting(1, 1, 1000)
    """Splits each bag into this many parts (1 to 1000), so that several workers share a long one; objects are then not tracked
    from scan to scan."""
    live: bool = False
    """Starts a node, sends it every scan over DDS, and compares its answers with those of a direct run."""
    attach: bool = False
    """Uses a node that is already running, with --live only."""
    node: str = "weakseg"
    """Names the running node, with --attach only."""
    rate: float = setting(1.0, 0.001, 1000.0)
    """Sets the playback rate with --live (0.001 to 1000); 1 plays as recorded."""
    log: Path | None = None
    """Names the folder where the node started by --live logs frames worth labelling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = shard_of(self.shard)[1]
        if self.live and parts > 1:
            raise ConfigError("shard: a live evaluation sends every scan; leave --shard or --live out")
        if self.parts > 1 and parts > 1:
            raise ConfigError("parts: each part is already a shard; leave --parts or --shard out")
        if self.live and self.ray:
            raise ConfigError("ray: a live evaluation goes through one node on this machine; leave --live or --ray out")
        if self.log is not None and (self.attach or not self.live):
            raise ConfigError("log: frames are logged by the node that --live starts; leave --log out, or --attach")


OnAnswer = Callable[[Item, Segmentation], None]
LiveAnswers = Callable[[Iterable[Item], Bundle, EvaluateConfig, OnAnswer], dict[str, Any]]
"""Sends the items to the node, calls back with each answer, and returns the figures of the replay: `ros.live.live_answers`,
which a verb above both chapters hands in."""


def run(argv: Sequence[str], live: LiveAnswers, runner_of: Callable[[RaySettings, Path], Runner]) -> int:
    """The verb, where `live` is what --live goes through, and `runner_of` tells where many bags are worked on.

    Exit code 1: a partial result, or no point with a class; 2 (by the error): no result.
    """
    config = parse(EvaluateConfig, argv, "evaluate")
    if config.predictions is not None:
        return _compare(config, config.predictions)
    if config.merge:
        report, summary = merge(config.merge, config.out)
    elif config.data == Path():
        raise DataError(f"no data is given; name a bag or a folder of scans ('weakseg evaluate drive --bundle {DEFAULT_BUNDLE}')")
    elif bags := bags_for(config, config.data, config.more) or [config.data] * (config.parts > 1):
        evaluate_one = partial(evaluate, live=live) if config.live else evaluate
        report, summary = evaluate_many(config, bags, evaluate_one, runner_of(config, config.out))
    else:
        report, summary = evaluate(config, live=live)
    say(_sentence(summary))
    say(f"report: {report}")
    for sentence in summary["domain"]:
        say(f"check the sensor: {sentence}")
    if summary["partial"]:
        complain(f"weakseg evaluate: partial result: {summary['partial_reason']}")
    silent = _says_nothing(summary)
    if silent or summary["silent_scans"]:
        complain(f"weakseg evaluate: {silent or not_answered(summary['silent_scans'], summary['scans'])}")
    if not_to_trust(summary):
        say(f"do not rely on these answers: {not_to_trust(summary)}")
    return EXIT_PARTIAL if summary["partial"] or silent else 0


def _says_nothing(summary: Mapping[str, Any]) -> str:
    """A sentence where no point has got a class: such an evaluation measures nothing, whatever its figures are."""
    points, without = summary["points"], summary["points_without_class"]
    if without["total"] < points:
        return ""
    if not points:
        return f"the {counted(summary['scans'], 'scan contains', 'scans contain')} no points; check the topic and the driver"
    names = {"non_return": "are non-returns", "non_finite": "are not finite", "out_of_range": "lie outside the model's image"}
    why = ", ".join(f"{without[name] / points:.0%} {text}" for name, text in names.items() if without[name])
    return f"no point of {counted(summary['scans'], 'scan')} gets a class ({why}); 'weakseg doctor --data' looks at the clouds"


def _compare(config: EvaluateConfig, predictions: Path) -> int:
    if config.truth is None:
        raise ConfigError("predictions: need label files to compare with; give their folder with --truth")
    say(in_words(compare_files(predictions, config.truth, config.label_map or "semantickitti", config.out)))
    say(f"figures: {config.out / SUMMARY_FILE}")
    return 0


def evaluate(
    config: EvaluateConfig, extra: dict[str, Any] | None = None, live: LiveAnswers | None = None
) -> tuple[Path, dict[str, Any]]:
    """Run it; returns (path of the report, summary). `extra` goes into the summary, e.g. the `story` of how data were made.

    `live` is the way to the node, for a `config` that asks for it.

    Deterministic apart from the times. Raises DataError where nothing at all could be read; what could be read of
    damaged data is reported, with `partial` set.
    """
    if config.live and live is None:
        raise ValueError("evaluate: config.live needs the argument `live`")
    need("jinja2", "matplotlib")  # for the report at the end
    check_can_write(config.out, "--out")
    bundle = Bundle.load(config.bundle)
    source = open_input(config.data, bundle.labels, config.topic, config.split, config.truth, config, config.label_map)
    _check_shard(config, len(source))
    evaluation = Evaluation(bundle, source, in_sequence=shard_of(config.shard)[1] == 1, unanswered=config.unanswered)
    segmenter = Segmenter(
        bundle,
        config.engine,
        config.engine_threads,
        config.lift,
        config.intensity_scale,
        allow_no_intensity=not config.intensity_field,
        passes=config.passes,
    )
    facts: dict[str, Any] = {"engine": f"{label_of(segmenter.engine)} ({segmenter.engine.device})"}
    try:
        if config.live and live is not None:
            facts["live"] = _run_live(_Items(source, config.shard), segmenter, evaluation, config, live)
        else:
            follow = _Follow(segmenter.bundle.labels) if config.track else None
            _run_direct(_Items(source, config.shard), segmenter, evaluation, follow)
    except (DataError, ReplayError) as error:
        if not evaluation.tally.scans:
            raise
        source.problems.append(str(error))
    finally:
        segmenter.close()
    if not evaluation.tally.scans:
        problem = source.problems[0] if source.problems else "holds no scan; check the topic, the split and the shard"
        raise DataError(f"{config.data}: {problem}")
    fit = segmenter.fit()
    facts["domain"], facts["wrong_geometry"] = segmenter.domain_report(), segmenter.wrong_geometry()
    facts["fit"] = fit.to_mapping() if fit else None
    summary = evaluation.summary(config.data, {**facts, **(extra or {})})
    return evaluation.write(config.out, summary, config.pictures), summary


def _check_shard(config: EvaluateConfig, scans: int) -> None:
    """DataError, before an engine is opened, where a shard gets none of so many scans."""
    part, parts = shard_of(config.shard)
    if part >= scans:
        raise DataError(f"{config.data}: {counted(scans, 'scan')} cannot be shared by {parts} shards; choose fewer")


class _Items:
    """The items of a shard, with a progress bar."""

    def __init__(self, source: Input, shard: str) -> None:
        self._source = source
        self._shard = shard_of(shard)

    def __iter__(self) -> Iterator[Item]:
        part, parts = self._shard
        for item in Progress(self._source, what="evaluate", unit="scan"):
            if item.index % parts == part:
                yield item


class _Follow:
    """Ids that stay along each recording."""

    def __init__(self, labels: LabelMap) -> None:
        self._tracker = Tracker(labels)
        self._recording = ""

    def __call__(self, item: Item, answer: Segmentation) -> Segmentation:
        if item.recording != self._recording:
            self._tracker.reset()
            self._recording = item.recording
        begin = time.perf_counter()
        followed = self._tracker.update(answer, item.cloud)
        return replace(followed, timings_ms={**answer.timings_ms, "track": (time.perf_counter() - begin) * 1e3})


def _run_direct(items: _Items, segmenter: Segmenter, evaluation: Evaluation, follow: _Follow | None) -> None:
    for item in items:
        try:
            answer = segmenter.run(item.cloud)
        except CloudError as error:
            evaluation.leave_out(item, error)
            continue
        evaluation.add(item, _timed(item, follow(item, answer) if follow else answer))


def _run_live(
    items: _Items, segmenter: Segmenter, evaluation: Evaluation, config: EvaluateConfig, live: LiveAnswers
) -> dict[str, Any]:
    def on_answer(item: Item, answer: Segmentation) -> None:
        direct = segmenter.run(item.cloud)
        evaluation.add(item, replace(answer, timings_ms=_timed(item, direct).timings_ms))
        evaluation.tally.compare(answer, direct)

    return live(items, segmenter.bundle, config, on_answer)


def _timed(item: Item, answer: Segmentation) -> Segmentation:
    decode = {"decode": item.decode_ms} if item.serialized else {}
    return replace(answer, timings_ms={**decode, **answer.timings_ms})


def _whole(summary: dict[str, Any]) -> str:
    return "points" if summary["unanswered"] == "wrong" else "answered points"


def _sentence(summary: dict[str, Any]) -> str:
    text = counted(summary["scans"], "scan")
    if summary["labelled_scans"]:
        text += f" ({summary['labelled_scans']} of them with labels)" if summary["labelled_scans"] < summary["scans"] else ""
        present, asked = len(summary["classes_present"]), len(summary["class_iou"])
        text += f", mIoU {summary['miou_present']:.3f} over the {counted(present, 'class')} in them"
        text += f" ({summary['miou']:.3f} over all {asked})" if present < asked else ""
        text += f", {summary['accuracy']:.1%} of the {_whole(summary)} right"
        text += f" ({summary['unanswered_share']:.1%} get no class)" if summary["unanswered_share"] >= 0.001 else ""
    text += f", PQ {summary['panoptic']['pq_present']:.3f} over classes and objects" if "panoptic" in summary else ""
    if "tracks" in summary:
        text += f", an object's id changes in {summary['tracks']['switch_rate']:.1%} of its scans"
    warm = summary["latency_warm_ms"]
    text += f", p50 {warm['p50']:.1f} ms and p95 {warm['p95']:.1f} ms per scan" if warm["count"] else ""
    text += f" ({summary['cold_start_ms']:.0f} ms for the first)" if summary["cold_start_ms"] else ""
    return text
