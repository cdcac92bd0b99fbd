# SPDX-License-Identifier: Apache-2.0
"""The faithful head: learned queries that look at the scan through masks of their own, one object or stuff class each.

Cheng et al., Masked-attention Mask Transformer for Universal Image Segmentation, CVPR 2022, on the maps of any backbone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.nets.heads.attention import Attention
from weakseg_ros.nets.heads.head import Head
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.nets.settings import QueryHeadSettings

_TURNS = (1, 2, 4, 8, 16, 32)
_RISES = (0.5, 1.0, 2.0, 4.0)
_SCALES = 3
"""most coarse stages that the queries look at, one after the other"""


Answer = tuple[Tensor, Tensor]
"""class logits (B, Q, K), classes 1..K-1 and 'no object' last, and mask logits (B, Q, H/2, W/2)"""


class QueryHead(Head):
    """Queries over a net's maps: `features` and `stages` are their channels, `num_classes` counts class 0."""

    name: ClassVar[str] = "queries"
    outputs: ClassVar[tuple[str, ...]] = ("query_class", "query_mask")

    def __init__(self, features: int, stages: tuple[int, ...], num_classes: int, settings: QueryHeadSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.query_width
        self.pixels = nn.Conv2d(features, width, 3, stride=2, padding=1)
        scales = min(_SCALES, settings.query_layers)
        self.maps = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels in stages[-scales:]])
        self.place = nn.Linear(2 * (len(_TURNS) + len(_RISES)), width)
        self.content = nn.Parameter(torch.randn(settings.queries, width) * 0.1)
        self.query_place = nn.Parameter(torch.randn(settings.queries, width) * 0.1)
        self.layers = nn.ModuleList([_Layer(width, settings.query_heads) for _ in range(settings.query_layers)])
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, num_classes)
        self.mask = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width))

    @classmethod
    def behind(cls, net: nn.Module, num_classes: int, **size: int) -> QueryHead:
        """See Head.behind; `size` are QueryHeadSettings."""
        return cls(net.feature_channels, net.stage_channels, num_classes, QueryHeadSettings(**size))  # type: ignore[arg-type]

    @property
    def kwargs(self) -> dict[str, Any]:
        """See Head.kwargs."""
        return {field.name: getattr(self.settings, field.name) for field in dataclasses.fields(QueryHeadSettings)}

    def forward(self, out: NetOutput) -> Answer:
        """What the last layer says."""
        return self.every_answer(out)[-1]

    def every_answer(self, out: NetOutput) -> list[Answer]:
        """What the queries say before the first layer and after each; all of them are trained."""
        pixels = self.pixels(out.features)
        pixels = pixels + self._place_code(pixels).T.reshape(1, -1, *pixels.shape[-2:])  # (B, D, H/2, W/2)
        keys = [convolve(stage) for convolve, stage in zip(self.maps, out.stages[-len(self.maps) :], strict=True)][::-1]
        places = [self._place_code(key) for key in keys]
        queries = self.content.expand(pixels.shape[0], -1, -1)  # (B, Q, D)
        answers = [self._answer(queries, pixels)]
        for i, layer in enumerate(self.layers):
            key, place = keys[i % len(keys)], places[i % len(keys)]
            blocked = _blocked(answers[-1][1], (key.shape[-2], key.shape[-1]))
            queries = layer(queries, self.query_place, key.flatten(2).transpose(1, 2), place, blocked)
            answers.append(self._answer(queries, pixels))
        return answers

    def _answer(self, queries: Tensor, pixels: Tensor) -> Answer:
        queries = self.norm(queries)
        masks = self.mask(queries) @ pixels.flatten(2)  # (B, Q, P)
        return self.classify(queries), masks.unflatten(2, (pixels.shape[-2], pixels.shape[-1]))

    def _place_code(self, image: Tensor) -> Tensor:
        """(P, D) what the pixels of a map know of where in the image they lie."""
        height, width = image.shape[-2:]
        down = (torch.arange(height, device=image.device) + 0.5) / height * (2 * math.pi)
        along = (torch.arange(width, device=image.device) + 0.5) / width * (2 * math.pi)
        rows = torch.stack([wave(rise * down) for rise in _RISES for wave in (torch.sin, torch.cos)], dim=1)
        cols = torch.stack([wave(turn * along) for turn in _TURNS for wave in (torch.sin, torch.cos)], dim=1)
        shape = (height, width, -1)
        code = torch.cat((rows[:, None].expand(shape), cols[None].expand(shape)), dim=2)
        placed: Tensor = self.place(code.flatten(0, 1).to(image.dtype))
        return placed


class _Layer(nn.Module):
    """Queries look at the pixels of their masks, then at one another, then each by itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look, self.talk = Attention(width, heads), Attention(width, heads)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(inplace=True), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])

    def forward(self, queries: Tensor, query_place: Tensor, keys: Tensor, key_place: Tensor, blocked: Tensor) -> Tensor:
        seen = self.look(queries + query_place, keys + key_place, keys, blocked)
        queries = self.norms[0](queries + seen)
        asked = queries + query_place
        queries = self.norms[1](queries + self.talk(asked, asked, queries))
        renewed: Tensor = self.norms[2](queries + self.think(queries))
        return renewed


def _blocked(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, Q, P) pixels of a map that a query's mask leaves out; a query whose mask is empty sees them all."""
    outside = F.interpolate(masks.detach(), size=size, mode="bilinear", align_corners=False).flatten(2) < 0
    return outside & ~outside.all(dim=2, keepdim=True)
