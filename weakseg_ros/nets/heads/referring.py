# SPDX-License-Identifier: Apache-2.0
"""Which superpoints a sentence means: words look at superpoints layer by layer, and one of them becomes the mask's kernel.

The decoder of 3D-STMN without its dependency graph, on superpoints of a range image: Wu et al., 3D-STMN:
Dependency-Driven Superpoint-Text Matching Network for End-to-End 3D Referring Expression Segmentation, AAAI 2024. Ours are
the relations between superpoints, their look at the words, and the probability that anything matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.nets.heads.head import Head
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.superpoints import PLACE_M, columns

LONGEST_SENTENCE = 64
"""words, the root counted, that have a place of their own"""
BLOCKED = -1e4
RELATIONS, FARTHEST = 5, 6.0
"""how many numbers tell where another superpoint is; deviations from the mean beyond which a description is cut"""
SAME_MASK = 0.5
POOLED = 2


@dataclass(frozen=True)
class Matched:
    """What the head says of B sentences and S superpoints each, before the first layer and after each."""

    masks: tuple[Tensor, ...]
    """(B, S) logits"""
    scores: tuple[Tensor, ...]
    """(B,) the predicted IoU of each of these masks"""
    present: Tensor
    """(B,) logit that anything matches"""
    sampling: Tensor
    """(B, S) logit that the sentence speaks of the superpoint at all, as its object or beside it"""


class ReferringHead(Head):
    """The network's features for the robot's graph; words and superpoints in two graphs of their own, see `read`, `match`.

    `vocabulary` are the known words, parted by spaces, the commonest first; `superpoint` is the length of a superpoint's
    description, see points.superpoints.
    """

    name: ClassVar[str] = "referring"
    outputs: ClassVar[tuple[str, ...]] = ("referring_features",)
    mean: Tensor
    std: Tensor

    def __init__(self, superpoint: int, vocabulary: str, width: int, layers: int, parts: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.vocabulary, self.width, self.parts = vocabulary, width, parts
        self.register_buffer("mean", torch.zeros(superpoint))
        self.register_buffer("std", torch.ones(superpoint))
        self.embedding = nn.Embedding(len(vocabulary.split()) + 2, width, padding_idx=0)
        self.root = nn.Parameter(torch.randn(width) * 0.1)
        self.place = nn.Parameter(torch.randn(LONGEST_SENTENCE, width) * 0.1)
        self.reader = _Block(width, parts, dropout)
        self.content = nn.Sequential(nn.Linear(superpoint, width), nn.LayerNorm(width), nn.ReLU())
        self.relation = nn.Linear(RELATIONS, parts)
        self.neighbours = _Block(width, parts, dropout)
        self.mask_features = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.asks, self.asked = nn.Linear(width, width), nn.Linear(width, width)
        self.layers = nn.ModuleList([_Layer(width, parts, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Linear(width, 1)
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.presence = nn.Sequential(nn.Linear(2 * width + 1, width), nn.ReLU(), nn.Linear(width, 1))
        self.drop = nn.Dropout(dropout)

    @classmethod
    def behind(
        cls, net: nn.Module, num_classes: int, vocabulary: str = "car", width: int = 48, layers: int = 2, parts: int = 4
    ) -> ReferringHead:
        """See Head.behind."""
        features: int = net.feature_channels  # type: ignore[assignment]
        return cls(columns(num_classes, features), vocabulary, width, layers, parts)

    @property
    def kwargs(self) -> dict[str, Any]:
        """See Head.kwargs."""
        return {"vocabulary": self.vocabulary, "width": self.width, "layers": len(self.layers), "parts": self.parts}

    def forward(self, out: NetOutput) -> tuple[Tensor]:
        """(B, D, H / 2, W / 2) the net's features, sides rounded up."""
        return (F.avg_pool2d(out.features, POOLED, ceil_mode=True, count_include_pad=False),)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) numbers of words, 0 = padding -> words (B, 1 + T, width), the root first, and which are there (B, 1 + T)."""
        there = torch.cat([torch.ones_like(tokens[:, :1]), tokens], dim=1) > 0
        words = torch.cat([self.root.expand(tokens.shape[0], 1, -1), self.embedding(tokens)], dim=1)
        words = self.drop(words + self.place[: tokens.shape[1] + 1])
        return self.reader(words, _blocked(there)), there

    def match(self, words: Tensor, spoken: Tensor, superpoints: Tensor, there: Tensor) -> Matched:
        """Words as `read` gives them, superpoints (B, S, F) as described, `there` (B, S) False on padding."""
        return self.ask(words, spoken, self.survey(superpoints, there), there)

    def survey(self, superpoints: Tensor, there: Tensor) -> Tensor:
        """(B, S, width) what each superpoint is beside the others, whatever is asked: once for all sentences of a scan."""
        content = self.drop(self.content(((superpoints - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)))
        surveyed: Tensor = self.neighbours(content, _blocked(there) + self._near(superpoints[..., :2] * PLACE_M))
        return surveyed

    def ask(self, words: Tensor, spoken: Tensor, content: Tensor, there: Tensor) -> Matched:
        """See `match`, with the superpoints as `survey` gives them."""
        hidden = _blocked(there)  # (B, 1, 1, S)
        sampling = self._sampling(words, spoken, content)
        masks, scores = [], []
        features = self.mask_features(content)
        mask, score = self._answer(words, features)
        masks.append(mask)
        scores.append(score)
        for layer in self.layers:
            words, content = layer(words, _blocked(spoken), content, hidden + _outside(mask, there))
            features = self.mask_features(content)
            mask, score = self._answer(words, features)
            masks.append(mask)
            scores.append(score)
        return Matched(tuple(masks), tuple(scores), self._present(words, content, mask, there), sampling)

    def _answer(self, words: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (B, S) and the predicted IoU (B,) of the root, which has heard all the words."""
        kernel = self.norm(words[:, 0])
        logits = (features @ kernel[:, :, None])[..., 0] / self.width**0.5 + self.bias(kernel)
        return logits, self.score(kernel)[:, 0]

    def _present(self, words: Tensor, content: Tensor, mask: Tensor, there: Tensor) -> Tensor:
        """(B,) from the root, the superpoint that fits best, and how well it fits."""
        fits = mask.masked_fill(~there, BLOCKED)
        weight = fits.softmax(dim=1)
        best = (weight[..., None] * content).sum(dim=1)
        peak = (weight * mask).sum(dim=1, keepdim=True)
        answer: Tensor = self.presence(torch.cat([self.norm(words[:, 0]), best, peak], dim=1))[:, 0]
        return answer

    def _sampling(self, words: Tensor, spoken: Tensor, content: Tensor) -> Tensor:
        """(B, S) how much the words together ask for each superpoint."""
        asked = (self.asks(content) @ self.asked(words).transpose(1, 2)) / self.width**0.5  # (B, S, T)
        together: Tensor = (asked * spoken[:, None].to(asked.dtype)).sum(dim=2) / spoken.sum(dim=1, keepdim=True)
        return together

    def _near(self, place: Tensor) -> Tensor:
        """(B, parts, S, S) what superpoints at (B, S, 2) m are to one another, as a bias of their attention."""
        way = place[:, None] - place[:, :, None]  # (B, S, S, 2)
        distance = (way * way).sum(dim=3, keepdim=True).clamp_min(1e-6).sqrt()
        azimuth = (place * place).sum(dim=2).clamp_min(1e-6).sqrt()
        behind = (azimuth[:, None] - azimuth[:, :, None])[..., None]  # farther from the sensor
        across = (place[:, :, None, 0] * place[:, None, :, 1] - place[:, :, None, 1] * place[:, None, :, 0])[..., None]
        across = across / azimuth[:, :, None, None].clamp_min(1.0)  # to the left, as seen from the sensor
        near = torch.exp(-distance / 6)
        sides = (near * (behind / 3).tanh(), near * (across / 3).tanh())
        told = torch.cat([torch.exp(-distance / 2), near, distance.log1p(), *sides], dim=3)
        bias: Tensor = self.relation(told).permute(0, 3, 1, 2)
        return bias


