# SPDX-License-Identifier: Apache-2.0
"""The choice of frames over several robots: as for one, and no robot gets all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.improve.log.acquisition import Look
from weakseg_ros.improve.log.choice import FARTHEST, Choice, Strategy, choose_frames, distances_to, weights


def choose_over_robots(
    looks: Sequence[Look],
    robots: Sequence[str],
    count: int,
    strategy: Strategy = "ours",
    seed: int = 0,
    known: NDArray[np.float32] | None = None,
) -> list[Choice]:
    """At most `count` distinct frames out of `looks`, of the robots `robots`, the most worth a person's time first.

    As `choose_frames`, but the n-th frame of a robot counts 1 / sqrt(n) of its worth: what a robot's frames are worth together
    grows as the root of their number, so that a robot with one broken sensor does not take the whole budget.
    """
    if strategy == "random" or not looks:
        return choose_frames(looks, count, strategy, seed)
    descriptors = np.stack([look.descriptor for look in looks])
    worth = np.array([look.entropy for look in looks]) if strategy == "entropy" else weights(looks, strategy == "spread")
    names, robot = np.unique(np.array(robots), return_inverse=True)
    far = np.full(len(looks), FARTHEST)
    distance = distances_to(descriptors, known) if known is not None and len(known) else far
    taken = np.zeros(len(names))
    free = np.ones(len(looks), np.bool_)
    chosen: list[Choice] = []
    for _ in range(min(count, len(looks))):
        spread = worth if strategy == "entropy" else worth * distance / FARTHEST
        counted = np.where(free, spread / np.sqrt(taken[robot] + 1.0), -1.0)
        best = int(np.argmax(counted))
        chosen.append(Choice(best, float(counted[best])))
        free[best] = False
        taken[robot[best]] += 1
        distance = np.minimum(distance, np.linalg.norm(descriptors - descriptors[best], axis=1))
    return chosen
