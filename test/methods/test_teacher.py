# SPDX-License-Identifier: Apache-2.0
"""The teacher's pace, how agreement weighs its masks, and which of them become labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from weakseg_ros.methods.mean_teacher import follow
from weakseg_ros.methods.referring.criterion import ReferredMask
from weakseg_ros.methods.referring.settings import ReferringWeights, TeacherSettings
from weakseg_ros.methods.referring.teacher import AgreedMasks, agreement, quality_weighted_loss


def logits_of(*masks: str) -> Tensor:
    """(B, S) from words of 0 and 1."""
    return torch.tensor([[4.0 if part == "1" else -4.0 for part in mask] for mask in masks])


def test_the_teacher_keeps_its_share_of_weights_and_statistics() -> None:
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    student(torch.randn(8, 3))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    follow(teacher, student, 0.9)
    for name, value in teacher.state_dict().items():
        theirs = student.state_dict()[name]
        expected = (0.9 * before[name] + 0.1 * theirs).to(value.dtype)  # counters are rounded down, as published
        torch.testing.assert_close(value, expected)
    follow(teacher, student, 0.0)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, student.state_dict()[name])


def test_the_pace_begins_with_a_copy_and_never_exceeds_its_limit() -> None:
    settings = TeacherSettings(keep=0.9)
    assert settings.keep_at(0) == 0.0
    assert settings.keep_at(1) == 0.5
    assert settings.keep_at(1000) == 0.9


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_agreement_is_one_only_between_equal_masks_that_hold_something(seed: int, batch: int, superpoints: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(batch, superpoints, generator=rng) for _ in range(2))
    student[0] = teacher[0]
    agreed, pseudo = agreement(student, teacher)
    assert ((agreed >= 0) & (agreed <= 1)).all()
    for i in range(batch):
        equal = bool(((student[i] >= 0) == (teacher[i] >= 0)).all()) and bool(pseudo[i].any())
        assert (agreed[i] > 1 - 1e-5) == equal
    flipped, _ = agreement(-teacher, teacher)
    assert not flipped.any()


def test_agreement_leaves_padding_out() -> None:
    points = torch.tensor([[5, 3, 0, 0]])
    agreed, pseudo = agreement(logits_of("1011"), logits_of("1001"), points)
    assert agreed.item() == pytest.approx(1.0, abs=1e-6)
    assert pseudo.tolist() == [[1, 0, 0, 0]]


def test_the_loss_counts_each_expression_by_its_quality() -> None:
    torch.manual_seed(0)
    valid = torch.ones(3, 6, dtype=torch.bool)
    logits = torch.randn(3, 6, requires_grad=True)
    layer = ReferredMask(logits, torch.zeros(3))
    pseudo = (torch.rand(3, 6) < 0.5).float()
    alone = [quality_weighted_loss([layer], pseudo, valid, torch.eye(3)[i], ReferringWeights()) for i in range(3)]
    quality = torch.tensor([0.2, 0.9, 0.0], requires_grad=True)
    loss = quality_weighted_loss([layer], pseudo, valid, quality, ReferringWeights())
    torch.testing.assert_close(loss, 0.2 * alone[0] + 0.9 * alone[1])
    loss.backward()
    assert quality.grad is None
    assert logits.grad is not None
    assert logits.grad[:2].any()
    assert not logits.grad[2].any()
    disjoint, mask = agreement(logits_of("110"), logits_of("001"))
    there = torch.ones(1, 3, dtype=torch.bool)
    nothing = quality_weighted_loss([ReferredMask(logits_of("110"), torch.zeros(1))], mask, there, disjoint, ReferringWeights())
    assert nothing == 0


def test_masks_join_by_agreement_are_renewed_and_leave() -> None:
    agreed = AgreedMasks(TeacherSettings(agreement=0.9, patience=0.1))
    valid = torch.tensor([[True, True, True, False]] * 3)
    masks = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1]])
    agreed.offer(["chair", "table", "empty"], torch.tensor([0.95, 0.9, 1.0]), masks, valid)
    assert "chair" in agreed
    assert "table" not in agreed
    assert "empty" not in agreed
    assert agreed.mask("chair").tolist() == [True, False, False]
    newer = torch.tensor([[1.0, 1, 0, 0]])
    agreed.offer(["chair"], torch.tensor([0.85]), newer, valid[:1])
    assert agreed.mask("chair").tolist() == [True, True, False]
    again = AgreedMasks(TeacherSettings())
    again.load_state_dict(agreed.state_dict())
    assert again.mask("chair").tolist() == [True, True, False]
    agreed.offer(["chair"], torch.tensor([0.7]), newer, valid[:1])
    assert len(agreed) == 0
    with pytest.raises(KeyError):
        agreed.mask("chair")
