# SPDX-License-Identifier: Apache-2.0
"""The distance branch: how far every pixel is from every clicked object, learned from the clicks alone.

After Li, Fan and Zhang, EPLD: point-supervised panoptic segmentation via end-to-end pseudo-label generation with a
learnable distance, ECCV 2024, of which no code exists; what it leaves open is our choice, made for range images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weakseg_ros.methods.objects.anchors import ClickAnchors
from weakseg_ros.methods.objects.relations import MAPS, Relations
from weakseg_ros.methods.settings import BranchSettings

_PLACE_SCALE_M = 50.0
_SMALLEST_RANGE_M = 1e-3
_METRIC_START = {"straight": 1.0, "surface": 1.0, "along": -2.0, "across": -2.0, "height": -2.0, "ground": 2.0}
"""what the measures count before training, through softplus"""
_CALM = 0.1
_AT_CLICK = 2.0
"""likeness of a click to itself, from which the measures are taken away"""


class DistanceBranch(nn.Module):
    """Distances (M, P), 0..1, between the M anchors and the P pixels of a scan, one map for each round.

    `features` is the width of the net's features, `num_classes` counts class 0. Permuted anchors give permuted distances.
    """

    def __init__(self, features: int, num_classes: int, settings: BranchSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.branch_width
        self.embed = nn.Linear(features, width)
        self.place = nn.Sequential(nn.Linear(6, width), nn.ReLU(inplace=True), nn.Linear(width, width))
        self.anchor = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width))
        self.class_code = nn.Embedding(num_classes, width)
        self.anchor_norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(()))
        if settings.similarity == "l2":
            self.bias = nn.Parameter(torch.tensor(5.0))
        if settings.metric:
            self.metric = nn.Linear(width, len(MAPS))
            with torch.no_grad():
                self.metric.weight.mul_(_CALM)
                self.metric.bias.copy_(torch.tensor([_METRIC_START[name] for name in MAPS]))
        if settings.rounds and settings.aggregate:
            self.value, self.taken = nn.Linear(width, width), nn.Linear(width, width)
            self.taken_norm = nn.LayerNorm(width)
        if settings.rounds and settings.enhance:
            self.attention = nn.MultiheadAttention(width, settings.branch_heads, batch_first=True)
            self.ffn = nn.Sequential(
                nn.Linear(width, settings.branch_ffn), nn.ReLU(inplace=True), nn.Linear(settings.branch_ffn, width)
            )
            self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(
        self, features: Tensor, xyz: Tensor, probs: Tensor, anchors: ClickAnchors, relations: Relations | None = None
    ) -> list[Tensor]:
        """Distances before the first round and after each: features (P, D), places (P, 3) m, probabilities (P, K) -> (M, P) each.

        The probabilities say where a query may take features from; no gradient runs into them. Without `relations` nothing is
        measured by geometry.
        """
        codes = self.embed(features) + self.place(place_code(xyz))  # (P, width)
        queries = self.anchor_norm(self.anchor(anchors.mean(codes)) + self.class_code(anchors.classes))  # (M, width)
        keys = self.key(codes)
        likely = probs.detach().T[anchors.classes]  # (M, P)
        distances = [self._distance(queries, keys, relations)]
        for _ in range(self.settings.rounds):
            if self.settings.aggregate:
                queries = self._aggregate(queries, codes, shares(distances[-1], self.settings.share_temperature) * likely)
            if self.settings.enhance:
                queries = self._enhance(queries)
            distances.append(self._distance(queries, keys, relations))
        return distances

    def _distance(self, queries: Tensor, keys: Tensor, relations: Relations | None) -> Tensor:
        asked = self.query(queries)
        if self.settings.similarity == "l2":
            likeness = -torch.cdist(asked, keys)
        else:
            likeness = asked @ keys.T / keys.shape[1] ** 0.5
        if relations is not None and self.settings.metric:
            objects = len(relations.maps)
            weight = nn.functional.softplus(self.metric(queries[:objects]))  # (T, G)
            measured = _AT_CLICK - torch.einsum("tg,tgp->tp", weight, relations.maps)
            likeness = torch.cat((likeness[:objects] + measured, likeness[objects:]))
        return torch.sigmoid(-likeness - self.bias)

    def _aggregate(self, queries: Tensor, codes: Tensor, weight: Tensor) -> Tensor:
        taken = (weight @ self.value(codes)) / (weight.sum(dim=1, keepdim=True) + 1e-6)
        renewed: Tensor = self.taken_norm(queries + self.taken(taken))
        return renewed

    def _enhance(self, queries: Tensor) -> Tensor:
        seen, _ = self.attention(queries[None], queries[None], queries[None], need_weights=False)
        queries = self.attention_norm(queries + seen[0])
        renewed: Tensor = self.ffn_norm(queries + self.ffn(queries))
        return renewed


def shares(distance: Tensor, temperature: float) -> Tensor:
    """How each pixel is shared out among the anchors: softmax of -distance / temperature over M, (M, P)."""
    return torch.softmax(-distance / temperature, dim=0)


def place_code(xyz: Tensor) -> Tensor:
    """(P, 6) x, y, z and range in units of 50 m, sine and cosine of the azimuth, of places (P, 3) in m."""
    distance = xyz.norm(dim=1, keepdim=True)
    flat = xyz[:, :2].norm(dim=1, keepdim=True).clamp_min(_SMALLEST_RANGE_M)
    return torch.cat((xyz / _PLACE_SCALE_M, distance / _PLACE_SCALE_M, xyz[:, 1:2] / flat, xyz[:, :1] / flat), dim=1)
