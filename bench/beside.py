# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: two pieces of work timed in turn, a peer's projection, and the summary that all add to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from weakseg_ros.files import make_folder, write_json
from weakseg_ros.points.projection import RangeSpec

SUMMARY = Path("runs/bench/summary.json")
Stage = Callable[[], Any]


def add_to_summary(path: Path, entries: Mapping[str, Any]) -> None:
    """Put entries into the summary, beside those that another benchmark wrote there."""
    make_folder(path.parent)
    known = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, {**known, **entries})


def bonnetal_projection(points: np.ndarray, spec: RangeSpec) -> tuple[np.ndarray, ...]:
    """lidar-bonnetal's way: sort all points by decreasing depth, then write five images in that order."""
    xyz, remission = points[:, :3], points[:, 3]
    up, down = np.radians(spec.fov_up_deg), np.radians(spec.fov_down_deg)
    depth = np.linalg.norm(xyz, 2, axis=1)
    u = 0.5 * (-np.arctan2(xyz[:, 1], xyz[:, 0]) / np.pi + 1.0) * spec.width
    v = (1.0 - (np.arcsin(xyz[:, 2] / depth) + abs(down)) / (abs(up) + abs(down))) * spec.height
    u = np.clip(np.floor(u), 0, spec.width - 1).astype(np.int32)
    v = np.clip(np.floor(v), 0, spec.height - 1).astype(np.int32)
    order = np.argsort(depth)[::-1]
    images = []
    for values in (depth, xyz, remission, np.arange(len(points))):
        image = np.full((spec.height, spec.width, *values.shape[1:]), -1, values.dtype)
        image[v[order], u[order]] = values[order]
        images.append(image)
    return *images, u, v


def laps_beside(ours: Stage, peers: Mapping[str, Stage], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run of each, run in turn so that a change of the machine's speed hits all alike."""
    stages = {"ours": ours, **peers}
    laps: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(runs + 3):
        for name, stage in stages.items():
            start = time.perf_counter()
            stage()
            if turn >= 3:
                laps[name].append((time.perf_counter() - start) * 1e3)
    return laps


def time_beside(ours: Stage, peers: Mapping[str, Stage], runs: int) -> dict[str, float]:
    """Median ms of each, run in turn."""
    return {name: median(values) for name, values in laps_beside(ours, peers, runs).items()}


def fallen(found: Mapping[str, Mapping[str, float]], least: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One sentence for each ratio, peer over ours by stage and peer, that has fallen below its `least` one."""
    return [
        f"{stage}: {peer} takes {found[stage][peer]:g} times as long as ours, but at least {limit:g} times is expected"
        for stage, limits in least.items()
        for peer, limit in limits.items()
        if found[stage][peer] < limit
    ]
