# SPDX-License-Identifier: Apache-2.0
"""The settings of an adaptation without labels, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """Sets how a bundle's net is adapted to clouds without labels."""

    normalise: Literal["none", "intensity", "all"] = "none"
    """Selects the channels whose normalisation is re-estimated on the clouds: 'none', 'intensity', or 'all'."""
    statistics_share: float = setting(0.5, 0.0, 1.0)
    """Sets the weight of the clouds in the BatchNorm statistics, against those of the bundle (0 to 1); 0 keeps the bundle's."""
    steps: int = setting(0, 0, 100000)
    """Sets the number of self-training steps (0 to 100000), typically a few hundred; the default 0 only re-estimates the
    statistics."""
    max_minutes: float = setting(5.0, 0.0)
    """Limits the self-training to this many minutes (0 or more) and schedules the learning rate accordingly; 0 sets no
    limit."""
    batch_size: int = setting(4, 2, 64)
    """Sets the number of crops per step, two from each cloud (2 to 64)."""
    crop_columns: int = setting(256, 0, 16384)
    """Sets the width of a crop in columns of the bundle's range image (1 to 16384); 0 uses full images."""
    learning_rate: float = setting(1e-4, 1e-8, 10.0)
    """Sets the peak learning rate of the AdamW optimiser (1e-8 to 10)."""
    anchor: float = setting(5.0, 0.0, 1000.0)
    """Sets how strongly the weights are pulled towards those of the original model, per unit of learning rate (0 to 1000)."""
    check_every: int = setting(30, 1)
    """Sets the number of steps between two checks of the agreement with the original model (1 or more)."""
    least_agreement: float = setting(0.8, 0.0, 1.0)
    """Sets the smallest share of points on which the adapted model must agree with the original (0 to 1); the self-training
    stops below it."""
    seed: int = setting(1, 0)
    """Seeds the crops and views (0 or more)."""

    def __post_init__(self) -> None:
        check_ranges(self)
