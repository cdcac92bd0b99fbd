# SPDX-License-Identifier: Apache-2.0
"""COARSE3D's parts beside plain loops, and the method as a whole: warm-up, memory, anchors, gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch.nn import functional as F

from weakseg_ros.batches.batches import Batch
from weakseg_ros.config import from_mapping
from weakseg_ros.methods.coarse3d import Coarse3d, contrast_loss, some_labels
from weakseg_ros.methods.confident_pixels import (
    Grouped,
    candidate_pixels,
    draw_anchors,
    draw_repeatedly,
    draw_some,
    entropy,
    most_likely,
    quota,
    select_pseudo_labels,
    select_ratio,
)
from weakseg_ros.methods.embedding import at_some_pixels
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.prototypes import PixelBank, PrototypeBank, sinkhorn
from weakseg_ros.methods.settings import BankSettings, Coarse3dSettings, Reduction, SupervisedSettings
from weakseg_ros.nets.heads.projector import Projector
from weakseg_ros.nets.light import LightNet
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.labels import LabelClass, LabelMap

CLASSES = 6
LABELS = LabelMap("six", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i,)) for i in range(CLASSES)))
SMALL = {"embedding": 16, "anchors": 20, "prototypes_per_class": 4}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make_batch(labelled: float = 0.1) -> Batch:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 8, 32, generator=generator) > 0.2
    labels = torch.randint(0, CLASSES, mask.shape, generator=generator) * mask
    labels *= torch.rand(mask.shape, generator=generator) < labelled
    return Batch(torch.randn(2, 5, 8, 32, generator=generator) * mask[:, None], labels, mask)


def make_parts(**options: Any) -> tuple[Coarse3d, Batch, NetOutput]:
    torch.manual_seed(0)
    batch, net = make_batch(), LightNet(5, CLASSES, width=16)
    counts = torch.bincount(batch.labels.flatten(), minlength=CLASSES)
    task = Task(net, counts, LABELS, SupervisedSettings())
    return Coarse3d(from_mapping(Coarse3dSettings, SMALL | options, "coarse3d"), task), batch, net(batch.image)


def grouped_of(counts: list[int]) -> Grouped:
    group = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    group = group[torch.randperm(len(group), generator=torch.Generator().manual_seed(1))]
    return Grouped(torch.arange(len(group)), group, torch.tensor(counts))


def whole_image(small: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, D, H, W): all pixels of an embedding (B, D, h, w), scaled to length 1 and enlarged."""
    return F.interpolate(F.normalize(small, dim=1), size, mode="bilinear", align_corners=True)


