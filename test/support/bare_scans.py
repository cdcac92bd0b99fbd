# SPDX-License-Identifier: Apache-2.0
"""Small scans that nobody has labelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

STREET = LabelMap.load("street")
ROAD, CAR, PERSON = (STREET.id_of(name) for name in ("road", "car", "person"))
POINTS = 40


def write_scans(folder: Path, count: int = 3) -> Path:
    rng = np.random.default_rng(0)
    with ScanWriter(folder, STREET, RangeSpec(), source="test", seed=0, intensity_full_scale=1.0) as out:
        for _ in range(count):
            xyz = rng.uniform(1, 20, (POINTS, 3)).astype(np.float32)
            xyz[:4] = 0
            out.write(make_cloud(xyz))
    return folder
