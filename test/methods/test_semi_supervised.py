# SPDX-License-Identifier: Apache-2.0
"""What a training with few masks takes from the rest: agreement moves masks into the pool, and weighs those outside it."""

from __future__ import annotations

import copy

import pytest
import torch

from weakseg_ros.methods.referring.batch import ReferringBatch, answered
from weakseg_ros.methods.referring.semi_supervised import SemiSupervised, confident
from weakseg_ros.methods.referring.settings import ROWS, SemiSupervisedSettings
from weakseg_ros.nets.heads.referring import Matched, ReferringHead
from weakseg_ros.points.superpoints import columns

CLASSES, SUPERPOINTS = 4, 6


def head() -> ReferringHead:
    """One that finds something in every scan, with masks of some superpoints."""
    torch.manual_seed(0)
    made = ReferringHead(columns(CLASSES, 2), "car left", width=8, layers=1, parts=2)
    torch.nn.init.constant_(made.presence[-1].bias, 20.0)
    torch.nn.init.normal_(made.mask_features[-1].weight, std=3.0)
    return made.eval()


def batch(present: float = 1.0) -> ReferringBatch:
    there = torch.ones(2, SUPERPOINTS, dtype=torch.bool)
    there[1, 4:] = False
    target = torch.zeros(3, SUPERPOINTS)
    target[:, 0] = 1
    told = torch.randn(2, SUPERPOINTS, columns(CLASSES, 2), generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[2, 3], [3, 0], [2, 0]])
    scans = torch.tensor([0, 1, 1])
    return ReferringBatch(told, there, 5.0 * there, tokens, scans, target, target, torch.full((3,), present), ("7", "8", "9"))


def test_one_that_agrees_with_its_teacher_fills_the_pool_and_leaves_the_unlabelled() -> None:
    made, method = head(), SemiSupervised(ROWS["both"] or SemiSupervisedSettings())
    first = method.unlabelled(made, made, batch(), batch())
    assert first > 0
    with torch.no_grad():
        masks = answered(batch().answered_by(made), batch().valid)
    for i, key in enumerate("789"):
        assert torch.equal(method.pool.mask(key), masks[i][batch().valid[i]])
    assert method.unlabelled(made, made, batch(), batch()) == 0.0
    stays = SemiSupervised(SemiSupervisedSettings(pooled_leave=False))
    again = [stays.unlabelled(made, made, batch(), batch()) for _ in range(2)]
    assert again[0] == again[1] > 0


@pytest.mark.parametrize("row", ["threshold", "tscs", "qdw", "both"])
def test_a_teacher_that_finds_nothing_teaches_nothing(row: str) -> None:
    made, method = head(), SemiSupervised(ROWS[row] or SemiSupervisedSettings())
    silent = copy.deepcopy(made)
    torch.nn.init.constant_(silent.presence[-1].bias, -1e3)
    assert method.unlabelled(made, silent, batch(), batch()) == 0.0
    assert len(method.pool) == 0


def test_each_switch_does_its_own() -> None:
    made = head()
    made_pool, loss = {}, {}
    for row in ("tscs", "qdw"):
        method = SemiSupervised(ROWS[row] or SemiSupervisedSettings())
        loss[row], made_pool[row] = method.unlabelled(made, made, batch(), batch()), len(method.pool)
    assert loss["tscs"] == 0.0
    assert loss["qdw"] > 0
    assert made_pool["tscs"] == 3
    assert made_pool["qdw"] == 0


def test_only_a_sure_mask_passes_the_threshold() -> None:
    masks = torch.tensor([[4.0, -4.0, -4.0], [0.5, -4.0, -4.0], [-4.0, -4.0, -4.0], [4.0, -4.0, -4.0], [4.0, 0.1, -4.0]])
    present = torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0])
    taught = Matched((masks,), (torch.zeros(5),), present, masks)
    valid = torch.ones(5, 3, dtype=torch.bool)
    sure = confident(taught, valid, SemiSupervisedSettings(weighting="threshold", threshold=0.9))
    assert sure.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert not confident(taught, valid, SemiSupervisedSettings(weighting="none")).any()


def test_a_mask_of_the_pool_teaches_the_mask_and_nothing_that_is_not_known() -> None:
    made, method = head(), SemiSupervised(SemiSupervisedSettings())
    everything = {i: batch().target[i].bool()[: int(batch().valid[i].sum())] for i in range(3)}
    method.labelled(made, batch(), everything).backward()
    assert made.mask_features[-1].weight.grad is not None
    assert made.presence[-1].weight.grad is None
    assert made.asks.weight.grad is None
    with_truth = method.labelled(made, batch(present=0.0))
    assert with_truth > method.labelled(made, batch(present=1.0))
