# SPDX-License-Identifier: Apache-2.0
"""`weakseg select`: the frames and points of a bag or data set that are most worth a person's time, as a frame log."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from weakseg_ros.config import setting, to_mapping
from weakseg_ros.data.ray_settings import RaySettings
from weakseg_ros.data.steady_time import SteadyTime
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.fit import Fit
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.environment import environment
from weakseg_ros.errors import CloudError, DataError, complain, counted, say
from weakseg_ros.files import check_can_write
from weakseg_ros.improve.log.acquisition import Look, descriptor_size, look_at
from weakseg_ros.improve.log.admission import Admission, LogSettings
from weakseg_ros.improve.log.choice import Choice, Strategy, choose_frames, suggest_points
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth, check_is_log
from weakseg_ros.measure.inputs import Input, Item, open_input
from weakseg_ros.measure.verdict import not_answered
from weakseg_ros.points.labels import NO_LABELS
from weakseg_ros.progress import Progress
from weakseg_ros.registry import DEFAULT_BUNDLE

MOST_PROBLEMS = 5
"""sentences on scans that were left out; more are only counted"""


@dataclass(frozen=True)
class SelectConfig(RaySettings):
    """Select frames and points to label from a bag or a data set, and write them as a frame log."""

    data: Annotated[Path, tyro.conf.Positional] = Path()
    """Names a bag (folder, .mcap, .db3, .bag), a folder of bags, a quoted glob such as 'drives/*', or a folder of scans."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Lists further bags or frame logs; each contributes an equal share of the frames, unless `together` is set."""
    bundle: str = DEFAULT_BUNDLE
    """Names the model to improve: the path of its folder, or the name of an installed one."""
    out: Path = Path("runs/select")
    """Names the folder of the frame log; frames are added to an existing log."""
    frames: int = setting(50, 1, 1_000_000)
    """Limits the number of frames to select (1 to 1000000)."""
    points: int = setting(30, 0, 1000)
    """Limits the number of points suggested for labelling in each frame (0 to 1000)."""
    strategy: Strategy = "ours"
    """Selects the acquisition strategy: 'ours' prefers uncertain frames and points that represent many others and differ from
    each other, 'spread' ignores the model's uncertainty, which suits the first labels after a large change, 'entropy' prefers
    the highest uncertainty, and 'random' draws at random."""
    random_share: float = setting(0.05, 0.0, 1.0)
    """Sets the fraction of the frames that is drawn at random with any strategy, so that a model can be evaluated on them (0 to
    1)."""
    together: bool = False
    """Selects from all bags and frame logs together under one budget, the most valuable frames first and spread over the
    robots, instead of an equal share from each; with --ray this is always on."""
    robot: str = ""
    """Sets a regular expression whose first group is the robot's name in the path of a bag; an empty string uses the name of
    the folder that holds the bag."""
    topic: str = ""
    """Names the topic of the clouds in a bag; it may be empty if there is only one."""
    split: str = ""
    """Selects a split of the data set, for example train; an empty string uses all of it."""
    engine: str = "auto"
    """Selects the inference engine by name, for example onnxruntime; 'auto' uses the fastest on this machine."""
    lift: Literal["auto", "pixel", "vote", "knn"] = "auto"
    """Selects how points get their class from the range image: 'pixel' copies their pixel's class, 'vote' lets the pixels around
    it vote that are at the same range, 'knn' is the vote of RangeNet++, and 'auto' does what the model was made for."""
    like_node: bool = False
    """Selects frames exactly as the node's frame log would while driving, with the settings under `log` and the times of the
    scans; use it to try log settings on a bag. It ignores `frames`, `strategy` and `random_share`."""
    log: LogSettings = field(default_factory=LogSettings)
    """Sets the node's frame log for `like_node`: per_minute, spacing_s, min_score, min_distance and random_share."""
    seed: int = setting(0, 0)
    """Seeds the selection (0 or more)."""


REASONS = {"ours": "chosen", "spread": "chosen", "entropy": "uncertain", "random": "random"}
"""why a frame is in the log, by the strategy that chose it"""


@dataclass(frozen=True)
class Pick:
    """A frame that was chosen."""

    index: int
    reason: str
    worth: float


@dataclass(frozen=True)
class Seen:
    """A frame after the first pass."""

    index: int
    key: str
    stamp_ns: int
    look: Look


@dataclass
class Selection:
    """What was chosen of one bag or data set."""

    keys: list[str] = field(default_factory=list)
    """of the new frames, in the order of choice"""
    known: int = 0
    """scans that the log holds already"""
    problems: list[str] = field(default_factory=list)
    """one sentence for each scan that was left out because it cannot be read or answered"""
    fit: Fit | None = None
    """how far the predictions that were chosen by can be trusted; None where no scan tells"""


