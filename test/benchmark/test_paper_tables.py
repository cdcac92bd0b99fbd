# SPDX-License-Identifier: Apache-2.0
"""The benchmark's table as LaTeX and CSV."""

from __future__ import annotations

import csv
import importlib
import io
from pathlib import Path

from support import optional

optional("torch")
tables = importlib.import_module("weakseg_ros.benchmark.tables")
ENTRIES = [
    tables.Entry("erda+coarse3d", "light", 0.01, (0.5, 0.6), 1000.0),
    tables.Entry("erda+coarse3d", "light", 0.001, (0.4,), 100.0),
    tables.Entry("plain_one", "light", 0.01, (0.3, 0.3), 1000.0),
]


def test_the_sheet_has_a_line_for_each_method_and_share() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.sheet(ENTRIES))))
    assert [row["miou_mean"] for row in rows] == ["0.550000", "0.400000", "0.300000"]
    assert rows[0]["miou_std"] == f"{0.1 / 2**0.5:.6f}"
    assert rows[1]["miou_std"] == ""
    assert rows[1]["label_ratio"] == "0.001"


def test_latex_escapes_names_marks_the_best_and_leaves_no_hole() -> None:
    text = tables.latex(ENTRIES)
    assert r"plain\_one & light & 30.0\,$\pm$\,0.0 & -- \\" in text
    assert r"\textbf{55.0}\,$\pm$\,7.1 & \textbf{40.0} \\" in text
    assert r"Method & Net & 1\,\% & 0.1\,\% \\" in text
    assert text.count(r"\begin{tabular}{llrr}") == 1


def test_both_files_are_written(tmp_path: Path) -> None:
    tables.write_tables(tmp_path, ENTRIES)
    assert (tmp_path / "benchmark.csv").read_text() == tables.sheet(ENTRIES)
    assert (tmp_path / "benchmark.tex").read_text() == tables.latex(ENTRIES)
