# SPDX-License-Identifier: Apache-2.0
"""How the scripts of the shipped bundles train on what they have simulated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from weakseg_ros.config import load_yaml
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_run
from weakseg_ros.train.run_folder import RunFolder
from weakseg_ros.train.train import train


def train_bundle(runs: Path, settings: Path, bundle: Path, class_prior: float = 0.0) -> None:
    """Train on the scans in `runs`/train, or go on with the run in `runs`/run that was ended, and export it in half precision."""
    config = load_yaml(TrainConfig, settings, TrainConfig(data=runs / "train", out=runs / "run"))
    run = train(dataclasses.replace(config, resume=RunFolder(runs / "run").has_checkpoint()))
    export_run(run.path, bundle, half=True, class_prior=class_prior)
