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
    """Selects how expressions without a mask are used: 'supervised' ignores them, 'threshold' trains on the masks of which the
    teacher is confident, 'tscs' on those on which teacher and student agree, 'qdw' on all of them weighted by their agreement,
    and 'both' combines TSCS and QDW as published."""
    ratio: float = setting(1.0, 0.0, 1.0)
    """Sets the share of the expressions whose masks are used as labels (0 to 1)."""
    seed: int = setting(0, 0)
    """Seeds the label draw, the weights and the batches (0 or more)."""
    burn_in: int = setting(300, 1)
    """Sets the number of steps on labelled masks alone before the teacher starts (1 or more)."""
    steps: int = setting(600, 1)
    """Sets the total number of steps (1 or more)."""
    batch: int = setting(128, 1, 4096)
    """Sets the number of expressions with a mask in a batch; the same number without a mask is added (1 to 4096)."""
    scans_per_batch: int = setting(16, 1, 4096)
    """Sets the number of scans from which the expressions of one batch are drawn, if each has enough of them (1 to 4096)."""
    learning_rate: float = setting(2e-3, 0.0, 1.0)
    """Sets the peak learning rate, reached at the end of the warm-up (0 to 1); it then falls to a tenth along a cosine."""
    weight_decay: float = setting(0.02, 0.0, 10.0)
    """Sets the weight decay of the AdamW optimiser (0 to 10)."""
    dropout: float = setting(0.1, 0.0, 0.9)
    """Sets the dropout probability during training (0 to 0.9)."""
    width: int = setting(64, 8, 1024)
    """Sets the embedding dimension of words and superpoints (8 to 1024)."""
    layers: int = setting(2, 1, 12)
    """Sets the number of decoder layers (1 to 12)."""
    shallow: float = setting(0.75, 0.0, 1.0)
    """Sets the share of the steps that skip the decoder layers, which makes a step several times cheaper (0 to 1)."""
    memory: float = setting(0.03, 0.0, 1.0)
    """Sets the share of the training over which the teacher averages the student's weights (0 to 1)."""
    semi: SemiSupervisedSettings = field(default_factory=SemiSupervisedSettings)
    """Sets how expressions without a mask are used; `method` overrides its switches."""

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
    """Train a referring head on a bundle's frozen network, and write the bundle with the new head."""

    data: Positional[Path] = Path(".")
    """Names the folder of scans with expressions to train on, as 'weakseg simulate --expressions 20' writes them."""
    out_bundle: Path = Path("models/refer")
    """Names the bundle folder to write; it must be new unless `overwrite` is set."""
    bundle: str = DEFAULT_BUNDLE
    """Names the bundle, by path or name, whose network the head uses."""
    test: Path | None = None
    """Names a folder of scans with expressions to evaluate the head on; without it, nothing is evaluated."""
    cache: Path = Path("runs/refer/cache")
    """Names the folder that caches the network's features of the scans, so that each scan is encoded only once."""
    overwrite: bool = False
    """Replaces the bundle at `out_bundle`."""
    training: ReferringTraining = field(default_factory=ReferringTraining)
    """Sets how the head is trained."""

    def __post_init__(self) -> None:
        if self.data == Path("."):
            raise ConfigError(
                "train-referring: name a folder of scans with expressions; 'weakseg simulate --expressions 20' makes one"
            )
