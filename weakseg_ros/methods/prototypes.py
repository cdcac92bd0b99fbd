# SPDX-License-Identifier: Apache-2.0
"""A memory of what each class looks like: COARSE3D's prototypes, spread over a class by optimal transport.

Classes are indices 0..C-1 here; every pixel given is labelled, and all classes are handled at once: prototypes' sums run
over the pixels of one class through `index_add`, pixels' sums over the prototypes of their own class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg_ros.methods.settings import Assignment, BankSettings
from weakseg_ros.nets.heads.novelty import PrototypeKeys


class PrototypeBank(PrototypeKeys):
    """Unit vectors (C, K, D) that follow the labelled pixels; saved with the checkpoint, not trained."""

    def __init__(self, settings: BankSettings, classes: int, dim: int) -> None:
        super().__init__(classes, settings.prototypes_per_class, dim)
        self.settings = settings

    @torch.no_grad()
    def follow(self, embedded: Tensor, classes: Tensor) -> None:
        """Move towards labelled pixels: embedded (n, D) float32, classes (n,). Over all processes, if there are several."""
        settings = self.settings
        x = standardise(embedded)
        similarity = similarities(x, self.keys)
        own = similarity[torch.arange(len(classes), device=classes.device), classes]  # (n, K)
        plan = sinkhorn(own, classes, len(self.keys), settings.sinkhorn_epsilon, settings.sinkhorn_iterations)
        choice = assign(plan, settings.prototype_assignment)
        counts = nearest_class(similarity) == classes
        if settings.prototypes_from_data:
            counts |= ~self.moved[classes, choice]
        sums, moves = collect(x[counts], classes[counts], choice[counts], self.keys)
        stays = settings.prototype_momentum
        momentum = torch.where(self.moved | (not settings.prototypes_from_data), stays, 0.0)[..., None]
        self.keys.copy_(move(self.keys, sums, moves, momentum))
        self.moved |= moves


def standardise(embedded: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """LayerNorm over D, then length 1: (n, D). Weight and bias of the norm are never trained, so they are 1 and 0."""
    return F.normalize(F.layer_norm(embedded, embedded.shape[1:], weight, bias), dim=1)


def similarities(x: Tensor, keys: Tensor) -> Tensor:
    """Scalar products of pixels (n, D) and prototypes (C, K, D): (n, C, K)."""
    return (x @ keys.flatten(0, 1).T).view(len(x), *keys.shape[:2])


def nearest_class(similarity: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """The class of the most similar prototype: (n, C, K) -> (n,).

    The official LayerNorm over the classes comes before; left at weight 1 and bias 0 it does not change which is largest.
    """
    best = similarity.amax(dim=2)
    return (best if weight is None else F.layer_norm(best, best.shape[1:], weight, bias)).argmax(dim=1)


def sinkhorn(similarity: Tensor, classes: Tensor, num_classes: int, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignment of each class's pixels to its prototypes, all prototypes used alike: (n, K), rows sum to 1.

    similarity (n, K) with the prototypes of the pixel's own class, classes (n,). Entropic optimal transport (Cuturi,
    NeurIPS 2013), for every class by itself: exp(similarity / epsilon), then in turn every prototype's sum over the
    pixels and every pixel's sum over the prototypes is scaled to 1.
    """
    scores = similarity.double()
    plan = torch.exp((scores - scores.max()) / epsilon) if len(scores) else scores
    for _ in range(iterations):
        mass = plan.new_zeros(num_classes, plan.shape[1]).index_add_(0, classes, plan)
        plan = plan / mass[classes]
        plan = plan / plan.sum(dim=1, keepdim=True)
    return plan.to(similarity.dtype)


def assign(plan: Tensor, assignment: Assignment = "argmax", noise: Tensor | None = None) -> Tensor:
    """One prototype for each pixel: (n, K) -> (n,). `noise` (n, K) replaces the Gumbel noise that `gumbel` would draw."""
    if assignment == "gumbel":
        plan = plan + (-torch.log(torch.empty_like(plan).exponential_()) if noise is None else noise)
    return plan.argmax(dim=1)


def collect(x: Tensor, classes: Tensor, choice: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (C, K, D) of the pixels that chose each prototype, and which (C, K) were chosen; over all processes."""
    flat = classes * keys.shape[1] + choice
    sums = torch.zeros_like(keys).flatten(0, 1).index_add_(0, flat, x)
    counts = torch.bincount(flat, minlength=len(sums))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
        torch.distributed.all_reduce(counts)
    return sums.view_as(keys), counts.view(keys.shape[:2]) > 0


def move(keys: Tensor, sums: Tensor, moves: Tensor, momentum: Tensor | float) -> Tensor:
    """P <- momentum P + (1 - momentum) sum / |sum|, of length 1 again, for the prototypes in `moves` (C, K)."""
    target = momentum * keys + (1.0 - momentum) * F.normalize(sums, dim=2)
    return torch.where(moves[..., None], F.normalize(target, dim=2), keys)


class PixelBank(nn.Module):
    """The latest labelled pixels of each class in place of prototypes: unit vectors (C, S, D), the oldest overwritten."""

    def __init__(self, classes: int, size: int, dim: int) -> None:
        super().__init__()
        self.keys: Tensor
        self.next: Tensor
        self.register_buffer("keys", F.normalize(torch.randn(classes, size, dim), dim=2))
        self.register_buffer("next", torch.zeros(classes, dtype=torch.long))

    @torch.no_grad()
    def follow(self, embedded: Tensor, classes: Tensor) -> None:
        """Keep labelled pixels: embedded (n, D) float32, classes (n,); of more than S of a class a random S."""
        order = torch.randperm(len(classes), device=classes.device)
        order = order[torch.argsort(classes[order], stable=True)]
        counts = torch.bincount(classes, minlength=len(self.keys))
        group = classes[order]
        place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[group]
        fits = place < self.keys.shape[1]
        group, place, order = group[fits], place[fits], order[fits]
        self.keys[group, (self.next[group] + place) % self.keys.shape[1]] = F.normalize(embedded[order], dim=1)
        self.next.copy_((self.next + counts) % self.keys.shape[1])
