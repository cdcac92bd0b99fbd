# SPDX-License-Identifier: Apache-2.0
"""A teacher that follows its student slowly: the moving average of all that a net holds.

Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017. Their decay is fixed for one length of
training. Here it follows from the share of the training over which the teacher averages, so that a short training has a
teacher that moves, and a long one a teacher that is steady.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from weakseg_ros.nets.output import NetOutput


class MeanTeacher(nn.Module):
    """A copy of a net that is never trained, follows it at each step, and always answers as in evaluation.

    theta' <- d theta' + (1 - d) theta with d = exp(-step / memory), both as shares of the training, and with less in the
    first steps, as in d = min(1 - 1 / (n + 1), d). Parameters and BatchNorm's statistics follow alike.
    """

    def __init__(self, net: nn.Module, memory: float) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.memory = memory
        self.updates: Tensor
        self.progress: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def train(self, mode: bool = True) -> MeanTeacher:
        """Stays in evaluation, whatever its owner does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> NetOutput:
        answer: NetOutput = self.net(image)
        return answer

    def follow(self, student: nn.Module, progress: float) -> None:
        """Move towards the student after a step; `progress` 0..1 is where in the training the step stood."""
        follow(self.net, student, self.decay_at(progress))
        self.updates += 1
        self.progress.fill_(progress)

    def decay_at(self, progress: float) -> float:
        """The share of itself that the teacher keeps in a step there: 0 in its first one, a copy."""
        moved = max(progress - float(self.progress), 0.0)
        steady = math.exp(-moved / self.memory) if self.memory else 0.0
        return min(1.0 - 1.0 / (int(self.updates) + 1), steady)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """teacher <- keep teacher + (1 - keep) student, weights and BatchNorm's statistics alike; counters are rounded down.

    keep = 0 copies the student.
    """
    ours, theirs = teacher.state_dict(), student.state_dict()
    floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], 1.0 - keep)
    for name in ours.keys() - set(floats):
        ours[name].copy_((keep * ours[name] + (1.0 - keep) * theirs[name]).to(ours[name].dtype))
