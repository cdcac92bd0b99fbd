# SPDX-License-Identifier: Apache-2.0
"""The user's clouds: evenly chosen from bags and folders, some of them kept for the guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weakseg_ros.data.bag_files import bags_in
from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import sha256_of_parts
from weakseg_ros.improve.adapt.config import AdaptConfig
from weakseg_ros.measure.inputs import Input, open_input, open_inputs
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.labels import NO_LABELS

FEWEST = 2
ENOUGH = 3
"""times as many clouds as the guard takes must be there, so that it takes some of its own"""


@dataclass(frozen=True)
class UserClouds:
    """What is adapted to, and what it is watched on."""

    train: tuple[Cloud, ...]
    guard: tuple[Cloud, ...]
    names: tuple[str, ...]
    """of the recordings"""
    found: int
    """clouds that were there"""
    problems: tuple[str, ...]
    """one sentence for each cloud that was left out because it cannot be read or holds no point"""
    content_hash: str


def read_clouds(config: AdaptConfig) -> UserClouds:
    """Read them; DataError where fewer than two can be used."""
    if not config.data:
        raise DataError("no clouds are given; name bags or folders of scans ('weakseg adapt my_drive --bundle models/street')")
    paths = [path for one in config.data for path in (bags_in(one) or [one])]
    sources, unopened = open_inputs(paths, lambda path: open_input(path, NO_LABELS, config.topic, config.split, reading=config))
    total = sum(map(len, sources))
    wanted = set(np.linspace(0, max(total - 1, 0), config.max_clouds).round().astype(int).tolist())
    clouds, problems = _chosen(sources, wanted)
    problems = [*unopened, *problems]
    if len(clouds) < FEWEST:
        why = f" ({problems[0]})" if problems else ""
        raise DataError(
            f"{config.data[0]}: {counted(len(clouds), 'cloud')} can be used{why}; {FEWEST} "
            "are the minimum, and about 50 are recommended"
        )
    train, guard = _for_the_guard(clouds, config.guard_clouds)
    digest = sha256_of_parts([source.content_hash for source in sources])
    return UserClouds(train, guard, tuple(source.name for source in sources), total, tuple(problems), digest)


def _chosen(sources: Sequence[Input], wanted: set[int]) -> tuple[list[Cloud], list[str]]:
    """The clouds with these numbers, counted over all sources, and what is wrong with others."""
    clouds: list[Cloud] = []
    problems: list[str] = []
    first = 0
    for source in sources:
        try:
            for item in source:
                if first + item.index not in wanted:
                    continue
                if item.cloud.valid.any():
                    clouds.append(item.cloud)
                else:
                    problems.append(f"{source.name}, scan {item.key}: holds no usable point")
        except DataError as error:
            problems.append(str(error))
        problems += source.problems
        first += len(source)
    return clouds, problems


def _for_the_guard(clouds: Sequence[Cloud], count: int) -> tuple[tuple[Cloud, ...], tuple[Cloud, ...]]:
    """(to train on, for the guard); of few clouds all are trained on, and the guard looks at some of them."""
    count = min(count, len(clouds))
    places = {(2 * i + 1) * len(clouds) // (2 * count) for i in range(count)}
    guard = tuple(clouds[i] for i in sorted(places))
    if len(clouds) < ENOUGH * count:
        return tuple(clouds), guard
    return tuple(cloud for i, cloud in enumerate(clouds) if i not in places), guard
