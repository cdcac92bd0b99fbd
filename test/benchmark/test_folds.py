# SPDX-License-Identifier: Apache-2.0
"""A cross-validation in one command: a table a fold, and one over the points of all."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from support import optional
from weakseg_ros.cli import main
from weakseg_ros.errors import ConfigError

optional("torch")
folds = importlib.import_module("weakseg_ros.benchmark.folds")
table = importlib.import_module("weakseg_ros.benchmark.table")

NET = ["randlanet.points=64", "randlanet.neighbours=4", "randlanet.ratios=[2, 2]", "net_width=8"]
FEW = ["steps=2", "batch_size=1", "workers=1", "validate_every=0", "accelerator=cpu"]


def part(overlaps: dict[str, list[int]], **changes: Any) -> dict[str, Any]:
    return {
        **{"method": "erda", "variant": "", "net": "randlanet", "ratio": 0.01, "seed": 1, "data": "S3DIS", "steps": 9},
        **{"settings": "s", "data_hash": "d", "labels_hash": "l", "device": "cpu", "environment": {}, "peak_mib": 1},
        **{"labelled_points": 10, "wall_s": 2.0, "step_ms": 1.0, "overlaps": overlaps, **changes},
    }


def test_points_are_added_before_the_mean_as_the_owners_do() -> None:
    """By hand: wall 30 of 40 and 10 of 60 is 40 / 100, not the mean of 0.75 and 0.17; no fold shows a sofa."""
    row = folds.joined(
        "erda-x", [part({"wall": [30, 40], "sofa": [0, 0]}), part({"wall": [10, 60], "board": [1, 2], "sofa": [0, 0]})]
    )
    assert row["class_iou"] == {"wall": 0.4, "sofa": 0.0, "board": 0.5}
    assert row["miou_present"] == pytest.approx(0.45)
    assert (row["labelled_points"], row["wall_s"], row["folds"]) == (10, 4.0, 2)
    other = folds.joined("erda-x", [part({"wall": [1, 2]}), part({}, data_hash="e")])
    assert other["data_hash"] != row["data_hash"]


def test_two_areas_take_turns_in_one_command(layouts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.write_s3dis(tmp_path / "s3dis", ["Area_1/office_1", "Area_5/office_1"])
    command = [
        "benchmark",
        str(root),
        "--config",
        "s3dis_erda_sixfold",
        "--folds",
        "Area_1",
        "Area_5",
        "--out",
        str(tmp_path / "out"),
    ]
    command += ["--methods", "erda", "--ratios", "0.01", "--override", *NET, *FEW]
    assert main(command) == 0
    of_folds = [json.loads((tmp_path / "out/folds" / name / "rows.jsonl").read_text()) for name in ("Area_1", "Area_5")]
    assert len({row["data_hash"] for row in of_folds}) == 2
    row = json.loads((tmp_path / "out" / "rows.jsonl").read_text())
    for name, (hit, union) in row["overlaps"].items():
        assert [hit, union] == [sum(one["overlaps"][name][i] for one in of_folds) for i in (0, 1)]
        assert row["class_iou"][name] == pytest.approx(hit / union if union else 0.0)
    assert row["overlaps"]["chair"][1] > 0
    assert "2 trainings" not in capsys.readouterr().out.rpartition("# Benchmark")[2], "the last table is over both"
    assert main(command) == 0
    assert len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) == 1, "nothing is done twice"


def test_folds_are_several_and_take_no_part_of_the_training_away() -> None:
    with pytest.raises(ConfigError, match="folds: only one is named"):
        table.BenchmarkConfig(folds=("Area_1",))
    with pytest.raises(ConfigError, match="folds: only one is named, or hold_out is set too"):
        table.BenchmarkConfig(folds=("Area_1", "Area_2"), hold_out=0.2)
