# SPDX-License-Identifier: Apache-2.0
"""The learning rate schedules of a training."""

from __future__ import annotations

import math

LAST_SHARE = 0.1
"""of the learning rate that is left at the end of an exponential schedule"""


def warmup_cosine_lr(step: float, total_steps: int, warmup_steps: int, base_lr: float) -> float:
    """Learning rate of step 0..total_steps-1: a line up to `base_lr`, then half a cosine to 0 at the last step.

    lr (i + 1) / W during the W warm-up steps, then lr/2 (1 + cos(pi (i - W + 1) / (total - W))), as COARSE3D trains.
    Positions between steps are allowed: a run that is bound by time moves along the same curve.
    """
    if step < warmup_steps:
        return base_lr * (step + 1) / warmup_steps
    share = min(1.0, (step - warmup_steps + 1) / (total_steps - warmup_steps))
    return base_lr / 2 * (1 + math.cos(math.pi * share))


def warmup_exponential_lr(step: float, total_steps: int, warmup_steps: int, base_lr: float) -> float:
    """Learning rate of step 0..total_steps-1: a line up to `base_lr`, then down to a tenth of it, by the same factor each step.

    ERDA (NeurIPS 2023) trains RandLA-Net so: 0.98855 for each of 200 epochs is a tenth over all.
    """
    if step < warmup_steps:
        return base_lr * (step + 1) / warmup_steps
    share = min(1.0, (step - warmup_steps + 1) / (total_steps - warmup_steps))
    rate: float = base_lr * LAST_SHARE**share
    return rate
