# SPDX-License-Identifier: Apache-2.0
"""The mean teacher: it moves slowly, mixed pixels keep their labels, and every class and range has its share of pseudo-labels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from weakseg_ros.batches.batches import Batch
from weakseg_ros.config import from_mapping
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.combined import build_method
from weakseg_ros.methods.consistency import Consistency, dense_loss, ramp_up
from weakseg_ros.methods.mean_teacher import MeanTeacher
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.mixed_views import confident_classes, mixed_view, most_confident, with_pseudo_labels
from weakseg_ros.methods.settings import ConfidenceSettings, ConsistencySettings, SupervisedSettings, ViewSettings
from weakseg_ros.nets.light import LightNet
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.train.average import WeightAverage

CLASSES = 4
LABELS = LabelMap("four", tuple(LabelClass(i, f"class {i}", (i, i, i), i == 2, (i,)) for i in range(CLASSES)))
UNMIXED = ViewSettings(bands=0.0, sectors=0.0, objects=0.0, drop=0.0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def some_batch(scans: int = 3, labelled: float = 0.0) -> Batch:
    """Random scans; the first channel of a pixel is its own number, so that its way can be followed."""
    mask = torch.rand(scans, 8, 24) > 0.2
    number = torch.arange(1.0, mask.numel() + 1).view_as(mask)
    image = torch.stack((number, *torch.randn(4, *mask.shape)), dim=1) * mask[:, None]
    labels = torch.randint(1, CLASSES, mask.shape) * mask * (torch.rand(mask.shape) < labelled)
    return Batch(image, labels, mask, 10 * torch.randn(scans, 3, 8, 24) * mask[:, None])


def made(counts: tuple[int, ...] = (10, 5, 5, 5), **settings: Any) -> tuple[Consistency, LightNet]:
    torch.manual_seed(1)
    net = LightNet(5, CLASSES, width=16)
    task = Task(net, torch.tensor(counts), LABELS, SupervisedSettings())
    return Consistency(ConsistencySettings(**settings), task), net


def shifted(net: LightNet) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1.0


class TestTeacher:
    def test_it_begins_as_the_student_and_moves_slowly(self) -> None:
        method, net = made(memory=0.02)
        first = net.classifier.weight.clone()
        method.after_step(net, 0.0)
        for step in range(1, 30):  # past the first steps, in which it follows faster
            method.after_step(net, step / 1000)
        torch.testing.assert_close(method.teacher.net.classifier.weight, first)
        shifted(net)
        method.after_step(net, 0.03)
        moved = (method.teacher.net.classifier.weight - first).mean().item()
        assert moved == pytest.approx(1 - math.exp(-0.001 / 0.02), abs=1e-4)

    def test_its_pace_is_a_share_of_the_training_however_many_steps_that_has(self) -> None:
        """After a share `memory` of the training, 1 - 1/e of a change has arrived, in short trainings and in long ones."""
        for steps in (1000, 4000):
            teacher, net = MeanTeacher(torch.nn.Linear(1, 1), 0.1), torch.nn.Linear(1, 1)
            half = steps // 2
            torch.nn.init.zeros_(net.weight)
            for step in range(half):
                teacher.follow(net, step / steps)
            torch.nn.init.ones_(net.weight)
            for step in range(half, half + steps // 10):
                teacher.follow(net, step / steps)
            assert teacher.net.weight.item() == pytest.approx(1 - math.exp(-1), abs=0.02)

    def test_statistics_follow_too_and_it_never_trains(self) -> None:
        method, net = made()
        net.train()(some_batch().image)
        method.train().after_step(net, 0.0)
        torch.testing.assert_close(method.teacher.state_dict()["net.stem.1.running_mean"], net.stem[1].running_mean)
        assert not any(module.training for module in method.teacher.modules())
        assert not any(parameter.requires_grad for parameter in method.parameters())

    def test_the_students_weights_are_not_the_methods(self) -> None:
        """Else an optimiser would have them twice and a checkpoint hold them twice."""
        method, net = made()
        ours = {id(parameter) for parameter in method.parameters()}
        assert not ours & {id(parameter) for parameter in net.parameters()}

    def test_the_average_that_is_exported_moves_by_the_same_rule(self) -> None:
        net, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        average = WeightAverage(net, 0.99)
        average.follow(other, 0)
        torch.testing.assert_close(average.net.weight, 0.1 * net.weight + 0.9 * other.weight)


class TestMixing:
    def test_every_pixel_keeps_its_label_mask_and_soft_answer(self) -> None:
        batch = some_batch(4, labelled=0.7)
        soft = torch.rand(4, CLASSES, 8, 24)
        always = ViewSettings(bands=1.0, sectors=1.0, objects=1.0, drop=0.0)
        view, mixed = mixed_view(batch, soft, batch.labels == 2, always, np.random.default_rng(0))
        number = view.image[:, 0].long()[view.mask] - 1  # where each pixel comes from
        assert (number // (8 * 24) != torch.arange(4)[:, None, None].expand_as(view.mask)[view.mask]).any()
        torch.testing.assert_close(view.labels[view.mask], batch.labels.flatten()[number])
        torch.testing.assert_close(mixed.movedim(1, -1)[view.mask], soft.movedim(1, -1).flatten(0, 2)[number])
        assert view.xyz is not None
        assert batch.xyz is not None
        torch.testing.assert_close(view.xyz.movedim(1, -1)[view.mask], batch.xyz.movedim(1, -1).flatten(0, 2)[number])
        assert not view.image.movedim(1, -1)[~view.mask].any()
        assert not view.labels[~view.mask].any()

    def test_pixels_stay_in_their_row_and_column(self) -> None:
        batch = some_batch(4)
        always = ViewSettings(bands=1.0, sectors=1.0, drop=0.0)
        view, _ = mixed_view(
            batch, torch.rand(4, 2, 8, 24), torch.zeros(4, 8, 24, dtype=torch.bool), always, np.random.default_rng(1)
        )
        number = (view.image[:, 0].long() - 1) % (8 * 24)
        assert (number == torch.arange(8 * 24).view(8, 24))[view.mask].all()

    def test_objects_are_pasted_where_they_are_nearest_only(self) -> None:
        near, far = 5.0, 20.0
        xyz = torch.zeros(2, 3, 1, 4)
        xyz[0, 0, 0], xyz[1, 0, 0] = torch.tensor([near, far, near, 0.0]), torch.tensor([far, near, 0.0, far])
        mask = xyz[:, 0] > 0
        batch = Batch(torch.arange(8.0).view(2, 1, 1, 4), torch.tensor([[[2, 2, 2, 0]], [[1, 1, 0, 1]]]), mask, xyz)
        settings = ViewSettings(bands=0.0, sectors=0.0, objects=1.0, drop=0.0)
        view, _ = mixed_view(batch, torch.rand(2, 4, 1, 4), batch.labels == 2, settings, np.random.default_rng(0))
        assert view.labels[1, 0].tolist() == [2, 1, 2, 1]
        assert view.labels[0, 0].tolist() == [2, 2, 2, 0]  # the other has no thing

    def test_a_batch_of_one_is_left_as_it_is(self) -> None:
        batch = some_batch(1, labelled=1.0)
        always = ViewSettings(bands=1.0, sectors=1.0, objects=1.0, drop=0.0)
        view, _ = mixed_view(batch, torch.rand(1, 2, 8, 24), batch.labels > 0, always, np.random.default_rng(0))
        torch.testing.assert_close(view.image, batch.image)

    def test_at_most_the_asked_share_is_dropped_from_image_labels_and_mask(self) -> None:
        batch = some_batch(64, labelled=1.0)
        settings = ViewSettings(bands=0.0, sectors=0.0, objects=0.0, drop=0.4)
        view, _ = mixed_view(batch, torch.rand(64, 2, 8, 24), batch.labels > 9, settings, np.random.default_rng(0))
        lost = 1 - view.mask.sum((1, 2)) / batch.mask.sum((1, 2))
        assert 0.1 < lost.mean() < 0.3
        assert torch.equal(view.labels > 0, view.mask)


class TestConfidence:
    def probs(self, rare: float, common: float) -> Tensor:
        """Class 1 at 3 of 4 rows with about the confidence `common`, class 2 at the last with about `rare`."""
        noise = 0.02 * torch.rand(2, 4, 20)
        probs = torch.zeros(2, CLASSES, 4, 20)
        probs[:, 1, :3], probs[:, 2, 3] = common + noise[:, :3], rare + noise[:, 3]
        probs[:, 3] = 1 - probs.sum(dim=1)
        return probs

    def test_a_rare_unsure_class_gets_the_same_share_as_a_common_sure_one(self) -> None:
        mask = torch.ones(2, 4, 20, dtype=torch.bool)
        found = confident_classes(self.probs(0.55, 0.8), mask, None, ConfidenceSettings(share=0.5, sure=0.99))
        assert (found == 1).sum() == 60
        assert (found == 2).sum() == 20

    def test_one_threshold_for_all_would_leave_the_rare_class_out(self) -> None:
        mask = torch.ones(2, 4, 20, dtype=torch.bool)
        found = confident_classes(self.probs(0.55, 0.95), mask, None, ConfidenceSettings(share=0.0, sure=0.9))
        assert set(found.unique().tolist()) == {0, 1}

    def test_each_range_band_has_its_share(self) -> None:
        mask = torch.ones(1, 1, 40, dtype=torch.bool)
        range_m = torch.linspace(1, 40, 40).view(1, 1, 40)
        confidence = 0.95 - 0.01 * torch.arange(40.0)  # the farther, the less sure
        probs = torch.stack((torch.zeros(40), confidence, 1 - confidence))[None, :, None]
        settings = ConfidenceSettings(share=0.5, sure=1.0, least=0.0, range_bands_m=(20.0,))
        found = confident_classes(probs, mask, range_m, settings).flatten()
        assert (found[:20] > 0).sum() == 10
        assert (found[20:] > 0).sum() == 10
        assert (found[:10] == 1).all()

    def test_what_the_teacher_hardly_believes_is_never_taken(self) -> None:
        mask = torch.ones(2, 4, 20, dtype=torch.bool)
        found = confident_classes(self.probs(0.5, 0.8), mask, None, ConfidenceSettings(share=1.0, least=0.6))
        assert not (found == 2).any()

    def test_pixels_without_a_point_get_none(self) -> None:
        mask = torch.rand(2, 4, 20) < 0.5
        found = confident_classes(self.probs(0.6, 0.95), mask, None, ConfidenceSettings())
        assert not found[~mask].any()
        assert found[mask].any()

    def test_most_confident_takes_the_surest_of_each_group(self) -> None:
        confidence = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.2, 0.7])
        group = torch.tensor([0, 0, 0, 4, 4, 4])
        assert most_confident(confidence, group, 0.5).tolist() == [False, True, True, True, False, True]


class TestLosses:
    def test_true_labels_win_over_the_teachers(self) -> None:
        """With every pixel labelled the teacher does not matter at all."""
        method, net = made(ramp=0.0, **vars(UNMIXED))
        batch = some_batch(2, labelled=1.0)
        values = []
        for _ in range(2):
            torch.manual_seed(0)
            values.append(method.losses(batch, net.eval()(batch.image), 0.5)["mixed"].item())
            shifted(method.teacher.net)
        assert values[0] == pytest.approx(values[1])

    def test_the_teacher_wins_over_propagated_labels_where_it_is_sure(self) -> None:
        batch = Batch(torch.zeros(1, 5, 1, 5), torch.tensor([[[1, 1, 1, 0, 0]]]), torch.ones(1, 1, 5, dtype=torch.bool))
        carried = dataclasses.replace(batch, weights=torch.tensor([[[1.0, 0.2, 0.2, 0.0, 0.0]]]))
        taught = with_pseudo_labels(carried, torch.tensor([[[3, 3, 0, 3, 0]]]))
        assert taught.labels.tolist() == [[[1, 3, 1, 3, 0]]]
        assert taught.weights is not None
        torch.testing.assert_close(taught.weights, torch.tensor([[[1.0, 1.0, 0.2, 1.0, 0.0]]]))

    @pytest.mark.parametrize("targets", ["confident", "dense"])
    def test_propagated_labels_without_weight_teach_as_little_as_none(self, targets: str) -> None:
        method, net = made(ramp=0.0, sure=1.0, share=0.0, least=1.0, targets=targets, **vars(UNMIXED))
        batch = some_batch(3, labelled=0.5)
        given = dataclasses.replace(batch, weights=(batch.labels > 0).float())
        given.labels[:, :, 12:], given.weights[:, :, 12:] = 0, 0.0  # type: ignore[index]
        carried = dataclasses.replace(given, labels=torch.where(given.labels > 0, given.labels, 1))
        out = net.eval()(batch.image)
        losses = [method.losses(one, out, 1.0)["mixed"].item() for one in (given, carried)]
        assert losses[0] == pytest.approx(losses[1])

    @pytest.mark.parametrize("targets", ["confident", "dense"])
    def test_scans_without_any_label_teach_the_student_and_never_the_teacher(self, targets: str) -> None:
        method, net = made((10, 0, 0, 0), targets=targets, ramp=0.0)
        batch = some_batch(3)
        loss = method.losses(batch, net(batch.image), 0.5)["mixed"]
        loss.backward()
        assert loss.item() > 0
        assert net.classifier.weight.grad is not None
        assert net.classifier.weight.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in method.teacher.parameters())

    def test_a_training_without_any_label_brings_the_student_to_its_teacher(self) -> None:
        torch.manual_seed(2)
        net = LightNet(5, CLASSES, width=16)
        task = Task(net, torch.tensor([100, 0, 0, 0]), LABELS, SupervisedSettings())
        settings = {"supervised": task.supervised, "consistency": ConsistencySettings(ramp=0.0, share=1.0, least=0.0)}
        method = build_method("consistency", settings, task)
        part = method.part(Consistency)
        assert part is not None
        batch = some_batch(3)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        with torch.no_grad():
            guess = part.teacher(batch.image).probabilities.argmax(dim=1)

        def agreement() -> float:
            with torch.no_grad():
                return (net(batch.image).probabilities.argmax(dim=1) == guess)[batch.mask].float().mean().item()

        before = agreement()
        for _ in range(30):
            optimizer.zero_grad()
            torch.stack(list(method.losses(batch, net(batch.image), 0.5).values())).sum().backward()
            optimizer.step()
        assert agreement() > max(before, 0.8)

    def test_dense_is_the_cross_entropy_with_the_teachers_soft_answer(self) -> None:
        soft, logits = torch.softmax(torch.randn(1, CLASSES, 2, 3), dim=1), torch.randn(1, CLASSES, 2, 3)
        soft[:, 0] = 0
        mask = torch.tensor([[[True, False, True], [True, True, False]]])
        by_hand = -(soft[:, 1:] * torch.log_softmax(logits[:, 1:], dim=1)).sum(dim=1)[mask].mean()
        torch.testing.assert_close(dense_loss(soft, mask, logits), by_hand)

    def test_the_weight_rises_and_stays(self) -> None:
        rising = [ramp_up(progress, 0.2) for progress in (0.0, 0.1, 0.19, 0.2, 1.0)]
        assert rising == sorted(rising)
        assert rising[0] < 0.01
        assert rising[-1] == rising[-2] == ramp_up(0.0, 0.0) == 1.0

    def test_a_weight_of_0_costs_nothing_and_teaches_nothing(self) -> None:
        method, net = made(weight=0.0)
        batch = some_batch(2)
        assert method.losses(batch, net(batch.image), 1.0)["mixed"].item() == 0.0

    def test_the_loss_repeats_with_torchs_seed(self) -> None:
        method, net = made(ramp=0.0)
        batch = some_batch(3, labelled=0.1)
        out, values = net.eval()(batch.image), []
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            values.append(method.losses(batch, out, 1.0)["mixed"].item())
        assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("key", ["range_bands_m", "band_counts"])
def test_settings_that_make_no_sense_are_named(key: str) -> None:
    value = {"range_bands_m": [20.0, 10.0], "band_counts": [1]}[key]
    with pytest.raises(ConfigError, match=key):
        from_mapping(ConsistencySettings, {key: value}, "consistency")
