# SPDX-License-Identifier: Apache-2.0
"""One click, several labels: the points around a clicked one are of its class, too, unless another click is nearer."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from weakseg_ros.data.scan_sets import ChangedScans, Scan, ScanSet
from weakseg_ros.points.cloud import Cloud

GROWTH_PER_M = 0.03
"""of the radius with the distance from the sensor, as points get sparse"""


def spread_labels(cloud: Cloud, class_id: NDArray[np.uint8], radius_m: float) -> NDArray[np.intp]:
    """(N,) the labelled point that each point takes its label from: itself, the nearest within the radius, or -1 = none.

    The radius is `radius_m` at the sensor and grows by 3 % of it a metre. Only usable points without a label take one.
    """
    source = np.where(class_id > 0, np.arange(len(class_id)), -1)
    labelled = np.flatnonzero((class_id > 0) & cloud.valid)
    free = np.flatnonzero((class_id == 0) & cloud.valid)
    if not len(labelled) or not len(free):
        return source
    xyz = cloud.xyz[labelled]
    radius = radius_m * (1.0 + GROWTH_PER_M * np.linalg.norm(xyz, axis=1))  # (labelled,)
    distance, nearest = cKDTree(xyz).query(cloud.xyz[free], distance_upper_bound=float(radius.max()))
    found = np.isfinite(distance)
    found[found] = distance[found] <= radius[nearest[found]]
    source[free[found]] = labelled[nearest[found]]
    return source


class SpreadScans(ChangedScans):
    """Clicked scans with their labels spread by `radius_m`, classes and instances alike; 0 leaves them as they are."""

    def __init__(self, scans: ScanSet, radius_m: float) -> None:
        super().__init__(scans)
        self._radius_m = radius_m

    def changed(self, scan: Scan, index: int) -> Scan:
        if scan.class_id is None or not self._radius_m:
            return scan
        source = spread_labels(scan.cloud, scan.class_id, self._radius_m)
        class_id = np.where(source < 0, np.uint8(0), scan.class_id[source])
        if scan.instance_id is None:
            return dataclasses.replace(scan, class_id=class_id)
        return dataclasses.replace(
            scan, class_id=class_id, instance_id=np.where(source < 0, np.uint16(0), scan.instance_id[source])
        )
