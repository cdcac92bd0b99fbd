# SPDX-License-Identifier: Apache-2.0
"""Time constants and numbers follow from the steps and labels of a training, and are the published ones in its regime."""

from __future__ import annotations

import pytest
import torch

from weakseg_ros.methods.coarse3d import Coarse3d
from weakseg_ros.methods.confident_pixels import select_pseudo_labels
from weakseg_ros.methods.erda import Erda
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.regime import contrast_weight, memory_momentum, prototype_count
from weakseg_ros.methods.settings import Coarse3dSettings, ErdaSettings, SupervisedSettings
from weakseg_ros.methods.supervised import class_weights
from weakseg_ros.nets.light import LightNet
from weakseg_ros.points.labels import LabelClass, LabelMap

LABELS = LabelMap("toy", tuple(LabelClass(i, f"class{i}", (i, i, i), False, (i,)) for i in range(6)))


def task(steps: int = 0, batch_labels: float = 0.0, **supervised: object) -> Task:
    counts = torch.tensor([1000, 40, 30, 20, 10, 0])
    net = LightNet(5, 6, width=16)
    return Task(net, counts, LABELS, SupervisedSettings(**supervised), steps=steps, batch_labels=batch_labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("memory", "steps", "momentum"),
    [(0.01, 100_000, 0.999), (0.01, 5_000, 0.98), (0.01, 700, 0.857), (0.00837, 5_000, 0.976), (0.01, 50, 0.0), (0.0, 50, 0.999)],
)
def test_a_prototype_remembers_a_share_of_the_training(memory: float, steps: int, momentum: float) -> None:
    assert memory_momentum(0.999, memory, steps) == pytest.approx(momentum, abs=2e-3)
    assert memory_momentum(0.9, memory, 10 * steps) <= 0.9


def test_few_labels_get_few_prototypes_and_many_a_light_contrast() -> None:
    assert prototype_count(20, 4, 20, 5) == 4
    assert prototype_count(20, 4, 700, 15) == 20
    assert prototype_count(20, 4, 50, 5) == 10
    assert contrast_weight(0.1, 500, 20) == 0.1
    assert contrast_weight(0.1, 500, 5000) == pytest.approx(0.01)


def test_methods_take_their_constants_from_the_task_unless_the_published_ones_are_asked_for() -> None:
    short = task(steps=700, batch_labels=20)
    assert Erda(ErdaSettings(), short).labeller.momentum == pytest.approx(0.857, abs=1e-3)
    assert Erda(ErdaSettings(published=True), short).labeller.momentum == 0.999
    adapted, published = (Coarse3d(Coarse3dSettings(published=value), short) for value in (False, True))
    assert adapted.bank.keys.shape[1] == 5  # 20 labelled points of 4 classes
    assert published.bank.keys.shape[1] == 20
    assert adapted.settings.prototypes_from_data
    assert not published.settings.prototypes_from_data
    assert published.settings == Coarse3dSettings(published=True)
    unknown = Coarse3d(Coarse3dSettings(), task())
    assert unknown.settings == Coarse3dSettings()


def test_anchors_are_found_for_classes_that_another_scan_of_the_batch_has_labels_of() -> None:
    probs = torch.zeros(2, 3, 4, 8)
    probs[:, 2] = 1.0
    labels = torch.zeros(2, 4, 8, dtype=torch.long)
    labels[0, 0, 0] = 2
    mask = torch.ones(2, 4, 8, dtype=torch.bool)
    found = [select_pseudo_labels(probs, torch.zeros(2, 4, 8), labels, mask, 0.5, of_batch)[1] for of_batch in (False, True)]
    assert not found[0].any()
    assert int((found[1] == 2).sum()) == 16


def test_the_weights_of_classes_follow_erda_where_that_is_asked_for() -> None:
    weights = class_weights(task(class_weight_rule="inverse"))
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([0.0, 1 / 0.42, 1 / 0.32, 1 / 0.22, 1 / 0.12, 50.0]))
    assert class_weights(task(class_weight_rule="inverse", class_weights=False)) is None
