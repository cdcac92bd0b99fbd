# SPDX-License-Identifier: Apache-2.0
"""Folders of a few scans of 4 x 8 points, with labels, stamps and poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

STREET = LabelMap.load("street")
SPEC = RangeSpec(4, 8, rows="grid")
EPOCH_NS = 1_565_340_174_233_512_123


def grid_cloud(seed: int, height: int = 4, width: int = 8, stamp_ns: int = EPOCH_NS) -> Cloud:
    """An organised cloud with a quarter of its beams lost."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 10, (height * width, 3)).astype(np.float32)
    xyz[rng.random(height * width) < 0.25] = 0
    ring = np.repeat(np.arange(height), width)
    intensity = rng.random(height * width)
    return make_cloud(
        xyz, intensity, ring, stamp_ns=stamp_ns, frame_id="lidar", height=height, width=width, intensity_full_scale=1.0
    )


def raw_labels(seed: int, count: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    instance = rng.integers(0, 9, count).astype(np.uint32)
    return rng.choice(np.array([0, 40, 60, 10, 252, 30], np.uint32), count) | (instance << 16)


def pose_of(seed: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = np.random.default_rng(seed).normal(0, 100, 3)
    return pose


def writer(folder: Path, spec: RangeSpec = SPEC, overwrite: bool = False) -> ScanWriter:
    return ScanWriter(folder, STREET, spec, source="test", seed=3, intensity_full_scale=1.0, overwrite=overwrite)


def record(folder: Path, count: int = 3) -> Path:
    with writer(folder) as out:
        for i in range(count):
            out.write(grid_cloud(i, stamp_ns=EPOCH_NS + i * 100_000_001), raw_labels(i), pose_of(i))
    return folder
