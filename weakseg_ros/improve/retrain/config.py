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
    """Train a deployed bundle further on newly clicked frames, and deploy the result where it passes the gate."""

    frames: Path = Path()
    """folder of logged frames with clicks ('weakseg label'): what the node wrote as log_folder, or 'weakseg select'; or a
    folder of such folders, one for each robot"""
    bundle: str = "models/current"
    """the bundle to begin from: a path, or the name of a shipped one"""
    models: Path = Path("models")
    """folder that holds `current` and `versions`"""
    name: str = ""
    """what the versions are called; empty: as the bundle"""
    out: Path | None = None
    """run folder to write; none: runs/retrain/VERSION"""
    promote: bool = True
    """change models/current where the gate passes; otherwise only say so"""

    clicks: str = "clicks"
    """name of the clicks in FRAMES/sparse"""
    held_out: float = setting(0.2, 0.01, 0.9)
    """share of the clicked frames that is not trained on, to report on; chosen by a hash of the frame's name"""
    replay: Path | None = None
    """where the data lie that the bundle was trained on; none: where its provenance says"""
    replay_labels: Path | None = None
    """where the sparse labels of the replay lie; none: where the provenance says, or under sparse/ of `replay`"""
    no_replay: bool = False
    """train on the new clicks alone; the net forgets faster, which the gate sees"""
    replay_scans: int = setting(200, 1)
    """how many old scans are trained on beside the new ones, drawn with the seed"""
    new_share: float = setting(0.25, 0.05, 0.95)
    """share of the new scans in each batch, and their weight in the loss; few clicks want little, or they are learnt by heart"""
    spread_m: float = setting(0.3, 0.0, 10.0)
    """points so near to a click (and 3 % farther with each metre from the sensor) are trained on as of its class, too"""
    regression: Path | None = None
    """labelled scans that the bundle must not get worse on; none: what it was validated on in training"""
    regression_split: str = ""
    """part of `regression`, as the data set calls it"""
    regression_scans: int = setting(100, 0)
    """at most this many of them, evenly spread; 0: all"""
    intensity_scale: float = setting(0.0, 0.0, 1e6)
    """factor on the intensity of the new frames, as the node's parameter of this name; 0 = by sensor and training data. Frames
    whose record holds the factor that the robot used are read with that one"""

    method: str = ""
    """row of registry.METHODS; empty: the one that the bundle was trained with"""
    steps: int = setting(600, 1)
    """optimiser steps"""
    batch_size: int = setting(4, 2, 4096)
    """scans per step"""
    learning_rate: float = setting(1e-3, 1e-8, 10.0)
    """highest learning rate; a quarter of what training from nothing takes"""
    seed: int = setting(1, 0)
    """of everything random"""
    gate: GateConfig = field(default_factory=GateConfig)
    """what the new bundle may cost"""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.no_replay and self.replay is not None:
            raise ConfigError("no_replay: contradicts replay; leave one of them out")
