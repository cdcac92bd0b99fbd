# SPDX-License-Identifier: Apache-2.0
"""The tables that are shipped run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from weakseg_ros.benchmark.benchmark import open_table, train_rows
from weakseg_ros.benchmark.report import write_report
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.benchmark.table import BenchmarkConfig, Row, table
from weakseg_ros.config import load_yaml

FILES = sorted((Path(__file__).resolve().parents[2] / "config" / "benchmark").glob("*.yaml"))
TABLES = [path.name for path in FILES if "task" not in yaml.safe_load(path.read_text())]


def shrunk(row: Row, out: Path) -> Row:
    """The row on a machine without time: two steps of a narrow net, at the image size that it names."""
    width = 2 if row.net == "salsanext" else 16
    few = {"steps": 2, "warmup_steps": 1, "batch_size": 1, "net_width": width, "precision": "32-true", "accelerator": "cpu"}
    return dataclasses.replace(row, train=dataclasses.replace(row.train, **few, max_val_scans=1, out=out, workers=1))


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_shipped_table_can_be_asked_for(name: str, root: Path) -> None:
    rows = table(load_yaml(BenchmarkConfig, root / "config" / "benchmark" / name))
    assert len({row.key for row in rows}) == len({row.settings_hash for row in rows}) == len(rows) > 1


def test_every_variant_of_the_street_table_trains(street: Path, root: Path, tmp_path: Path) -> None:
    config = load_yaml(BenchmarkConfig, root / "config" / "benchmark" / "street.yaml")
    config = dataclasses.replace(config, data=street, out=tmp_path, step_turns=0, train={"hold_out": 0.34, "width": 64})
    rows = [row for row in table(config) if row.variant]
    assert len(rows) == 6 + 5
    assert train_rows(config, [shrunk(row, tmp_path) for row in rows], *open_table(config)) == 0
    stored = {row.variant: yaml.safe_load((tmp_path / "runs" / row.key / "config.yaml").read_text()) for row in rows}
    assert stored["without_contrast"]["coarse3d"]["weight"] == 0.0
    assert stored["polar_mix"]["augment"]["paste"] == 1.0
    assert stored["without_augmentation"]["augment"]["turn"] == 0.0
    assert "-first" in stored["without_propagation"]["sparse_labels"]


@pytest.mark.parametrize("name", ["semantickitti", "semanticposs", "nuscenes"])
def test_the_published_tables_run_on_their_real_layouts(name: str, root: Path, layouts: Any, tmp_path: Path) -> None:
    write = {
        "semantickitti": lambda: layouts.write_kitti(tmp_path / "data", ["00", "08"], scans=1),
        "semanticposs": lambda: layouts.write_poss(tmp_path / "data", ["00", "02"], scans=1),
        "nuscenes": lambda: layouts.write_nuscenes(tmp_path / "data", [1, 3], version="v1.0-trainval"),
    }[name]
    config = dataclasses.replace(
        load_yaml(BenchmarkConfig, root / "config" / "benchmark" / f"{name}.yaml"),
        data=write(),
        out=tmp_path / "out",
        step_turns=0,
    )
    rows = [row for row in table(config) if row.method == "erda+coarse3d" and row.ratio == 0.001]
    assert train_rows(config, [shrunk(row, tmp_path) for row in rows], *open_table(config)) == 0
    (row,) = RowFile(config.out).read()
    published = yaml.safe_load((root / "config" / "train" / f"{name}.yaml").read_text())
    statistics_ = yaml.safe_load((config.out / "runs" / row["key"] / "statistics.yaml").read_text())
    spec = yaml.safe_load((config.out / "runs" / row["key"] / "spec.yaml").read_text())
    assert statistics_["mean"] == published["mean"]
    assert statistics_["std"] == published["std"]
    assert (spec["height"], spec["width"]) == ((40, 1800) if name == "semanticposs" else (64, 2048))
    fields_of_view = {"semantickitti": (3.0, -25.0), "semanticposs": (15.0, -25.0), "nuscenes": (15.0, -35.0)}
    assert (spec["fov_up_deg"], spec["fov_down_deg"]) == fields_of_view[name]


@pytest.mark.parametrize(("name", "folder"), [("vlp32_short", "vlp32_drive"), ("semantickitti_range", "semantickitti_range")])
def test_the_tables_of_real_scans_run(name: str, folder: str, root: Path, shared_data: Path, tmp_path: Path) -> None:
    if not (shared_data / folder).is_dir():
        pytest.skip(f"no {folder} in {shared_data}")
    file = root / "config" / "benchmark" / f"{name}.yaml"
    config = dataclasses.replace(load_yaml(BenchmarkConfig, file), data=shared_data / folder, out=tmp_path, step_turns=0)
    rows = [row for row in table(config) if row.method == "erda+coarse3d" and row.ratio == 0.001 and row.seed == 1]
    assert train_rows(config, [shrunk(row, tmp_path) for row in rows], *open_table(config)) == 0
    assert "erda+coarse3d" in write_report(tmp_path, config.classes).read_text()
