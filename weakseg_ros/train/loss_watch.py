# SPDX-License-Identifier: Apache-2.0
"""The losses of the latest steps, left on the device: reading one at each step would make the processor wait for the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from weakseg_ros.errors import WeaksegError

PATIENCE = 100
"""steps on a GPU after which the losses are looked at, however rarely they are logged"""


class LossWatch:
    """Finds the first loss that is not finite: at once where `patience` is 1, else up to so many steps later, in one transfer."""

    def __init__(self, run: Path, patience: int = PATIENCE) -> None:
        self._run, self._patience = run, patience
        self._pending: list[tuple[int, Tensor, dict[str, Tensor]]] = []

    def add(self, step: int, total: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of a step, its total () and the parts by name."""
        self._pending.append((step, total.detach(), {name: loss.detach() for name, loss in losses.items()}))
        if len(self._pending) >= self._patience:
            self.look()

    def look(self) -> None:
        """Wait for the device once; WeaksegError, with step and losses, where a total since the last look is not finite."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        finite = torch.isfinite(torch.stack([total for _, total, _ in pending])).tolist()
        if all(finite):
            return
        step, total, losses = pending[finite.index(False)]
        raise WeaksegError(
            f"{self._run}: the loss is {total.item()} at step {step} ({figures(losses)}), noticed after step {pending[-1][0]}; "
            "no checkpoint was written since, lower learning_rate"
        )


def figures(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses as plain numbers, by name."""
    return {name: round(loss.item(), 6) for name, loss in losses.items()}
