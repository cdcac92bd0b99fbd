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
    """Channels whose normalisation is re-estimated on the clouds: 'none' of them, the 'intensity', or 'all'."""
    statistics_share: float = setting(0.5, 0.0, 1.0)
    """Share of the clouds in the BatchNorm statistics, beside those that the bundle brings (0 to 1); 0 keeps the bundle's."""
    steps: int = setting(0, 0, 100000)
    """Number of self-training steps (0 to 100000), some hundreds where it is wanted; with 0, the default, only the statistics
    are re-estimated."""
    max_minutes: float = setting(5.0, 0.0)
    """Longest time of the self-training in minutes, with the learning rate scheduled accordingly; 0 sets no limit."""
    batch_size: int = setting(4, 2, 64)
    """Number of crops per step (2 to 64), of half as many clouds."""
    crop_columns: int = setting(256, 0, 16384)
    """Width of a crop in columns of the bundle's range image (0 to 16384); 0 takes whole images."""
    learning_rate: float = setting(1e-4, 1e-8, 10.0)
    """Peak learning rate of the AdamW optimiser (1e-8 to 10)."""
    anchor: float = setting(5.0, 0.0, 1000.0)
    """Strength of the pull towards the weights that the adaptation started from, per unit of learning rate (0 to 1000)."""
    check_every: int = setting(30, 1)
    """Number of steps between two looks at the guard's measures (1 or more)."""
    least_agreement: float = setting(0.8, 0.0, 1.0)
    """Share of the points on which the adapted model must agree with the one that it started from (0 to 1); the adaptation
    ends where it falls below."""
    seed: int = setting(1, 0)
    """Random seed of crops and views (0 or more)."""

    def __post_init__(self) -> None:
        check_ranges(self)
