# SPDX-License-Identifier: Apache-2.0
"""Which superpoints a sentence means: words look at superpoints layer by layer, and one of them becomes the mask's kernel.

After the decoder of 3D-STMN, on superpoints of a range image: Wu et al., 3D-STMN: Dependency-Driven Superpoint-Text
Matching Network for End-to-End 3D Referring Expression Segmentation, AAAI 2024. Ours: superpoints hear the words and then
look at one another, knowing where each other one is, in place of the dependency graph; words look at all superpoints, not
only at those of the mask so far, since "the car behind the truck" needs both; and the probability that anything matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.nets.heads.attention import BLOCKED, Attention
from weakseg_ros.nets.heads.head import Head
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.superpoints import PLACE_M, columns

LONGEST_SENTENCE = 64
"""words, the root counted, that have a place of their own"""
RELATIONS, FARTHEST = 10, 6.0
"""how many numbers tell where another superpoint is; deviations from the mean beyond which a description is cut"""
POOLED = 2
MOST_LAYERS = 12
MEANT = 0.5
"""least probability of a superpoint that is part of the mask"""


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


@dataclass(frozen=True)
class Surveyed:
    """G scans of S superpoints as the head sees them before anything is asked."""

    content: Tensor
    """(G, S, width)"""
    features: Tensor
    """(G, S, width) what a mask's kernel is held against before the first layer"""
    asks: Tensor
    """(G, S, width) what words are held against to tell whether they speak of a superpoint"""
    near: tuple[Tensor, ...]
    """(G, parts, S, S) for each layer: how much superpoints look at one another, little at what is not there"""

    def of(self, scan: Tensor) -> Surveyed:
        """Those of the scans (B,) of B sentences."""
        near = tuple(each[scan] for each in self.near)
        return Surveyed(self.content[scan], self.features[scan], self.asks[scan], near)


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
        self.phrase = nn.Linear(3 * width, width)
        self.reader = _Block(width, parts, dropout)
        self.content = nn.Sequential(nn.Linear(superpoint, width), nn.LayerNorm(width), nn.ReLU())
        self.relations = nn.ModuleList([_relation(parts) for _ in range(layers + 1)])
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
        cls, net: nn.Module, num_classes: int, vocabulary: str = "car", width: int = 64, layers: int = 2, parts: int = 4
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
        words = self.drop(words + self.place[: tokens.shape[1] + 1]) * there[..., None]
        before, after = F.pad(words, (0, 0, 1, 0))[:, :-1], F.pad(words, (0, 0, 0, 1))[:, 1:]
        words = words + self.phrase(torch.cat([before, words, after], dim=2)).relu()  # "turn left" is not "on the left"
        return self.reader(words, _blocked(there)), there

    def match(self, words: Tensor, spoken: Tensor, superpoints: Tensor, there: Tensor) -> Matched:
        """Words as `read` gives them, superpoints (B, S, F) as described, `there` (B, S) False on padding."""
        return self.ask(words, spoken, self.survey(superpoints, there), there)

    def survey(self, superpoints: Tensor, there: Tensor, depth: int = MOST_LAYERS) -> Surveyed:
        """What each of (G, S, F) superpoints is beside the others, whatever is asked: once for all sentences of a scan.

        `depth` is the number of layers that are asked later.
        """
        content = self.drop(self.content(((superpoints - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)))
        told = _told(superpoints[..., :2] * PLACE_M)
        hidden = _blocked(there)
        first, *later = (hidden + relation(told).permute(0, 3, 1, 2) for relation in self.relations[: depth + 1])
        content = self.neighbours(content, first)
        return Surveyed(content, self.mask_features(content), self.asks(content), tuple(later))

    def ask(self, words: Tensor, spoken: Tensor, surveyed: Surveyed, there: Tensor) -> Matched:
        """See `match`, with the superpoints as `survey` gives them; only as many layers are run as `surveyed` is for."""
        hidden, silent, content = _blocked(there), _blocked(spoken), surveyed.content
        sampling = self._sampling(words, spoken, surveyed.asks)
        mask, score = self._answer(words, surveyed.features)
        masks, scores = [mask], [score]
        for layer, near in zip(self.layers, surveyed.near, strict=False):
            words, content = layer(words, silent, content, hidden, near)
            mask, score = self._answer(words, self.mask_features(content))
            masks.append(mask)
            scores.append(score)
        return Matched(tuple(masks), tuple(scores), self._present(words, content, masks[-1], there), sampling)

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

    def _sampling(self, words: Tensor, spoken: Tensor, asks: Tensor) -> Tensor:
        """(B, S) how much the words together ask for each superpoint."""
        asked = (asks @ self.asked(words).transpose(1, 2)) / self.width**0.5  # (B, S, T)
        together: Tensor = (asked * spoken[:, None].to(asked.dtype)).sum(dim=2) / spoken.sum(dim=1, keepdim=True)
        return together


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
        return mask, expected_iou(matched, there), matched.present.sigmoid()


def expected_iou(matched: Matched, there: Tensor) -> Tensor:
    """(B,) IoU that the last mask is expected to have: the head's own guess for a right one, times how likely it is right.

    The published score learns from masks that are right by half, and so knows nothing of wrong ones.
    """
    logits = matched.masks[-1].masked_fill(~there, BLOCKED)
    chosen = (logits.sigmoid() >= MEANT) | (logits >= logits.amax(dim=1, keepdim=True))
    right = (logits.softmax(dim=1) * chosen.to(logits.dtype)).sum(dim=1)
    return matched.scores[-1].clamp(0.0, 1.0) * right


class _Layer(nn.Module):
    """Words look at the superpoints and talk; superpoints listen to the words, and then look at one another."""

    def __init__(self, width: int, parts: int, dropout: float) -> None:
        super().__init__()
        self.look = Attention(width, parts)
        self.norm = nn.LayerNorm(width)
        self.talk = _Block(width, parts, dropout)
        self.listen = Attention(width, parts)
        self.listen_norm = nn.LayerNorm(width)
        self.compare = _Block(width, parts, dropout)

    def forward(self, words: Tensor, silent: Tensor, content: Tensor, hidden: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        words = self.norm(words + self.look(words, content, content, bias=hidden))
        words = self.talk(words, silent)
        content = self.listen_norm(content + self.listen(content, words, words, bias=silent))
        return words, self.compare(content, near)


class _Block(nn.Module):
    """Attention among themselves, then each by itself; `bias` is added to the attention's logits."""

    def __init__(self, width: int, parts: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.norm, self.feed = Attention(width, parts), nn.LayerNorm(width), _Feed(width, dropout)

    def forward(self, values: Tensor, bias: Tensor) -> Tensor:
        fed: Tensor = self.feed(self.norm(values + self.attention(values, values, values, bias=bias)))
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


def _blocked(there: Tensor) -> Tensor:
    """(B, N) bool -> (B, 1, 1, N) bias that hides what is not there."""
    return torch.where(there, 0.0, BLOCKED)[:, None, None]


def _relation(parts: int) -> nn.Module:
    """(..., RELATIONS) where another superpoint is -> (..., parts) how much to look at it."""
    return nn.Sequential(nn.Linear(RELATIONS, 2 * parts), nn.ReLU(), nn.Linear(2 * parts, parts))


def _told(place: Tensor) -> Tensor:
    """(G, S, S, RELATIONS) what the superpoints at (G, S, 2) m are to one another: how far, and on which side.

    Sides are told twice, along the vehicle's axes and along the line of sight to the first of both.
    """
    way = place[:, None] - place[:, :, None]  # (G, S, S, 2), from the first to the second
    distance = (way * way).sum(dim=3, keepdim=True).clamp_min(1e-6).sqrt()
    reach = (place * place).sum(dim=2, keepdim=True).clamp_min(1e-6).sqrt()
    sight = (place / reach)[:, :, None]  # (G, S, 1, 2)
    along = (sight * way).sum(dim=3, keepdim=True)
    across = sight[..., :1] * way[..., 1:] - sight[..., 1:] * way[..., :1]
    near = torch.exp(-distance / 6)
    sides = (torch.cat([along, across, way], dim=3) / 3).tanh()
    same = torch.exp(-10 * distance)
    return torch.cat([torch.exp(-distance / 2), near, distance.log1p() - 2, sides, near * sides[..., :2], same], dim=3)
