# SPDX-License-Identifier: Apache-2.0
"""The report of a table of referring segmentation: benchmark.md, benchmark.tex and benchmark.csv."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weakseg_ros.benchmark.paired import paired
from weakseg_ros.benchmark.referring_table import PublishedGain
from weakseg_ros.benchmark.report import BASELINE, REPORT, spread
from weakseg_ros.benchmark.rows import ROWS, RowFile
from weakseg_ros.benchmark.tables import Entry, write_tables
from weakseg_ros.errors import DataError
from weakseg_ros.files import make_folder, write_atomic

FIGURES = {
    **{"miou": "mIoU", "acc25": "Acc@0.25", "acc50": "Acc@0.5", "unique_miou": "unique", "multiple_miou": "multiple"},
    "ceiling": "right superpoints",
}
"""figures of a row and their heads in the table; the last is what the best choice of superpoints would reach"""
NET = "referring head"
Cells = dict[tuple[str, float], dict[int, dict[str, Any]]]
"""by method and share of masks, by seed, the row"""


def write_report(folder: Path, published: Sequence[PublishedGain] = ()) -> Path:
    """Write the files from `rows.jsonl` and return the path of the markdown one; DataError without a finished row."""
    rows = [row for row in RowFile(folder).latest().values() if "miou" in row]
    if not rows:
        raise DataError(f"{folder / ROWS}: holds no finished row")
    cells: Cells = {}
    for row in rows:
        cells.setdefault((row["method"], row["ratio"]), {})[row["seed"]] = row
    entries = [
        Entry(method, NET, ratio, tuple(row["miou"] for row in seeds.values()), _mean(seeds, "masks"))
        for (method, ratio), seeds in sorted(cells.items(), key=lambda item: -item[0][1])
    ]
    make_folder(folder)
    write_tables(folder, entries)
    parts = [_head(rows), _table(cells), _gains(cells, published)]
    write_atomic(folder / REPORT, "\n\n".join(filter(None, parts)) + "\n")
    return folder / REPORT


def _mean(seeds: dict[int, dict[str, Any]], name: str) -> float:
    return statistics.fmean(float(row[name]) for row in seeds.values())


def _head(rows: Sequence[dict[str, Any]]) -> str:
    seeds, data = sorted({row["seed"] for row in rows}), ", ".join(sorted({row["data"] for row in rows}))
    return (
        f"# Referring segmentation\n\nData: {data}. Seeds: {', '.join(map(str, seeds))}; mean ± sample standard deviation. Each "
        "figure is over all descriptions that ScanRefer validates on, in percent, of the weights after the last step; nothing "
        "was chosen on them. IoU counts the points of the scene; unique and multiple are mIoU by the owners' rule; the last "
        "column is the mIoU that the right superpoints would have."
    )


def _table(cells: Cells) -> str:
    lines = [f"| method | masks | {' | '.join(FIGURES.values())} |", "|---|---|" + "---|" * len(FIGURES)]
    for (method, ratio), seeds in sorted(cells.items(), key=lambda item: (-item[0][1], item[0][0] != BASELINE, item[0][0])):
        told = []
        for name in FIGURES:
            values = [100 * float(row[name]) for row in seeds.values()]
            told.append(f"{statistics.fmean(values):.1f}" + (f" ± {spread(values):.1f}" if len(values) > 1 else ""))
        lines.append(f"| {method} | {100 * ratio:g} % | {' | '.join(told)} |")
    return "\n".join(lines)


def _gains(cells: Cells, published: Sequence[PublishedGain]) -> str:
    """The difference in mIoU to training on the masks alone, with that of papers beside it."""
    lines = []
    for (method, ratio), seeds in sorted(cells.items(), key=lambda item: -item[0][1]):
        base = cells.get((BASELINE, ratio), {})
        gain = paired(*({seed: float(row["miou"]) for seed, row in part.items()} for part in (seeds, base)))
        if method != BASELINE and gain is not None:
            paper = next((one for one in published if (one.method, one.ratio) == (method, ratio)), None)
            told = f"{paper.gain:+.2f} | {paper.source}" if paper else "| "
            lines.append(f"| {method} | {100 * ratio:g} % | {gain.words} | {told} |")
    trained = {(method, ratio) for method, ratio in cells}
    for one in published:
        if (one.method, one.ratio) not in trained:
            lines.append(f"| {one.method} | {100 * one.ratio:g} % | not trained | {one.gain:+.2f} | {one.source} |")
    head = f"Difference in mIoU to `{BASELINE}` with the same masks and seeds, in points, with its 95 % interval:"
    return (
        "\n".join([head, "", "| method | masks | ours | published | source |", "|---|---|---|---|---|", *lines]) if lines else ""
    )
