# SPDX-License-Identifier: Apache-2.0
"""`weakseg retrain`: clicks on logged frames make the deployed bundle better, and a gate decides whether it is deployed.

1. the clicked frames are cut in two by a hash of their names: to train on, and held out
2. the bundle's training goes on from its weights, old scans beside the new ones in each batch
3. old and new bundle run over a fixed regression set and over the held-out clicks, through the robot's own code
4. `models/current` is changed where the gate passes; else the candidate stays in `models/versions`, marked as refused
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weakseg_ros.config import dump_yaml
from weakseg_ros.data.scan_sets import ScanSet
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.bundle_place import CURRENT, INFO_FILE, find_bundle
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.errors import BundleError, DataError, WeaksegError, complain, counted, say
from weakseg_ros.files import content_of, make_folder, put_in_place, sweep, write_atomic, write_json
from weakseg_ros.improve.retrain.config import RetrainConfig
from weakseg_ros.improve.retrain.data import RetrainData, open_retrain_data
from weakseg_ros.improve.retrain.gate import Check, GateVerdict, Scores, judge, measure_latency
from weakseg_ros.improve.retrain.report import render
from weakseg_ros.improve.retrain.versions import Versions
from weakseg_ros.progress import Progress
from weakseg_ros.reads import read_json
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import options_of
from weakseg_ros.train.finetune import export_refined, refine
from weakseg_ros.train.run_folder import BEFORE_A_CHECKPOINT, LAST, OF_RETRAINING
from weakseg_ros.weak.neighbourhood import SpreadScans
from weakseg_ros.weak.propagate import PropagatedScans, reached_scans

log = logging.getLogger(__name__)

EXIT_REFUSED = 1
LATENCY_SCANS, LOOKED_AT = 4, 4
REPORT, SUMMARY = "report.md", "summary.json"
ELSEWHERE = ("frames", "out", "models")
"""settings that say where it is done, not what"""


@dataclass(frozen=True)
class Outcome:
    """What a retraining led to."""

    bundle: Bundle
    """the candidate, in models/versions"""
    verdict: GateVerdict
    summary: dict[str, Any]
    report: Path


def run(config: RetrainConfig) -> int:
    """Do what `weakseg retrain` was asked for; returns its exit code."""
    outcome = retrain(config)
    before, after = outcome.summary["before"], outcome.summary["after"]
    for part, title in (("regression", "regression set"), ("clicks", "held-out clicks")):
        figures = [f"{name} {before[part][name]:.3f} -> {after[part][name]:.3f}" for name in ("miou", "right")]
        say(f"{title}: {', '.join(figures)}")
    say(f"report: {outcome.report}")
    if not outcome.verdict.passed:
        for check in outcome.verdict.failed:
            complain(f"weakseg retrain: refused, {check}")
        complain(f"weakseg retrain: {outcome.bundle.folder} is kept, and {config.bundle} is unchanged")
        return EXIT_REFUSED
    say(f"{config.models / CURRENT if config.promote else 'not promoted'}: {outcome.bundle.folder}")
    return 0


def retrain(config: RetrainConfig) -> Outcome:
    """Do it; the deployed bundle is read and never written to.

    Raises DataError where too little is clicked, or old data are not where they should be; BundleError where the bundle or
    the candidate cannot be used.
    """
    versions = Versions(config.models)
    done = _done_before(config, versions)
    if done is not None:
        return done
    old = Bundle.load(find_bundle(config.bundle).resolve())
    deployed = versions.current
    data = open_retrain_data(config, old)
    for candidate, run in versions.abandoned():
        _clear_up(candidate, run)
    with versions.candidate(config.name or versions.stem_of(old)) as (folder, fresh):
        out = _run_folder(config, folder.name)
        versions.mark_unjudged(folder, out)
        with _no_run_without_candidate(folder, out):
            make_folder(out)
            write_atomic(out / OF_RETRAINING, dump_yaml(config))
            complain(*opening(config, old, data, folder, out), *doubts(old, data))
            new = _train(config, old, data, fresh / folder.name, out)
            versions.mark_unjudged(new.folder, out)
            put_in_place(new.folder, folder)
        bundle = Bundle.load(folder)
        with refused_on_failure(versions, folder):
            before, after, verdict = compare(old, bundle, data, config)
        summary = _summary(config, old, bundle, data, before, after, verdict)
        report = render(summary)
        write_json(out / SUMMARY, summary)
        write_atomic(out / REPORT, report)
        if not verdict.passed:
            versions.reject(folder, report, "; ".join(map(str, verdict.failed)))
        elif config.promote:
            _deploy(versions, folder, old, deployed, f"retrained on {counted(data.clicks, 'click')}, report in {out / REPORT}")
    versions.judged(folder)  # the very last change: whoever was ended before it finds by it how far he was
    return Outcome(bundle, verdict, summary, out / REPORT)


def _deploy(versions: Versions, folder: Path, old: Bundle, deployed: Path | None, why: str) -> None:
    """Promote the candidate in `folder`; BundleError where another bundle than `deployed` is at work by now."""
    with versions.alone():
        if versions.current != deployed:
            versions.judged(folder)
            raise BundleError(
                f"{versions.pointer}: was changed while {folder} was trained; compare the two, then 'weakseg promote {folder}'"
            )
        versions.promote(folder, why, previous=old.folder, unjudged=True, keep_mark=True)


def _done_before(config: RetrainConfig, versions: Versions) -> Outcome | None:
    """What the same retraining, ended at its very last step, has already led to; None where there is something to learn.

    It is the same one with the same settings and the same data, clicks included.
    """
    deployed = versions.deployed_at_the_last_moment()
    if deployed is None:
        return None
    folder, run = deployed
    try:
        settings, summary = (run / OF_RETRAINING).read_text(encoding="utf-8"), read_json(run / SUMMARY)
        data = open_retrain_data(config, Bundle.load(summary["from"]["folder"])).summary()
        verdict = GateVerdict(tuple(Check(**row) for row in summary["checks"]), tuple(summary["unasked"]))
    except (OSError, ValueError, LookupError, TypeError, WeaksegError):  # it cannot be told, so it is trained anew
        return None
    if settings != dump_yaml(config) or json.loads(json.dumps(data)) != summary["data"]:
        return None
    versions.judged(folder)
    sweep(folder)
    complain(f"{folder}: was already trained and deployed by this command, which ended in its last step")
    return Outcome(Bundle.load(folder), verdict, summary, run / REPORT)


def opening(config: RetrainConfig, old: Bundle, data: RetrainData, folder: Path, out: Path) -> list[str]:
    """Six lines: model, clicks, old data, what judges, steps, where it is written."""
    replay = "no old data" if data.replay is None else f"{counted(len(data.replay), 'scan')} of {data.replay.name}"
    around = (
        "" if data.around is None else f", whose labels are propagated to the {counted(len(data.around), 'frame')} around them"
    )
    return [
        f"retrains {old.name} ({old.content_hash[:12]}) from {old.folder}",
        f"on {counted(data.clicks, 'click')} in {counted(len(data.new), 'frame')} of {data.new.name}{around}, beside {replay}",
        f"{counted(data.held_out_clicks, 'click')} in {counted(len(data.held_out), 'other frame')} are held out",
        f"the regression set has {counted(len(data.regression), 'scan')} of {data.regression.name}",
        f"{counted(config.steps, 'step')}, {counted(config.batch_size, 'scan')} a step",
        f"the candidate will be {folder}, and all settings will be in {out / OF_RETRAINING}",
    ]


def doubts(old: Bundle, data: RetrainData) -> list[str]:
    """A sentence where the old model's answers on the new frames, by which they were chosen, are bad; or nothing."""
    segmenter = Segmenter(old, allow_no_intensity=True)
    try:
        for index in range(min(len(data.new), LOOKED_AT)):
            segmenter.run(data.new[index].cloud)
        fit = segmenter.fit()
    finally:
        segmenter.close()
    if fit is None or not fit.low:
        return []
    return [f"the predictions of {old.name} that selected these frames are unreliable: {fit}"]


