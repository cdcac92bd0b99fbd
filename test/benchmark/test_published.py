# SPDX-License-Identifier: Apache-2.0
"""Tables that reproduce published rows: found by name, with the papers' figures beside ours, and run on tiny folders."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from support import files_of_at_most, optional
from weakseg_ros.cli import main
from weakseg_ros.errors import ConfigError
from weakseg_ros.half_written import is_ours
from weakseg_ros.options import with_included_file

optional("torch")
report = importlib.import_module("weakseg_ros.benchmark.report")
Published = importlib.import_module("weakseg_ros.benchmark.published").Published

FIGURES = (
    Published("erda", "RandLA-Net", 67.2, 0.01, "Tang et al. 2023, README_1"),
    Published("erda", "RandLA-Net", 68.3, 1.0, "Tang et al. 2023, README_1"),
)


def row(method: str, ratio: float, miou: float, seed: int = 1) -> dict[str, Any]:
    return {
        **{"key": f"{method}-{ratio}-{seed}", "method": method, "variant": "", "net": "randlanet", "ratio": ratio, "seed": seed},
        **{"settings": "s", "data": "S3DIS", "data_hash": "d", "miou_present": miou, "class_iou": {"wall": miou}, "steps": 1},
        **{"labelled_points": 10, "step_ms": 1.0, "wall_s": 1.0, "peak_mib": 1, "device": "cpu", "environment": {"machine": "m"}},
    }


def test_published_figures_stand_beside_ours_with_their_source(tmp_path: Path) -> None:
    rows = [row("supervised", 0.01, 0.6), row("erda", 0.01, 0.66), row("erda", 0.01, 0.68, seed=2)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    text = report.write_report(tmp_path, published=FIGURES).read_text()
    assert "| erda | RandLA-Net (randlanet) | 1 % | 67.0 ± 1.4 | 67.2 | -0.2 | Tang et al. 2023, README_1 |" in text
    assert "| erda | RandLA-Net | 100 % | not trained | 68.3 |  | Tang et al. 2023, README_1 |" in text
    sheet = list(csv.DictReader((tmp_path / "benchmark.csv").read_text().splitlines()))
    assert [(line["method"], line["published_miou"], line["published_net"]) for line in sheet] == [
        ("supervised", "", ""),
        ("erda", "0.6720", "RandLA-Net"),
    ]
    latex = (tmp_path / "benchmark.tex").read_text()
    assert "\\midrule\n% Tang et al. 2023, README_1\nerda, published & RandLA-Net & 67.2 \\\\" in latex
    assert "published" not in report.write_report(tmp_path).read_text()


def test_a_class_that_every_row_misses_is_in_the_table(tmp_path: Path) -> None:
    missed = {"class_iou": {"wall": 0.6, "sofa": 0.0, "lamp": 0.0}, "overlaps": {"wall": [6, 10], "sofa": [0, 9], "lamp": [0, 0]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row("supervised", 0.01, 0.3), **missed}) + "\n")
    text = report.write_report(tmp_path).read_text()
    assert "| labels | method | net | wall | sofa |\n" in text
    assert "| 1 % | supervised | randlanet | 0.600 | 0.000 |" in text


def test_a_full_disk_leaves_the_earlier_picture_and_a_killed_report_nothing(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row('supervised', 0.01, 0.6))}\n")
    report.write_report(tmp_path)
    before = (tmp_path / "benchmark.png").read_bytes()
    with files_of_at_most(len(before) // 2), pytest.raises(OSError, match="too large"):
        report.write_report(tmp_path)
    assert (tmp_path / "benchmark.png").read_bytes() == before
    (tmp_path / ".benchmark.md.4194304-0.tmp").touch()
    assert main(["benchmark", "--out", str(tmp_path), "--report-only"]) == 0
    assert not any(is_ours(entry.name) for entry in tmp_path.iterdir())


def with_included_table(words: list[str]) -> list[str]:
    return with_included_file(words, "benchmark", "table")


def test_a_table_that_ships_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = with_included_table(["DATA", "--config", "semantickitti_coarse3d", "--seeds", "1"])
    assert words[2].endswith("config/benchmark/semantickitti_coarse3d.yaml")
    with pytest.raises(ConfigError, match=r"'semantickitti_coarse' is neither a file .* mean 'semantickitti_coarse3d'\?"):
        with_included_table(["--config", "semantickitti_coarse"])
    assert with_included_table(["--config", "mine.yaml"]) == ["--config", "mine.yaml"]
    assert with_included_table(["--config"]) == ["--config"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vlp32").write_text("")
    assert with_included_table(["--config", "vlp32"]) == ["--config", "vlp32"]


def test_coarse3d_takes_its_first_steps_on_semantickitti(
    layouts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layouts.write_kitti(tmp_path / "kitti", ["00", "08"], points=400)
    small = [
        "steps=20",
        "warmup_steps=1",
        "batch_size=1",
        "net_width=8",
        "height=16",
        "width=64",
        "workers=1",
        "validate_every=0",
    ]
    arguments = ["--config", "semantickitti_coarse3d", "--out", str(tmp_path / "out"), "--step-turns", "0"]
    few = ["--methods", "coarse3d", "--ratios", "0.01"]
    assert main(["benchmark", str(root), *arguments, *few, "--override", *small, "validate_every=0", "accelerator=cpu"]) == 0
    said = capsys.readouterr().out
    assert "| coarse3d | SalsaNext (salsanext) | 1 % |" in said
    assert "| 58.3 |" in said
    assert "Li et al., COARSE3D, BMVC 2022" in said


@pytest.mark.parametrize(
    ("name", "write", "labelled"),
    [
        ("s3dis_erda", lambda layouts, root: layouts.write_s3dis(root, ["Area_1/office_1", "Area_5/office_1"]), 6),
        ("scannet_erda", lambda layouts, root: layouts.write_scannet(root, ["scene0000_00"], ["scene0011_00"]), 20),
        (
            "sensaturban_erda",
            lambda layouts, root: layouts.write_sensaturban(root, ["birmingham_block_0", "birmingham_block_1"]),
            13,
        ),
    ],
)
def test_erda_takes_its_first_steps_on_points(
    name: str, write: Any, labelled: int, layouts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(layouts, tmp_path / "data")
    net = ["randlanet.points=64", "randlanet.neighbours=4", "randlanet.ratios=[2, 2]", "net_width=8"]
    small = ["steps=20", "batch_size=1", "workers=1", "validate_every=0", "accelerator=cpu"]
    ratios = [] if name == "scannet_erda" else ["--ratios", "0.01" if name == "s3dis_erda" else "0.001"]
    arguments = ["--config", name, "--out", str(tmp_path / "out"), "--step-turns", "0", "--methods", "erda", *ratios]
    assert main(["benchmark", str(root), *arguments, "--override", *net, *small]) == 0
    said = capsys.readouterr().out
    assert ("| erda | RandLA-Net (randlanet) | 1 % |" in said) == (name == "s3dis_erda")
    row = json.loads((tmp_path / "out" / "rows.jsonl").read_text())
    assert row["labelled_points"] == labelled
