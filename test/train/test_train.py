# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, repeats, resumes bit for bit, and says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support import PATIENCE_S
from weakseg_ros import registry
from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.cli import main
from weakseg_ros.config import load_yaml
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.errors import ConfigError, DataError, WeaksegError
from weakseg_ros.methods.settings import SupervisedSettings
from weakseg_ros.methods.supervised import Supervised
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.machine import precision_of
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.survey import DataStatistics
from weakseg_ros.train.train import learning_rate, train
from weakseg_ros.train.training_data import open_data
from weakseg_ros.train.validate import Predictor, validate
from weakseg_ros.weak.draw import draw_sparse
from weakseg_ros.weak.protocols import SparseConfig

NAMES = ("unlabelled", "low", "left", "right")
LABELS = LabelMap("toy", tuple(LabelClass(i, name, (i, i, i), False, (i,)) for i, name in enumerate(NAMES)))
SPEC = RangeSpec(16, 48, fov_up_deg=15.0, fov_down_deg=-15.0)


def write_scans(folder: Path, count: int = 10, labelled: bool = True, seed: int = 0) -> Path:
    """Scans whose classes follow from the direction, so that a small net can learn them and points in a pixel agree."""
    rng = np.random.default_rng(seed)
    with ScanWriter(folder, LABELS, SPEC, source="test", seed=seed, intensity_full_scale=1.0) as writer:
        for _ in range(count):
            direction = rng.normal(size=(1500, 3)) * (1, 1, 0.15)
            xyz = direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(3, 40, (1500, 1))
            label = np.where(direction[:, 2] < 0, 1, np.where(direction[:, 1] > 0, 2, 3)) * labelled
            writer.write(make_cloud(xyz, rng.random(1500)), label.astype(np.uint32))
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans")


def settings(data: Path, out: Path, **changes: Any) -> TrainConfig:
    small = TrainConfig(
        data=data,
        out=out,
        net_width=16,
        steps=20,
        warmup_steps=4,
        batch_size=2,
        validate_every=0,
        log_every=1,
        precision="32-true",
        accelerator="cpu",
    )
    return dataclasses.replace(small, **changes)


def rows_without_time(run: RunFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "elapsed_s"} for row in run.metrics()]


def assert_same_run(ours: RunFolder, theirs: RunFolder) -> None:
    assert rows_without_time(ours) == rows_without_time(theirs)
    for name in ("last/net", "last/average", "best"):
        first, second = (load_file(run.path / f"{name}.safetensors") for run in (ours, theirs))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_learns_and_leaves_a_run_folder(scans: Path, tmp_path: Path) -> None:
    augment = AugmentConfig(flip=0.0, turn=0.0)  # left and right are what it is to learn
    config = settings(scans, tmp_path / "run", steps=60, validate_every=30, learning_rate=1e-2, augment=augment)
    run = train(config)
    rows = run.metrics()
    losses = [row for row in rows if "loss" in row]
    judged = [row for row in rows if "miou" in row]
    assert [row["step"] for row in losses] == list(range(60))
    assert losses[0].keys() == {"step", "loss", "supervised.focal", "supervised.lovasz", "lr", "elapsed_s"}
    assert [row["step"] for row in judged] == [29, 59]
    weights, figures = run.load_best()
    assert figures["miou"] == max(row["miou"] for row in judged) > 0.8
    assert set(figures["class_iou"]) == {"low", "left", "right"}
    facts = run.environment()
    assert facts["data"]["hash"] != facts["val"]["hash"]
    assert facts["data"]["scans"] == 8
    assert facts["precision"] == "32-true"
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_resuming_continues_bit_for_bit(scans: Path, tmp_path: Path) -> None:
    changes = {"net": "salsanext", "net_width": 4, "validate_every": 5}  # its dropout draws random numbers
    straight = train(settings(scans, tmp_path / "straight", **changes))
    halves = settings(scans, tmp_path / "halves", **changes)
    train(halves, stop_at=10)
    resumed = train(dataclasses.replace(halves, resume=True))
    assert_same_run(straight, resumed)


