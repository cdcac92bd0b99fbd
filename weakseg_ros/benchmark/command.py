# SPDX-License-Identifier: Apache-2.0
"""`weakseg benchmark`: the settings are read first, and torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weakseg_ros.benchmark.referring_table import TASK, ReferringTable
from weakseg_ros.benchmark.table import BenchmarkConfig
from weakseg_ros.config import parse
from weakseg_ros.data.scans import recognised_as
from weakseg_ros.options import with_included_file
from weakseg_ros.yaml_files import read_yaml


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where a row failed."""
    words = with_included_file(argv, "benchmark", "table")
    if task_of(words) == TASK:
        referring = parse(ReferringTable, words, "benchmark")
        from weakseg_ros.benchmark.referring_benchmark import run as run_referring

        return run_referring(referring)
    config = parse(BenchmarkConfig, words, "benchmark")
    if not config.report_only:
        recognised_as(config.data)  # torch takes seconds to import, and a wrong path is told before
    from weakseg_ros.benchmark.benchmark import run

    return run(config)


def task_of(words: Sequence[str]) -> str:
    """The `task` that the table's file names; empty for one of segmentation, and where there is no such file."""
    file = Path(words[words.index("--config") + 1]) if "--config" in words[:-1] else Path()
    content = read_yaml(file) if file.is_file() else None
    return str(content.get("task", "")) if isinstance(content, dict) else ""
