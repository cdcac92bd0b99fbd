# SPDX-License-Identifier: Apache-2.0
"""The learning rate schedule of a training."""

from __future__ import annotations

import math


def warmup_cosine_lr(step: float, total_steps: int, warmup_steps: int, base_lr: float) -> float:
    """Learning rate of step 0..total_steps-1: a line up to `base_lr`, then half a cosine to 0 at the last step.

    lr (i + 1) / W during the W warm-up steps, then lr/2 (1 + cos(pi (i - W + 1) / (total - W))), as COARSE3D trains.
    Positions between steps are allowed: a run that is bound by time moves along the same curve.
    """
    if step < warmup_steps:
        return base_lr * (step + 1) / warmup_steps
    share = min(1.0, (step - warmup_steps + 1) / (total_steps - warmup_steps))
    return base_lr / 2 * (1 + math.cos(math.pi * share))
