# SPDX-License-Identifier: Apache-2.0
"""Sentences of several scans in one batch: the scans' superpoints are surveyed once for all the sentences of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from weakseg_ros.nets.heads.referring import MEANT, MOST_LAYERS, Matched, ReferringHead


def answered(matched: Matched, valid: Tensor) -> Tensor:
    """(B, S) bool what the last layer answers: as on the robot, nothing, or what is likely, and at least the likeliest."""
    logits = matched.masks[-1].detach().masked_fill(~valid, -torch.inf)
    best = logits >= logits.amax(dim=1, keepdim=True)
    return ((logits.sigmoid() >= MEANT) | best) & valid & (matched.present.detach()[:, None] >= 0)


@dataclass(frozen=True)
class ReferringBatch:
    """B sentences about G scans of at most S superpoints each."""

    superpoints: Tensor
    """(G, S, F) as described, see points.superpoints"""
    there: Tensor
    """(G, S) bool, False on padding and on what was dropped"""
    points: Tensor
    """(G, S) number of points, 0 on padding"""
    tokens: Tensor
    """(B, T) int64"""
    scan: Tensor
    """(B,) int64 number of each sentence's scan in the batch"""
    target: Tensor
    """(B, S) 0 or 1, the superpoints that are meant"""
    reference: Tensor
    """(B, S) 1 where meant, 0.5 on other objects that the sentence names or that are like the one it means, else 0"""
    present: Tensor
    """(B,) 0 or 1, whether anything matches"""
    keys: tuple[str, ...]
    """name of each sentence in the whole data"""

    @property
    def valid(self) -> Tensor:
        """(B, S) `there` of each sentence's scan."""
        return self.there[self.scan]

    @property
    def sizes(self) -> Tensor:
        """(B, S) `points` of each sentence's scan, 0 on what is not there."""
        return self.points[self.scan] * self.valid

    def answered_by(self, head: ReferringHead, depth: int = MOST_LAYERS) -> Matched:
        """What a head says of it with its first `depth` layers; without any, which is several times cheaper, for 0."""
        longest = max(int((self.tokens > 0).sum(dim=1).max()), 1)  # what is padding in all of them costs time alone
        words, spoken = head.read(self.tokens[:, :longest])
        return head.ask(words, spoken, head.survey(self.superpoints, self.there, depth).of(self.scan), self.valid)
