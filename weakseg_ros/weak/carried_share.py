# SPDX-License-Identifier: Apache-2.0
"""How many points carried labels reach, and how many of them rightly, where the dense labels are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_sets import ScanSet, readable
from weakseg_ros.errors import counted
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.weak.propagate import PropagatedScans


@dataclass(frozen=True)
class CarriedShare:
    """Counts by class (K,), over all scans."""

    labels: LabelMap
    given: NDArray[np.int64]
    carried: NDArray[np.int64]
    """points that take the class from a label elsewhere"""
    judged: NDArray[np.int64]
    """those of them whose own label is known"""
    right: NDArray[np.int64]
    """those of these that have the class by their own label"""
    weight: NDArray[np.float64]
    """the sum of the weights of the carried labels"""
    points: int
    """points that a ray reached"""

    @property
    def summary(self) -> str:
        """A line for each class that is carried, and one for all."""
        names = [row.name for row in self.labels.classes]
        width = max(map(len, names))
        rows = [f"{'carried':<{width}}   given  carried  right  mean weight"]
        for number in np.flatnonzero(self.carried):
            right = f"{100 * self.right[number] / self.judged[number]:5.1f}%" if self.judged[number] else "     -"
            weight = self.weight[number] / self.carried[number]
            rows.append(f"{names[number]:<{width}}  {self.given[number]:6d}  {self.carried[number]:7d} {right}  {weight:11.2f}")
        carried, judged = int(self.carried.sum()), int(self.judged.sum())
        if not carried:
            return (
                f"no label is carried: none of the {counted(self.given.sum(), 'label')} "
                "reaches a point of another scan or of its own"
            )
        share = 100 * carried / self.points
        right = f"{100 * self.right.sum() / judged:.1f} % of them right" if judged else "none of which has a label of its own"
        return "\n".join(
            [*rows, f"{carried} of {counted(self.points, 'point')} take a label that was carried ({share:.3g} %), {right}"]
        )


def measure_carried(dense: ScanSet, carried: PropagatedScans) -> CarriedShare:
    """The shares, for scans with all their labels and the same scans with carried ones, in the same order."""
    classes = dense.labels.num_classes
    sums = np.zeros((4, classes), np.int64)
    weight, points = np.zeros(classes), 0
    for number, scan in readable(dense, []):
        reached = carried[number]
        assert reached.class_id is not None
        assert reached.label_weight is not None
        truth = scan.class_id if scan.class_id is not None else np.zeros(len(scan.cloud), np.uint8)
        others = (reached.class_id > 0) & (reached.label_weight < 1.0)
        judged = others & (truth > 0)
        for row, chosen in enumerate(((reached.class_id > 0) & ~others, others, judged, judged & (truth == reached.class_id))):
            sums[row] += np.bincount(reached.class_id[chosen], minlength=classes)
        weight += np.bincount(reached.class_id[others], reached.label_weight[others], minlength=classes)
        points += int(scan.cloud.valid.sum())
    return CarriedShare(dense.labels, sums[0], sums[1], sums[2], sums[3], weight, points)
