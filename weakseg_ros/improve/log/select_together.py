# SPDX-License-Identifier: Apache-2.0
"""One choice over many bags and robots: each bag puts its best forward, the best of those are chosen, each bag writes its own.

Greedy choices in two rounds, first in each part and then among what the parts chose, are within a constant factor of the
choice over everything at once (Mirzasoleiman et al. 2013, GreeDi), and only the candidates of the parts meet in one process.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.config import to_mapping
from weakseg_ros.data.arrays import open_archive
from weakseg_ros.data.frame_log import FrameScans, read_records
from weakseg_ros.data.many_bags import Row
from weakseg_ros.data.ray_settings import anywhere
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError
from weakseg_ros.files import make_folder, write_atomic, write_json
from weakseg_ros.improve.log.acquisition import Look, descriptor_size
from weakseg_ros.improve.log.choice import Choice, choose_frames
from weakseg_ros.improve.log.choice_over_robots import choose_over_robots
from weakseg_ros.improve.log.select import REASONS, Pick, Seen, SelectConfig, look_through, open_parts, write_chosen
from weakseg_ros.improve.log.store import BESIDE_FRAMES, FrameWriter, frames_of_finished
from weakseg_ros.reads import read_json

LOOKS, CHOICE = BESIDE_FRAMES[0], "choice.json"
MOST_CANDIDATES = 50
"""frames that one bag puts forward: ten thousand bags are half a million looks, 200 MB"""
MOST_DRAWN = 10
"""frames that one bag puts forward at random"""


Choices = dict[str, list[Pick]]
"""the picks of each bag, by its name"""


def open_log(out: Path, bundle: Bundle) -> None:
    """Begin the log, so that the workers find one."""
    FrameWriter(
        out, bundle.labels, bundle.info.input.geometry, source="several bags", facts={"config": "several bags"}, resume=True
    ).close()
    make_folder(out / LOOKS)


def looks_path(out: Path, name: str) -> Path:
    """Where the candidates of a bag lie."""
    return out / LOOKS / f"{name.replace('/', '_')}.npz"


def look_at_bag(config: SelectConfig, name: str, place: str) -> Row:
    """Look through one bag, and keep its best frames and some at random as candidates; the log calls the bag `place`."""
    with open_parts(config) as (source, segmenter):
        seen = look_through(config, source, segmenter)
        problems = list(dict.fromkeys(source.problems))
        fit = segmenter.fit()
        free = _not_taken(config, place, seen)
    best = choose_frames([frame.look for frame in free], min(config.frames, MOST_CANDIDATES), config.strategy, config.seed)
    some = choose_frames([frame.look for frame in free], MOST_DRAWN, "random", config.seed) if config.random_share else []
    _save(looks_path(config.out, name), free, best, some)
    row: Row = {"complete": not problems, "scans": len(seen), "known": len(seen) - len(free)}
    row |= {"partial_reason": problems[0]} if problems else {}
    return row | ({"fit": fit.to_mapping()} if fit else {})


def _not_taken(config: SelectConfig, place: str, seen: Sequence[Seen]) -> list[Seen]:
    """The scans that are neither in the log nor, where the data are a log themselves, clicked already."""
    taken = {(record.source_key, record.stamp_ns) for record in read_records(config.out, []).values()}
    is_log = FrameScans.recognises(config.data)
    clicked = {path.stem for path in config.data.glob("sparse/*/*.label")} if is_log else set()
    return [frame for frame in seen if frame.key not in clicked and (f"{place}/{frame.key}", frame.stamp_ns) not in taken]


def _save(path: Path, free: Sequence[Seen], best: Sequence[Choice], some: Sequence[Choice]) -> None:
    places = [choice.index for choice in (*best, *some)]
    chosen = [free[place] for place in places]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        index=np.array([frame.index for frame in chosen], np.int64),
        score=np.array([frame.look.score for frame in chosen]),
        entropy=np.array([frame.look.entropy for frame in chosen]),
        descriptor=np.stack([frame.look.descriptor for frame in chosen]) if chosen else np.zeros((0, 0), np.float32),
        drawn=np.array([False] * len(best) + [True] * len(some), np.bool_),
        scans=np.array(len(free)),
    )
    make_folder(path.parent)
    write_atomic(path, buffer.getvalue())


def kept_choices(out: Path, asked: Mapping[str, Any]) -> Choices:
    """What an earlier call chose that was asked the same and may have been ended before all was written."""
    try:
        content = read_json(out / LOOKS / CHOICE)
        if content["asked"] != asked:
            return {}
        return {name: [Pick(*pick) for pick in picks] for name, picks in content["picks"].items()}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def choose_together(
    config: SelectConfig, rows: Sequence[Row], kept: Choices, asked: Mapping[str, Any], bundle: Bundle
) -> Choices:
    """The frames of all bags that are worth most under one budget; what an earlier call `kept` counts towards it."""
    candidates = _Candidates(config.out, [row for row in rows if "problem" not in row], kept, bundle)
    budget = config.frames - sum(map(len, kept.values()))
    choices: Choices = {name: list(picks) for name, picks in kept.items()}
    if budget > 0 and len(candidates.looks):
        drawn = round(config.random_share * budget) if config.strategy != "random" else 0
        at_random = candidates.draw(drawn, config.seed)
        for place in at_random:
            candidates.add(choices, place, "random", candidates.looks[place].score)
        rest = candidates.not_in(choices)
        picked = choose_over_robots(
            [candidates.looks[place] for place in rest],
            [candidates.robots[place] for place in rest],
            budget - len(at_random),
            config.strategy,
            config.seed,
            candidates.known(config.out, at_random),
        )
        for choice in picked:
            candidates.add(choices, rest[choice.index], REASONS[config.strategy], choice.worth)
    plain = {name: [list(vars(pick).values()) for pick in picks] for name, picks in choices.items()}
    write_json(config.out / LOOKS / CHOICE, {"asked": dict(asked), "picks": plain})
    return choices


class _Candidates:
    """What the bags put forward, side by side."""

    def __init__(self, out: Path, rows: Sequence[Row], kept: Choices, bundle: Bundle) -> None:
        self.looks: list[Look] = []
        self.robots: list[str] = []
        self._of: list[tuple[str, int, bool]] = []
        self._weight: list[float] = []
        self._size = descriptor_size(bundle.labels.num_classes)
        for row in rows:
            self._read(looks_path(out, row["name"]), row, {pick.index for pick in kept.get(row["name"], ())})

    def _read(self, path: Path, row: Row, taken: set[int]) -> None:
        try:
            with open_archive(path) as stored:
                parts = {name: stored[name] for name in ("index", "score", "entropy", "descriptor", "drawn", "scans")}
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); remove it, and run the same command again") from None
        for index, score, entropy, descriptor, drawn in zip(
            *(parts[name] for name in ("index", "score", "entropy", "descriptor", "drawn")), strict=True
        ):
            if int(index) not in taken:
                self.looks.append(Look(float(score), float(entropy), descriptor))
                self.robots.append(row["robot"])
                self._of.append((row["name"], int(index), bool(drawn)))
                self._weight.append(float(parts["scans"]) / max(1, int(parts["drawn"].sum())) if drawn else 0.0)

    def draw(self, count: int, seed: int) -> list[int]:
        """Places of at most `count` frames at random, each scan of the fleet as likely as any other."""
        weight = np.array(self._weight)
        count = min(count, int(np.count_nonzero(weight)))
        if not count:
            return []
        places: list[int] = (
            np.random.default_rng(seed).choice(len(weight), count, replace=False, p=weight / weight.sum()).tolist()
        )
        return places

    def add(self, choices: Choices, place: int, reason: str, worth: float) -> None:
        """Enter a choice under its bag."""
        name, index, _ = self._of[place]
        choices.setdefault(name, []).append(Pick(index, reason, round(float(worth), 6)))

    def not_in(self, choices: Choices) -> list[int]:
        """Places of the candidates that were put forward as the best and are not chosen yet."""
        taken = {(name, pick.index) for name, picks in choices.items() for pick in picks}
        return [place for place, (name, index, drawn) in enumerate(self._of) if not drawn and (name, index) not in taken]

    def known(self, out: Path, places: Sequence[int]) -> NDArray[np.float32] | None:
        """(n, D) what the log and the choice hold already."""
        records = read_records(out, []).values()
        rows = [np.array(record.descriptor, np.float32) for record in records if len(record.descriptor) == self._size]
        rows += [self.looks[place].descriptor for place in places]
        return np.stack(rows).astype(np.float32) if rows else None


def write_bag(config: SelectConfig, place: str, picks: Sequence[Pick]) -> Row:
    """Write the chosen frames of one bag, `place`, into the log; a bag that an earlier attempt has finished is not read again."""
    wanted = {pick.index: pick for pick in picks}
    bundle, source_name = Bundle.load(config.bundle), str(config.data)
    facts = {
        "config": to_mapping(anywhere(config, more=())),
        "bundle_hash": bundle.content_hash,
        "environment": environment(),
        "bag": place,
        "picks": sorted(wanted),
    }
    finished = frames_of_finished(config.out, {"source": source_name, **facts})
    if finished is not None and finished <= _frames_of(config.out, place):
        return {"complete": True, "frames": finished}
    with open_parts(config) as (source, segmenter):
        geometry = bundle.info.input.geometry
        with FrameWriter(config.out, bundle.labels, geometry, source=source_name, facts=facts, resume=True) as writer:
            keys = write_chosen(config, source, segmenter, writer, wanted, lambda key: f"{place}/{key}")
            writer.finish(len(keys))
    return {"complete": True, "frames": len(keys)}


def _frames_of(log: Path, place: str) -> int:
    """The number of frames of one bag that the log holds."""
    return sum(record.source_key.startswith(f"{place}/") for record in read_records(log, []).values())