def _summary(
    config: RetrainConfig,
    old: Bundle,
    bundle: Bundle,
    data: RetrainData,
    before: dict[str, Any],
    after: dict[str, Any],
    verdict: GateVerdict,
) -> dict[str, Any]:
    return {
        "bundle": {"name": bundle.name, "hash": bundle.content_hash, "folder": str(bundle.folder)},
        "from": {"name": old.name, "hash": old.content_hash, "folder": str(old.folder)},
        "passed": verdict.passed,
        "failed": [str(check) for check in verdict.failed],
        "checks": [dataclasses.asdict(check) for check in verdict.checks],
        "unasked": list(verdict.unasked),
        "before": before,
        "after": after,
        "data": data.summary(),
        "seed": config.seed,
        "environment": environment(),
    }


def _clear_up(candidate: Path, run: Path | None) -> None:
    """Remove what a retraining left that was ended before its verdict; nobody has judged it, and it is trained anew."""
    if run is not None:
        _remove_run(run)
    sweep(candidate)
    shutil.rmtree(candidate, ignore_errors=True)
    log.warning("%s: was removed: its retraining was interrupted before the gate judged it", candidate)


def _remove_run(run: Path) -> None:
    """Remove a run folder, unless it holds something that no retraining writes."""
    ours = {*BEFORE_A_CHECKPOINT, LAST, SUMMARY, REPORT}
    if run.is_dir() and {entry.name for entry in content_of(run)} <= ours:
        shutil.rmtree(run, ignore_errors=True)


