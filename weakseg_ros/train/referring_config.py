# SPDX-License-Identifier: Apache-2.0
"""The settings of `weakseg train-referring`; read without torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.referring.settings import ROWS, SemiSupervisedSettings
from weakseg_ros.registry import DEFAULT_BUNDLE

Row = Literal["supervised", "threshold", "tscs", "qdw", "both"]


@dataclass(frozen=True)
class ReferringTraining:
    """Sets how a referring head is trained."""

    method: Row = "both"
    """Selects what is learnt from expressions without a mask: 'supervised' nothing, 'threshold' the teacher's sure masks, 'tscs'
    those on which teacher and student agree, 'qdw' all of them by their agreement, and 'both' the published TSCS and QDW."""
    ratio: float = setting(1.0, 0.0, 1.0)
    """Sets the share of the expressions whose masks are used (0 to 1)."""
    seed: int = setting(0, 0)
    """Sets the random seed of the draw of labels, the weights and the batches (0 or more)."""
    burn_in: int = setting(300, 1)
    """Sets the number of steps on masks alone (1 or more), after which the teacher begins."""
    steps: int = setting(600, 1)
    """Sets the number of steps in all (1 or more)."""
    batch: int = setting(32, 1, 4096)
    """Sets the number of expressions with a mask in a batch, and as many without (1 to 4096)."""
    scans_per_batch: int = setting(8, 1, 4096)
    """Sets the number of scans that the expressions without a mask of one batch come from (1 to 4096)."""
    learning_rate: float = setting(2e-3, 0.0, 1.0)
    """Sets the learning rate at the end of the warm-up (0 to 1); it falls to a tenth along a cosine."""
    weight_decay: float = setting(0.02, 0.0, 10.0)
    """Sets the weight decay of AdamW (0 to 10)."""
    dropout: float = setting(0.1, 0.0, 0.9)
    """Sets the share of the values that are dropped while training (0 to 0.9)."""
    width: int = setting(48, 8, 1024)
    """Sets the length of the vectors of words and superpoints (8 to 1024)."""
    layers: int = setting(2, 1, 12)
    """Sets the number of decoder layers (1 to 12)."""
    memory: float = setting(0.03, 0.0, 1.0)
    """Sets the share of the training over which the teacher averages its student (0 to 1)."""
    semi: SemiSupervisedSettings = field(default_factory=SemiSupervisedSettings)
    """Sets how expressions without a mask teach; `method` decides on its switches."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def switched(self) -> SemiSupervisedSettings:
        """`semi` with the method's switches, and a teacher whose pace suits the number of steps."""
        row = ROWS[self.method] or self.semi
        keep = math.exp(-1 / (self.memory * self.steps)) if self.memory else 0.0
        teacher = dataclasses.replace(self.semi.teacher, keep=keep)
        return dataclasses.replace(self.semi, sampling=row.sampling, weighting=row.weighting, teacher=teacher)


@dataclass(frozen=True)
class TrainReferringConfig:
    """Train a referring head behind a bundle's network, which stays as it is, and write the bundle with it."""

    data: Positional[Path] = Path(".")
    """Names the folder of scans with expressions to train on, as 'weakseg simulate --expressions 20' writes it."""
    out_bundle: Path = Path("models/refer")
    """Names the bundle folder to write; it must be new, or `overwrite` be given."""
    bundle: str = DEFAULT_BUNDLE
    """Names the bundle, by path or name, behind whose network the head stands."""
    test: Path | None = None
    """Names a folder of scans with expressions to measure the head on; without it nothing is measured."""
    cache: Path = Path("runs/refer/cache")
    """Names the folder that keeps the scans as the network sees them, so that each is encoded once."""
    overwrite: bool = False
    """Replaces the bundle at `out_bundle`."""
    training: ReferringTraining = field(default_factory=ReferringTraining)
    """Sets how the head is trained."""

    def __post_init__(self) -> None:
        if self.data == Path("."):
            raise ConfigError(
                "train-referring: name a folder of scans with expressions; 'weakseg simulate --expressions 20' makes one"
            )