def test_a_crash_after_the_checkpoint_costs_only_what_came_after_it(scans: Path, tmp_path: Path) -> None:
    straight = train(settings(scans, tmp_path / "straight", validate_every=5))
    crashed = settings(scans, tmp_path / "crashed", validate_every=5)
    train(crashed, stop_at=10)
    run = RunFolder(crashed.out)
    run.log({"step": 10, "loss": 1.0})  # written after the checkpoint, lost with the process
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "lo')  # cut short by the crash
    (run.path / "last").rename(run.path / ".last.old")  # ended between two renames
    assert_same_run(straight, train(dataclasses.replace(crashed, resume=True)))


def test_the_saved_settings_repeat_the_run(scans: Path, tmp_path: Path) -> None:
    first = train(settings(scans, tmp_path / "first", overwrite=True))
    stored = load_yaml(TrainConfig, first.path / "config.yaml")
    assert not stored.overwrite, "to repeat it replaces no bundle unasked"
    assert_same_run(first, train(dataclasses.replace(stored, out=tmp_path / "second")))


def test_another_seed_is_another_run(scans: Path, tmp_path: Path) -> None:
    runs = [train(settings(scans, tmp_path / str(seed), seed=seed, steps=5)) for seed in (1, 2)]
    assert rows_without_time(runs[0]) != rows_without_time(runs[1])


def test_what_is_resumed_must_be_the_same_data(scans: Path, tmp_path: Path) -> None:
    config = settings(scans, tmp_path / "run", steps=6)
    train(config, stop_at=5)
    other = write_scans(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match="other scans"):
        train(dataclasses.replace(config, data=other, resume=True))