class TestEmbedding:
    @given(st.integers(1, 3), st.integers(1, 17), st.integers(1, 33), st.integers(0, 2**31))
    @settings(deadline=None, max_examples=40)
    def test_some_pixels_are_those_of_the_whole_image(self, images: int, height: int, width: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        small = torch.randn(images, 6, -(-height // 2), -(-width // 2), generator=generator)
        pixels = torch.randint(0, images * height * width, (20,), generator=generator)
        whole = whole_image(small, (height, width)).permute(0, 2, 3, 1).flatten(0, 2)
        torch.testing.assert_close(at_some_pixels(small, pixels, (height, width)), whole[pixels], rtol=1e-4, atol=1e-5)

    def test_their_gradients_agree_too(self) -> None:
        small = torch.randn(2, 6, 4, 9).to(memory_format=torch.channels_last).requires_grad_()
        pixels, weights = torch.randint(0, 2 * 8 * 17, (50,)), torch.randn(50, 6)
        ours = torch.autograd.grad((at_some_pixels(small, pixels, (8, 17)) * weights).sum(), small)
        whole = whole_image(small, (8, 17)).permute(0, 2, 3, 1).flatten(0, 2)
        torch.testing.assert_close(ours, torch.autograd.grad((whole[pixels] * weights).sum(), small), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("hidden", [0, 20, 4])
    def test_projector_mixes_as_if_all_maps_were_resized_first(self, hidden: int) -> None:
        maps = [torch.randn(2, c, h, w) for c, h, w in ((3, 16, 32), (8, 8, 16), (24, 4, 8), (24, 2, 4))]
        projector = Projector([m.shape[1] for m in maps], 5, hidden)
        resized = [F.interpolate(m, (8, 16), mode="bilinear", align_corners=True) for m in maps]
        expected = projector.out(F.leaky_relu(projector.norm(projector.mix(torch.cat(resized, 1))), 0.01))
        image = torch.zeros(2, CLASSES, 16, 32)
        torch.testing.assert_close(projector(NetOutput(image, image, tuple(maps))), expected, rtol=1e-4, atol=1e-5)

    def test_detached_maps_train_the_projector_alone(self) -> None:
        for detached in (False, True):
            stage = torch.randn(1, 4, 8, 8, requires_grad=True)
            image = torch.zeros(1, CLASSES, 8, 8)
            projector = Projector([4], 3, detached=detached)
            projector(NetOutput(image, image, (stage,))).square().sum().backward()
            assert projector.mix.weight.grad is not None
            assert (stage.grad is None) == detached


class TestPrototypes:
    def test_each_class_is_balanced_by_itself(self) -> None:
        similarity, classes = torch.rand(60, 5), torch.arange(60) % 3
        plan = sinkhorn(similarity, classes, 4, iterations=50)
        torch.testing.assert_close(plan.sum(1), torch.ones(60), rtol=1e-5, atol=1e-5)
        for k in range(3):
            torch.testing.assert_close(plan[classes == k].sum(0), torch.full((5,), 4.0), rtol=1e-2, atol=1e-2)
            torch.testing.assert_close(
                plan[classes == k], sinkhorn(similarity[classes == k], classes[classes == k] * 0, 1, 0.05, 50)
            )

    def test_bank_moves_only_classes_it_sees_and_stays_on_the_sphere(self) -> None:
        bank = PrototypeBank(BankSettings(prototypes_per_class=3), 4, 8)
        before = bank.keys.clone()
        bank.follow(torch.randn(200, 8), torch.arange(200) % 2)
        moved = (bank.keys != before).flatten(1).any(dim=1)
        assert not moved[2:].any()
        assert torch.equal(bank.moved.any(1), moved)
        torch.testing.assert_close(bank.keys.norm(dim=2), torch.ones(4, 3))

    def test_no_labels_move_nothing(self) -> None:
        for bank in (PrototypeBank(BankSettings(), 4, 8), PixelBank(4, 5, 8)):
            before = bank.keys.clone()
            bank.follow(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long))
            torch.testing.assert_close(bank.keys, before)

    def test_prototypes_find_the_clusters_of_a_class(self) -> None:
        """Three clusters a class, three prototypes: taken from the data, each prototype ends near its own cluster."""
        torch.manual_seed(0)
        centres = torch.randn(2, 3, 16)
        centres = F.normalize(centres - centres.mean(2, keepdim=True), dim=2)
        bank = PrototypeBank(BankSettings(prototypes_per_class=3, prototypes_from_data=True, prototype_momentum=0.9), 2, 16)
        for _ in range(40):
            classes, cluster = torch.randint(0, 2, (120,)), torch.randint(0, 3, (120,))
            bank.follow(centres[classes, cluster] + 0.02 * torch.randn(120, 16), classes)
        nearest = torch.einsum("cid,cjd->cij", centres, bank.keys).amax(dim=2)
        assert nearest.min() > 0.8

    def test_gumbel_assigns_differently_from_one_step_to_the_next(self) -> None:
        x, classes = torch.randn(100, 8), torch.arange(100) % 4
        states = []
        for assignment in ("argmax", "argmax", "gumbel"):
            torch.manual_seed(3)
            bank = PrototypeBank(BankSettings(prototype_assignment=assignment), 4, 8)  # type: ignore[arg-type]
            bank.follow(x, classes)
            states.append(bank.keys)
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])

    @given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    @settings(deadline=None, max_examples=30)
    def test_pixel_memory_holds_the_latest(self, batches: list[int]) -> None:
        bank, batch_of_pixel = PixelBank(2, 5, 3), [i for i, number in enumerate(batches) for _ in range(number)]
        for i, number in enumerate(batches):
            angle = torch.full((number,), 0.01 * i)
            bank.follow(torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), 1), torch.ones(number, dtype=torch.long))
        held = sorted(round(100 * float(torch.atan2(y, x))) for x, y, z in bank.keys[1] if z == 0)
        assert held == batch_of_pixel[-5:]
        assert (bank.keys[0, :, 2] != 0).all()

    def test_pixel_memory_takes_some_of_too_many(self) -> None:
        bank = PixelBank(3, 5, 4)
        bank.follow(torch.ones(40, 4), torch.arange(40) % 2)
        assert (bank.keys == 0.5).all(dim=2).sum(dim=1).tolist() == [5, 5, 0]


