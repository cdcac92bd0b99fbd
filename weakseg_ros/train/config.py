# SPDX-License-Identifier: Apache-2.0
"""The settings of a training, all of them; `config.yaml` of a run folder is one of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError
from weakseg_ros.weak.protocols import SparseConfig


@dataclass(frozen=True)
class TrainConfig:
    """Train a net on dense or sparse labels."""

    data: Positional[Path] = Path(".")
    """folder of scans to train on, in any layout that `open_scans` knows"""
    out: Path = Path("runs/train")
    """run folder to write: settings, metrics, checkpoints"""
    resume: bool = False
    """continue the run in `out` from its last checkpoint, with the settings it was started with"""
    out_bundle: Path | None = field(default=None, metadata={"was": "bundle"})
    """folder to export the best net to as a bundle at the end; a link is never replaced, a bundle only with `overwrite`"""
    overwrite: bool = False
    """replace the bundle that lies at `out_bundle`"""

    init: str = ""
    """begin with the weights of a bundle (a path, or the name of a shipped one), or of a checkpoint of a published net"""

    split: str = ""
    """part of the data to train on ('train'); empty: the data's own split, or all but `hold_out`"""
    sequences: tuple[str, ...] = ()
    """recordings to train on, by name; empty: all of the split"""
    label_map: str = setting("", was="labels")
    """label map by name or file, in place of the data's own"""
    sparse_labels: Path | None = None
    """train on the labels that 'weakseg sparse' stored in this folder"""
    draw: SparseConfig = field(default_factory=lambda: SparseConfig(protocol="full"))
    """train on labels drawn now: the same ones that 'weakseg sparse' would store with these settings"""
    val_data: Path | None = None
    """folder to validate on, where it is another one"""
    val_split: str = ""
    """part of the data to validate on ('val')"""
    val_sequences: tuple[str, ...] = ()
    """recordings to validate on, by name"""
    hold_out: float = setting(0.2, 0.0, 0.9)
    """share at the end of the data to validate on where nothing else is given; 0: no validation"""
    max_val_scans: int = setting(0, 0)
    """validate on at most this many scans, evenly spread; 0: all"""

    net: str = "light"
    """a row of registry.NETS"""
    net_width: int = setting(32, 2, 512)
    """channels of the net at full resolution (32 as published)"""
    net_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """further settings of the net by name, e.g. layers 53 or deep_supervision True (squeezesegv3)"""
    channels: tuple[str, ...] = ("range", "x", "y", "z", "intensity")
    """what the net sees of each point: range, x, y, z, intensity, valid"""
    mean: tuple[float, ...] = ()
    """of each channel, to normalise with; none: measured on the training scans"""
    std: tuple[float, ...] = ()
    """likewise, the standard deviations"""
    height: int = setting(0, 0, 4096)
    """rows of the range image; 0: the data's own"""
    width: int = setting(0, 0, 16384)
    """columns of the range image; 0: the data's own"""
    fov_up_deg: float | None = None
    """inclination of the range image's upper edge in degrees, above the horizon positive; none: the data's own, or measured"""
    fov_down_deg: float | None = None
    """inclination of the range image's lower edge in degrees, below the horizon negative; none: the data's own, or measured"""
    method: str = "supervised"
    """a row of registry.METHODS"""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """settings of the method by name, e.g. lovasz_weight 0.5"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """how training scans are varied"""

    steps: int = setting(4000, 1)
    """optimiser steps of the whole training"""
    max_minutes: float = setting(0.0, 0.0)
    """end earlier after this time, the learning rate scheduled accordingly (such a run is not repeatable); 0: no limit"""
    batch_size: int = setting(4, 1, 4096)
    """scans per step and process"""
    learning_rate: float = setting(4e-3, 1e-8, 10.0)
    """highest learning rate of AdamW, after the warm-up; ends at 0 along half a cosine"""
    warmup_steps: int = setting(100, 0)
    """steps over which the learning rate rises"""
    weight_decay: float = setting(0.01, 0.0, 1.0)
    """of AdamW"""
    average_decay: float = setting(0.99, 0.0, 0.99999)
    """running average of the weights that is validated and exported; 0: the weights themselves"""
    seed: int = setting(1, 0)
    """of everything random"""

    validate_every: int = setting(500, 0)
    """steps between validations and checkpoints; 0: once, at the end"""
    log_every: int = setting(20, 1)
    """steps between lines in metrics.jsonl"""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """arithmetic of training; auto: bf16 where the device has it in hardware, else float32"""
    accelerator: str = "auto"
    """where to train: auto, cpu, cuda"""
    devices: int = setting(1, 1)
    """processes on this machine, one a device"""
    num_nodes: int = setting(1, 1)
    """machines; start the same command on each with torchrun or SLURM"""
    workers: int = setting(1, 1, 64)
    """threads that prepare batches ahead of the training"""
    cache_gib: float = setting(4.0, 0.0)
    """memory for prepared scans, per process; what does not fit is read again each time"""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.warmup_steps >= self.steps and not self.resume:  # a resumed run brings its own
            raise ConfigError(f"warmup_steps: {self.warmup_steps} must be fewer than steps {self.steps}")
        if not len(self.mean) == len(self.std) in (0, len(self.channels)):
            raise ConfigError(f"mean, std: have {len(self.mean)} and {len(self.std)} values for {len(self.channels)} channels")
        if not all(deviation > 0 for deviation in self.std):
            raise ConfigError(f"std: {list(self.std)} must be above 0")
        if self.sparse_labels is not None and self.draw.protocol != "full":
            raise ConfigError("sparse_labels: the labels are drawn already; leave draw.protocol at 'full'")


@dataclass(frozen=True)
class ExportConfig:
    """Turn a training run into a bundle."""

    run: Positional[Path]
    """run folder that 'weakseg train' wrote"""
    out: Path = Path("models/mine")
    """bundle folder to write; a link is never replaced, a bundle only with `overwrite`"""
    overwrite: bool = False
    """replace the bundle that lies at `out`"""
    name: str = ""
    """what the bundle calls itself; empty: the name of its folder"""
    scans: int = setting(24, 1)
    """validation scans to calibrate on, evenly spread"""
    half: bool = False
    """store the weights in half precision: half the size; they are computed with in single precision all the same"""

    def __post_init__(self) -> None:
        check_ranges(self)
