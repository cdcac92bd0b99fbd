# SPDX-License-Identifier: Apache-2.0
"""A benchmark table small enough for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from weakseg_ros.benchmark.benchmark import open_table, train_rows
from weakseg_ros.benchmark.table import BenchmarkConfig, table

SMALL = {
    "net_width": 16,
    "width": 64,
    "steps": 6,
    "warmup_steps": 1,
    "batch_size": 2,
    "validate_every": 2,
    "precision": "32-true",
    "accelerator": "cpu",
    "hold_out": 0.34,
}
CLASSES = ["road", "building", "vegetation"]


def settings(data: Path, out: Path, **changes: Any) -> BenchmarkConfig:
    small = BenchmarkConfig(
        data=data,
        out=out,
        train=SMALL,
        methods=("supervised", "coarse3d"),
        ratios=(0.05,),
        seeds=(1,),
        classes=tuple(CLASSES),
        step_turns=0,
    )
    return dataclasses.replace(small, **changes)


def run(config: BenchmarkConfig) -> int:
    return train_rows(config, table(config), *open_table(config))
