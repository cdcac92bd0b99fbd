# SPDX-License-Identifier: Apache-2.0
"""What every method is, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch
from weakseg_ros.methods.settings import NoSettings, SupervisedSettings
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.labels import LabelMap


@dataclass(frozen=True)
class Task:
    """What a method is made for: all that its parts share."""

    net: nn.Module
    """for reading its `feature_channels` and `stage_channels`, or for copying; its parameters are not the method's"""
    class_counts: Tensor
    """(K,) labelled points of each class in the training data, as trained on; index 0 counts those without a label"""
    labels: LabelMap
    """what the class ids mean, and which of them are things"""
    supervised: SupervisedSettings
    """how labelled pixels teach; pseudo-labels follow the same rules"""
    protocol: str = "full"
    """how the labels were drawn; full: not drawn"""
    steps: int = 0
    """of the whole training; 0 = unknown"""
    batch_labels: float = 0.0
    """labelled points in a batch, on average; 0 = unknown"""


class Method(nn.Module):
    """Losses by name, and a hook after each step; made from its own settings and the task."""

    Settings: ClassVar[type] = NoSettings
    """frozen dataclass of this method's settings, in its own file or, where others need it, in `methods.settings`; a section of a
    training's settings under the method's name, see registry.settings_of"""
    reads_instances: ClassVar[bool] = False
    """whether batches shall say which object each labelled pixel belongs to"""

    why_no_points: ClassVar[str] = ""
    """why it cannot train a net on points, whose image is a list; empty where it can"""

    def __init__(self, settings: Any, task: Task) -> None:
        super().__init__()

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """Its own weighted losses by name; their sum is what is minimised. `progress` runs from 0 to 1 over the training."""
        raise NotImplementedError

    def after_step(self, net: nn.Module, progress: float) -> None:
        """Called after each optimiser step with the bare net: a teacher or a memory bank moves here."""

    def deployable(self) -> Heads | None:
        """The heads that a robot runs behind the net, besides class, confidence and uncertainty; None = none.

        On the method's own parameters and buffers, not copies; each says how it is built again.
        """
        return None
