# SPDX-License-Identifier: Apache-2.0
"""A training run on disk: everything needed to continue it, repeat it, judge it and export it.

    config.yaml          the merged settings; feeding them back repeats the run
    environment.json     machine, versions, seed, hashes of the data
    labels.yaml          the label map
    spec.yaml            the range image
    statistics.yaml      DataStatistics of the training scans
    metrics.jsonl        one line per logged step (losses by name, learning rate) and per validation
    last/                weights, averaged weights, method, optimiser and position: what resuming reads
    curves.png           losses, learning rate and validation over the steps, where matplotlib is installed
    best.safetensors     the net of the best validation and what its method adds for the robot, and best.json the figures

Every file is replaced whole. Nothing is unpickled but the optimiser's tensors, with `weights_only`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from weakseg_ros.deploy.graph import join_weights, split_weights
from weakseg_ros.errors import DataError
from weakseg_ros.files import (
    append_json_line,
    content_of,
    put_in_place,
    read_json_lines,
    read_regular,
    staged,
    sweep,
    write_atomic,
    write_json,
)
from weakseg_ros.locks import hold, let_go
from weakseg_ros.reads import parse_json

CONFIG, ENVIRONMENT, STATISTICS, LABELS, SPEC = "config.yaml", "environment.json", "statistics.yaml", "labels.yaml", "spec.yaml"
METRICS, BEST, BEST_FIGURES = "metrics.jsonl", "best.safetensors", "best.json"
LAST, POSITION = "last", "position.json"
CURVES, BOARD = "curves.png", "tensorboard"
OF_RETRAINING = "retrain.yaml"
"""the settings of the retraining that a run is part of, which lie there before it"""
BEFORE_A_CHECKPOINT = {OF_RETRAINING, CONFIG, ENVIRONMENT, STATISTICS, LABELS, SPEC, METRICS, BEST, BEST_FIGURES, BOARD}
"""what a training that was ended before its first checkpoint leaves"""


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes the files of one run."""

    path: Path

    def create(self) -> None:
        """Make the folder, for this process alone until `let_go`; a run that made no checkpoint is none, and goes."""
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        self.hold()
        for entry in (entry for entry in content_of(self.path) if entry.name != OF_RETRAINING):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def check_free(self) -> None:
        """DataError where the folder holds a run with a checkpoint, or something else."""
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path}: exists and is not a folder; choose another --out")
        if self.has_checkpoint():
            raise DataError(f"{self.path}: already holds a run; continue it with --resume, or choose another --out")
        if {entry.name for entry in content_of(self.path)} - BEFORE_A_CHECKPOINT:
            raise DataError(f"{self.path}: is not empty and does not hold a run; choose another --out")

    def hold(self) -> None:
        """Keep other processes out until `let_go`, and sweep what dead ones left; DataError where one is at work."""
        if not hold(self.path):
            raise DataError(f"{self.path}: another process is training in it; wait until it ends, or choose another --out")
        sweep(self.path)

    def let_go(self) -> None:
        """Let other processes in."""
        let_go(self.path)

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from."""
        sweep(self.path / LAST)  # one that was moved aside comes back
        if (self.path / ".last.old").is_dir() and not (self.path / LAST).is_dir():  # by version 0.1, between its two renames
            os.replace(self.path / ".last.old", self.path / LAST)
        return (self.path / LAST / POSITION).is_file()

    def save_best(self, weights: Mapping[str, Tensor], figures: Mapping[str, Any], heads: Mapping[str, Tensor]) -> None:
        """Keep the net of the best validation so far, with the figures that made it the best.

        `heads` are the tensors of the method's `deployable`, nothing where it has none.
        """
        write_atomic(self.path / BEST, _packed(join_weights(weights, heads)))
        write_json(self.path / BEST_FIGURES, dict(figures))

    def load_best(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and figures of the best validation; DataError where the run has none yet."""
        figures = _read_json(self.path / BEST_FIGURES)
        return split_weights(_unpacked(self.path / BEST))[0], figures

    def load_best_heads(self) -> dict[str, Tensor]:
        """The tensors of the heads that the method had at the best validation; none where it had nothing to deploy."""
        return split_weights(_unpacked(self.path / BEST))[1]

    def save_last(
        self, tensors: Mapping[str, Mapping[str, Tensor]], optimizer: Mapping[str, Any], position: Mapping[str, Any]
    ) -> None:
        """Replace the checkpoint that resuming reads; a crash in between leaves the former one."""
        with staged(self.path / LAST) as fresh:
            for name, state in tensors.items():
                (fresh / f"{name}.safetensors").write_bytes(_packed(state))
            buffer = io.BytesIO()
            torch.save(dict(optimizer), buffer)
            (fresh / "optimizer.pt").write_bytes(buffer.getvalue())
            write_json(fresh / POSITION, dict(position))
            put_in_place(fresh, self.path / LAST)

    def load_last(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], dict[str, Any]]:
        """(tensors by part, optimiser state, position) of the last checkpoint; DataError where there is none."""
        last = self.path / LAST
        position = _read_json(last / POSITION)
        tensors = {file.stem: _unpacked(file) for file in sorted(last.glob("*.safetensors"))}
        optimizer = torch.load(io.BytesIO(_read(last / "optimizer.pt")), map_location="cpu", weights_only=True)
        return tensors, optimizer, position

    def environment(self) -> dict[str, Any]:
        """Machine, versions, seed and data hashes; DataError where the folder holds no run."""
        return _read_json(self.path / ENVIRONMENT)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        append_json_line(self.path / METRICS, row, durable=False)

    def metrics(self) -> list[dict[str, Any]]:
        """Every whole line of metrics.jsonl."""
        return read_json_lines(self.path / METRICS, "step")

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps that the checkpoint does not hold, before a resumed run writes them again."""
        kept = [json.dumps(row) + "\n" for row in self.metrics() if row["step"] < step]
        write_atomic(self.path / METRICS, "".join(kept))


def _packed(state: Mapping[str, Tensor]) -> bytes:
    # clones, because safetensors refuses tensors that share memory
    return save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})


def _unpacked(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(_read(path))
    except SafetensorError as error:
        raise DataError(f"{path}: is damaged ({error}); train again, or copy the run again") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(_read(path))
    except ValueError as error:
        raise DataError(f"{path}: is damaged ({error}); train again, or copy the run again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no figures by name; train again, or copy the run again")
    return content


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); the run is incomplete, train again") from None