def say_why_fewer(config: SelectConfig, selection: Selection) -> None:
    """Print why there are fewer frames than asked for."""
    for problem in selection.problems[:MOST_PROBLEMS]:
        complain(f"weakseg select: left out: {problem}")
    if len(selection.problems) > MOST_PROBLEMS:
        complain(f"weakseg select: left out: {counted(len(selection.problems) - MOST_PROBLEMS, 'more scan')}")
    if selection.known and not selection.keys:
        say(
            f"all {counted(selection.known, 'scan that can be read is', 'scans that can be read are')} in {config.out} "
            "already; label them, or name another --out"
        )
    elif selection.known:
        say(
            f"{counted(selection.known, 'scan is', 'scans are')} in {config.out} already, from "
            "an earlier call; the new frames are other scans"
        )
    if selection.fit is not None and selection.fit.low and config.strategy != "random":
        complain(
            f"weakseg select: the predictions that selected these frames are unreliable, {selection.fit}; fix this first, or "
            "use --strategy random"
        )


def select(config: SelectConfig, again: bool = False) -> Selection:
    """Choose out of one bag or data set, and write; `again` chooses what a finished call with the same settings chose.

    The model runs twice over what is chosen and once over the rest, so that no more than one scan is in memory. Scans
    that the log holds already are not chosen again. Raises DataError where no scan can be read, and OSError where the
    disk refuses a frame.
    """
    with open_parts(config) as (source, segmenter):
        bundle = segmenter.bundle
        seen = look_through(config, source, segmenter)
        facts = {
            "config": to_mapping(config),
            "data_hash": source.content_hash,
            "bundle_hash": bundle.content_hash,
            "environment": environment(),
        }
        told: dict[str, Any] = {"source": str(config.data), "facts": facts, "resume": True, "again": again}
        with FrameWriter(config.out, bundle.labels, bundle.info.input.geometry, **told) as writer:
            free = not_in_log(source, seen, writer)
            choices = _choose(config, free, writer, bundle.labels.num_classes)
            picks = {index: Pick(index, reason, choice.worth) for index, (reason, choice) in choices.items()}
            keys = write_chosen(config, source, segmenter, writer, picks, partial(name_in_log, source))
            writer.finish(len(keys))
            return Selection(keys, len(seen) - len(free), list(dict.fromkeys(source.problems)), segmenter.fit())


@contextlib.contextmanager
def open_parts(config: SelectConfig) -> Iterator[tuple[Input, Segmenter]]:
    """The data and the model; DataError where the log cannot be written, or holds something else."""
    check_can_write(config.out, "--out")
    bundle = Bundle.load(config.bundle)
    check_is_log(config.out, bundle.labels)
    source = open_input(config.data, NO_LABELS, config.topic, config.split, reading=config)
    no_intensity = not config.intensity_field
    segmenter = Segmenter(
        bundle, config.engine, config.engine_threads, config.lift, config.intensity_scale, allow_no_intensity=no_intensity
    )
    try:
        yield source, segmenter
    finally:
        segmenter.close()


def look_through(config: SelectConfig, source: Input, segmenter: Segmenter) -> list[Seen]:
    """Every scan of the data as the choice sees it, but those of which no point gets a class; DataError where none is left."""
    classes = segmenter.bundle.labels.num_classes
    seen, silent = [], 0
    for item, answer in answers(source, segmenter, "looking"):
        if answer.class_id.any():
            seen.append(Seen(item.index, item.key, item.cloud.stamp_ns, look_at(item.cloud, answer, classes)))
        else:
            silent += 1
    if silent:
        source.problems.append(not_answered(silent, silent + len(seen)))
    if not seen:
        empty = f"{counted(len(source), 'scan contains', 'scans contain')} no points; check the topic and the driver"
        raise DataError(f"{config.data}: no scan can be selected: {next(iter(source.problems), empty)}")
    return seen


def answers(
    source: Input, segmenter: Segmenter, what: str, wanted: Mapping[int, object] | None = None
) -> Iterator[tuple[Item, Segmentation]]:
    """Each scan, or each of those wanted, with the model's answer; one that cannot be answered goes to the problems."""
    try:
        for item in Progress(source, what=what, unit="scan"):
            if not len(item.cloud) or (wanted is not None and item.index not in wanted):
                continue
            try:
                answer = segmenter.run(item.cloud)
            except CloudError as error:
                source.problems.append(f"scan {item.key}: {error}")
                continue
            yield item, answer
    except DataError as error:  # damaged from here on; what came before counts
        source.problems.append(str(error))


