# SPDX-License-Identifier: Apache-2.0
"""The mIoU table of a benchmark for papers and spreadsheets: benchmark.tex and benchmark.csv."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weakseg_ros.benchmark.published import Published
from weakseg_ros.files import write_atomic

LATEX, SHEET = "benchmark.tex", "benchmark.csv"
_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}

_PUBLISHED = ("published_miou", "published_net", "published_source")


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


def beside(published: Iterable[Published], entries: Sequence[Entry]) -> list[tuple[Published, Entry | None]]:
    """Each published figure with the entry it is set beside, None where that was not trained."""
    return [(one, next((e for e in entries if one.is_of(e.method, e.net, e.ratio)), None)) for one in published]


def write_tables(folder: Path, entries: Sequence[Entry], published: Sequence[Published] = ()) -> None:
    """Write both files into the folder of a benchmark."""
    write_atomic(folder / SHEET, sheet(entries, published))
    write_atomic(folder / LATEX, latex(entries, published))


def sheet(entries: Sequence[Entry], published: Sequence[Published] = ()) -> str:
    """One line for each method, net and share of labels, with the published figure; shares and mIoU from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("method", "net", "label_ratio", "labelled_points", "seeds", "miou_mean", "miou_std", *_PUBLISHED))
    paper = {id(entry): one for one, entry in beside(published, entries)}
    for entry in entries:
        deviation: Any = "" if math.isnan(entry.deviation) else f"{entry.deviation:.6f}"
        row = (entry.method, entry.net, f"{entry.ratio:g}", f"{entry.labelled_points:.0f}", len(entry.mious))
        one = paper.get(id(entry))
        told = (f"{one.miou / 100:.4f}", one.net, one.source) if one else ("", "", "")
        writer.writerow((*row, f"{entry.mean:.6f}", deviation, *told))
    return text.getvalue()


def latex(entries: Sequence[Entry], published: Sequence[Published] = ()) -> str:
    """A table for \\usepackage{booktabs}: mIoU in percent, the best of each share of labels in bold; below, published rows."""
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
    if published:
        rows += [r"\midrule", *_published_rows(published, ratios)]
    body = "\n".join(rows)
    return (
        "% mIoU in percent by share of labelled points, mean and sample standard deviation over seeds; needs booktabs\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _published_rows(published: Sequence[Published], ratios: Sequence[float]) -> list[str]:
    """A row for each method and net of the papers, and comments that say where its figures are from."""
    rows = []
    for method, net in dict.fromkeys((one.method, one.net) for one in published):
        own = {one.ratio: one for one in published if (one.method, one.net) == (method, net)}
        told = [f"{own[ratio].miou:.1f}" if ratio in own else "--" for ratio in ratios]
        rows += [f"% {source}" for source in dict.fromkeys(one.source for one in own.values())]
        rows.append(" & ".join((f"{escaped(method)}, published", escaped(net), *told)) + r" \\")
    return rows


def escaped(text: str) -> str:
    """A text as LaTeX prints it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _cell(entry: Entry, best: float) -> str:
    mean = f"{100 * entry.mean:.1f}"
    shown = rf"\textbf{{{mean}}}" if entry.mean == best else mean
    return shown if math.isnan(entry.deviation) else rf"{shown}\,$\pm$\,{100 * entry.deviation:.1f}"
