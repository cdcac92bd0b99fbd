# SPDX-License-Identifier: Apache-2.0
"""A training run on disk: everything needed to continue it, repeat it, judge it and export it.

    config.yaml          the merged settings; feeding them back repeats the run
    environment.json     machine, versions, seed, hashes of the data
    labels.yaml          the label map
    spec.yaml            the range image
    statistics.yaml      DataStatistics of the training scans
    metrics.jsonl        one line per logged step (losses by name, learning rate) and per validation
    last/                weights, averaged weights, method, optimiser and position: what resuming reads
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
from weakseg_ros.files import read_json_lines, write_atomic, write_json

CONFIG, ENVIRONMENT, STATISTICS, LABELS, SPEC = "config.yaml", "environment.json", "statistics.yaml", "labels.yaml", "spec.yaml"
METRICS, BEST, BEST_FIGURES = "metrics.jsonl", "best.safetensors", "best.json"


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes the files of one run."""

    path: Path

    def check_free(self) -> None:
        """Raise DataError where the folder holds something already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise DataError(f"{self.path}: exists and is not empty; choose another --out, or --resume to continue the run in it")

    def create(self) -> None:
        """Make the folder; DataError where it holds something already."""
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)

    def save_best(self, weights: Mapping[str, Tensor], figures: Mapping[str, Any], extra: Mapping[str, Tensor]) -> None:
        """Keep the net of the best validation so far, with the figures that made it the best.

        `extra` are the tensors of the method's `deployable`, nothing where it has none.
        """
        write_atomic(self.path / BEST, _packed(join_weights(weights, extra)))
        write_json(self.path / BEST_FIGURES, dict(figures))

    def load_best(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and figures of the best validation; DataError where the run has none yet."""
        figures = _read(self.path / BEST_FIGURES)
        return split_weights(_unpacked(self.path / BEST))[0], json.loads(figures)

    def load_best_extra(self) -> dict[str, Tensor]:
        """The tensors that the method's `deployable` had at the best validation; none where it had nothing to deploy."""
        return split_weights(_unpacked(self.path / BEST))[1]

    def save_last(
        self, tensors: Mapping[str, Mapping[str, Tensor]], optimizer: Mapping[str, Any], position: Mapping[str, Any]
    ) -> None:
        """Replace the checkpoint that resuming reads; a crash in between leaves the former one."""
        fresh, last, old = (self.path / name for name in (".last.new", "last", ".last.old"))
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, state in tensors.items():
            write_atomic(fresh / f"{name}.safetensors", _packed(state))
        buffer = io.BytesIO()
        torch.save(dict(optimizer), buffer)
        write_atomic(fresh / "optimizer.pt", buffer.getvalue())
        write_json(fresh / "position.json", dict(position))
        if last.exists():
            os.replace(last, old)
        os.replace(fresh, last)
        shutil.rmtree(old, ignore_errors=True)

    def load_last(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], dict[str, Any]]:
        """(tensors by part, optimiser state, position) of the last checkpoint; DataError where there is none."""
        last = self.path / "last"
        if not last.is_dir() and (self.path / ".last.old").is_dir():  # ended between the two renames
            os.replace(self.path / ".last.old", last)
        position = json.loads(_read(last / "position.json"))
        tensors = {file.stem: _unpacked(file) for file in sorted(last.glob("*.safetensors"))}
        optimizer = torch.load(io.BytesIO(_read(last / "optimizer.pt")), map_location="cpu", weights_only=True)
        return tensors, optimizer, position

    def environment(self) -> dict[str, Any]:
        """Machine, versions, seed and data hashes; DataError where the folder holds no run."""
        facts: dict[str, Any] = json.loads(_read(self.path / ENVIRONMENT))
        return facts

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with open(self.path / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")

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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); the run is incomplete, train again") from None
