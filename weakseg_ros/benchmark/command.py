# SPDX-License-Identifier: Apache-2.0
"""`weakseg benchmark`: the settings are read first, and torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence

from weakseg_ros.benchmark.table import BenchmarkConfig
from weakseg_ros.config import parse


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where a row failed."""
    config = parse(BenchmarkConfig, argv, "benchmark")
    from weakseg_ros.benchmark.benchmark import run

    return run(config)
