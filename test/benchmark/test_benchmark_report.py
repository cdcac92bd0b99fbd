# SPDX-License-Identifier: Apache-2.0
"""The benchmark's rows and report: every figure can be recomputed."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import yaml

from support.small_table import CLASSES, SMALL
from weakseg_ros.benchmark.report import write_report
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.cli import main
from weakseg_ros.errors import DataError
from weakseg_ros.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def finished(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole table by the command line: 2 methods x 2 ratios x 2 seeds, and a variant at one of them."""
    out = tmp_path_factory.mktemp("bench") / "table"
    content = {
        "train": SMALL,
        "methods": ["supervised", "coarse3d"],
        "ratios": [1.0, 0.05],
        "seeds": [1, 2],
        "classes": CLASSES,
        "step_turns": 2,
        "method_settings": {"coarse3d": {"coarse3d": {"embedding": 8, "projector_width": 8, "anchors": 16}}},
        "variants": {"calm": {"methods": ["coarse3d"], "ratios": [0.05], "coarse3d": {"weight": 0.0}}},
    }
    file = out.parent / "table.yaml"
    file.write_text(yaml.safe_dump(content))
    assert main(["benchmark", str(street), "--config", str(file), "--out", str(out)]) == 0
    return out


def test_every_row_says_what_was_trained_and_what_came_out(finished: Path) -> None:
    rows = RowFile(finished).read()
    assert len(rows) == len({row["key"] for row in rows}) == 2 * 2 * 2 + 2
    by_labels: dict[tuple[float, int], set[str]] = {}
    for row in rows:
        assert row["miou"] == pytest.approx(statistics.fmean(row["class_iou"][name] for name in CLASSES))
        assert row["steps"] == 6
        assert min(row["wall_s"], row["step_ms"], row["peak_mib"], row["labelled_points"]) > 0
        assert row["environment"]["machine"]
        by_labels.setdefault((row["ratio"], row["seed"]), set()).add(row["labels_hash"])
        run_folder = RunFolder(finished / "runs" / row["key"])
        assert run_folder.metrics()[-1]["class_iou"] == row["class_iou"]  # of the last step, though another was best
        assert not (run_folder.path / "last").exists()
        assert not (run_folder.path / "best.safetensors").exists()
    assert all(len(hashes) == 1 for hashes in by_labels.values())  # the same labels for all methods
    assert by_labels[0.05, 1] != by_labels[0.05, 2]
    assert {row["clicks"] is None for row in rows if row["ratio"] == 1.0} == {True}
    sparse = [row["labelled_points"] for row in rows if row["ratio"] == 0.05]
    assert 0 < max(sparse) < 0.2 * min(row["labelled_points"] for row in rows if row["ratio"] == 1.0)


def test_a_variant_differs_in_what_it_names_only(finished: Path) -> None:
    stored = [
        yaml.safe_load((finished / "runs" / key / "config.yaml").read_text())
        for key in ("coarse3d-light-r0.05-s1", "coarse3d-calm-light-r0.05-s1")
    ]
    assert stored[1]["coarse3d"] == {**stored[0]["coarse3d"], "weight": 0.0}
    for settings_ in stored:
        del settings_["coarse3d"], settings_["out"]
    assert stored[0] == stored[1]


def test_the_report_says_what_the_rows_say(finished: Path) -> None:
    rows = RowFile(finished).read()
    summary = json.loads((finished / "summary.json").read_text())
    text = (finished / "benchmark.md").read_text()

    def mious(method: str, ratio: float, variant: str = "") -> list[float]:
        chosen = [row for row in rows if (row["method"], row["ratio"], row["variant"]) == (method, ratio, variant)]
        return [row["miou"] for row in sorted(chosen, key=lambda row: row["seed"])]

    for name, ratio in (("supervised", 1.0), ("supervised", 0.05), ("coarse3d", 1.0), ("coarse3d", 0.05)):
        values = mious(name, ratio)
        assert summary["miou"][name][f"{ratio:g}"] == pytest.approx(statistics.fmean(values), abs=1e-6)
        assert summary["miou_std"][name][f"{ratio:g}"] == pytest.approx(statistics.stdev(values), abs=1e-6)
        assert f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f} (2)" in text
    ours, baseline, calm = mious("coarse3d", 0.05), mious("supervised", 0.05), mious("coarse3d", 0.05, "calm")
    for these, those in ((ours, baseline), (calm, ours)):
        gains = [100 * (a - b) for a, b in zip(these, those, strict=True)]
        mean, half = statistics.fmean(gains), 12.7062 * statistics.stdev(gains) / 2**0.5  # Student's t of one degree of freedom
        assert f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]" in text
    gains = [a - b for a, b in zip(ours, baseline, strict=True)]
    assert summary["gain"]["coarse3d"]["0.05"]["mean"] == pytest.approx(statistics.fmean(gains), abs=1e-6)
    assert "coarse3d/calm" in text.split("## Variants against `supervised`")[1].split("##")[0]
    assert "2 seeds resolve only large differences; train with 5 or more to compare." in text
    assert "Precision: 32-true." in text
    assert summary["miou"]["coarse3d/calm"].keys() == {"0.05"}
    assert summary["seeds"] == [1, 2]
    timed = json.loads((finished / "steps.json").read_text())["nets"]["light"]
    assert timed["supervised"]["share"] == 1.0
    assert timed["coarse3d"]["share"] > 0
    assert {name: summary["step_ms"][name] for name in timed} == {name: timed[name]["ms"] for name in timed}
    calm_steps = [row["step_ms"] for row in rows if row["variant"] == "calm"]
    assert summary["step_ms"]["coarse3d/calm"] == pytest.approx(statistics.median(calm_steps), abs=0.01)
    assert (finished / "benchmark.png").read_bytes()[:4] == b"\x89PNG"
    assert not (finished / "variants.png").exists(), "supervised has no variant here"
    assert "| method | net | 100 % | 5 % |" in text
    points = {ratio: statistics.fmean(row["labelled_points"] for row in rows if row["ratio"] == ratio) for ratio in (1.0, 0.05)}
    assert f"Labelled points, 100 %: {points[1.0]:.0f}, 5 %: {points[0.05]:.0f}." in text


