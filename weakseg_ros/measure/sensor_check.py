# SPDX-License-Identifier: Apache-2.0
"""Does a model fit a sensor? Some of its clouds are run through the model; what is said counts every one of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from weakseg_ros.deploy.fit import FAIR
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.errors import CloudError, DataError, counted
from weakseg_ros.measure.inputs import Input
from weakseg_ros.points.frame_names import notes_on_frames

Mark = Literal["ok", "note", "fault"]


@dataclass
class _Seen:
    """What became of the clouds."""

    answered: int = 0
    empty: int = 0
    """answered, without a point"""
    with_class: int = 0
    """points that got a class"""
    frames: set[str] = field(default_factory=set)
    """of the clouds"""
    refused: Counter[str] = field(default_factory=Counter)
    """clouds that cannot be read or that the model cannot take, by why"""
    damage: str = ""
    """why the data could not be read on"""

    @property
    def clouds(self) -> int:
        return self.answered + sum(self.refused.values())


def check_sensor(segmenter: Segmenter, source: Input, data: Path, limit: int) -> Iterator[tuple[Mark, str]]:
    """What the model would meet on this sensor, from the first `limit` clouds: (mark, sentence) each.

    A fault where a cloud cannot be read or taken, where none was seen, where no point of any gets a class, where their frame or
    unit is plainly wrong, and where the model's answers are not to be built on.
    """
    seen = _look(segmenter, source, limit)
    differences = segmenter.domain_report()
    wrong = segmenter.wrong_geometry()
    faults = [*_faults(seen, data, segmenter.bundle.name), *wrong]
    yield from (("fault", text) for text in faults)
    notes = [*notes_on_frames(seen.frames), *(text for text in differences if text not in wrong)]
    yield from (("note", text) for text in notes)
    fit = segmenter.fit()
    if fit is None and seen.answered:
        yield (
            "note",
            f"the {counted(seen.answered, 'cloud')} of {data} {'holds' if seen.answered == 1 else 'hold'} "
            "too little to tell whether the model's answers can be trusted",
        )
    elif fit is not None and (fit.low or fit.value < FAIR):
        yield "fault" if fit.low else "note", f"{segmenter.bundle.name} on {data}: {fit}"
    elif not faults and not notes:
        yield (
            "ok",
            f"{counted(seen.answered, 'cloud')} of {data} {'looks' if seen.answered == 1 else 'look'} "
            f"like what {segmenter.bundle.name} was trained on ({fit})",
        )


def _look(segmenter: Segmenter, source: Input, limit: int) -> _Seen:
    seen = _Seen()
    try:
        for item in islice(source, limit):
            try:
                answer = segmenter.run(item.cloud)
            except CloudError as error:
                seen.refused[str(error)] += 1
                continue
            seen.answered += 1
            seen.frames.add(item.cloud.frame_id)
            seen.empty += not len(item.cloud)
            seen.with_class += int((answer.class_id > 0).sum())
    except DataError as error:
        seen.damage = str(error)
    seen.refused.update(re.sub(r"^(message|scan) \S+: ", "", problem) for problem in source.problems)
    return seen


def _faults(seen: _Seen, data: Path, model: str) -> Iterator[str]:
    if seen.damage:
        yield seen.damage
    for text, count in seen.refused.items():
        yield f"{count} of {counted(seen.clouds, 'cloud')} cannot be read: {text}"
    if not seen.clouds and not seen.damage:
        yield f"no cloud was seen: {data} holds none; check the topic, or record again"
    elif seen.answered and seen.empty == seen.answered:
        yield f"{counted(seen.answered, 'cloud holds', 'clouds hold')} no point at all; check the driver"
    elif seen.answered and not seen.with_class:
        yield f"no point of {counted(seen.answered, 'cloud')} gets a class from {model}; see what is said below"
