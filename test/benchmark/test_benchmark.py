# SPDX-License-Identifier: Apache-2.0
"""The benchmark's table: every row once, whatever interrupts it; figures that can be recomputed; shipped tables that run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import PATIENCE_S
from weakseg_ros.benchmark.benchmark import open_table, train_rows
from weakseg_ros.benchmark.report import write_report
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.benchmark.table import BenchmarkConfig, Row, base_settings, table
from weakseg_ros.cli import main
from weakseg_ros.config import load_yaml
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.locks import alone
from weakseg_ros.simulate.record import main as simulate
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.train import train
from weakseg_ros.train.training_data import open_data
from weakseg_ros.weak.protocols import SparseConfig

SMALL = {
    "net_width": 16,
    "width": 64,
    "steps": 6,
    "warmup_steps": 1,
    "batch_size": 2,
    "validate_every": 2,
    "precision": "32-true",
    "accelerator": "cpu",
    "hold_out": 0.34,
}
CLASSES = ["road", "building", "vegetation"]
TABLES = sorted(path.name for path in (Path(__file__).resolve().parents[2] / "config" / "benchmark").glob("*.yaml"))


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three streets of two scans each."""
    folder = tmp_path_factory.mktemp("street") / "scans"
    argv = ["--out", str(folder), "--streets", "3", "--scans", "2", "--stride", "10", "--columns", "64", "--workers", "1"]
    assert simulate(argv) == 0
    return folder


def settings(data: Path, out: Path, **changes: Any) -> BenchmarkConfig:
    small = BenchmarkConfig(
        data=data,
        out=out,
        train=SMALL,
        methods=("supervised", "coarse3d"),
        ratios=(0.05,),
        seeds=(1,),
        classes=tuple(CLASSES),
        step_turns=0,
    )
    return dataclasses.replace(small, **changes)


def run(config: BenchmarkConfig) -> int:
    return train_rows(config, table(config), *open_table(config))


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("wall_s", "step_ms", "peak_mib", "environment")}


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
    assert "1 trainings of 3 steps, seeds 1.\n" in text
    assert "Failed" not in text  # seed 2 was not asked for
    (drives := tmp_path / "less").mkdir()
    for drive in sorted(street.iterdir())[:2]:
        (drives / drive.name).symlink_to(drive)
    assert main(["benchmark", str(drives), *arguments[2:]]) == 0
    assert "1 trainings of 2 steps, seeds 1.\n" in capsys.readouterr().out
    assert main([*arguments, "--seeds", "3"]) == 0
    capsys.readouterr()
    assert main(["benchmark", "--out", str(out), "--report-only"]) == 0
    text = capsys.readouterr().out
    assert "Failed: supervised-light-r1-s2: net_width" in text  # though it finished once, with other settings
    assert "2 trainings of 2 steps, seeds 1, 3.\n" in text
    assert "These rows use 2 different data sets (data_hash in rows.jsonl): compare only rows of the same data." in text


def test_finished_rows_are_not_trained_again_unless_asked_otherwise(street: Path, tmp_path: Path) -> None:
    config = settings(street, tmp_path, methods=("supervised",))
    run(config)
    run(config)
    assert len(RowFile(tmp_path).read()) == 1
    run(dataclasses.replace(config, train={**SMALL, "learning_rate": 1e-3}))
    first, second = RowFile(tmp_path).read()
    assert first["settings"] != second["settings"]
    assert RowFile(tmp_path).latest() == {first["key"]: second}


def test_what_differs_is_what_is_hashed(street: Path, tmp_path: Path) -> None:
    def hashes(**changes: Any) -> set[str]:
        return {row.settings_hash for row in table(dataclasses.replace(settings(street, tmp_path), **changes))}

    plain = hashes()
    assert plain == hashes(out=tmp_path / "elsewhere", keep_runs=True, train={**SMALL, "workers": 3, "learning_rate": 4e-3})
    for changes in ({"override": ("augment.flip=0",)}, {"ratios": (0.06,)}, {"seeds": (2,)}, {"nets": ("rangenet21",)}):
        assert plain.isdisjoint(hashes(**changes))


