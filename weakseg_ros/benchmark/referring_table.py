# SPDX-License-Identifier: Apache-2.0
"""What a table of referring segmentation compares: methods, shares of masks and seeds on ScanRefer; read without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from weakseg_ros.config import check_ranges, setting, to_mapping
from weakseg_ros.errors import ConfigError
from weakseg_ros.train.referring_config import ReferringTraining, Row

TASK = "referring"


@dataclass(frozen=True)
class PublishedGain:
    """States what a paper gained over training on the masks alone."""

    method: Row
    """Selects the method by the name that the table uses."""
    ratio: float = setting(1.0, 0.0, 1.0)
    """States the share of masks of the figure (0 to 1)."""
    gain: float = setting(0.0, -100.0, 100.0)
    """States the difference in mIoU in points (-100 to 100)."""
    source: str = ""
    """Names the paper that the figure is from."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ReferringTable:
    """Train a referring head by every method on every share of masks with every seed, and compare them on ScanRefer."""

    data: Positional[Path] = Path(".")
    """Names the folder of ScanNet v2."""
    task: Literal["referring"] = "referring"
    """States that the file is a table of referring segmentation."""
    descriptions: Path = Path()
    """Names the folder with ScanRefer_filtered_train.json and ScanRefer_filtered_val.json; the default looks in the data's
    folder, and in ScanRefer/ inside it or next to it."""
    out: Path = Path("runs/bench_referring")
    """Names the folder of the table, with rows.jsonl and benchmark.md; rows that are finished there are not trained again."""

    bundle: str = ""
    """Names a bundle of a net on points, by path or name, whose classes describe the superpoints; an empty string trains one
    first."""
    base: Path = Path()
    """Names the training file of that net, for example config/train/scannet.yaml."""
    override: tuple[str, ...] = ()
    """Changes settings of that training by dotted name, for example steps=200."""

    methods: tuple[Row, ...] = ("supervised", "both")
    """Lists the methods to compare: supervised, threshold, tscs, qdw, or both, which is 3DResT."""
    ratios: tuple[float, ...] = (1.0, 0.01)
    """Lists the shares of the descriptions whose masks are used, above 0 and up to 1."""
    seeds: tuple[int, ...] = (1,)
    """Lists the seeds of the draw of masks, the weights and the batches."""
    training: ReferringTraining = field(default_factory=ReferringTraining)
    """Sets how heads are trained; method, ratio and seed are those of the row."""
    published: Annotated[tuple[PublishedGain, ...], tyro.conf.Suppress] = ()
    """Lists the gains of papers, to show next to the rows."""
    report_only: bool = False
    """Trains nothing and writes the report of the rows that are finished."""

    def __post_init__(self) -> None:
        for name in ("methods", "ratios", "seeds"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: is empty; give at least one")
        for ratio in self.ratios:
            if not 0.0 < ratio <= 1.0:
                raise ConfigError(f"ratios: {ratio} is outside 0..1; 1 means all masks, 0.01 one in a hundred")


@dataclass(frozen=True)
class ReferringRow:
    """One training of the table."""

    training: ReferringTraining

    @property
    def key(self) -> str:
        """The row's name in rows.jsonl."""
        asked = self.training
        return f"{asked.method}-r{asked.ratio:g}-s{asked.seed}"

    @property
    def settings_hash(self) -> str:
        """Another one where something else is asked for."""
        return hashlib.sha256(json.dumps(to_mapping(self.training), sort_keys=True, default=str).encode()).hexdigest()[:16]


def rows_of(config: ReferringTable) -> Iterator[ReferringRow]:
    """All rows, seed by seed; with all masks there is nothing for a method to learn beside them, so that is trained once."""
    for seed in config.seeds:
        for ratio in config.ratios:
            for method in config.methods if ratio < 1.0 else ("supervised",):
                yield ReferringRow(dataclasses.replace(config.training, method=method, ratio=ratio, seed=seed))
