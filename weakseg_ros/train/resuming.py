# SPDX-License-Identifier: Apache-2.0
"""Which settings may change when a run is resumed."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from weakseg_ros.config import dump_yaml, load_yaml
from weakseg_ros.errors import ConfigError, counted
from weakseg_ros.files import content_of, write_atomic
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.run_folder import CONFIG, RunFolder

log = logging.getLogger(__name__)

CHANGEABLE = (
    "data",
    "sparse_labels",
    "steps",
    "max_minutes",
    "validate_every",
    "log_every",
    "accelerator",
    "workers",
    "cache_gib",
    "out_bundle",
)
"""settings that a resumed run takes from the command line; data and labels are compared by their hash"""
PROCESSES = ("devices", "num_nodes")
"""settings that are those of the command alone: a run that was started on many devices goes on where there is one"""
_NOT_COMPARED = ("out", "resume", "overwrite", *PROCESSES)


def resumed(config: TrainConfig, all_meant: bool = False) -> TrainConfig:
    """The settings that the run in `config.out` was started with, and of `config` what may be changed.

    A setting with its default value asks for nothing, unless `all_meant` says that each one is meant as it is.
    A run that was ended before its first checkpoint begins again: with its settings, or with `config` where it has none yet.
    Raises ConfigError where `config` asks for anything else that the run was not started with.
    """
    run = RunFolder(config.out)
    resume = run.has_checkpoint()
    if not resume and run.path.is_dir():
        log.warning("%s: has no checkpoint yet, so the training starts from the beginning", run.path)
        if not content_of(run.path):
            return dataclasses.replace(config, resume=False)
    if not run.path.is_dir():
        raise ConfigError(f"{run.path}: there is no run to resume ({CONFIG} is missing); check --out, or leave out --resume")
    stored, usual = load_yaml(TrainConfig, config.out / CONFIG), TrainConfig()
    asked = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    machine = _on_these_processes(stored, config)
    known = {name: [getattr(stored, name), machine.get(name)] for name in asked}
    if not all_meant:
        known = {name: [*values, getattr(usual, name)] for name, values in known.items()}
    asked = {name: value for name, value in asked.items() if value not in known[name]}
    changes = {name: value for name, value in asked.items() if name not in _NOT_COMPARED}
    refused = sorted(set(changes) - set(CHANGEABLE))
    if refused:
        name = refused[0]
        before, now = (str(value) if isinstance(value, Path) else value for value in (getattr(stored, name), changes[name]))
        raise ConfigError(
            f"{name}: the run in {config.out} was started with {before!r}, not {now!r}; a resumed run "
            f"may change only {', '.join((*CHANGEABLE, *PROCESSES))}; leave it out, or start a new run"
        )
    return dataclasses.replace(stored, **changes, **machine, out=config.out, resume=resume, overwrite=config.overwrite)


def _on_these_processes(stored: TrainConfig, config: TrainConfig) -> dict[str, Any]:
    """The processes that the command asks for, and the scans for each that leave those of a step as they were.

    All processes of a step together take the same scans then, in the same order.
    """
    together, processes = stored.batch_size * stored.devices * stored.num_nodes, config.devices * config.num_nodes
    if together % processes or together < processes:
        raise ConfigError(
            f"devices: the run in {config.out} takes {counted(together, 'scan')} per step, which "
            f"{counted(processes, 'process')} cannot share evenly; "
            f"use a number of processes that divides {together}"
        )
    return {"devices": config.devices, "num_nodes": config.num_nodes, "batch_size": together // processes}


def as_started(out: Path) -> TrainConfig | None:
    """The settings of the run in `out`, to be filled up by the command that resumes it; None where it has none yet."""
    if not (out / CONFIG).is_file():
        return None
    usual = TrainConfig()
    own = {name: getattr(usual, name) for name in PROCESSES}
    return dataclasses.replace(load_yaml(TrainConfig, out / CONFIG), out=out, **own)


def as_kept(config: TrainConfig) -> TrainConfig:
    """The settings as a run folder keeps them, without how it was started: repeated from there, nothing is replaced unasked."""
    return dataclasses.replace(config, resume=False, overwrite=False)


def keep_settings(run: RunFolder, config: TrainConfig, done: int) -> None:
    """Write the settings of a resumed run that were changed; ConfigError where it is to have fewer steps than are `done`."""
    if config.steps < done:
        raise ConfigError(
            f"steps: {run.path} has done {counted(done, 'step')} already; ask for more than {config.steps}, or leave it out"
        )
    now = as_kept(config)
    stored = load_yaml(TrainConfig, run.path / CONFIG)
    if stored.steps != now.steps:
        log.info("%s: continues from step %d to step %d instead of %d", run.path, done, now.steps, stored.steps)
    write_atomic(run.path / CONFIG, dump_yaml(now))
