# SPDX-License-Identifier: Apache-2.0
"""`weakseg select`: the frames and points of a bag or data set that are most worth a person's time, as a frame log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from weakseg_ros.config import parse, setting, to_mapping
from weakseg_ros.data.many_bags import Row, are_whole, bags_of, each_bag
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.fit import Fit
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import CloudError, DataError, complain, say
from weakseg_ros.files import check_can_write, environment
from weakseg_ros.improve.log.acquisition import Look, descriptor_size, look_at
from weakseg_ros.improve.log.admission import Admission, LogSettings
from weakseg_ros.improve.log.choice import Choice, Strategy, choose_frames, suggest_points
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth, check_is_log
from weakseg_ros.measure.inputs import Input, Item, open_input
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.registry import DEFAULT_BUNDLE

EXIT_PARTIAL = 1
MOST_PROBLEMS = 5
"""sentences on scans that were left out; more are only counted"""


@dataclass(frozen=True)
class SelectConfig(InputSettings):
    """Choose frames and points to label out of a bag or a data set, and write them as a frame log."""

    data: Annotated[Path, tyro.conf.Positional] = Path()
    """A bag (folder, .mcap, .db3, .bag), a folder of bags or a quoted glob such as 'drives/*', or a folder of scans."""
    more: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Further bags, of which each gives an equal share of the frames."""
    bundle: str = DEFAULT_BUNDLE
    """The model to improve: the path of its folder, or the name of an installed one."""
    out: Path = Path("runs/select")
    """Folder of the frame log; frames are added to a log that is there already."""
    frames: int = setting(50, 1, 1_000_000)
    """Maximum number of frames to select (1 to 1000000)."""
    points: int = setting(30, 0, 1000)
    """Maximum number of points suggested for labelling in each frame (0 to 1000)."""
    strategy: Strategy = "ours"
    """Acquisition strategy: 'ours' prefers uncertain frames and points that represent many others and differ from each
    other, 'spread' does the same without the model's uncertainty, for the first clicks after a large change, 'entropy' prefers
    those with the highest uncertainty, and 'random' draws them."""
    random_share: float = setting(0.05, 0.0, 1.0)
    """Fraction of the frames (0 to 1) drawn at random whatever the strategy, so that a model can be evaluated on them."""
    topic: str = ""
    """Topic of the clouds in a bag; it can be left empty where there is only one."""
    split: str = ""
    """Split of the data set, for example train; empty takes all of it."""
    engine: str = "auto"
    """Inference engine: 'auto', or a name such as onnxruntime."""
    lift: Literal["pixel", "knn"] = "pixel"
    """How points behind the nearest one of their pixel get their class: 'pixel' takes the pixel's, 'knn' lets neighbours vote."""
    like_node: bool = False
    """Choose as the node's frame log would while driving, by the settings under log and the times of the scans; frames,
    strategy and random_share do not count then. Try the log's settings on a bag with it."""
    log: LogSettings = field(default_factory=LogSettings)
    """Settings of the node's frame log that like_node uses: per_minute, spacing_s, min_score, min_distance, random_share."""
    seed: int = 0
    """Random seed of the selection (0 or more)."""


