# SPDX-License-Identifier: Apache-2.0
"""One scan in three dimensions inside the report: its points packed as text, and a page script that draws them with WebGL."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.points.cloud import Cloud

MOST_POINTS = 40_000
"""of a scan that are drawn, so that the report stays below a few MB"""
UNIT_M = 0.005
"""what one step of a packed coordinate means; 16 bits then reach 163 m"""
RECORD = np.dtype([("xyz", "<i2", 3), ("predicted", "u1"), ("truth", "u1"), ("uncertainty", "u1"), ("height", "u1")])


@dataclass(frozen=True)
class Scan3D:
    """What the report needs for the view: records of RECORD in base64."""

    key: str
    points: str
    count: int
    of: int
    """usable points that the scan has"""
    has_truth: bool


def pack_scan(key: str, cloud: Cloud, answer: Segmentation, truth: NDArray[np.uint8] | None) -> Scan3D:
    """A scan as the report's script reads it, thinned out evenly where it has more than MOST_POINTS usable points."""
    usable = np.flatnonzero(cloud.valid & (np.abs(cloud.xyz) < UNIT_M * np.iinfo(np.int16).max).all(axis=1))
    chosen = usable[:: max(1, -(-len(usable) // MOST_POINTS))]
    records = np.zeros(len(chosen), RECORD)
    records["xyz"] = np.round(cloud.xyz[chosen] / UNIT_M)
    records["predicted"] = answer.class_id[chosen]
    records["truth"] = truth[chosen] if truth is not None else 0
    records["uncertainty"] = np.clip(255 * np.nan_to_num(answer.uncertainty[chosen]), 0, 255)
    height = cloud.xyz[chosen, 2]
    low, high = np.percentile(height, [2, 98]) if len(height) else (0.0, 1.0)
    records["height"] = np.clip(255 * (height - low) / max(high - low, 1e-3), 0, 255)
    text = base64.b64encode(records.tobytes()).decode()
    return Scan3D(key, text, len(chosen), len(usable), truth is not None)