def test_other_classes_are_a_matter_of_the_report(finished: Path, street: Path) -> None:
    before = (finished / "rows.jsonl").read_bytes()
    write_report(finished, ("road",))
    summary = json.loads((finished / "summary.json").read_text())
    others = [r["class_iou"]["road"] for r in RowFile(finished).read() if (r["method"], r["ratio"]) == ("supervised", 1.0)]
    assert summary["miou"]["supervised"]["1"] == pytest.approx(statistics.fmean(others), abs=1e-6)
    arguments = ["benchmark", str(street), "--out", str(finished), "--report-only", "--classes", *CLASSES]
    assert main(arguments) == 0
    assert (finished / "rows.jsonl").read_bytes() == before
    with pytest.raises(DataError, match="has no raod; it has road"):
        write_report(finished, ("raod",))


def test_variants_of_the_baseline_have_a_picture_of_their_own(finished: Path, tmp_path: Path) -> None:
    rows = RowFile(finished).read()
    varied = [{**row, "variant": "time", "key": f"{row['key']}-time"} for row in rows if row["method"] == "supervised"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows, *varied)))
    write_report(tmp_path, CLASSES)
    assert (tmp_path / "variants.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "variants.png").read_bytes() != (tmp_path / "benchmark.png").read_bytes()


def test_without_classes_the_mean_is_over_those_that_occur(finished: Path) -> None:
    write_report(finished)
    shown = json.loads((finished / "summary.json").read_text())["miou"]["supervised"]["1"]
    rows = [r for r in RowFile(finished).read() if (r["method"], r["ratio"]) == ("supervised", 1.0)]
    assert shown == pytest.approx(statistics.fmean(row["miou_present"] for row in rows), abs=1e-6)
    assert shown != pytest.approx(statistics.fmean(row["miou"] for row in rows), abs=1e-6)
    write_report(finished, CLASSES)


def test_the_report_holds_what_was_asked_for_and_nothing_else(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump({"train": {**SMALL, "steps": 2}, "methods": ["supervised"], "step_turns": 0}))
    out = tmp_path / "out"
    arguments = ["benchmark", str(street), "--config", str(file), "--out", str(out), "--ratios", "1"]
    assert main([*arguments, "--seeds", "1", "2"]) == 0
    assert main([*arguments, "--seeds", "1", "2", "--override", "net_width=33"]) == 2
    assert "holds no finished row; the first failure: net_width" in capsys.readouterr().err
    assert main([*arguments, "--override", "steps=3"]) == 0
    text = capsys.readouterr().out
    assert "1 training of 3 steps, seeds 1.\n" in text
    assert "Failed" not in text  # seed 2 was not asked for
    (drives := tmp_path / "less").mkdir()
    for drive in sorted(street.iterdir())[:2]:
        (drives / drive.name).symlink_to(drive)
    assert main(["benchmark", str(drives), *arguments[2:]]) == 0
    assert "1 training of 2 steps, seeds 1.\n" in capsys.readouterr().out
    assert main([*arguments, "--seeds", "3"]) == 0
    capsys.readouterr()
    assert main(["benchmark", "--out", str(out), "--report-only"]) == 0
    text = capsys.readouterr().out
    assert "Failed: supervised-light-r1-s2: net_width" in text  # though it finished once, with other settings
    assert "2 trainings of 2 steps, seeds 1, 3.\n" in text
    assert "These rows use 2 different data sets (data_hash in rows.jsonl): compare only rows of the same data." in text