@dataclass(frozen=True)
class _Seen:
    """A frame after the first pass."""

    index: int
    key: str
    stamp_ns: int
    look: Look


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where some scans were left out because they cannot be read."""
    config = parse(SelectConfig, argv, "select")
    if config.data == Path():
        raise DataError(f"which data? give a bag or a folder of scans ('weakseg select drive --bundle {DEFAULT_BUNDLE}')")
    bags = bags_of(config.data, config.more)
    if bags:
        rows = select_many(config, bags)
        new, is_whole = sum(row["frames"] for row in rows if "frames" in row), are_whole(rows)
    else:
        selection = select(config)
        _say(config, selection)
        new, is_whole = len(selection.keys), not selection.problems
    say(f"{config.out}: {new} frames with at most {config.points} suggested points each")
    say(f"next: weakseg label {config.out}")
    return 0 if is_whole else EXIT_PARTIAL


def select_many(config: SelectConfig, bags: Sequence[Path]) -> list[Row]:
    """Choose an equal share of the frames from each bag, and write them into one log with a row for each bag.

    What one bag has too few frames for goes to those after it. A bag that was looked through whole is not looked through again.
    """
    bundle = Bundle.load(config.bundle)
    check_is_log(config.out, bundle.labels)
    alone = replace(config, out=Path(), data=Path(), more=())
    asked = {"bundle": bundle.content_hash, "settings": str(alone), "bags": [str(bag) for bag in bags]}
    done: list[int] = []

    def work(bag: Path, name: str) -> Row:
        share = (config.frames - sum(done)) // (len(bags) - bags.index(bag))
        selection = select(replace(config, data=bag, more=(), frames=share)) if share else Selection()
        _say(config, selection)
        return {"complete": not selection.problems, "frames": len(selection.keys), "known": selection.known}

    def line(row: Row) -> str:
        done.append(row["frames"])
        return f"{row['frames']} frames"

    return each_bag(bags, config.out, asked, work, line)


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


def _say(config: SelectConfig, selection: Selection) -> None:
    """Print why there are fewer frames than asked for."""
    for problem in selection.problems[:MOST_PROBLEMS]:
        complain(f"weakseg select: left out: {problem}")
    if len(selection.problems) > MOST_PROBLEMS:
        complain(f"weakseg select: left out: {len(selection.problems) - MOST_PROBLEMS} more scans")
    if selection.known and not selection.keys:
        say(f"all {selection.known} scans that can be read are in {config.out} already; label them, or name another --out")
    elif selection.known:
        say(f"{selection.known} scans are in {config.out} already, from an earlier call; the new frames are other scans")
    if selection.fit is not None and selection.fit.low and config.strategy != "random":
        complain(
            f"weakseg select: the predictions that these frames were chosen by are bad, {selection.fit}; mend that first, or "
            "choose with --strategy random"
        )


def select(config: SelectConfig) -> Selection:
    """Choose out of one bag or data set, and write.

    The model runs twice over what is chosen and once over the rest, so that no more than one scan is in memory. Scans
    that the log holds already are not chosen again. Raises DataError where no scan can be read or the log cannot be
    written.
    """
    check_can_write(config.out, "--out")
    bundle = Bundle.load(config.bundle)
    check_is_log(config.out, bundle.labels)
    source = open_input(config.data, bundle.labels, config.topic, config.split, reading=config)
    segmenter = Segmenter(
        bundle, config.engine, 0, config.lift, config.intensity_scale, allow_no_intensity=not config.intensity_field
    )
    try:
        seen = [
            _Seen(item.index, item.key, item.cloud.stamp_ns, look_at(item.cloud, answer, bundle.labels.num_classes))
            for item, answer in _answers(source, segmenter, "looking")
        ]
        if not seen:
            raise DataError(f"{config.data}: no scan could be read; {next(iter(source.problems), 'it is empty')}")
        facts = {
            "config": to_mapping(config),
            "data_hash": source.content_hash,
            "bundle_hash": bundle.content_hash,
            "environment": environment(),
        }
        with FrameWriter(
            config.out, bundle.labels, bundle.info.spec, source=str(config.data), facts=facts, resume=True
        ) as writer:
            free = _not_in_log(source, seen, writer)
            choices = _choose(config, free, writer, bundle.labels.num_classes)
            keys = _write(config, source, segmenter, writer, choices)
            writer.finish()
            return Selection(keys, len(seen) - len(free), list(dict.fromkeys(source.problems)), segmenter.fit())
    except OSError as error:
        raise DataError(f"{config.out}: cannot be written ({error.strerror}); make room, or choose another folder") from None
    finally:
        segmenter.close()


def _answers(
    source: Input, segmenter: Segmenter, what: str, wanted: Mapping[int, object] | None = None
) -> Iterator[tuple[Item, Segmentation]]:
    """Each scan, or each of those wanted, with the model's answer; one that cannot be answered goes to the problems."""
    try:
        for item in tqdm(source, desc=what, total=len(source), unit="scan", disable=None):
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


