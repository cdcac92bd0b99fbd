# SPDX-License-Identifier: Apache-2.0
"""Matching beside a search over every assignment, losses by hand and by gradient, and the cases at the edge."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.objects.mask_losses import mask_bce, mask_dice, pairwise_bce, pairwise_dice
from weakseg_ros.methods.objects.matching import Objects, match, matching_cost, query_losses
from weakseg_ros.methods.settings import MatchSettings

CLASSES, PIXELS = 4, 12


def drawn(seed: int, queries: int, count: int) -> tuple[torch.Tensor, torch.Tensor, Objects]:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(count, PIXELS, generator=generator) > 0.6).float()
    objects = Objects(torch.randint(0, CLASSES, (count,), generator=generator), masks)
    class_logits = torch.randn(queries, CLASSES + 1, generator=generator)
    return class_logits, 3 * torch.randn(queries, PIXELS, generator=generator), objects


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_no_assignment_is_cheaper(seed: int, queries: int, count: int) -> None:
    class_logits, mask_logits, objects = drawn(seed, queries, count)
    cost = matching_cost(class_logits, mask_logits, objects, MatchSettings())
    query, target = match(class_logits, mask_logits, objects, MatchSettings())
    assert len(query) == len(target) == min(queries, count)
    assert len(set(target.tolist())) == len(target)
    if queries >= count:
        best = min(sum(cost[q, m].item() for m, q in enumerate(order)) for order in permutations(range(queries), count))
        assert cost[query, target].sum().item() == pytest.approx(best, abs=1e-4)


@given(st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_pairwise_costs_are_the_losses_of_each_pair(seed: int) -> None:
    _, logits, objects = drawn(seed, 3, 4)
    for pairwise, single in ((pairwise_bce, mask_bce), (pairwise_dice, mask_dice)):
        table = pairwise(logits, objects.masks)
        for q in range(3):
            torch.testing.assert_close(table[q], single(logits[q].expand(4, -1), objects.masks), rtol=1e-4, atol=1e-5)


def test_losses_vanish_for_the_right_answer_whatever_the_order_of_queries() -> None:
    objects = Objects(torch.tensor([2, 0]), torch.eye(PIXELS)[:2].repeat_interleave(1, 0))
    mask_logits = torch.full((3, PIXELS), -40.0)
    mask_logits[0, 1], mask_logits[2, 0] = 40.0, 40.0
    class_logits = torch.full((3, CLASSES + 1), -40.0)
    class_logits[0, 0] = class_logits[2, 2] = class_logits[1, CLASSES] = 40.0
    for order in permutations(range(3)):
        losses = query_losses(class_logits[list(order)], mask_logits[list(order)], objects, MatchSettings())
        assert sum(losses.values()).item() == pytest.approx(0.0, abs=1e-5)


def test_without_objects_queries_learn_to_say_nothing() -> None:
    class_logits, mask_logits, _ = drawn(0, 3, 0)
    class_logits.requires_grad_()
    mask_logits.requires_grad_()
    none = Objects(torch.zeros(0, dtype=torch.long), torch.zeros(0, PIXELS))
    losses = query_losses(class_logits, mask_logits, none, MatchSettings())
    assert losses["query_mask"].item() == losses["query_dice"].item() == 0
    sum(losses.values()).backward()
    assert (class_logits.grad[:, CLASSES] < 0).all()
    assert (mask_logits.grad == 0).all()


def test_a_network_that_diverged_is_still_matched() -> None:
    class_logits, mask_logits, objects = drawn(1, 4, 2)
    mask_logits[0, 0], class_logits[1, 0] = torch.nan, torch.inf
    query, _ = match(class_logits, mask_logits, objects, MatchSettings())
    assert sorted(query.tolist()) == [2, 3]


def test_queries_that_start_alike_part_when_trained() -> None:
    objects = Objects(torch.tensor([1, 1, 3]), torch.eye(3).repeat_interleave(4, dim=1))
    generator = torch.Generator().manual_seed(0)
    class_logits = (0.01 * torch.randn(6, CLASSES + 1, generator=generator)).requires_grad_()
    mask_logits = (0.01 * torch.randn(6, PIXELS, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([class_logits, mask_logits], 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        sum(query_losses(class_logits, mask_logits, objects, MatchSettings()).values()).backward()
        optimizer.step()
    query, target = match(class_logits, mask_logits, objects, MatchSettings())
    assert torch.equal(mask_logits[query] > 0, objects.masks[target] > 0)
    assert (class_logits.argmax(dim=1) == CLASSES).sum() == 3


def test_a_weight_outside_its_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="no_object_weight"):
        MatchSettings(no_object_weight=2.0)
