# SPDX-License-Identifier: Apache-2.0
"""The settings of a retraining."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.improve.retrain.gate import GateConfig


@dataclass(frozen=True)
class RetrainConfig:
    """Fine-tune the deployed bundle on newly clicked frames, and deploy the result if it passes the gate."""

    frames: Path = Path()
    """Folder of logged frames with clicks ('weakseg label'): the node's log_folder, the output of 'weakseg select', or a
    folder of such folders with one for each robot."""
    bundle: str = "models/current"
    """The bundle to fine-tune: the path of its folder, or the name of one that ships."""
    models: Path = Path("models")
    """Folder that holds `current` and `versions`."""
    name: str = ""
    """Base name of the new version; empty takes the bundle's name."""
    out: Path | None = None
    """Folder to write the run to; by default it is runs/retrain/VERSION."""
    promote: bool = True
    """Deploy the new bundle as models/current if it passes the gate; otherwise only report the result."""

    clicks: str = "clicks"
    """Name of the set of clicks in FRAMES/sparse."""
    held_out: float = setting(0.2, 0.01, 0.9)
    """Fraction of the clicked frames that is held out from training for evaluation (0.01 to 0.9), chosen by a hash of the
    frame's name."""
    replay: Path | None = None
    """Path of the bundle's original training data; by default it is read from the bundle's provenance."""
    replay_labels: Path | None = None
    """Path of the sparse labels of the replay data; by default it is read from the provenance, or searched under sparse/ of
    `replay`."""
    no_replay: bool = False
    """Train on the new clicks alone, without replay data; the network then forgets faster, which the gate checks."""
    replay_scans: int = setting(200, 1)
    """Number of original training scans that are mixed with the new ones (1 or more), drawn with `seed`."""
    new_share: float = setting(0.25, 0.05, 0.95)
    """Fraction of new scans in each batch, and their weight in the loss (0.05 to 0.95); few clicks need a small value to
    avoid overfitting."""
    spread_m: float = setting(0.3, 0.0, 10.0)
    """Points within this distance of a click are trained on with its class, in metres (0 to 10); 3 % of the range is
    added."""
    regression: Path | None = None
    """Labelled scans on which the new bundle must not get worse; by default it is the bundle's own validation set."""
    regression_split: str = ""
    """Name of the split of `regression` to evaluate on, for example val."""
    regression_scans: int = setting(100, 0)
    """Maximum number of regression scans, evenly spaced over the set; 0 takes all of them."""
    intensity_scale: float = setting(0.0, 0.0, 1e6)
    """Factor on the intensity of the new frames; 0 derives it from the sensor and the training data. A factor recorded with
    a frame by the robot takes precedence."""

    method: str = ""
    """Name of the training method; empty takes the one that the bundle was trained with."""
    steps: int = setting(600, 1)
    """Number of optimiser steps (1 or more)."""
    batch_size: int = setting(4, 2, 4096)
    """Number of scans per batch (2 to 4096)."""
    learning_rate: float = setting(1e-3, 1e-8, 10.0)
    """Peak learning rate (1e-8 to 10); the default is a quarter of the one for training from scratch."""
    seed: int = setting(1, 0)
    """Random seed of the whole run (0 or more)."""
    gate: GateConfig = field(default_factory=GateConfig)
    """Limits that the new bundle must keep to be deployed."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.no_replay and self.replay is not None:
            raise ConfigError("no_replay: contradicts replay; leave one of them out")
