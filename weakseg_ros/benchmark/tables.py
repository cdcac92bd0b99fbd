# SPDX-License-Identifier: Apache-2.0
"""The mIoU table of a benchmark for papers and spreadsheets: benchmark.tex and benchmark.csv."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weakseg_ros.files import write_atomic

LATEX, SHEET = "benchmark.tex", "benchmark.csv"
_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


class Entry(NamedTuple):
    """A line of the benchmark at one share of labels."""

    method: str
    net: str
    ratio: float
    mious: tuple[float, ...]
    """one for each seed"""
    labelled_points: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.mious)

    @property
    def deviation(self) -> float:
        """Sample standard deviation over seeds; NaN for a single one."""
        return statistics.stdev(self.mious) if len(self.mious) > 1 else math.nan


def write_tables(folder: Path, entries: Sequence[Entry]) -> None:
    """Write both files into the folder of a benchmark."""
    write_atomic(folder / SHEET, sheet(entries))
    write_atomic(folder / LATEX, latex(entries))


def sheet(entries: Sequence[Entry]) -> str:
    """One line for each method, net and share of labels; shares and mIoU from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("method", "net", "label_ratio", "labelled_points", "seeds", "miou_mean", "miou_std"))
    for entry in entries:
        deviation: Any = "" if math.isnan(entry.deviation) else f"{entry.deviation:.6f}"
        row = (entry.method, entry.net, f"{entry.ratio:g}", f"{entry.labelled_points:.0f}", len(entry.mious))
        writer.writerow((*row, f"{entry.mean:.6f}", deviation))
    return text.getvalue()


def latex(entries: Sequence[Entry]) -> str:
    """A table for \\usepackage{booktabs}: mIoU in percent, the best of each share of labels in bold."""
    ratios = sorted({entry.ratio for entry in entries}, reverse=True)
    best = {ratio: max(entry.mean for entry in entries if entry.ratio == ratio) for ratio in ratios}
    lines = dict.fromkeys((entry.method, entry.net) for entry in entries)
    rows = []
    for method, net in lines:
        cells = {entry.ratio: entry for entry in entries if (entry.method, entry.net) == (method, net)}
        told = [_cell(cells[ratio], best[ratio]) if ratio in cells else "--" for ratio in ratios]
        rows.append(" & ".join((escaped(method), escaped(net), *told)) + r" \\")
    head = " & ".join(("Method", "Net", *(rf"{100 * ratio:g}\,\%" for ratio in ratios))) + r" \\"
    columns = "ll" + "r" * len(ratios)
    body = "\n".join(rows)
    return (
        "% mIoU in percent by share of labelled points, mean and sample standard deviation over seeds; needs booktabs\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def escaped(text: str) -> str:
    """A text as LaTeX prints it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _cell(entry: Entry, best: float) -> str:
    mean = f"{100 * entry.mean:.1f}"
    shown = rf"\textbf{{{mean}}}" if entry.mean == best else mean
    return shown if math.isnan(entry.deviation) else rf"{shown}\,$\pm$\,{100 * entry.deviation:.1f}"