class TextGraph(nn.Module):
    """Tokens (B, T) -> `words`, `spoken`: run once for each sentence."""

    def __init__(self, head: ReferringHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.head.read(tokens)


class MatchGraph(nn.Module):
    """Words, spoken, superpoints, there -> `mask` (B, S), `score` (B,), `present` (B,), all 0..1: run for each scan."""

    def __init__(self, head: ReferringHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, words: Tensor, spoken: Tensor, superpoints: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matched = self.head.match(words, spoken, superpoints, there)
        mask = matched.masks[-1].sigmoid() * there.to(words.dtype)
        return mask, matched.scores[-1].clamp(0.0, 1.0), matched.present.sigmoid()


class _Layer(nn.Module):
    """Words look at the superpoints of the mask so far and talk; then superpoints look at the words."""

    def __init__(self, width: int, parts: int, dropout: float) -> None:
        super().__init__()
        self.look = _Attention(width, parts)
        self.norm = nn.LayerNorm(width)
        self.talk = _Block(width, parts, dropout)
        self.listen = _Attention(width, parts)
        self.listen_norm = nn.LayerNorm(width)
        self.think = _Feed(width, dropout)

    def forward(self, words: Tensor, unspoken: Tensor, content: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        words = self.norm(words + self.look(words, content, hidden))
        words = self.talk(words, unspoken)
        content = self.listen_norm(content + self.listen(content, words, unspoken))
        return words, self.think(content)


class _Block(nn.Module):
    """Attention among themselves, then each by itself; `bias` is added to the attention's logits."""

    def __init__(self, width: int, parts: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.norm, self.feed = _Attention(width, parts), nn.LayerNorm(width), _Feed(width, dropout)

    def forward(self, values: Tensor, bias: Tensor) -> Tensor:
        fed: Tensor = self.feed(self.norm(values + self.attention(values, values, bias)))
        return fed


class _Feed(nn.Module):
    """Two layers beside an identity."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, values: Tensor) -> Tensor:
        fed: Tensor = self.norm(values + self.inner(values))
        return fed


class _Attention(nn.Module):
    """Attention of several parts, in operations that every runtime has."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (self._split(part) for part in (self.query(queries), self.key(keys), self.value(keys)))
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + bias  # (B, parts, Q, P)
        answer: Tensor = self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        return answer

    def _split(self, values: Tensor) -> Tensor:
        return torch.unflatten(values, 2, (self.parts, -1)).transpose(1, 2)


def _blocked(there: Tensor) -> Tensor:
    """(B, N) bool -> (B, 1, 1, N) bias that hides what is not there."""
    return torch.where(there, 0.0, BLOCKED)[:, None, None]


def _outside(mask: Tensor, there: Tensor) -> Tensor:
    """(B, 1, 1, S) bias that hides what a mask leaves out; a mask that is empty hides nothing."""
    outside = (mask.detach().sigmoid() < SAME_MASK) & there
    outside = outside & ~(outside | ~there).all(dim=1, keepdim=True)
    return torch.where(outside, BLOCKED, 0.0)[:, None, None]