@contextlib.contextmanager
def _no_run_without_candidate(folder: Path, run: Path) -> Iterator[None]:
    """Remove the run folder where the block ends before the candidate lies in `folder`: the next retraining trains it anew."""
    try:
        yield
    finally:
        if not (folder / INFO_FILE).is_file():
            _remove_run(run)


@contextlib.contextmanager
def refused_on_failure(versions: Versions, folder: Path) -> Iterator[None]:
    """Mark the candidate in `folder` as refused where the block that judges it fails, so that nobody takes it for a good one.

    One whose judging was interrupted stays marked as not judged.
    """
    try:
        yield
    except Exception as error:
        why = f"could not be compared: {type(error).__name__}: {error}"
        with contextlib.suppress(OSError, WeaksegError):  # the failure itself is what there is to tell
            versions.reject(folder, f"{why}\n", why)
            versions.judged(folder)
        raise


def _run_folder(config: RetrainConfig, version: str) -> Path:
    """Where the run is written; without `out`, a folder that no interrupted run of the same version has taken."""
    if config.out is None:
        parent = Path("runs") / "retrain"
        taken = sum(path.name.partition("@")[0] == version for path in parent.glob("*"))
        return parent / (f"{version}@{taken}" if taken else version)
    if config.out.exists() and (not config.out.is_dir() or content_of(config.out)):
        raise DataError(f"{config.out}: exists and is not empty; choose another --out")
    return config.out


def _train(config: RetrainConfig, old: Bundle, data: RetrainData, folder: Path, out: Path) -> Bundle:
    new: ScanSet = SpreadScans(data.new if data.around is None else data.around, config.spread_m)
    if data.around is not None:
        new = reached_scans(PropagatedScans(new, config.propagate))
    refined = refine(old, new, data.replay, training_settings(config, data.training, out), config.new_share)
    facts = {"retrained_from": old.content_hash, "new_scans": len(new), "clicks": data.clicks}
    return export_refined(refined, old, data.regression, folder, facts, command_of(config))


def command_of(config: RetrainConfig) -> str:
    """The command line that repeats the retraining: where the frames are, and every setting that is not the default."""
    frames = shlex.quote(str(config.frames.absolute()))
    return " ".join(["weakseg retrain --frames", frames, *options_of(config, RetrainConfig(), ELSEWHERE)])


def compare(
    old: Bundle, new: Bundle, data: RetrainData, config: RetrainConfig
) -> tuple[dict[str, Any], dict[str, Any], GateVerdict]:
    """Both bundles through the robot's own code: (figures of the old one, of the new one, the gate's verdict)."""
    # frames without intensity are of a robot that was told to feed zeros; others it drops
    segmenters = [Segmenter(bundle, allow_no_intensity=True, watch="never") for bundle in (old, new)]
    try:
        regression = _scores(segmenters, data.regression, "regression")
        clicks = _scores(segmenters, data.held_out, "held-out clicks")
        clouds = [data.regression[i].cloud for i in range(min(len(data.regression), LATENCY_SCANS))]
        times_ms = measure_latency(segmenters[0], segmenters[1], clouds)
    finally:
        for segmenter in segmenters:
            segmenter.close()
    verdict = judge(*regression, *clicks, times_ms[1] / times_ms[0], config.gate)
    before, after = (
        {"regression": regression[i].summary(), "clicks": clicks[i].summary(), "latency_ms": round(times_ms[i], 3)}
        for i in (0, 1)
    )
    return before, after, verdict


def _scores(segmenters: Sequence[Segmenter], scans: ScanSet, what: str) -> tuple[Scores, Scores]:
    """How the old and the new bundle do on a set; each scan is read once."""
    scores = [Scores(segmenter.bundle.labels) for segmenter in segmenters]
    for index in Progress(range(len(scans)), what=what, unit="scan"):
        scan = scans[index]
        for segmenter, count in zip(segmenters, scores, strict=True):
            count.add(segmenter, scan)
    return scores[0], scores[1]


def training_settings(config: RetrainConfig, training: TrainConfig, out: Path) -> TrainConfig:
    """The bundle's own training with the settings of this one; a part of a method that is new begins with its defaults.

    Whoever clicks suggested points does not click every object.
    """
    fresh = dataclasses.replace(
        training,
        out=out,
        out_bundle=None,
        resume=False,
        steps=config.steps,
        warmup_steps=min(config.steps // 10, 50),
        max_minutes=0.0,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        average_decay=min(training.average_decay, 0.99),
        validate_every=0,
        seed=config.seed,
        # the machine is another one than the training's
        accelerator="auto",
        devices=1,
        num_nodes=1,
        precision="32-true" if training.precision == "32-true" else "auto",
        method=config.method or training.method,
        propagate=config.propagate,
    )
    return fresh.with_section("point_panoptic", all_clicked=False)