def _not_in_log(source: Input, seen: Sequence[_Seen], writer: FrameWriter) -> list[_Seen]:
    """The scans that no earlier session has put into the log."""
    others = [record for key, record in writer.records.items() if key not in writer.earlier]
    present = {(record.source_key, record.stamp_ns) for record in others}
    return [frame for frame in seen if (_name_in_log(source, frame.key), frame.stamp_ns) not in present]


def _name_in_log(source: Input, key: str) -> str:
    """The scan's name with that of its bag: two bags of a simulator may share every stamp."""
    return f"{source.name}/{key}" if source.topic else key


def _choose(
    config: SelectConfig, free: Sequence[_Seen], writer: FrameWriter, num_classes: int
) -> dict[int, tuple[str, Choice, Look]]:
    """Reason, choice and look by the scan's index, in the order of choice."""
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
    reason = {"ours": "chosen", "spread": "chosen", "entropy": "uncertain", "random": "random"}[config.strategy]
    rows = [(reason, rest[choice.index], choice) for choice in picked]
    rows += [("random", choice.index, Choice(choice.index, free[choice.index].look.score)) for choice in drawn]
    return {free[place].index: (why, choice, free[place].look) for why, place, choice in rows}


def _as_the_node_would(settings: LogSettings, free: Sequence[_Seen]) -> dict[int, tuple[str, Choice, Look]]:
    """What the node's log would keep of the scans, one after another; tells how many, and why not the others."""
    admission = Admission(settings)
    known: list[NDArray[np.float32]] = []
    counts: Counter[str] = Counter()
    chosen = {}
    for frame in free:
        rows = np.stack(known) if known else np.zeros((0, len(frame.look.descriptor)), np.float32)
        decision = admission.decide(frame.look, rows, frame.stamp_ns / 1e9)
        counts[f"kept {decision.reason}" if decision.reason else f"passed over: {decision.obstacle}"] += 1
        if decision.reason:
            known.append(frame.look.descriptor)
            chosen[frame.index] = (decision.reason, Choice(frame.index, frame.look.score), frame.look)
    minutes = (free[-1].stamp_ns - free[0].stamp_ns) / 60e9 if free else 0.0
    say(f"the node's log would keep {len(chosen)} of {len(free)} scans in {minutes:.1f} minutes:")
    for what, count in sorted(counts.items()):
        say(f"  {count:6}  {what}")
    return chosen


def _write(
    config: SelectConfig,
    source: Input,
    segmenter: Segmenter,
    writer: FrameWriter,
    choices: Mapping[int, tuple[str, Choice, Look]],
) -> list[str]:
    bundle = segmenter.bundle
    earlier = {(record.source_key, record.stamp_ns): key for key, record in writer.earlier.items()}
    keys = {}
    for item, answer in _answers(source, segmenter, "writing", choices):
        name = _name_in_log(source, item.key)
        if (name, item.cloud.stamp_ns) in earlier:
            keys[item.index] = earlier[name, item.cloud.stamp_ns]
            continue
        reason, choice, look = choices[item.index]
        suggestions = suggest_points(item.cloud, answer, config.points, strategy=config.strategy, seed=config.seed + item.index)
        origin = Origin(bundle.name, bundle.content_hash, source.topic or source.name, name, config.intensity_scale)
        worth = Worth(choice.worth, reason, look.descriptor.tolist(), suggestions)
        keys[item.index] = writer.write(item.cloud, answer, origin, worth).key
    return [keys[index] for index in choices if index in keys]
