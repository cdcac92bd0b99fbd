# SPDX-License-Identifier: Apache-2.0
"""The benchmark's table: every row once, whatever interrupts it; figures that can be recomputed; shipped tables that run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import PATIENCE_S
from support.small_table import CLASSES, SMALL, run, settings
from weakseg_ros.benchmark.report import write_report
from weakseg_ros.benchmark.rows import RowFile
from weakseg_ros.benchmark.table import BenchmarkConfig, base_settings, table
from weakseg_ros.cli import main
from weakseg_ros.config import load_yaml
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.locks import alone
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.train import train
from weakseg_ros.train.training_data import open_data
from weakseg_ros.weak.protocols import SparseConfig


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("wall_s", "step_ms", "peak_mib", "environment")}


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


def test_a_file_that_was_edited_is_another_setting(street: Path, tmp_path: Path) -> None:
    own, bundle = tmp_path / "mine.yaml", tmp_path / "bundle"
    bundle.mkdir()
    train = {**SMALL, "label_map": str(own), "init": str(bundle)}

    def hashes() -> set[str]:
        return {row.settings_hash for row in table(settings(street, tmp_path, train=train))}

    rows = LabelMap.load("street").to_rows()
    own.write_text(json.dumps(rows))
    (bundle / "bundle.yaml").write_text("model_sha256: 1\n")
    first = hashes()
    own.write_text(json.dumps([{**row, "color": [1, 2, 3]} for row in rows], indent=1))
    assert hashes() == first, "colours are not learnt"
    own.write_text(json.dumps([rows[0], *({**row, "id": len(rows) - row["id"]} for row in reversed(rows[1:]))]))
    second = hashes()
    assert second.isdisjoint(first)
    (bundle / "bundle.yaml").write_text("model_sha256: 2\n")
    assert hashes().isdisjoint(second)


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


def test_a_row_that_fails_says_so_and_the_others_go_on(street: Path, tmp_path: Path) -> None:
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
        ({"variants": {"a/b": {"steps": 3}}}, "variants: the name 'a/b' is no name of a folder"),
        ({"variants": {"": {"steps": 3}}}, "variants: the name '' is no name of a folder"),
        ({"variants": {"..": {"steps": 3}}}, "variants: the name '..' is no name of a folder"),
        ({"variants": {"x": {"methods": ["erdaa"]}}}, "unknown 'erdaa'; did you mean 'erda'"),
        ({"variants": {"x": {"nets": ["lihgt"]}}}, "net: unknown 'lihgt'; did you mean 'light'"),
        ({"train": {**SMALL, "sparse_labels": "x"}}, "^train: names labels to train on; a benchmark draws its own"),
        ({"methods": ()}, "methods: is empty"),
        ({"ratios": (2.0,)}, "ratios: 2.0 is outside"),
        ({"methods": ("suprvised",)}, "did you mean 'supervised'"),
        ({"nets": ("lite",)}, "net: unknown 'lite'; did you mean 'light'"),
        ({"override": ("steps",)}, "override: 'steps' lacks '='"),
        ({"override": ("nets=[light",)}, r"override: 'nets=\[light': is not valid YAML"),
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
    with pytest.raises(DataError, match="label map 'street' has no raod; it has road, parking"):
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
