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
    """Sets the weight of the loss on the IoU that is predicted for each mask (0 to 1000)."""
    sampling: float = setting(5.0, 0.0, 1000.0)
    """Sets the weight of the focal loss on the scores that select superpoints (0 to 1000)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class TeacherSettings:
    """Sets how the teacher is updated and when its masks are used as labels."""

    keep: float = setting(0.9996, 0.0, 1.0)
    """Sets the momentum of the teacher's weights, which follow those of the student at each step (0 to 1)."""
    agreement: float = setting(0.95, 0.0, 1.0)
    """Sets the IoU between the masks of teacher and student above which the teacher's mask becomes a label (0 to 1)."""
    patience: float = setting(0.1, 0.0, 1.0)
    """Sets how far the IoU may fall below `agreement` before such a label is dropped again (0 to 1)."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def keep_at(self, step: int) -> float:
        """The share kept at a step, counted from 0 where the teacher is the student: less at the start of a short run."""
        return min(1.0 - 1.0 / (step + 1), self.keep)


@dataclass(frozen=True)
class SemiSupervisedSettings:
    """Sets what is learnt from sentences without a mask; the published method has both `sampling` and `weighting` by quality."""

    sampling: bool = True
    """Moves pseudo-masks on which teacher and student agree into the labelled pool (TSCS)."""
    weighting: Literal["quality", "threshold", "none"] = "quality"
    """Selects how the remaining pseudo-masks count: 'quality' by their IoU with the student's mask (QDW), 'threshold' fully where
    the teacher is sure and else not at all, and 'none' not at all."""
    threshold: float = setting(0.9, 0.0, 1.0)
    """Sets the minimum confidence of the teacher for a pseudo-mask to count with the weighting 'threshold' (0 to 1)."""
    weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the losses on pseudo-masks outside the pool (0 to 100)."""
    pool_share: float = setting(0.5, 0.0, 1.0)
    """Sets the maximum share of a labelled batch that comes from the pool (0 to 1); 1 draws from labels and pool alike."""
    pooled_leave: bool = True
    """Leaves pseudo-masks of the pool out among the unlabelled ones, as they count among the labelled."""
    soft: bool = False
    """Teaches the teacher's probabilities instead of its mask; the agreement is measured on masks all the same."""
    choice_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the cross-entropy of what is meant among all superpoints (0 to 100), which helps with few labels."""
    presence_weight: float = setting(1.0, 0.0, 100.0)
    """Sets the weight of the loss that teaches whether anything in the scan matches (0 to 100)."""
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    """Sets the teacher and the agreement with it."""
    losses: ReferringWeights = field(default_factory=ReferringWeights)
    """Sets the weights of the losses of a mask."""

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
