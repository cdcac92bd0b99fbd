# SPDX-License-Identifier: Apache-2.0
"""The settings of a retraining."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.improve.retrain.gate import GateConfig
from weakseg_ros.weak.propagate import PropagateSettings


@dataclass(frozen=True)
class RetrainConfig:
    """Fine-tune the deployed bundle on newly clicked frames, and deploy the result if it passes the gate."""

    frames: Path = Path()
    """Names the folder of logged frames with clicks from 'weakseg label': the node's log_folder, the output of 'weakseg
    select', or a folder that holds one such folder for each robot."""
    bundle: str = "models/current"
    """Names the bundle to fine-tune: the path of its folder, or the name of an installed one."""
    models: Path = Path("models")
    """Names the folder that holds `current` and `versions`."""
    name: str = ""
    """Sets the base name of the new version; an empty string uses the bundle's name."""
    out: Path | None = None
    """Names the run folder; the default is runs/retrain/VERSION."""
    promote: bool = True
    """Deploys the new bundle as models/current if it passes the gate; without it, the result is only reported."""

    clicks: str = "clicks"
    """Names the set of clicks in FRAMES/sparse."""
    held_out: float = setting(0.2, 0.01, 0.9)
    """Sets the fraction of the clicked frames that is held out for evaluation, chosen by a hash of the frame's name (0.01 to
    0.9)."""
    replay: Path | None = None
    """Names the folder of the bundle's original training data; by default, it is taken from the bundle's provenance."""
    replay_labels: Path | None = None
    """Names the folder of sparse labels of the replay data; by default, it is taken from the provenance or found under sparse/
    in `replay`."""
    no_replay: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Trains on the new clicks alone, without replay data; the network then forgets faster, which the gate checks."""
    replay_scans: int = setting(200, 1)
    """Sets the number of original training scans that are mixed with the new ones, drawn with `seed` (1 or more)."""
    new_share: float = setting(0.25, 0.05, 0.95)
    """Sets the fraction of new scans in each batch and their weight in the loss (0.05 to 0.95); few clicks need a small value
    to avoid overfitting."""
    spread_m: float = setting(0.3, 0.0, 10.0)
    """Sets the radius in metres around a click within which points are trained on with its class (0 to 10); it
    grows by 3 % for each metre of range, so that 0.3 m become 0.48 m at 20 m."""
    propagate: PropagateSettings = field(default_factory=PropagateSettings)
    """Sets how clicks are propagated to the frames before and after, including frames without a click; held-out frames neither
    give nor take labels."""
    regression: Path | None = None
    """Names the labelled scans on which the new bundle must not get worse; by default, it is the bundle's own validation
    set."""
    regression_split: str = ""
    """Selects the split of `regression` to evaluate on, for example val."""
    regression_scans: int = setting(100, 0)
    """Limits the number of regression scans, which are evenly spaced over the set (1 or more); 0 uses all of them."""
    intensity_scale: float = setting(0.0, 0.0, 1e6)
    """Sets the factor on the intensity of the new frames (0 to 1000000); 0 derives it from the sensor and the training data. A
    factor that the robot recorded with a frame takes precedence."""

    method: str = ""
    """Selects the training method by name; an empty string uses the one that the bundle was trained with."""
    steps: int = setting(600, 1)
    """Sets the number of optimiser steps (1 or more)."""
    batch_size: int = setting(4, 2, 4096)
    """Sets the number of scans per batch (2 to 4096)."""
    learning_rate: float = setting(1e-3, 1e-8, 10.0)
    """Sets the peak learning rate (1e-8 to 10); the default is a quarter of the one for training from scratch."""
    seed: int = setting(1, 0)
    """Seeds the whole run (0 or more)."""
    gate: GateConfig = field(default_factory=GateConfig)
    """Sets the limits that the new bundle must keep to be deployed."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if "/" in self.name:
            raise ConfigError(f"name: '{self.name}' is no name of a folder; leave out '/', --models says where it is")
        if self.no_replay and self.replay is not None:
            raise ConfigError("no_replay: contradicts replay; leave one of them out")