def not_in_log(source: Input, seen: Sequence[Seen], writer: FrameWriter) -> list[Seen]:
    """The scans that no earlier session has put into the log."""
    others = [record for key, record in writer.records.items() if key not in writer.earlier]
    present = {(record.source_key, record.stamp_ns) for record in others}
    return [frame for frame in seen if (name_in_log(source, frame.key), frame.stamp_ns) not in present]


def name_in_log(source: Input, key: str) -> str:
    """The scan's name with that of its bag: two bags of a simulator may share every stamp."""
    return f"{source.name}/{key}" if source.topic else key


def _choose(config: SelectConfig, free: Sequence[Seen], writer: FrameWriter, num_classes: int) -> dict[int, tuple[str, Choice]]:
    """Reason and choice by the scan's index, in the order of choice."""
    others = [record for key, record in writer.records.items() if key not in writer.earlier]
    if config.like_node:
        return _as_the_node_would(config.log, free)
    drawn_count = round(config.random_share * min(config.frames, len(free))) if config.strategy != "random" else 0
    drawn = choose_frames([frame.look for frame in free], drawn_count, "random", config.seed)
    taken = {choice.index for choice in drawn}
    rest = [place for place in range(len(free)) if place not in taken]
    size = descriptor_size(num_classes)
    known = [np.array(record.descriptor) for record in others if len(record.descriptor) == size]
    known += [free[choice.index].look.descriptor for choice in drawn]
    picked = choose_frames(
        [free[place].look for place in rest],
        config.frames - len(drawn),
        config.strategy,
        config.seed,
        np.stack(known).astype(np.float32) if known else None,
    )
    rows = [(REASONS[config.strategy], rest[choice.index], choice) for choice in picked]
    rows += [("random", choice.index, Choice(choice.index, free[choice.index].look.score)) for choice in drawn]
    return {free[place].index: (why, choice) for why, place, choice in rows}


def _as_the_node_would(settings: LogSettings, free: Sequence[Seen]) -> dict[int, tuple[str, Choice]]:
    """What the node's log would keep of the scans, one after another; tells how many, and why not the others."""
    admission, clock, now_s = Admission(settings), SteadyTime(repeats_count=True), 0.0
    known: list[NDArray[np.float32]] = []
    counts: Counter[str] = Counter()
    chosen = {}
    for frame in free:
        rows = np.stack(known) if known else np.zeros((0, len(frame.look.descriptor)), np.float32)
        now_s = clock.at(frame.stamp_ns)
        decision = admission.decide(frame.look, rows, now_s)
        counts[f"kept {decision.reason}" if decision.reason else f"skipped: {decision.obstacle}"] += 1
        if decision.reason:
            known.append(frame.look.descriptor)
            chosen[frame.index] = (decision.reason, Choice(frame.index, frame.look.score))
    minutes = counted(now_s / 60, "minute", spec=".1f")
    say(f"the node's log would keep {len(chosen)} of {counted(len(free), 'scan')} in {minutes}:")
    for what, count in sorted(counts.items()):
        say(f"  {count:6}  {what}")
    return chosen


def write_chosen(
    config: SelectConfig,
    source: Input,
    segmenter: Segmenter,
    writer: FrameWriter,
    picks: Mapping[int, Pick],
    name_of: Callable[[str], str],
) -> list[str]:
    """Write the scans that were picked, by their index; returns their keys in the order of choice.

    `name_of` gives the name in the log from the scan's own. A frame that the log holds under its name and stamp already, from an
    attempt that was ended, is not written again.
    """
    bundle = segmenter.bundle
    there = {(record.source_key, record.stamp_ns): key for key, record in writer.records.items()}
    keys = {}
    for item, answer in answers(source, segmenter, "writing", picks):
        name = name_of(item.key)
        if (name, item.cloud.stamp_ns) in there:
            keys[item.index] = there[name, item.cloud.stamp_ns]
            continue
        pick = picks[item.index]
        suggestions = suggest_points(item.cloud, answer, config.points, strategy=config.strategy, seed=config.seed + item.index)
        origin = Origin(bundle.name, bundle.content_hash, source.topic or source.name, name, config.intensity_scale)
        look = look_at(item.cloud, answer, bundle.labels.num_classes)
        worth = Worth(pick.worth, pick.reason, look.descriptor.tolist(), suggestions)
        keys[item.index] = writer.write(item.cloud, answer, origin, worth).key
    return [keys[index] for index in picks if index in keys]
