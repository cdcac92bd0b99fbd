# SPDX-License-Identifier: Apache-2.0
"""Attention that heads share, in operations that every runtime has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCKED = -1e4
"""the score of what is not looked at: nothing is left of it after the softmax, in half precision too"""


class Attention(nn.Module):
    """Attention of several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, blocked: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(B, Q, C) what each query finds among (B, P, C) keys and values.

        `blocked` (B, Q, P) is true where a query does not look, and `bias`, of a shape that suits (B, heads, Q, P), says how much
        more or less it looks.
        """
        q, k, v = (self._split(part) for part in (self.query(queries), self.key(keys), self.value(values)))
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5  # (B, heads, Q, P)
        if bias is not None:
            scores = scores + bias
        if blocked is not None:
            scores = scores.masked_fill(blocked[:, None], BLOCKED)
        answer: Tensor = self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        return answer

    def _split(self, values: Tensor) -> Tensor:
        return torch.unflatten(values, 2, (self.heads, -1)).transpose(1, 2)
