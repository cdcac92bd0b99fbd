# SPDX-License-Identifier: Apache-2.0
"""The settings of referring segmentation with masks for few of the sentences; read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class ReferringWeights:
    """Sets the weights of the losses; the defaults are the published ones."""

    mask: float = setting(1.0, 0.0, 1000.0)
    """Sets the weight of the cross-entropy of the masks (0 to 1000)."""
    dice: float = setting(1.0, 0.0, 1000.0)
    """Sets the weight of the dice loss of the masks (0 to 1000)."""
    score: float = setting(0.5, 0.0, 1000.0)
    """Sets the weight of the loss on the predicted IoU of each mask (0 to 1000)."""
    sampling: float = setting(5.0, 0.0, 1000.0)
    """Sets the weight of the focal loss on the scores that select superpoints (0 to 1000)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class TeacherSettings:
    """Sets how the teacher is updated and when its masks are used as labels."""

    keep: float = setting(0.9996, 0.0, 1.0)
    """Sets the momentum of the teacher's weights, an exponential moving average of the student's weights (0 to 1)."""
    agreement: float = setting(0.95, 0.0, 1.0)
    """Sets the IoU between the teacher's and the student's mask above which the teacher's mask becomes a label (0 to 1)."""
    patience: float = setting(0.1, 0.0, 1.0)
    """Sets how far that IoU may fall below `agreement` before the label is dropped again (0 to 1)."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def keep_at(self, step: int) -> float:
        """The share kept at a step, counted from 0 where the teacher is the student: less at the start of a short run."""
        return min(1.0 - 1.0 / (step + 1), self.keep)


@dataclass(frozen=True)
class SemiSupervisedSettings:
    """Sets how expressions without a mask are used; the published method has `sampling` and `weighting` 'quality'."""

    sampling: bool = True
    """Moves pseudo-masks on which teacher and student agree into the pool of labels (TSCS)."""
    weighting: Literal["quality", "threshold", "none"] = "quality"
    """Selects how the remaining pseudo-masks are weighted: 'quality' by their IoU with the student's mask (QDW), 'threshold'
    with 1 where the teacher is confident and 0 elsewhere, and 'none' with 0."""
    threshold: float = setting(0.9, 0.0, 1.0)
    """Sets the teacher confidence that a pseudo-mask needs with the weighting 'threshold' (0 to 1)."""
    weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the losses on pseudo-masks outside the pool (0 to 100)."""
    pool_share: float = setting(0.5, 0.0, 1.0)
    """Limits the share of a labelled batch that comes from the pool (0 to 1); 1 draws from labels and pool alike."""
    pooled_leave: bool = True
    """Excludes pseudo-masks of the pool from the unlabelled batch, because they already count as labelled."""
    soft: bool = False
    """Trains on the teacher's probabilities instead of its binary mask; the agreement is still measured on binary masks."""
    choice_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the cross-entropy over all superpoints for the one that the expression means (0 to 100), which helps
    with few labels."""
    presence_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the loss that predicts whether anything in the scan matches the expression (0 to 100)."""
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    """Sets the teacher and its agreement with the student."""
    losses: ReferringWeights = field(default_factory=ReferringWeights)
    """Sets the weights of the mask losses."""

    def __post_init__(self) -> None:
        check_ranges(self)


ROWS = {
    "supervised": None,
    "threshold": SemiSupervisedSettings(sampling=False, weighting="threshold"),
    "tscs": SemiSupervisedSettings(sampling=True, weighting="none"),
    "qdw": SemiSupervisedSettings(sampling=False, weighting="quality"),
    "both": SemiSupervisedSettings(),
}
"""the ways that are compared, by name; None: masks alone teach"""
