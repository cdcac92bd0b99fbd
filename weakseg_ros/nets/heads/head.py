# SPDX-License-Identifier: Apache-2.0
"""What every head is: a plain module behind a net, with outputs of its own and the arguments that make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from weakseg_ros.nets.output import NetOutput


class Head(nn.Module):
    """Called with the net's output it gives one tensor for each of `outputs`, in this order.

    Where `deploy/tensors.py` does not list the head, its `tables` describe the outputs, and the bundle carries them.
    """

    name: ClassVar[str]
    """row of registry.HEADS"""
    outputs: ClassVar[tuple[str, ...]]
    tables: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """each output by name, with the entries of deploy.tensors.TensorSpec: dtype, shape, meaning, unit, of_points"""

    @classmethod
    def behind(cls, net: nn.Module, num_classes: int, *args: Any, **kwargs: Any) -> Head:
        """The head behind a net for K classes, class 0 counted; takes the property `kwargs` besides. Its weights are fresh."""
        raise NotImplementedError

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments of `behind` besides net and classes that make a head of this one's shape: plain numbers and texts."""
        return {}


class Heads(nn.Module):
    """Several heads behind one net, one after the other."""

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(heads)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in order."""
        return tuple(name for head in self.each for name in head.outputs)

    @property
    def each(self) -> tuple[Head, ...]:
        """The heads."""
        return tuple(self.parts)  # type: ignore[arg-type]

    def forward(self, out: NetOutput) -> tuple[Tensor, ...]:
        return tuple(tensor for head in self.parts for tensor in head(out))