class TestDraws:
    def test_shares_grow_from_nothing_to_a_half(self) -> None:
        shares = [select_ratio(p / 1000, 100) for p in range(1001)]
        assert shares == sorted(shares)
        assert shares[0] == pytest.approx(0.00718, abs=1e-5)
        assert shares[-1] == 0.5

    @given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.floats(0, 1))
    @settings(deadline=None, max_examples=40)
    def test_each_group_gives_its_amount(self, counts: list[int], ratio: float) -> None:
        grouped = grouped_of(counts)
        amounts = quota(grouped, ratio)
        assert amounts.tolist() == [int(count * ratio) for count in counts]
        chosen = draw_some(grouped, torch.rand(len(grouped.pixels)) + 0.01, amounts)
        assert torch.equal(torch.bincount(grouped.group[chosen], minlength=len(counts)), amounts)

    def test_without_replacement_follows_the_weights(self) -> None:
        grouped, weight = grouped_of([4, 2]), torch.empty(6)
        weight[grouped.group == 0] = torch.tensor([8.0, 4.0, 2.0, 2.0])
        weight[grouped.group == 1] = torch.tensor([9.0, 1.0])
        hits = torch.stack([draw_some(grouped, weight, torch.tensor([1, 1])) for _ in range(3000)]).float().mean(0)
        expected = torch.cat((torch.tensor([0.5, 0.25, 0.125, 0.125]), torch.tensor([0.9, 0.1])))
        ours = torch.cat((hits[grouped.group == 0], hits[grouped.group == 1]))
        torch.testing.assert_close(ours, expected, atol=0.04, rtol=0)

    def test_with_replacement_follows_the_weights(self) -> None:
        grouped, weight = grouped_of([4, 0, 2]), torch.empty(6, dtype=torch.float64)
        weight[grouped.group == 0] = torch.tensor([8.0, 4.0, 2.0, 2.0]).double()
        weight[grouped.group == 2] = torch.tensor([1e-9, 9e-9]).double()
        times = draw_repeatedly(grouped, weight, 20000) / 20000
        torch.testing.assert_close(times[grouped.group == 0], torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=0.02, rtol=0)
        torch.testing.assert_close(times[grouped.group == 2], torch.tensor([0.1, 0.9]), atol=0.02, rtol=0)

    def test_nothing_to_draw_from(self) -> None:
        grouped = Grouped(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(5, dtype=torch.long))
        assert not len(draw_repeatedly(grouped, torch.zeros(0, dtype=torch.float64), 7))
        assert not len(draw_some(grouped, torch.zeros(0), quota(grouped, 0.5)))

    def test_pseudo_labels_are_guesses_of_classes_that_the_image_has_labels_of(self) -> None:
        batch, probs = make_batch(0.02), torch.softmax(torch.randn(2, CLASSES, 8, 32), 1)
        merged = select_pseudo_labels(probs, entropy(probs), batch.labels, batch.mask, 0.5)
        fresh = (merged > 0) & (batch.labels == 0)
        assert fresh.any()
        assert not (fresh & ~batch.mask).any()
        assert torch.equal(merged[batch.labels > 0], batch.labels[batch.labels > 0])
        assert torch.equal(merged[fresh], probs.argmax(1)[fresh])
        for image in range(2):
            assert set(merged[image].unique().tolist()) <= {0, *batch.labels[image].unique().tolist()}
        candidates = candidate_pixels(probs.argmax(1), batch.labels, batch.mask, CLASSES)
        assert fresh.sum() <= quota(candidates, 0.5).sum()

    def test_anchors_prefer_sure_pixels_unless_told_not_to(self) -> None:
        labels, mask = torch.ones(1, 1, 200, dtype=torch.long), torch.ones(1, 1, 200, dtype=torch.bool)
        uncertainty = torch.where(torch.arange(200) < 100, 0.0, 1.5)[None, None]
        sure = []
        for by_entropy in (True, False):
            anchors = draw_anchors(labels, mask, uncertainty, 2, 4000, by_entropy)
            assert anchors.times.sum() == 4000
            assert (anchors.times > 0).all()
            sure.append(anchors.times[anchors.pixels < 100].sum().item() / 4000)
        assert sure[0] == pytest.approx(1 / (1 + 0.1054), abs=0.03)
        assert sure[1] == pytest.approx(0.5, abs=0.03)

    def test_the_first_of_equal_classes_is_most_likely(self) -> None:
        probs = torch.tensor([[0.2, 0.4, 0.4], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]).T[None, :, None]
        assert most_likely(probs).flatten().tolist() == [1, 2, 0]


