# SPDX-License-Identifier: Apache-2.0
"""How many points propagated labels reach, and how many of them rightly, where the dense labels are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_sets import ScanSet, readable
from weakseg_ros.errors import counted
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.propagate import PropagatedScans


@dataclass(frozen=True)
class PropagatedShare:
    """Counts by class (K,), over all scans."""

    labels: LabelMap
    given: NDArray[np.int64]
    propagated: NDArray[np.int64]
    """points that take the class from a label elsewhere"""
    judged: NDArray[np.int64]
    """those of them whose own label is known"""
    right: NDArray[np.int64]
    """those of these that have the class by their own label"""
    weight: NDArray[np.float64]
    """the sum of the weights of the propagated labels"""
    points: int
    """points that a ray reached"""

    @property
    def summary(self) -> str:
        """A line for each class that is propagated, and one for all."""
        names = [row.name for row in self.labels.classes]
        width = max(map(len, names))
        rows = [f"{'propagated':<{width}}   given  propagated  right  mean weight"]
        for number in np.flatnonzero(self.propagated):
            right = f"{100 * self.right[number] / self.judged[number]:5.1f}%" if self.judged[number] else "     -"
            weight = self.weight[number] / self.propagated[number]
            rows.append(
                f"{names[number]:<{width}}  {self.given[number]:6d}  {self.propagated[number]:10d} {right}  {weight:11.2f}"
            )
        propagated, judged = int(self.propagated.sum()), int(self.judged.sum())
        if not propagated:
            return (
                f"no label is propagated: none of the {counted(self.given.sum(), 'label')} "
                "reaches a point of another scan or of its own"
            )
        share = 100 * propagated / self.points
        right = f"{100 * self.right.sum() / judged:.1f} % of them right" if judged else "none of which has a label of its own"
        return "\n".join(
            [*rows, f"{propagated} of {counted(self.points, 'point')} take a label that was propagated ({share:.3g} %), {right}"]
        )


def measure_propagated(dense: ScanSet, propagated: PropagatedScans) -> PropagatedShare:
    """The shares, for scans with all their labels and the same scans with propagated ones, in the same order."""
    classes = dense.labels.num_classes
    sums = np.zeros((4, classes), np.int64)
    weight, points = np.zeros(classes), 0
    for number, scan in readable(dense, []):
        reached = propagated[number]
        assert reached.class_id is not None
        assert reached.label_weight is not None
        truth = scan.class_id if scan.class_id is not None else np.zeros(len(scan.cloud), np.uint8)
        others = (reached.class_id > 0) & (reached.label_weight < 1.0)
        judged = others & (truth > 0)
        for row, chosen in enumerate(((reached.class_id > 0) & ~others, others, judged, judged & (truth == reached.class_id))):
            sums[row] += np.bincount(reached.class_id[chosen], minlength=classes)
        weight += np.bincount(reached.class_id[others], reached.label_weight[others], minlength=classes)
        points += int(scan.cloud.valid.sum())
    return PropagatedShare(dense.labels, sums[0], sums[1], sums[2], sums[3], weight, points)
