# SPDX-License-Identifier: Apache-2.0
"""How well expressions are answered: ScanRefer's figures for masks (Chen et al., 2020), and false alarms where nothing matches.

IoU = |answer and truth| / |answer or truth|, over the points of one scan. Acc@t is the share of expressions with an IoU
above t. An expression that matches nothing is right where the answer is empty; it counts in the false-positive rate only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.expressions import CASES, Expression
from weakseg_ros.errors import DataError

THRESHOLDS = (0.25, 0.5)
EPSILON = 1e-6


def mask_iou(answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """IoU of two masks (N,), 0 where both are empty; DataError where their shapes differ."""
    if answer.shape != truth.shape:
        raise DataError(f"mask: the answer has shape {answer.shape}, the truth {truth.shape}; both are over the scan's points")
    return float(np.count_nonzero(answer & truth) / (np.count_nonzero(answer | truth) + EPSILON))


def truth_of(expression: Expression, instance_id: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """(N,) which points of a scan answer an expression; `instance_id` (N,) is the scan's."""
    mask: NDArray[np.bool_] = np.isin(instance_id, expression.targets)
    return mask


@dataclass
class ReferringTally:
    """Collects the answers to expressions, one at a time; adding two tallies gives that of both."""

    ious: dict[str, list[float]] = field(default_factory=lambda: {case: [] for case in CASES})
    """IoUs by case; of those that match nothing 1 where the answer is empty, else 0"""

    def add(self, case: str, answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Take one answer (N,) to an expression of this case whose truth is (N,)."""
        self.add_iou(case, mask_iou(answer, truth), bool(answer.any()))

    def add_iou(self, case: str, iou: float, answered: bool) -> None:
        """The same, for an answer whose IoU with the truth is known already, and whether it holds any point."""
        self.ious[case].append(float(not answered) if case == "none" else iou)

    def __add__(self, other: ReferringTally) -> ReferringTally:
        return ReferringTally({case: [*self.ious[case], *other.ious[case]] for case in CASES})

    def figures(self) -> dict[str, float | int]:
        """`miou`, `acc25`, `acc50` over all expressions that match something, the same by case, the share of false alarms.

        `false_positive_rate` is the share of the expressions that match nothing which got an answer all the same. A figure
        over no expression is NaN.
        """
        unique, multiple, none = (self.ious[case] for case in CASES)
        found: dict[str, float | int] = _figures([*unique, *multiple], "")
        found |= _figures(unique, "unique_") | _figures(multiple, "multiple_")
        found["false_positive_rate"] = 1 - _mean(none)
        found["negatives"] = len(none)
        return found


def _figures(ious: Sequence[float], prefix: str) -> dict[str, float | int]:
    above = {f"{prefix}acc{round(100 * t)}": _mean([iou > t for iou in ious]) for t in THRESHOLDS}
    return {f"{prefix}miou": _mean(ious), **above, f"{prefix}expressions": len(ious)}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
