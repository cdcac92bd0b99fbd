# SPDX-License-Identifier: Apache-2.0
"""What every method is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.labels import LabelMap


class Method(nn.Module):
    """What every method is: made from its settings, the net and the class counts; losses by name; a hook after each step.

    The net is for reading its `feature_channels` and `stage_channels` (and, for a teacher, copying it); its parameters
    are not the method's. `class_counts` (K,) are the labelled points of each class in the training data, sparse labels
    where sparse labels are trained on; index 0 counts the points without a label.
    """

    Settings: ClassVar[type]
    """frozen dataclass of this method's options; `TrainConfig.options` fills it"""
    reads_instances: ClassVar[bool] = False
    """whether batches shall say which object each labelled pixel belongs to"""

    def __init__(self, settings: Any, net: nn.Module, class_counts: Tensor) -> None:
        super().__init__()

    @classmethod
    def options_for(cls, options: Mapping[str, Any], protocol: str) -> dict[str, Any]:
        """The options, completed by what follows from the protocol that the labels are drawn with ('full': not drawn)."""
        return dict(options)

    def use_labels(self, labels: LabelMap) -> None:
        """Called once before training: what the class ids mean, and which of them are things."""

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """Weighted losses by name; their sum is what is minimised. `progress` runs from 0 to 1 over the training."""
        raise NotImplementedError

    def after_step(self, net: nn.Module, progress: float) -> None:
        """Called after each optimiser step with the bare net: a teacher or a memory bank moves here."""

    def deployable(self) -> nn.Module | None:
        """What a robot runs behind the net besides class, confidence and uncertainty; None = nothing.

        A module on the method's own parameters and buffers, not copies, with `outputs: tuple[str, ...]`, names among
        `deploy.bundle.EXTRA_OUTPUTS`, and `forward(out: NetOutput) -> tuple[Tensor, ...]`, one tensor a name. Its shapes
        follow from settings, net, label map and the number of classes alone, so that a bundle can make it again. A method
        that may be combined with another one gives `together(super().deployable(), its own)`.
        """
        return None


class _Together(nn.Module):
    """Several additions, one after the other."""

    def __init__(self, parts: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.outputs: tuple[str, ...] = sum((tuple(part.outputs) for part in parts), ())  # type: ignore[arg-type]

    def forward(self, out: NetOutput) -> tuple[Tensor, ...]:
        return tuple(tensor for part in self.parts for tensor in part(out))


def together(*additions: nn.Module | None) -> nn.Module | None:
    """What several methods add for the robot as one module; None where all of them are."""
    parts = tuple(part for part in additions if part is not None)
    return _Together(parts) if len(parts) > 1 else next(iter(parts), None)
