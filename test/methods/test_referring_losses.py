# SPDX-License-Identifier: Apache-2.0
"""Masks of expressions: each loss beside its formula, padding that changes nothing, and which scores are taught."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.referring.criterion import (
    ReferredMask,
    focal,
    layer_losses,
    losses_by_expression,
    mask_iou,
    referring_losses,
)
from weakseg_ros.methods.referring.settings import ReferringWeights


def drawn(seed: int, batch: int, superpoints: int) -> tuple[ReferredMask, Tensor, Tensor]:
    """A layer's answer, true masks, and which superpoints are there (the first always is)."""
    rng = torch.Generator().manual_seed(seed)
    valid = torch.rand(batch, superpoints, generator=rng) < 0.7
    valid[:, 0] = True
    target = ((torch.rand(batch, superpoints, generator=rng) < 0.5) & valid).double()
    logits = torch.randn(batch, superpoints, generator=rng, dtype=torch.float64)
    return ReferredMask(logits, torch.randn(batch, generator=rng, dtype=torch.float64)), target, valid


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_terms_are_those_of_each_expression_without_its_padding(seed: int, batch: int, superpoints: int) -> None:
    layer, target, valid = drawn(seed, batch, superpoints)
    found = losses_by_expression(layer, target, valid)
    for i in range(batch):
        own, truth = layer.logits[i, valid[i]], target[i, valid[i]]
        soft, hard = own.sigmoid().numpy(), own.numpy() >= 0
        truth_np = truth.numpy()
        cross_entropy = -(truth_np * np.log(soft) + (1 - truth_np) * np.log(1 - soft)).mean()
        dice = 1 - (2 * (soft * truth_np).sum() + 1) / (soft.sum() + truth_np.sum() + 1)
        both, either = (hard & (truth_np > 0)).sum(), (hard | (truth_np > 0)).sum()
        iou = both / (either + 1e-6)
        np.testing.assert_allclose(found["mask"][i], cross_entropy)
        np.testing.assert_allclose(found["dice"][i], dice)
        np.testing.assert_allclose(found["score"][i], (layer.score[i].item() - iou) ** 2)
        assert bool(found["sure"][i]) == (iou > 0.5)


def test_padding_may_hold_anything() -> None:
    layer, target, valid = drawn(3, 4, 12)
    wild = ReferredMask(torch.where(valid, layer.logits, torch.full_like(layer.logits, 40.0)), layer.score)
    weights, scores = ReferringWeights(), torch.where(valid, layer.logits, torch.full_like(layer.logits, -1e4))
    plain = referring_losses([layer, layer], target, valid, weights, (layer.logits, target))
    other = referring_losses([wild, wild], target, valid, weights, (scores, target))
    assert plain.keys() == other.keys() == {"referred_mask", "referred_dice", "referred_score", "referred_sampling"}
    for name in plain:
        torch.testing.assert_close(plain[name], other[name])


def test_only_sure_masks_teach_the_score() -> None:
    target, valid = torch.tensor([[1.0, 1, 0, 0]] * 2), torch.ones(2, 4, dtype=torch.bool)
    logits = torch.tensor([[2.0, 2, -2, -2], [-2.0, -2, 2, 2]])
    score = torch.tensor([0.25, 0.25], requires_grad=True)
    layer_losses(ReferredMask(logits, score), target, valid)["score"].backward()
    assert score.grad is not None
    assert score.grad[0] != 0
    assert score.grad[1] == 0
    wrong = layer_losses(ReferredMask(logits[1:], score[1:]), target[1:], valid[1:])
    assert wrong["score"] == 0


def test_iou_counts_points_where_they_are_given() -> None:
    logits, target = torch.tensor([[1.0, 1.0, -1.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    assert mask_iou(logits, target).item() == pytest.approx(1 / 3, abs=1e-6)
    assert mask_iou(logits, target, torch.tensor([[6, 1, 1]])).item() == pytest.approx(6 / 8, abs=1e-6)
    assert mask_iou(-logits.abs(), torch.zeros(1, 3)).item() == 0


def test_focal_without_focus_is_half_the_cross_entropy() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, generator=rng)
    masks = (torch.rand(2, 7, generator=rng) < 0.5).float()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    torch.testing.assert_close(focal(logits, masks, alpha=0.5, gamma=0.0), plain / 2)


def test_weights_scale_their_terms_and_are_checked() -> None:
    layer, target, valid = drawn(1, 3, 9)
    once = referring_losses([layer], target, valid, ReferringWeights(1, 1, 1, 1), (layer.logits, target))
    twice = referring_losses([layer, layer], target, valid, ReferringWeights(2, 3, 4, 5), (layer.logits, target))
    factors = {"referred_mask": 4, "referred_dice": 6, "referred_score": 8, "referred_sampling": 5}
    for name, factor in factors.items():
        torch.testing.assert_close(twice[name], factor * once[name])
    with pytest.raises(ConfigError, match="dice"):
        ReferringWeights(dice=-1.0)
