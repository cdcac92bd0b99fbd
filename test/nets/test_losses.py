# SPDX-License-Identifier: Apache-2.0
"""Losses beside slow definitions and in the corners; the official numbers are in test_oracles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.nets.losses import class_alpha, class_probabilities, focal_loss, lovasz_softmax
from weakseg_ros.train.schedule import warmup_cosine_lr


def random_case(seed: int, classes: int = 5, labelled: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(2, classes, 4, 6)))
    labels = rng.integers(0, classes, (2, 4, 6)) * (rng.random((2, 4, 6)) < labelled)
    return torch.softmax(logits, dim=1), torch.from_numpy(labels)


def lovasz_by_definition(probs: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over sorted errors of error times the growth of the Jaccard loss, set by set."""
    q, y = probs.permute(0, 2, 3, 1).reshape(-1, probs.shape[1]).numpy(), labels.ravel().numpy()
    q, y = q[y > 0], y[y > 0]
    losses = []
    for c in np.unique(y):
        truth = y == c
        errors = np.abs(truth - q[:, c])
        total, wrong, before = 0.0, np.zeros(len(y), bool), 0.0
        for i in np.argsort(-errors, kind="stable"):
            wrong[i] = True
            predicted = truth ^ wrong
            jaccard = 1 - (truth & predicted).sum() / (truth | predicted).sum()
            total, before = total + errors[i] * (jaccard - before), jaccard
        losses.append(total)
    return float(np.mean(losses))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
def test_lovasz_is_the_extension_of_the_jaccard_loss(seed: int, dtype: torch.dtype) -> None:
    """In both precisions: they sort in different ways."""
    probs, labels = random_case(seed)
    assert lovasz_softmax(probs.to(dtype), labels).item() == pytest.approx(lovasz_by_definition(probs, labels), rel=1e-5)


def test_perfect_answers_cost_nothing() -> None:
    _, labels = random_case(3)
    probs = torch.nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).double()
    assert lovasz_softmax(probs, labels).item() == pytest.approx(0.0)
    assert focal_loss(probs, labels).item() == pytest.approx(0.0)


def test_focal_without_focus_is_cross_entropy() -> None:
    probs, labels = random_case(4)
    expected = torch.nn.functional.nll_loss(probs.log(), labels, ignore_index=0)
    torch.testing.assert_close(focal_loss(probs, labels, gamma=0.0), expected)


@pytest.mark.parametrize("loss", [focal_loss, lovasz_softmax])
def test_pixels_without_label_do_not_count(loss) -> None:
    probs, labels = random_case(5)
    other = torch.where(labels[:, None] == 0, probs.roll(1, dims=1), probs)
    assert loss(probs, labels).item() == loss(other, labels).item()


@pytest.mark.parametrize("loss", [focal_loss, lovasz_softmax])
def test_no_label_at_all_is_zero_with_a_zero_gradient(loss) -> None:
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    value = loss(torch.softmax(logits, dim=1), torch.zeros(2, 3, 3, dtype=torch.long))
    value.backward()
    assert value.item() == 0.0
    assert (logits.grad == 0).all()


def test_class_zero_is_never_predicted() -> None:
    logits = torch.randn(1, 4, 2, 2, dtype=torch.bfloat16) + torch.tensor([50.0, 0, 0, 0]).view(1, 4, 1, 1)
    probs = class_probabilities(logits)
    assert probs.dtype == torch.float32
    assert (probs[:, 0] == 0).all()
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(1, 2, 2))


def test_rare_classes_weigh_more_and_class_zero_nothing() -> None:
    alpha = class_alpha(torch.tensor([0, 1000, 10, 1]))
    assert alpha[0] == 0
    assert alpha[1] < alpha[2] < alpha[3] == 1


def test_learning_rate_rises_falls_and_ends_at_zero() -> None:
    rates = [warmup_cosine_lr(step, 100, 10, 2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == 2.0
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert warmup_cosine_lr(54.5, 100, 10, 2.0) == pytest.approx(1 + math.cos(math.pi * 45.5 / 90))
    assert warmup_cosine_lr(0, 5, 0, 2.0) < 2.0


@pytest.mark.parametrize("loss", [focal_loss, lovasz_softmax])
def test_a_weight_of_three_is_three_pixels(loss: Callable[..., torch.Tensor]) -> None:
    """Weights are amounts of pixels; only their shares count, and those of 0 are as good as unlabelled."""
    generator = torch.Generator().manual_seed(3)
    probs = torch.softmax(torch.randn(1, 4, 2, 6, generator=generator), dim=1)
    labels = torch.randint(1, 4, (1, 2, 6), generator=generator)
    weights = torch.ones(1, 2, 6)
    weights[0, 0, :3], weights[0, 1, :2] = 3.0, 0.0
    times = weights.long().flatten()
    repeated = [part.flatten(1).repeat_interleave(times, dim=-1)[..., None] for part in (probs[0], labels)]
    torch.testing.assert_close(loss(probs, labels, weights=weights), loss(repeated[0][None], repeated[1]))
    torch.testing.assert_close(loss(probs, labels, weights=weights / 6), loss(probs, labels, weights=weights))
    torch.testing.assert_close(loss(probs, labels, weights=torch.ones(1, 2, 6)), loss(probs, labels))