class TestContrastLoss:
    @pytest.mark.parametrize("reduction", ["mean_log", "log_sum"])
    @pytest.mark.parametrize("temperature", [0.07, 1.0])
    def test_value_and_gradient_are_those_of_the_formula(self, reduction: Reduction, temperature: float) -> None:
        anchors = torch.randn(12, 8, dtype=torch.float64, requires_grad=True)
        keys, classes = torch.randn(4, 3, 8, dtype=torch.float64), torch.arange(12) % 4
        times = torch.randint(1, 5, (12,))
        ours = contrast_loss(anchors, classes, keys, times, temperature, 0.07, reduction)
        logits = F.normalize(anchors, dim=1) @ F.normalize(keys, dim=2).flatten(0, 1).T / temperature
        losses = []
        shifted = logits - logits.detach().amax(dim=1, keepdim=True)
        for row, k in zip(torch.exp(shifted), classes, strict=True):
            positive = row.view(4, 3)[k]
            negative = row.sum() - positive.sum()
            one = -(positive / (positive + negative + 1e-6)).log().mean()
            losses.append(one if reduction == "mean_log" else -(positive.sum() / row.sum()).log())
        expected = (torch.stack(losses) * times).sum() / times.sum() * temperature / 0.07
        torch.testing.assert_close(ours, expected)
        slope, exact = (torch.autograd.grad(2.0 * loss, anchors)[0] for loss in (ours, expected))
        torch.testing.assert_close(slope, exact)

    @pytest.mark.parametrize("reduction", ["mean_log", "log_sum"])
    def test_anchors_on_the_wrong_side_stay_finite(self, reduction: Reduction) -> None:
        anchors, keys = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[[-1.0, 0.0]], [[1.0, 0.0]]])
        loss = contrast_loss(anchors, torch.tensor([0]), keys, None, 1e-3, 0.07, reduction)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(anchors.grad).all()

    def test_anchors_at_their_prototypes_cost_least(self) -> None:
        keys = torch.eye(8).view(4, 2, 8)
        near = contrast_loss(keys[:, 0], torch.arange(4), keys, reduction="log_sum")
        far = contrast_loss(keys[:, 0].roll(1, 0), torch.arange(4), keys, reduction="log_sum")
        assert near < 0.01 < 10.0 < far


