# SPDX-License-Identifier: Apache-2.0
"""How unlike anything labelled a pixel is: its distance from COARSE3D's prototypes, for the robot.

Entropy says between which classes the net hesitates. A thing that no label ever showed may look surely like one of them;
its embedding still lies where no prototype is.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.nets.heads.head import Head
from weakseg_ros.nets.heads.projector import Projector, coarser, resize
from weakseg_ros.nets.output import NetOutput

STRIDE = (4, 8)
"""rows and columns of the image to one that is looked at; finer steps found unseen objects no better, and cost more"""
_START_SIGMA = 0.02
_SHORTEST = 1e-12
_NEVER = -2.0


class PrototypeKeys(nn.Module):
    """What each class looks like: K unit vectors of length D for each of C classes, and which of them pixels have moved."""

    keys: Tensor
    moved: Tensor

    def __init__(self, classes: int, prototypes: int, dim: int) -> None:
        super().__init__()
        keys = torch.nn.init.trunc_normal_(torch.empty(classes, prototypes, dim), std=_START_SIGMA)
        self.register_buffer("keys", F.normalize(keys, dim=2))  # (C, K, D)
        self.register_buffer("moved", torch.zeros(keys.shape[:2], dtype=torch.bool))  # (C, K)


class NoveltyHead(Head):
    """1 - the largest cosine between a pixel's embedding and the prototypes that labelled pixels have moved, 0..1.

    The embedding loses its mean first, as in the memory, whose prototypes are means of such vectors. Where no prototype was
    ever moved everything is new: 1.
    """

    name: ClassVar[str] = "novelty"
    outputs: ClassVar[tuple[str, ...]] = ("novelty",)

    def __init__(self, projector: Projector, bank: PrototypeKeys) -> None:
        super().__init__()
        self.projector, self.bank = projector, bank

    @classmethod
    def behind(cls, net: nn.Module, num_classes: int, dim: int, hidden: int, prototypes: int) -> NoveltyHead:
        """See Head.behind."""
        projector = Projector(net.stage_channels, dim, hidden)  # type: ignore[arg-type]
        return cls(projector, PrototypeKeys(num_classes - 1, prototypes, dim))

    @property
    def kwargs(self) -> dict[str, Any]:
        """See Head.kwargs."""
        _, prototypes, dim = self.bank.keys.shape
        return {"dim": dim, "hidden": self.projector.mix.out_channels, "prototypes": prototypes}

    def forward(self, out: NetOutput) -> tuple[Tensor]:
        """(B, H, W), computed at every STRIDE-th row and column and interpolated."""
        size = (out.logits.shape[-2], out.logits.shape[-1])
        coarse = coarser(size, STRIDE)
        embedding = self.projector(out, coarse).flatten(2).transpose(1, 2)  # (B, P, D): a maximum over P x N is fast
        embedding = embedding - embedding.mean(dim=2, keepdim=True)
        keys = F.normalize(self.bank.keys, dim=2).flatten(0, 1)  # (N, D)
        unmoved = torch.where(self.bank.moved.flatten(), 0.0, _NEVER)
        length = (embedding * embedding).sum(dim=2).clamp_min(_SHORTEST).rsqrt()  # (B, P)
        cosine = (embedding @ keys.T * length[..., None] + unmoved).amax(dim=2).view(-1, 1, *coarse)
        return ((1.0 - resize(cosine, size)[:, 0]).clamp(0.0, 1.0),)
