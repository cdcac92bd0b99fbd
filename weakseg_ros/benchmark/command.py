# SPDX-License-Identifier: Apache-2.0
"""`weakseg benchmark`: the settings are read first, and torch is imported only for what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weakseg_ros.benchmark.referring_table import TASK, ReferringTable
from weakseg_ros.benchmark.table import BenchmarkConfig
from weakseg_ros.config import parse, read_yaml
from weakseg_ros.data.scans import recognised_as
from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.files import share_folder


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where a row failed."""
    words = with_shipped_table(argv)
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


def with_shipped_table(argv: Sequence[str]) -> list[str]:
    """The arguments with the path of a table that ships instead of its name: '--config s3dis_erda'. ConfigError for neither."""
    words = list(argv)
    at = words.index("--config") + 1 if "--config" in words else len(words)
    if at < len(words) and not Path(words[at]).is_file() and not Path(words[at]).suffix:
        shipped = {file.stem: file for file in sorted((share_folder() / "config" / "benchmark").glob("*.yaml"))}
        if words[at] not in shipped:
            hint = did_you_mean(words[at], shipped)
            raise ConfigError(
                f"config: '{words[at]}' is neither a file nor an included table{hint}; included are: {', '.join(shipped)}"
            )
        words[at] = str(shipped[words[at]])
    return words
