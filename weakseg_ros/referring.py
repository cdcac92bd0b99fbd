# SPDX-License-Identifier: Apache-2.0
"""`weakseg refer SCAN "..."`: which points of a scan an English expression means, as a sentence and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from weakseg_ros.config import parse, setting
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.referring import Question, Referred, Referrer
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.deploy.vocabulary import LONGEST
from weakseg_ros.errors import CloudError, DataError, counted, say
from weakseg_ros.files import check_can_write, sweep, write_atomic
from weakseg_ros.measure.inputs import Input, Item, open_input
from weakseg_ros.measure.pictures import MEANT, WITHOUT, png, top_view
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.labels import NO_LABELS, LabelMap
from weakseg_ros.registry import REFERRING_BUNDLE

DOUBTFUL = 0.25
"""score below which an answer is not called right: ScanRefer's lowest threshold of IoU"""
FAINTEST = 110
"""opacity of the points that are not meant"""


@dataclass(frozen=True)
class ReferConfig(InputSettings):
    """Find the object of a scan that an English expression means, and write a picture of the answer."""

    data: Annotated[Path, tyro.conf.Positional] = Path()
    """Names a bag or a folder of scans."""
    expression: Annotated[str, tyro.conf.Positional] = ""
    """Sets the English expression to look for, for example "the second car on the left"."""
    scan: int = setting(0, 0)
    """Sets the number of the scan to search, counted from 0 (0 or more)."""
    bundle: str = REFERRING_BUNDLE
    """Names the model: the path of its folder, or the name of an installed one; it needs a referring head."""
    out: Path = Path("runs/refer/answer.png")
    """Names the file for the picture, a view from above with the front of the vehicle up and the answer in red."""
    topic: str = ""
    """Names the topic of the clouds in a bag; it may be empty if there is only one."""
    engine: str = "auto"
    """Selects the inference engine by name, for example onnxruntime; 'auto' uses the fastest on this machine."""


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where nothing in the scan matches."""
    config = parse(ReferConfig, argv, "refer")
    if config.data == Path() or not config.expression.strip():
        raise DataError('refer: name a scan and an expression (weakseg refer scans "the truck on the right")')
    check_can_write(config.out.parent, "--out")
    bundle = Bundle.load(config.bundle)
    referrer = Referrer(bundle)
    source = open_input(config.data, NO_LABELS, config.topic, reading=config)
    if config.scan >= len(source):
        raise DataError(
            f"{config.data}: has {counted(len(source), 'scan')}, so there is no scan "
            f"{config.scan}; choose one from 0 to {len(source) - 1}"
        )
    item, question = _scan_of(source, config), referrer.ask(config.expression)
    referred = ask(referrer, question, item.cloud, config)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    sweep(config.out)
    write_atomic(config.out, picture(item.cloud, referred.mask))
    say(*sentences(item, question, referred, bundle.labels), f"picture: {config.out}")
    return 0 if referred.matches else 1


def _scan_of(source: Input, config: ReferConfig) -> Item:
    """The scan that is asked for; DataError where it cannot be read, or shows nothing."""
    try:
        item = source.item(config.scan)
    except CloudError as error:
        raise DataError(f"{config.data}: scan {config.scan}: {error}") from None
    except IndexError:
        raise DataError(f"{config.data}: ends before scan {config.scan}; record or copy it again") from None
    if not item.cloud.valid.any():
        raise DataError(f"{config.data}: scan {config.scan} contains no usable point; choose another one, or check the driver")
    return item


def ask(referrer: Referrer, question: Question, cloud: Cloud, config: ReferConfig) -> Referred:
    """Segment one cloud and answer a question about it."""
    segmenter = Segmenter(
        referrer.bundle,
        config.engine,
        intensity_scale=config.intensity_scale,
        allow_no_intensity=not config.intensity_field,
        watch="never",
    )
    try:
        segmenter.settings.refer = True
        return referrer.answer(question, cloud, segmenter.run(cloud))
    finally:
        segmenter.close()


def sentences(item: Item, question: Question, referred: Referred, labels: LabelMap) -> list[str]:
    """The answer for people: what, where, how sure; and which words were not understood."""
    told = question.sentence
    lines = []
    if referred.matches and referred.score < DOUBTFUL:
        lines += [f"a guess: the model expects its own answer to be wrong (score {referred.score:.2f}, below {DOUBTFUL})"]
    lines += [f"not known to the model, and left out: {', '.join(told.unknown)}"] if told.unknown else []
    lines += [f"read '{typed}' as '{read}'" for typed, read in told.mended]
    if told.left_out:
        left_out = counted(told.left_out, "word was", "words were")
        lines.append(f"only the first {counted(LONGEST, 'word')} were read, {left_out} left out; say it shorter")
    if not referred.matches or not referred.mask.any():
        if not told.is_understood:
            return [*lines, f"scan {item.key}: nothing matches, because the model knows none of the words; use others"]
        return [*lines, f"scan {item.key}: nothing matches (something would match with a probability of {referred.present:.0%})"]
    shares = referred.superpoints.classes[referred.chosen[0]]
    x, y, _ = item.cloud.xyz[referred.mask].mean(axis=0).tolist()
    side = "to the left" if y > 0 else "to the right"
    ahead = "ahead" if x > 0 else "behind"
    where = f"{abs(x):.1f} m {ahead}, {abs(y):.1f} m {side}"
    name = labels.names[int(shares.argmax())]
    return [
        *lines,
        f"scan {item.key}: {name}, {counted(int(np.count_nonzero(referred.mask)), 'point')}, {where}, score {referred.score:.2f}",
    ]


def picture(cloud: Cloud, mask: NDArray[np.bool_]) -> bytes:
    """A PNG of the cloud from above: faint grey, and over it the answer in red."""
    look = np.empty((len(cloud), 4), np.uint8)
    look[:] = (*WITHOUT, FAINTEST)
    seen = top_view(cloud.xyz, look)
    look[:] = (*MEANT, 255)
    answer = top_view(cloud.xyz[mask], look[mask])
    seen[answer[..., 3] > 0] = answer[answer[..., 3] > 0]
    return png(seen)
