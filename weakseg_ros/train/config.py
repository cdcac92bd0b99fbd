# SPDX-License-Identifier: Apache-2.0
"""The settings of a training, all of them; `config.yaml` of a run folder is one of these."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from tyro.conf import Positional, arg

from weakseg_ros.batches.settings import AugmentConfig
from weakseg_ros.config import check_ranges, setting, to_mapping
from weakseg_ros.deploy.bundle import VARIANTS
from weakseg_ros.errors import ConfigError, counted, did_you_mean
from weakseg_ros.methods.parts import parts_of
from weakseg_ros.methods.settings import SupervisedSettings
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.registry import METHODS, NETS
from weakseg_ros.train.older import in_sections
from weakseg_ros.train.sections import as_section, with_sections
from weakseg_ros.weak.piece_settings import PieceSettings
from weakseg_ros.weak.propagate import PropagateSettings
from weakseg_ros.weak.protocols import SparseConfig


@dataclass(frozen=True)
@with_sections
class TrainConfig:
    """Train a net on dense or sparse labels."""

    data: Positional[Path] = Path(".")
    """Names the folder of scans to train on, in any layout that 'weakseg check' recognises."""
    out: Path = Path("runs/train")
    """Names the run folder to write, with settings, metrics and checkpoints; it must be new or empty."""
    resume: bool = False
    """Continues the run in `out` from its last checkpoint, with the settings that it was started with."""
    out_bundle: Path | None = field(default=None, metadata={"was": "bundle"})
    """Names the folder to which the best net is exported as a bundle at the end; a symbolic link is never replaced, and a
    bundle is replaced only with `overwrite`."""
    overwrite: bool = False
    """Replaces the bundle at `out_bundle`."""

    init: str = ""
    """Starts from the weights of a bundle, given by path or name, or of a checkpoint of a published net; an empty string starts
    from random weights."""

    split: str = ""
    """Selects the training split of the data by name, for example train; an empty string means the data's own training split,
    or all scans except those held out."""
    sequences: tuple[str, ...] = ()
    """Lists the recordings to train on by name; an empty list means all recordings of the split."""
    label_map: str = setting("", was="labels")
    """Selects a label map, by name or as a YAML file, instead of the data's own."""
    sparse_labels: Path | None = None
    """Names the folder of sparse labels, as written by 'weakseg sparse', to train on instead of the data's own labels."""
    draw: SparseConfig = field(default_factory=lambda: SparseConfig(protocol="full"))
    """Draws sparse labels for this training, the same ones that 'weakseg sparse' would store with these settings."""
    propagate: PropagateSettings = field(default_factory=PropagateSettings)
    """Sets how labels are propagated to the scans before and after."""
    pieces: PieceSettings = field(default_factory=PieceSettings)
    """Sets how a label spreads to its piece, the connected surface around it."""
    val_data: Path | None = None
    """Names the folder of scans to validate on, if it is not `data`."""
    val_split: str = ""
    """Selects the validation split of the data by name, for example val."""
    val_sequences: tuple[str, ...] = ()
    """Lists the recordings to validate on by name."""
    hold_out: float = setting(0.2, 0.0, 0.9)
    """Sets the share of the scans, taken from the end, that is held out for validation if no validation scans are named (0 to
    0.9); 0 trains without validation."""
    max_val_scans: int = setting(0, 0)
    """Limits the number of validation scans, which are evenly spaced (1 or more); 0 uses all."""

    net: str = "light"
    """Selects the net by name; the nets are listed above."""
    net_width: int = setting(32, 2, 512)
    """Sets the number of channels of the net at full resolution (2 to 512); the published nets have 32."""
    channels: tuple[str, ...] = ("range", "x", "y", "z", "intensity")
    """Lists the input channels of the net in order, from range, log_range, x, y, z, height (above the ground), intensity,
    relief_left, relief_right, relief_above, relief_below (steps to the neighbouring pixels), bend (roughness) and valid. Nets
    on points have no relief and bend channels; they can use red, green and blue (0 to 1), and x, y and z are relative to the
    centre of the crop."""
    intensity: Literal["scaled", "ranks"] = "scaled"
    """Selects the intensity that the net sees: 'scaled' is on the scale of the training data, and 'ranks' is each point's rank
    within its scan, which does not depend on the scale or gain of a driver."""
    level: bool = False
    """Levels the ground and moves the sensor to a standard height before the projection, in training and on the robot, and
    spreads the rows of the image over scans that span more than it."""
    lift: Literal["auto", "pixel", "vote", "knn"] = "auto"
    """Selects how points get their class from the range image, here and where the model is deployed: 'pixel' copies their pixel's
    class, 'vote' lets the pixels around it vote that are at the same range, 'knn' is the vote of RangeNet++, and 'auto' does as
    the bundle in `init`, or else copies."""
    mean: tuple[float, ...] = ()
    """Lists the mean of each channel for normalisation; an empty list measures it on the training scans."""
    std: tuple[float, ...] = ()
    """Lists the standard deviation of each channel for normalisation, above 0; an empty list measures it on the training
    scans."""
    height: int = setting(0, 0, 4096)
    """Sets the number of rows of the range image (1 to 4096); 0 uses the data's own."""
    width: int = setting(0, 0, 16384)
    """Sets the number of columns of the range image (1 to 16384); 0 uses the data's own."""
    fov_up_deg: float | None = None
    """Sets the inclination of the upper edge of the range image in degrees, positive above the horizon (-90 to 90); None uses
    the data's own, or measures it."""
    fov_down_deg: float | None = None
    """Sets the inclination of the lower edge of the range image in degrees, negative below the horizon (-90 to 90); None uses
    the data's own, or measures it."""
    method: str = "supervised"
    """Selects the training method by name, or several joined by '+', for example erda+coarse3d; the methods are listed above,
    and all of them include the supervised losses."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Sets how training scans are augmented."""

    steps: int = setting(4000, 1)
    """Sets the total number of optimiser steps (1 or more)."""
    max_minutes: float = setting(0.0, 0.0)
    """Limits the training to this many minutes (0 or more) and schedules the learning rate accordingly, so that the run is not
    exactly repeatable; 0 sets no limit."""
    batch_size: int = setting(4, 1, 4096)
    """Sets the number of scans, or of crops for a net on points, per step and process (1 to 4096)."""
    learning_rate: float = setting(4e-3, 1e-8, 10.0)
    """Sets the peak learning rate of the AdamW optimiser, reached after the warm-up and then lowered by `schedule` (1e-08 to
    10)."""
    warmup_steps: int = setting(100, 0)
    """Sets the number of steps over which the learning rate rises from 0 (0 or more); it must be less than `steps`."""
    schedule: Literal["cosine", "exponential"] = "cosine"
    """Selects how the learning rate falls after the warm-up: 'cosine' lowers it to 0 along half a cosine, and 'exponential'
    lowers it to a tenth by the same factor at each step, as ERDA does for nets on points."""
    clip_norm: float = setting(0.0, 0.0)
    """Sets the largest norm of the gradient, above which it is clipped (0 or more); 0 turns clipping off."""
    weight_decay: float = setting(0.01, 0.0, 1.0)
    """Sets the weight decay of the AdamW optimiser (0 to 1)."""
    average_decay: float = setting(0.99, 0.0, 0.99999)
    """Sets the decay per step of the running average of the weights, which is validated and exported (0 to 0.99999); 0 uses the
    weights themselves."""
    seed: int = setting(1, 0)
    """Seeds everything random: weights, order of the scans, augmentation and dropout (0 or more)."""

    validate_every: int = setting(500, 0)
    """Sets the number of steps between validations, each followed by a checkpoint (1 or more); 0 validates only at the end."""
    log_every: int = setting(20, 1)
    """Sets the number of steps between lines in metrics.jsonl (1 or more)."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Selects the precision of the training; 'auto' uses bf16 if the hardware is faster with it, which on a CPU needs AMX, and
    float32 otherwise."""
    accelerator: str = "auto"
    """Selects the device to train on: auto, cpu or cuda."""
    devices: int = setting(1, 1)
    """Sets the number of processes on this machine, one per device (1 or more)."""
    num_nodes: int = setting(1, 1)
    """Sets the number of machines (1 or more); start the same command on each of them with torchrun or SLURM."""
    workers: int = setting(1, 1, 64)
    """Sets the number of threads that prepare batches ahead of the training (1 to 64)."""
    cache_gib: float = setting(4.0, 0.0)
    """Limits the memory for prepared scans in GiB per process (0 or more); scans that do not fit are read again each time."""

    supervised: SupervisedSettings = field(default_factory=SupervisedSettings)
    """Sets the supervised losses, which are part of every method."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name, kind in sections().items():
            object.__setattr__(self, name, as_section(name, kind, getattr(self, name)))
        parts_of(self.method)
        if self.net not in NETS:
            raise ConfigError(f"net: unknown '{self.net}'{did_you_mean(self.net, NETS)}; known: {', '.join(NETS)}")
        if self.warmup_steps >= self.steps and not self.resume:  # a resumed run brings its own
            raise ConfigError(f"warmup_steps: {self.warmup_steps} must be fewer than steps {self.steps}")
        if not len(self.mean) == len(self.std) in (0, len(self.channels)):
            raise ConfigError(
                f"mean, std: have {len(self.mean)} and {counted(len(self.std), 'value')} "
                f"for {counted(len(self.channels), 'channel')}"
            )
        if not all(deviation > 0 for deviation in self.std):
            raise ConfigError(f"std: {list(self.std)} must be above 0")
        if self.sparse_labels is not None and self.draw.protocol != "full":
            raise ConfigError("sparse_labels: the labels are drawn already; leave draw.protocol at 'full'")

    @classmethod
    def from_older(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The mapping as it is written today; see `train.older`."""
        return in_sections(mapping, sections(), where)

    def with_section(self, name: str, **changes: Any) -> Self:
        """The same training with other settings of one method or net, by name."""
        return dataclasses.replace(self, **{name: dataclasses.replace(getattr(self, name), **changes)})

    @property
    def method_settings(self) -> dict[str, Any]:
        """The settings of each part of the method that has some here, by its name."""
        return {name: getattr(self, name) for name in parts_of(self.method) if hasattr(self, name)}

    @property
    def net_arguments(self) -> dict[str, Any]:
        """What the net is made with besides channels and classes, by name."""
        if self.points_spec is not None:
            return {"width": self.net_width, "layers": len(self.points_spec.ratios)}
        own = to_mapping(getattr(self, self.net)) if self.net in sections() else {}
        return {"width": self.net_width, **own}

    @property
    def points_spec(self) -> PointsSpec | None:
        """The points of the net, where it is one on points; None for a net on range images."""
        own = getattr(self, self.net, None)
        return own if isinstance(own, PointsSpec) else None

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The names of methods and nets that have settings here but are not used."""
        return tuple(name for name in sections() if name not in (*parts_of(self.method), self.net))


@functools.cache
def sections() -> dict[str, type]:
    """The classes of settings by the name of the method or net that they belong to."""
    hints = typing.get_type_hints(TrainConfig)
    return {name: hints[name] for name in (*METHODS, *NETS) if name in hints}


@dataclass(frozen=True)
class ExportConfig:
    """Export a training run as a bundle, or add files in other precisions to an existing bundle."""

    run: Positional[Path | None] = None
    """Names the run folder that 'weakseg train' wrote."""
    from_bundle: Annotated[Path | None, arg(name="from")] = None
    """Names an existing bundle to convert or to make `variants` of, instead of a run folder; the result is written to `out`."""
    out: Path = Path("models/mine")
    """Names the bundle folder to write; a symbolic link is never replaced, and a bundle is replaced only with `overwrite`."""
    overwrite: bool = False
    """Replaces the bundle at `out`."""
    name: str = ""
    """Sets the name of the bundle; an empty string uses the name of its folder."""
    scans: Path | None = None
    """Names the folder of scans on which variants are calibrated and measured; a run folder knows its own."""
    calibrate: int = setting(24, 1)
    """Sets the number of validation scans on which the confidence is calibrated, evenly spaced (1 or more)."""
    half: bool = False
    """Stores the weights in half precision, which halves the file size; the computation stays in single precision."""
    variants: tuple[str, ...] = VARIANTS
    """Lists the precisions to add ONNX files in, from fp16 (GPUs), int8 (CPUs) and int8-tensorrt; a variant that differs too
    much from float32 is not written, and an empty list adds none."""
    class_prior: float = setting(0.0, 0.0, 2.0)
    """Sets the exponent of the class frequencies in the training labels by which the class probabilities are multiplied (0 to
    2); 0.5 compensates for class weights, and 0 leaves the net as trained."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for variant in self.variants:
            if variant not in VARIANTS:
                raise ConfigError(f"variants: unknown '{variant}'{did_you_mean(variant, VARIANTS)}; known: {', '.join(VARIANTS)}")
        if (self.run is None) == (self.from_bundle is None):
            raise ConfigError("export: needs the folder of a training run, or a bundle with --from, and not both")
        if self.from_bundle is not None and not self.variants:
            raise ConfigError("variants: name at least one with --variants; there is nothing else to do for a bundle")
