# SPDX-License-Identifier: Apache-2.0
"""ERDA's facts: where its gradient vanishes, which prototypes move, what a batch without labels does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from weakseg_ros.batches.batches import Batch
from weakseg_ros.config import from_mapping
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.erda import Erda, PseudoLabeller, alignment_loss
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.settings import ErdaSettings, SupervisedSettings
from weakseg_ros.nets.light import LightNet
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.labels import LabelClass, LabelMap

CLASSES = 6
LABELS = LabelMap("six", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i,)) for i in range(CLASSES)))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def slope_of_pseudo_logits(pseudo: torch.Tensor, logits: torch.Tensor, **options: Any) -> torch.Tensor:
    pseudo = pseudo.clone().requires_grad_()
    alignment_loss(torch.softmax(pseudo, dim=1), logits, **options).sum().backward()
    assert pseudo.grad is not None
    return pseudo.grad


def make_parts(**settings: Any) -> tuple[Erda, Batch, NetOutput]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 8, 32, generator=generator) > 0.2
    labels = torch.randint(0, CLASSES, mask.shape, generator=generator) * mask
    labels *= torch.rand(mask.shape, generator=generator) < 0.2
    image = torch.randn(2, 5, 8, 32, generator=generator) * mask[:, None]
    torch.manual_seed(0)
    net = LightNet(5, CLASSES, width=16)
    task = Task(net, torch.bincount(labels.flatten(), minlength=CLASSES), LABELS, SupervisedSettings())
    return Erda(ErdaSettings(**settings), task), Batch(image, labels, mask), net(image)


class TestAlignmentLoss:
    def test_an_unsure_prediction_leaves_the_pseudo_label_alone(self) -> None:
        pseudo = torch.randn(20, 5)
        torch.testing.assert_close(slope_of_pseudo_logits(pseudo, torch.zeros(20, 5)), torch.zeros(20, 5), atol=1e-6, rtol=0)

    def test_a_sure_pseudo_label_is_left_alone(self) -> None:
        pseudo = 80.0 * torch.eye(5)
        torch.testing.assert_close(slope_of_pseudo_logits(pseudo, torch.randn(5, 5)), torch.zeros(5, 5), atol=1e-6, rtol=0)

    def test_an_unsure_pseudo_label_follows_a_sure_prediction(self) -> None:
        slope = slope_of_pseudo_logits(torch.zeros(5, 5), 8.0 * torch.eye(5))
        assert (slope.diagonal() < -1.0).all()  # falling towards the predicted class
        assert (slope - torch.diag(slope.diagonal()) > 0.1).sum() == 20

    @pytest.mark.parametrize("alignment", ["kl", "reversed_kl", "js", "mse"])
    def test_equal_sides_pull_neither(self, alignment: str) -> None:
        logits = torch.randn(20, 5)
        slope = slope_of_pseudo_logits(logits, logits, alignment=alignment, entropy_weight=0.0)
        torch.testing.assert_close(slope, torch.zeros(20, 5), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 2.0])
    def test_the_entropy_counts_by_its_weight(self, weight: float) -> None:
        p, logits = torch.softmax(torch.randn(20, 5), 1), torch.randn(20, 5)
        entropy = -(p * p.log()).sum(1)
        distance = (p * (p.log() - torch.log_softmax(logits, 1))).sum(1)
        torch.testing.assert_close(alignment_loss(p, logits, "kl", weight), weight * entropy + distance)

    def test_the_prediction_moves_towards_the_pseudo_label(self) -> None:
        p, logits = torch.softmax(torch.randn(20, 5), 1), torch.randn(20, 5, requires_grad=True)
        alignment_loss(p, logits).sum().backward()
        torch.testing.assert_close(logits.grad, torch.softmax(logits.detach(), 1) - p, atol=1e-6, rtol=1e-5)


class TestPseudoLabeller:
    def test_classes_that_a_batch_lacks_keep_their_prototype(self) -> None:
        labeller = PseudoLabeller(8, 4, projected=False).train()
        features = torch.randn(30, 8)
        labeller(features, torch.arange(30) % 4)
        before = labeller.prototypes.clone()
        labeller(features, torch.where(torch.arange(30) < 5, 2, -1))
        changed = (labeller.prototypes != before).any(dim=1)
        assert changed.tolist() == [False, False, True, False]

    def test_the_official_code_forgets_them(self) -> None:
        labeller = PseudoLabeller(8, 4, projected=False, official_reset=True).train()
        labeller(torch.randn(30, 8), torch.arange(30) % 4)
        labeller(torch.randn(30, 8), torch.full((30,), 2))
        assert labeller.prototypes.any(dim=1).tolist() == [False, False, True, False]

    def test_prototypes_rest_outside_of_training(self) -> None:
        labeller = PseudoLabeller(8, 4, start="xavier").eval()
        before = labeller.prototypes.clone()
        labeller(torch.randn(30, 8), torch.arange(30) % 4)
        torch.testing.assert_close(labeller.prototypes, before, rtol=0, atol=0)

    def test_pseudo_labels_are_as_flat_as_cosines_allow(self) -> None:
        labeller = PseudoLabeller(8, 13, start="xavier", projected=False).eval()
        p = labeller(torch.randn(200, 8), torch.full((200,), -1))
        torch.testing.assert_close(p.sum(1), torch.ones(200))
        assert p.max() <= math.e / (math.e + 12.0 / math.e)


class TestErda:
    def test_a_batch_without_labels_still_has_pseudo_labels(self) -> None:
        method, batch, out = make_parts(prototype_start="xavier")
        before = method.labeller.prototypes.clone()
        losses = method.losses(Batch(batch.image, torch.zeros_like(batch.labels), batch.mask), out, 0.5)
        assert losses["alignment"] > 0
        torch.testing.assert_close(method.labeller.prototypes, before, rtol=0, atol=0)

    def test_a_batch_without_points_costs_nothing(self) -> None:
        method, batch, out = make_parts()
        empty = Batch(batch.image, torch.zeros_like(batch.labels), torch.zeros_like(batch.mask))
        method.eval()  # a norm cannot be trained on no points
        assert method.losses(empty, out, 0.5)["alignment"] == 0

    def test_labelled_points_have_no_pseudo_label_where_labels_are_few(self) -> None:
        method, batch, out = make_parts()
        out.logits.retain_grad()
        sum(method.losses(batch, out, 0.5).values()).backward()
        pulled = out.logits.grad.abs().sum(dim=1) > 0
        assert torch.equal(pulled, batch.mask & (batch.labels == 0))

    def test_all_points_have_one_where_most_are_labelled(self) -> None:
        method, batch, out = make_parts(pseudo_points="all")
        out.logits.retain_grad()
        sum(method.losses(batch, out, 0.5).values()).backward()
        assert torch.equal(out.logits.grad.abs().sum(dim=1) > 0, batch.mask)

    def test_a_share_of_the_points_estimates_the_loss_of_all(self) -> None:
        method, batch, out = make_parts(prototype_start="xavier", momentum=1.0)
        method.labeller.project = torch.nn.Identity()  # whose norm would see other points each time
        everything = method.losses(batch, out, 0.5)["alignment"].item()
        method.settings = ErdaSettings(pseudo_share=0.3)
        some = [method.losses(batch, out, 0.5)["alignment"].item() for _ in range(60)]
        assert len(set(some)) == 60
        assert sum(some) / 60 == pytest.approx(everything, rel=0.01)

    def test_prototypes_survive_a_checkpoint(self) -> None:
        method, batch, out = make_parts()
        method.losses(batch, out, 0.5)
        other, *_ = make_parts()
        other.load_state_dict(load(save(method.state_dict())))
        assert other.labeller.prototypes.any()
        torch.testing.assert_close(other.labeller.prototypes, method.labeller.prototypes, rtol=0, atol=0)

    def test_settings_are_checked(self) -> None:
        with pytest.raises(ConfigError, match=r"erda\.pseudo_share: 0\.0 is outside"):
            from_mapping(ErdaSettings, {"pseudo_share": 0.0}, "erda")
        with pytest.raises(ConfigError, match="did you mean 'js'"):
            from_mapping(ErdaSettings, {"alignment": "jss"}, "options")


def test_a_carried_label_is_as_much_of_a_label_as_its_weight() -> None:
    """Of weight 1 it is a given one, of weight 0 none, both for the prototypes and for who needs a pseudo-label."""
    method, batch, out = make_parts()
    some = batch.labels * (torch.arange(batch.labels.numel()).view_as(batch.labels) % 2 == 0)
    values = []
    for labels, weights in ((batch.labels, (batch.labels > 0).float()), (batch.labels, (some > 0).float()), (some, None)):
        method.labeller.prototypes.zero_()
        loss = method.losses(Batch(batch.image, labels, batch.mask, weights=weights), out, 0.5)["alignment"].item()
        values.append((loss, method.labeller.prototypes.clone()))
    method.labeller.prototypes.zero_()
    given = method.losses(batch, out, 0.5)["alignment"].item()
    assert values[0][0] == pytest.approx(given, rel=1e-5)
    torch.testing.assert_close(values[0][1], method.labeller.prototypes)
    assert values[1][0] == pytest.approx(values[2][0], rel=1e-5)
    torch.testing.assert_close(values[1][1], values[2][1])