def test_a_killed_table_goes_on_where_it_was(street: Path, tmp_path: Path) -> None:
    whole = settings(street, tmp_path / "whole", ratios=(0.05, 0.02), methods=("supervised",))
    run(whole)
    out = tmp_path / "killed"
    file = tmp_path / "table.yaml"
    file.write_text(
        yaml.safe_dump({"train": SMALL, "methods": ["supervised"], "ratios": [0.05, 0.02], "classes": CLASSES, "step_turns": 0})
    )
    command = [sys.executable, "-m", "weakseg_ros", "benchmark", str(street), "--config", str(file), "--out", str(out)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while not RowFile(out).read() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = [row["key"] for row in RowFile(out).read()]
    assert done
    with open(out / "rows.jsonl", "a") as rows:
        rows.write('{"key": "supervised-light-r0.0')  # a line that the crash cut short
    run(dataclasses.replace(whole, out=out))
    ours, theirs = RowFile(out).latest(), RowFile(tmp_path / "whole").latest()
    assert {key: without_time(row) for key, row in ours.items()} == {key: without_time(row) for key, row in theirs.items()}
    assert sorted(row["key"] for row in RowFile(out).read()) == sorted(ours)  # none was trained twice


def test_an_interrupted_row_continues_from_its_checkpoint(street: Path, tmp_path: Path) -> None:
    config = settings(street, tmp_path / "a", methods=("coarse3d",), ratios=(1.0,))
    (row,) = table(config)
    train(dataclasses.replace(row.train, out=config.out / "runs" / row.key, log_every=1), stop_at=4)
    metrics = config.out / "runs" / row.key / "metrics.jsonl"
    metrics.write_text('{"step": 0, "from": "the first part"}\n' + metrics.read_text())
    run(config)
    assert RunFolder(metrics.parent).metrics()[0] == {"step": 0, "from": "the first part"}
    run(dataclasses.replace(config, out=tmp_path / "b"))
    ours, theirs = (RowFile(tmp_path / name).latest()[row.key] for name in "ab")
    assert without_time(ours) == without_time(theirs)


def test_shards_share_the_table(street: Path, tmp_path: Path) -> None:
    config = settings(street, tmp_path, seeds=(1, 2), ratios=(0.05, 0.02), methods=("supervised",))
    keys = [row.key for row in table(config)]
    run(dataclasses.replace(config, shard="2/3"))
    assert [row["key"] for row in RowFile(tmp_path).read()] == [keys[1]]
    for shard in ("1/3", "3/3"):
        run(dataclasses.replace(config, shard=shard))
    assert sorted(row["key"] for row in RowFile(tmp_path).read()) == sorted(keys)


def test_a_row_that_another_process_trains_is_left_to_it(street: Path, tmp_path: Path) -> None:
    config = settings(street, tmp_path)
    first, second = table(config)
    holder = "import sys; from pathlib import Path; from weakseg_ros.locks import alone\n"
    holder += "with alone(Path(sys.argv[1])) as mine:\n    print(mine, flush=True); sys.stdin.read()"
    path = tmp_path / "runs" / f".{first.key}.lock"
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        run(config)
        process.kill()
    assert [row["key"] for row in RowFile(tmp_path).read()] == [second.key]
    with alone(path) as mine:
        assert mine  # the lock ended with its process


def test_a_row_that_fails_says_so_and_the_others_go_on(street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {"without_net": {"methods": ["supervised"], "net_width": 33}}
    config = settings(street, tmp_path / "a", variants=broken)
    assert run(config) == 1
    rows = {row["key"]: row for row in RowFile(config.out).read()}
    assert len(rows) == 3
    assert "net_width: 33 does not fit net 'light'" in rows["supervised-without_net-light-r0.05-s1"]["error"]
    assert "Failed: supervised-without_net-light-r0.05-s1: net_width" in write_report(config.out).read_text()
    repaired = dataclasses.replace(config, variants={"without_net": {"methods": ["supervised"]}})
    assert run(repaired) == 0
    assert "Failed" not in write_report(config.out).read_text()


def test_the_command_line_changes_what_the_file_says(street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump({"train": SMALL, "methods": ["supervised", "erda"], "variants": {"fast": {"steps": 3}}}))
    arguments = ["benchmark", str(street), "--config", str(file), "--out", str(tmp_path / "out"), "--ratios", "1"]
    assert main([*arguments, "--methods", "supervised", "--override", "steps=4", "augment.mix=0"]) == 0
    stored = {path.parent.name: yaml.safe_load(path.read_text()) for path in tmp_path.rglob("config.yaml")}
    assert {key: content["steps"] for key, content in stored.items()} == {
        "supervised-light-r1-s1": 4,
        "supervised-fast-light-r1-s1": 3,
    }
    assert all(content["augment"]["mix"] == 0.0 for content in stored.values())
    assert "## Variants" in capsys.readouterr().out
    asked = load_yaml(BenchmarkConfig, tmp_path / "out" / "table.yaml")
    assert {row.settings_hash for row in table(asked)} == {row["settings"] for row in RowFile(tmp_path / "out").read()}
    assert main([*arguments, "--shard", "3/2"]) == 2
    assert "shard: '3/2' is not i/n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shard": "0/2"}, "shard: '0/2' is not i/n"),
        ({"methods": ()}, "methods: is empty"),
        ({"ratios": (2.0,)}, "ratios: 2.0 is outside"),
        ({"methods": ("suprvised",)}, "did you mean 'supervised'"),
        ({"nets": ("lite",)}, "net: unknown 'lite'; did you mean 'light'"),
        ({"override": ("steps",)}, "override: 'steps' lacks '='"),
        ({"override": ("augment.mixx=1",)}, "augment.mixx: unknown key; did you mean 'mix'"),
        ({"method_settings": {"coarse3d": {"coarse3d": {"anchor": 3}}}}, "did you mean 'anchors'"),
        ({"method_settings": {"coarse": {}}}, "method: unknown 'coarse'; did you mean 'coarse3d'"),
        ({"draw": SparseConfig(protocol="full")}, "'full' keeps all labels"),
        ({"variants": {"a": {"methods": "coarse3d"}}}, r"variants\.a\.methods: expected a list"),
        ({"variants": {"a": {"draw": {"propagat": False}}}}, r"variants\.a\.draw\.propagat: unknown key"),
        ({"train": {"draw": {"protocol": "voxel"}}}, "a benchmark draws its own"),
        ({"train": {"devices": 2}}, "a row is trained by one process"),
        ({"train": {"mean": [1.0]}}, "mean, std: have 1 and 0 values for 5 channels"),
        ({"base": Path("config/train/vlp23.yaml")}, "vlp23.yaml: cannot be read"),
    ],
)
def test_what_a_user_gets_wrong_is_said_before_anything_is_trained(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        table(dataclasses.replace(settings(tmp_path, tmp_path / "out"), **changes))


def test_classes_and_validation_scans_must_be_there(street: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label map 'street' has no raod"):
        run(settings(street, tmp_path, classes=("raod",)))
    with pytest.raises(DataError, match="no scans to validate on"):
        run(settings(street, tmp_path, train={**SMALL, "hold_out": 0.0}))
    with pytest.raises(DataError, match=r"rows\.jsonl: holds no finished row"):
        write_report(tmp_path)


def test_choosing_on_held_out_training_scans_leaves_val_unseen(street: Path, tmp_path: Path) -> None:
    base = {**SMALL, "val_split": "val", "val_sequences": ["x"], "hold_out": 0.0}
    (row,) = table(settings(street, tmp_path, train=base, hold_out=0.4, methods=("supervised",)))
    assert (row.train.val_split, row.train.val_sequences, row.train.val_data, row.train.hold_out) == ("", (), None, 0.4)
    split = tmp_path / "split"
    split.mkdir()
    for name, drive in zip(("train", "val"), sorted(street.iterdir()), strict=False):
        (split / name).symlink_to(drive)
    train_scans, val_scans = open_data(base_settings(settings(split, tmp_path, hold_out=0.5)))
    assert val_scans is not None
    assert [*train_scans.keys, *val_scans.keys] == list(open_scans(split, "train").keys)


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