def test_a_folder_in_use_is_not_overwritten(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        train(settings(scans, tmp_path))
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        train(settings(scans, tmp_path / "nothing", resume=True))


def test_nothing_labelled_is_refused_before_training(tmp_path: Path) -> None:
    data = write_scans(tmp_path / "scans", count=3, labelled=False)
    with pytest.raises(DataError, match="labelled point"):
        train(settings(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_damaged_validation_scan_is_said_before_the_training(tmp_path: Path) -> None:
    data = write_scans(tmp_path / "scans", count=6)
    damaged = data / "velodyne" / "000005.bin"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    config = settings(data, tmp_path / "run", hold_out=0.34, steps=5)
    with pytest.raises(DataError, match=r"1 of the validation scans cannot be read; the first: .*000005\.bin"):
        train(config)
    assert not config.out.exists()
    kept = dataclasses.replace(config, max_val_scans=1)  # the others are nobody's business
    assert train(kept).load_best()[1]["step"] == 4


class Diverging(Supervised):
    """Supervised learning whose loss breaks at 15 % of the training."""

    def losses(self, batch: Any, out: Any, progress: float) -> dict[str, torch.Tensor]:
        losses = super().losses(batch, out, progress)
        return {**losses, "extra": losses["focal"] * (float("nan") if progress >= 0.15 else 0.0)}


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weakseg_ros.methods.supervised.Diverging", Diverging, raising=False)
    monkeypatch.setitem(registry.METHODS, "supervised", "weakseg_ros.methods.supervised:Diverging")
    with pytest.raises(WeaksegError, match=r"nan at step 3 .*extra"):
        train(settings(scans, tmp_path / "run"))


def test_plain_cross_entropy_is_a_matter_of_settings(scans: Path, tmp_path: Path) -> None:
    plain = SupervisedSettings(gamma=0.0, class_weights=False, lovasz_weight=0.0)
    rows = train(settings(scans, tmp_path / "run", steps=5, supervised=plain)).metrics()
    assert rows[0].keys() == {"step", "loss", "supervised.focal", "lr", "elapsed_s"}
    assert rows[0]["loss"] == pytest.approx(np.log(3), rel=0.5)


def test_drawn_and_stored_sparse_labels_are_the_same(scans: Path, tmp_path: Path) -> None:
    draw = SparseConfig(protocol="voxel", ratio=0.01, seed=3)
    draw_sparse(open_scans(scans), draw, tmp_path / "sparse")
    drawn = train(settings(scans, tmp_path / "drawn", draw=draw, steps=5))
    stored = train(settings(scans, tmp_path / "stored", sparse_labels=tmp_path / "sparse", steps=5))
    statistics = [load_yaml(DataStatistics, run.path / "statistics.yaml") for run in (drawn, stored)]
    assert statistics[0].class_counts == statistics[1].class_counts
    assert 0.005 < statistics[0].label_ratio < 0.05
    assert_same_run(drawn, stored)
    with pytest.raises(ConfigError, match="drawn already"):
        settings(scans, tmp_path / "both", draw=draw, sparse_labels=tmp_path / "sparse")


def test_time_ends_a_run_with_the_schedule_at_its_end(scans: Path, tmp_path: Path) -> None:
    run = train(settings(scans, tmp_path / "run", steps=100_000, max_minutes=0.1))
    rates = [row["lr"] for row in run.metrics() if "lr" in row]
    assert len(rates) < 10_000
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < rates[peak], "how far it falls depends on how long the last step takes"
    assert (run.path / "best.safetensors").exists()


def test_the_schedule_runs_ahead_of_the_steps_where_time_is_short() -> None:
    config = TrainConfig(steps=1000, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(config, 4, 0.3) == pytest.approx(0.5)  # warming up all the same
    assert learning_rate(config, 4, 1.0) == 0.0  # time is up before the warm-up is over
    assert learning_rate(config, 500, 0.5) > learning_rate(config, 500, 0.9) > learning_rate(config, 999, 0.999) == 0.0


def test_where_validation_scans_come_from(scans: Path, tmp_path: Path) -> None:
    def split(**changes: Any) -> tuple[int, int | None]:
        train_scans, val_scans = open_data(settings(scans, tmp_path / "run", **changes))
        return len(train_scans), None if val_scans is None else len(val_scans)

    assert split() == (8, 2)
    assert split(hold_out=0.5) == (5, 5)
    assert split(hold_out=0.0) == (10, None)
    assert split(val_data=write_scans(tmp_path / "val", count=2)) == (10, 2)


def test_no_scan_is_trained_on_and_validated_on(tmp_path: Path) -> None:
    def keys(data: Path, **changes: Any) -> tuple[list[str], list[str]]:
        train_scans, val_scans = open_data(settings(data, tmp_path / "run", **changes))
        assert val_scans is not None
        return list(train_scans.keys), list(val_scans.keys)

    split, drives = tmp_path / "split", tmp_path / "drives"
    for seed, folder in enumerate([split / "train", split / "val", drives / "a", drives / "b", drives / "val"]):
        write_scans(folder, count=2, seed=seed)
    assert keys(split, val_split="val") == (["000000", "000001"], ["000000", "000001"])
    train_scans, _ = open_data(settings(split, tmp_path / "run", val_split="val"))
    assert train_scans.content_hash == open_scans(split, "train").content_hash
    assert keys(split, val_data=split / "val")[0] == ["000000", "000001"]
    others = ["a/000000", "a/000001", "val/000000", "val/000001"]
    assert keys(drives, val_sequences=("b",)) == (others, ["b/000000", "b/000001"])
    without_val = ["a/000000", "a/000001", "b/000000", "b/000001"]
    assert keys(drives, val_split="val")[0] == keys(drives, val_data=drives / "val")[0] == without_val
    assert keys(drives, sequences=("a",), val_sequences=("b",)) == (["a/000000", "a/000001"], ["b/000000", "b/000001"])
    for changes in ({"sequences": ("a", "b"), "val_sequences": ("b",)}, {"val_data": drives}):
        with pytest.raises(ConfigError, match=r"validation scans are also training scans \(the first: "):
            keys(drives, **changes)


def test_a_run_says_which_split_it_was_trained_on(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "val")):
        write_scans(tmp_path / "data" / name, count=2, seed=seed)
    run = train(settings(tmp_path / "data", tmp_path / "run", steps=5, val_split="val"))
    assert run.environment()["data"]["scans"] == run.environment()["val"]["scans"] == 2
    assert load_yaml(TrainConfig, run.path / "config.yaml").split == "train"


def test_without_validation_the_last_net_is_the_best(scans: Path, tmp_path: Path) -> None:
    run = train(settings(scans, tmp_path / "run", hold_out=0.0, steps=5))
    best, last = load_file(run.path / "best.safetensors"), load_file(run.path / "last" / "average.safetensors")
    assert all(torch.equal(best[key], last[key]) for key in best)


def test_validation_counts_every_point_once_and_splits_over_processes(scans: Path, tmp_path: Path) -> None:
    config = settings(scans, tmp_path / "run", steps=5)
    run = train(config)
    _, val_scans = open_data(config)
    statistics = load_yaml(DataStatistics, run.path / "statistics.yaml")
    net = registry.load(registry.NETS, "light")(5, LABELS.num_classes, width=16)
    net.load_state_dict(run.load_best()[0])
    whole = validate(net, val_scans, statistics.input_spec(SPEC))
    assert whole.counts.sum() == 2 * 1500
    assert whole.miou == pytest.approx(run.load_best()[1]["miou"])
    parts = [validate(net, val_scans, statistics.input_spec(SPEC), rank, 2) for rank in (0, 1)]
    np.testing.assert_array_equal((parts[0] + parts[1]).counts, whole.counts)
    assert validate(net, val_scans, statistics.input_spec(SPEC), limit=1).counts.sum() == 1500
    assert net.training  # left as it was found
    classes = Predictor(net.eval(), statistics.input_spec(SPEC), val_scans.labels).classes(val_scans[0].cloud)
    assert set(np.unique(classes)) <= {0, 1, 2, 3}


def test_mixed_precision_and_point_augmentation_learn_too(scans: Path, tmp_path: Path) -> None:
    augment = AugmentConfig(where="points", mix=0.0)
    run = train(settings(scans, tmp_path / "run", precision="bf16-mixed", augment=augment, steps=40, learning_rate=1e-2))
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert load_file(run.path / "last" / "net.safetensors")["stem.0.weight"].dtype == torch.float32


def test_auto_precision_is_one_that_this_machine_has() -> None:
    assert precision_of(TrainConfig(accelerator="cpu")) in ("bf16-mixed", "32-true")
    assert precision_of(TrainConfig(precision="32-true")) == "32-true"


def test_the_verb_trains_and_a_fault_is_one_sentence(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--net-width", "16", "--steps", "5", "--warmup-steps", "1", "--accelerator", "cpu", "--precision", "32-true"]
    assert main(["train", str(scans), "--out", str(tmp_path / "run"), *size]) == 0
    assert json.loads((tmp_path / "run" / "best.json").read_text())["step"] == 4
    assert main(["train", str(tmp_path / "missing"), "--out", str(tmp_path / "other"), *size]) == 2
    assert "missing" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_resumed_run_keeps_its_settings_and_its_bundle(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(scans, tmp_path / "run", steps=6, warmup_steps=1, out_bundle=tmp_path / "mine", max_val_scans=1)
    train(config, stop_at=5)
    assert main(["train", "--out", str(config.out), "--resume"]) == 0
    assert "1 step, 2 scans per step" in capsys.readouterr().err
    assert Bundle.load(tmp_path / "mine").info.metrics["step"] == 5
    assert main(["train", "--out", str(config.out), "--resume", "--out-bundle", str(tmp_path / "other")]) == 0
    assert Bundle.load(tmp_path / "other").name == "other"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accelerator: 'cuda', but torch finds no CUDA device here; use auto or cpu"):
        train(settings(scans, tmp_path / "run", accelerator="cuda"))


def test_two_processes_train_together(scans: Path, tmp_path: Path) -> None:
    size = ["--net-width", "16", "--steps", "6", "--warmup-steps", "1", "--accelerator", "cpu", "--precision", "32-true"]
    command = [sys.executable, "-m", "weakseg_ros", "train", str(scans), "--out", str(tmp_path / "run"), "--devices", "2", *size]
    command += ["--out-bundle", str(tmp_path / "bundle")]
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}  # each process says what it imports
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = RunFolder(tmp_path / "run").load_best()[1]
    assert figures["step"] == 5
    assert sum(1 for row in RunFolder(tmp_path / "run").metrics() if "miou" in row) == 1  # one process writes
    assert len(re.findall(r"\bweakseg_ros\.train\.session$", done.stderr, re.MULTILINE)) == 2
    assert len(re.findall(r"\bweakseg_ros\.train\.export$", done.stderr, re.MULTILINE)) == 1  # one process exports
    assert Bundle.load(tmp_path / "bundle").info.metrics["step"] == 5


def test_the_settings_that_ship_are_valid(root: Path) -> None:
    files = sorted((root / "config" / "train").glob("*.yaml"))
    assert files
    for file in files:
        load_yaml(TrainConfig, file)


def test_real_scans_train(shared_data: Path, tmp_path: Path) -> None:
    config = settings(shared_data / "vlp32_drive", tmp_path / "run", steps=5, max_val_scans=1)
    figures = train(config).load_best()[1]
    assert 0.0 <= figures["miou"] <= 1.0
    assert len(figures["class_iou"]) == 10