class TestCoarse3d:
    def test_contrast_waits_for_the_warm_up_and_then_reaches_the_encoder(self) -> None:
        method, batch, out = make_parts()
        for stage in out.stages:
            stage.retain_grad()
        before = method.bank.keys.clone()
        early = method.losses(batch, out, 0.04)
        early["contrast"].backward(retain_graph=True)
        assert early["contrast"] == 0
        assert torch.equal(method.bank.keys, before)
        assert all(p.grad is not None for p in method.projector.parameters())  # for distributed training
        late = method.losses(batch, out, 0.05)
        late["contrast"].backward()
        assert late["contrast"] > 0
        assert not torch.equal(method.bank.keys, before)
        assert all(stage.grad.abs().sum() > 0 for stage in out.stages)

    def test_the_memory_rests_outside_of_training(self) -> None:
        method, batch, out = make_parts()
        before = method.bank.keys.clone()
        method.eval().losses(batch, out, 0.5)
        assert torch.equal(method.bank.keys, before)

    def test_a_batch_without_labels_moves_nothing_and_costs_nothing(self) -> None:
        method, batch, out = make_parts()
        before = method.bank.keys.clone()
        losses = method.losses(Batch(batch.image, torch.zeros_like(batch.labels), batch.mask), out, 0.5)
        sum(losses.values()).backward()
        assert losses["contrast"] == 0
        torch.testing.assert_close(method.bank.keys, before)

    @pytest.mark.parametrize(
        "options",
        [
            {"memory": "pixels", "memory_pixels": 50},
            {"anchor_draw": "uniform"},
            {"reduction": "log_sum"},
            {"prototype_assignment": "gumbel"},
            {"prototypes_from_data": True},
            {"projector_width": 8},
        ],
    )
    def test_every_switch_changes_the_loss_and_can_be_saved(self, options: dict[str, Any]) -> None:
        values = []
        for chosen in ({}, options):
            method, batch, out = make_parts(**chosen)
            for step in range(3):
                torch.manual_seed(step)
                value = method.losses(batch, out, 0.5)["contrast"].item()
            values.append(value)
        assert values[0] != values[1]
        other, *_ = make_parts(**options)
        other.load_state_dict(load(save(method.state_dict())))
        assert torch.equal(other.bank.keys, method.bank.keys)

    def test_propagated_labels_count_as_often_as_their_weight_says(self) -> None:
        labels = torch.ones(1, 10, 1000, dtype=torch.int64)
        weights = torch.full(labels.shape, 0.25)
        weights[:, :, :100] = 1.0
        kept = some_labels(Batch(torch.zeros(1, 5, 10, 1000), labels, labels > 0, weights=weights)).labels
        assert kept[:, :, :100].all()
        assert 0.2 < kept[:, :, 100:].float().mean() < 0.3

    def test_without_weight_there_is_no_contrast(self) -> None:
        method, batch, out = make_parts(weight=0.0)
        assert method.losses(batch, out, 0.5).keys() == {"contrast"}
        assert method.losses(batch, out, 0.5)["contrast"] == 0

    def test_the_same_seed_draws_the_same_anchors(self) -> None:
        values = []
        for seed in (5, 5, 6):
            method, batch, out = make_parts()
            torch.manual_seed(seed)
            values.append(method.losses(batch, out, 0.5)["contrast"].item())
        assert values[0] == values[1] != values[2]

    def test_statistics_are_kept_in_single_precision_under_autocast(self) -> None:
        method, batch, _ = make_parts()
        net = LightNet(5, CLASSES, width=16)
        with torch.autocast("cpu", torch.bfloat16):
            losses = method.losses(batch, net(batch.image), 0.5)
        assert method.bank.keys.dtype == losses["contrast"].dtype == torch.float32
        assert torch.isfinite(losses["contrast"])
