# SPDX-License-Identifier: Apache-2.0
"""Time constants that follow from the length of the training, and numbers that follow from how many labels a batch has.

The published figures belong to 100,000 steps on batches of hundreds of labelled points: a momentum of 0.999 there remembers
1 % of the training, in 700 steps the whole of it. Each rule below gives the published figure in the published regime.
"""

from __future__ import annotations

import dataclasses

from weakseg_ros.methods.method import Task
from weakseg_ros.methods.settings import Coarse3dSettings, ErdaSettings


def memory_momentum(momentum: float, memory: float, steps: int) -> float:
    """The momentum that remembers `memory`, a share of the training, and never more than `momentum` does; steps 0 = unknown."""
    if not steps or not memory:
        return momentum
    return min(momentum, max(0.0, 1.0 - 1.0 / (memory * steps)))


def prototype_count(most: int, fewest: int, batch_labels: float, classes: int) -> int:
    """As many prototypes as a class has labelled points in a batch, within both limits; 0 labels = unknown, the most."""
    if not batch_labels:
        return most
    return min(most, max(fewest, round(batch_labels / max(classes, 1))))


def contrast_weight(weight: float, full_labels: float, batch_labels: float) -> float:
    """The weight, less where a batch has more than `full_labels` labelled points: those teach the classes themselves."""
    return weight * min(1.0, full_labels / batch_labels) if batch_labels and full_labels else weight


def erda_in_regime(settings: ErdaSettings, task: Task) -> ErdaSettings:
    """ERDA's settings for this training; as they are with `published`."""
    if settings.published:
        return settings
    return dataclasses.replace(settings, momentum=memory_momentum(settings.momentum, settings.memory, task.steps))


def coarse3d_in_regime(settings: Coarse3dSettings, task: Task) -> Coarse3dSettings:
    """COARSE3D's settings for this training; as they are with `published`."""
    if settings.published:
        return settings
    labelled = int((task.class_counts[1:] > 0).sum())
    most, fewest = settings.prototypes_per_class, settings.fewest_prototypes
    return dataclasses.replace(
        settings,
        prototype_momentum=memory_momentum(settings.prototype_momentum, settings.prototype_memory, task.steps),
        prototypes_per_class=prototype_count(most, fewest, task.batch_labels, labelled),
        prototypes_from_data=settings.prototypes_from_data or bool(task.steps),
        weight=contrast_weight(settings.weight, settings.full_weight_labels, task.batch_labels),
    )
