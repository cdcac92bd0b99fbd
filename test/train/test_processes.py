# SPDX-License-Identifier: Apache-2.0
"""Several processes train as one would: the same scans, the mean of their gradients, and a checkpoint that one goes on from."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from support import PATIENCE_S
from weakseg_ros.batches.batches import make_batch, step_generator
from weakseg_ros.cli import main
from weakseg_ros.config import dump_yaml, load_yaml
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.resuming import resumed
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.session import open_training
from weakseg_ros.train.survey import survey
from weakseg_ros.train.train import learning_rate

LABELS = LabelMap("toy", tuple(LabelClass(i, name, (i, i, i), False, (i,)) for i, name in enumerate(("none", "low", "high"))))
SPEC = RangeSpec(8, 32, fov_up_deg=15.0, fov_down_deg=-15.0)
STEPS, PROCESSES = 3, 2


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scans"
    rng = np.random.default_rng(0)
    with ScanWriter(folder, LABELS, SPEC, source="test", seed=0, intensity_full_scale=1.0) as writer:
        for _ in range(7):
            xyz = rng.normal(size=(400, 3)) * (10, 10, 1.5)
            writer.write(make_cloud(xyz, rng.random(400)), np.where(xyz[:, 2] < 0, 1, 2).astype(np.uint32))
    return folder


def settings(data: Path, out: Path, **changes: object) -> TrainConfig:
    small = {"net_width": 16, "steps": STEPS, "warmup_steps": 1, "batch_size": 2, "validate_every": 0, "log_every": 1}
    machine = {"accelerator": "cpu", "precision": "32-true", "hold_out": 0.0}
    return TrainConfig(**{"data": data, "out": out, **small, **machine, **changes})


@pytest.fixture(scope="module")
def run_of_two(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A training of a few steps by two processes."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.yaml").write_text(dump_yaml(settings(scans, folder / "run", devices=PROCESSES)))
    command = [sys.executable, "-m", "weakseg_ros", "train", "--config", str(folder / "two.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return RunFolder(folder / "run")


def test_two_processes_get_the_weights_of_one_that_averages_their_gradients(
    run_of_two: RunFolder, scans: Path, tmp_path: Path
) -> None:
    session = open_training(settings(scans, tmp_path / "one"))
    config, images, learner = session.config, session.images, session.learner
    expected = []
    for step in range(STEPS):
        progress = step / STEPS
        for group in session.optimizer.param_groups:
            group["lr"] = learning_rate(config, step, progress)
        session.optimizer.zero_grad()
        before = {name: buffer.clone() for name, buffer in learner.named_buffers()}
        for rank in reversed(range(PROCESSES)):  # the first process's BatchNorm is the one that is kept
            for name, buffer in learner.named_buffers():
                buffer.copy_(before[name])
            numbers = images.of_step(step, config.batch_size, rank, PROCESSES, config.seed)
            batch = make_batch(session.input, *images.draw(numbers, step_generator(step, rank, config.seed)))
            losses = learner(batch.image, batch.labels, batch.mask, progress)
            total = torch.stack(list(losses.values())).sum()
            (total / PROCESSES).backward()
        session.optimizer.step()
        expected.append(total.item())
    session.run.let_go()
    found = [row["loss"] for row in run_of_two.metrics() if "loss" in row][:STEPS]
    assert found == pytest.approx(expected, rel=1e-3), "float32 in another order, through the roots of three steps of Adam"
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    theirs = run_of_two.load_last()[0]["net"]
    away = torch.cat([(value - theirs[name]).flatten().float() for name, value in learner.net.state_dict().items()])
    same = away.abs() < 1e-4
    assert same.float().mean() > 0.98, "Adam's first steps go by the sign alone of gradients that are nearly zero"


def test_a_checkpoint_of_two_processes_goes_on_in_one(run_of_two: RunFolder) -> None:
    assert main(["train", "--out", str(run_of_two.path), "--resume", "--steps", str(STEPS + 2)]) == 0
    now = load_yaml(TrainConfig, run_of_two.path / "config.yaml")
    assert (now.devices, now.batch_size, now.steps) == (1, 4, STEPS + 2), "a step takes the scans that it took"
    assert [row["step"] for row in run_of_two.metrics() if "loss" in row] == list(range(STEPS + 2))
    with pytest.raises(ConfigError, match="takes 4 scans per step, which 3 processes cannot share evenly"):
        resumed(TrainConfig(out=run_of_two.path, resume=True, devices=3))


def test_each_process_reads_its_share_and_all_know_the_same(scans: Path, tmp_path: Path) -> None:
    session = open_training(settings(scans, tmp_path / "run"))
    images, channels, classes = session.images, session.config.channels, LABELS.num_classes
    shares: list[list[object]] = []

    def note(own: list[object]) -> list[list[object]]:
        shares.append(own)
        raise StopIteration

    for rank in range(PROCESSES):
        with pytest.raises(StopIteration):
            survey(images, channels, classes, rank, PROCESSES, note)
    assert [len(share) for share in shares] == [4, 3], "no scan is read twice"
    together = survey(images, channels, classes, 0, PROCESSES, lambda own: shares)
    assert dataclasses.asdict(together) == dataclasses.asdict(survey(images, channels, classes)), "to the last bit"
    session.run.let_go()
