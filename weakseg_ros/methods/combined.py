# SPDX-License-Identifier: Apache-2.0
"""Methods joined by '+': each adds its losses to the supervised ones, and keeps what it learns under its own name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from weakseg_ros.batches.batches import Batch
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.methods.parts import BASE, parts_of
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.registry import METHODS, load

T = TypeVar("T", bound=Method)


class Combined(Method):
    """Several methods as one. They share the net's answer and the task, and nothing else."""

    def __init__(self, parts: Mapping[str, Method]) -> None:
        nn.Module.__init__(self)
        self.parts = nn.ModuleDict(parts)

    def part(self, kind: type[T]) -> T | None:
        """The part of that class; None where the method has none."""
        return next((part for part in self.parts.values() if isinstance(part, kind)), None)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """`load_state_dict`, also for the state of an older version, whose names lack the parts'."""
        owner = {key: name for name, part in self.parts.items() for key in part.state_dict()}
        self.load_state_dict({f"parts.{owner[key]}.{key}" if key in owner else key: value for key, value in tensors.items()})

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Tensor]:
        """The losses of every part as `part.loss`, those of `supervised` first."""
        return {
            f"{name}.{loss}": value
            for name, part in self.parts.items()
            for loss, value in part.losses(batch, out, progress).items()  # type: ignore[operator]
        }

    def after_step(self, net: nn.Module, progress: float) -> None:
        """Each part's own."""
        for part in self.parts.values():
            part.after_step(net, progress)  # type: ignore[operator]

    def deployable(self) -> Heads | None:
        """The heads of all parts, one after the other."""
        additions = [part.deployable() for part in self.parts.values()]  # type: ignore[operator]
        heads = [head for addition in additions if addition is not None for head in addition.each]
        return Heads(heads) if heads else None


def build_method(method: str, settings: Mapping[str, Any], task: Task) -> Combined:
    """The method of that name, made of its parts with the `settings` of each by part, or its defaults where they have none.

    Raises ConfigError for an unknown method, and where nothing is left to be learned.
    """
    names = parts_of(method)
    if names == (BASE,) and not (task.supervised.focal_weight or task.supervised.lovasz_weight):
        raise ConfigError(f"{BASE}: focal_weight and lovasz_weight are both 0, so nothing is learned; set one of them above 0")
    kinds = {name: load(METHODS, name) for name in names}
    for name, kind in kinds.items():
        if kind.why_no_points and getattr(task.net, "representation", "range") == "points":
            raise ConfigError(
                f"method: '{name}' needs a net on range images, as {kind.why_no_points}; use another net, or leave it out"
            )
    return Combined({name: kind(settings[name] if name in settings else kind.Settings(), task) for name, kind in kinds.items()})


def reads_instances(method: str) -> bool:
    """Whether any part of the method needs to know which object each labelled pixel belongs to."""
    return any(load(METHODS, name).reads_instances for name in parts_of(method))
