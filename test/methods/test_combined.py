# SPDX-License-Identifier: Apache-2.0
"""Methods joined by '+': the losses are those of the papers, each once, and whatever is joined, the names in any order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from support import optional

torch = optional("torch")

from torch.nn import functional as F

from weakseg_ros.batches.batches import Batch
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.combined import Combined, build_method, reads_instances
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.parts import parts_of
from weakseg_ros.methods.settings import Coarse3dSettings, ErdaSettings, PointPanopticSettings, SupervisedSettings
from weakseg_ros.nets.light import LightNet
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.labels import LabelClass, LabelMap

CLASSES = 5
LABELS = LabelMap("five", tuple(LabelClass(i, f"class {i}", (i, i, i), i in (1, 2), (i,)) for i in range(CLASSES)))
SETTINGS: dict[str, Any] = {
    "supervised": SupervisedSettings(focal_weight=0.7, lovasz_weight=0.4, gamma=1.5),
    "erda": ErdaSettings(weight=0.3, prototype_start="xavier"),
    "coarse3d": Coarse3dSettings(weight=0.6, embedding=8, anchors=1, prototypes_per_class=3, temperature=0.2, warmup=0.0),
    "point_panoptic": PointPanopticSettings(
        branch_width=16,
        branch_heads=4,
        branch_ffn=16,
        tie_pairs=100,
        distance_weight=0.5,
        assignment_weight=0.25,
        sure_weight=0.0,
    ),
}


def made(method: str, **changes: Any) -> tuple[Combined, Batch, NetOutput]:
    """A method in evaluation, so that no memory moves, a batch of sparse labels and the net's answer to it."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(2, 8, 24, generator=generator) > 0.1
    labels = torch.randint(0, CLASSES, mask.shape, generator=generator) * mask
    labels *= torch.rand(mask.shape, generator=generator) < 0.1
    image = torch.randn(2, 5, *mask.shape[1:], generator=generator) * mask[:, None]
    xyz = 10 * torch.randn(2, 3, *mask.shape[1:], generator=generator) * mask[:, None]
    torch.manual_seed(0)
    net = LightNet(5, CLASSES, width=16).eval()
    counts = torch.bincount(labels.flatten(), minlength=CLASSES)
    task = Task(net, counts, LABELS, SETTINGS["supervised"])
    return build_method(method, SETTINGS | changes, task).eval(), Batch(image, labels, mask, xyz), net(image)


def focal_by_hand(batch: Batch, out: NetOutput) -> float:
    """Mean over labels of alpha_y (1 - p_y)^gamma (-log p_y); alpha_k = log(1 + 1 / (share_k + 0.001)) over its maximum."""
    probs = torch.softmax(out.logits[:, 1:].detach().double(), dim=1)
    labels = batch.labels[batch.labels > 0] - 1  # (P,)
    p = probs.permute(0, 2, 3, 1)[batch.labels > 0].gather(1, labels[:, None])[:, 0]
    counts = torch.bincount(labels, minlength=CLASSES - 1).double()
    alpha = torch.log(1 + 1 / (counts / counts.sum() + 1e-3))
    alpha = alpha / alpha.max()
    return float((alpha[labels] * (1 - p) ** 1.5 * -p.log()).mean())


def erda_by_hand(method: Combined, batch: Batch, out: NetOutput) -> float:
    """Cross-entropy between p = softmax(cos(g(f), mu)) and q = softmax(z), the mean over the unlabelled points (eq. 5)."""
    labeller = method.parts["erda"].labeller
    unlabelled = batch.mask & (batch.labels == 0)
    projected = labeller.project(out.features.permute(0, 2, 3, 1)[unlabelled])
    cosine = F.cosine_similarity(projected[:, None], labeller.prototypes[None], dim=2)
    q = torch.log_softmax(out.logits[:, 1:].permute(0, 2, 3, 1)[unlabelled], dim=1)
    return float(-(torch.softmax(cosine, dim=1) * q).detach().sum(dim=1).mean())


@pytest.mark.parametrize("method", ["supervised", "erda", "coarse3d+erda", "point_panoptic", "erda+coarse3d+point_panoptic"])
def test_the_focal_loss_is_the_published_one_whatever_is_joined(method: str) -> None:
    whole, batch, out = made(method)
    losses = whole.losses(batch, out, 0.5)
    assert list(losses)[:2] == ["supervised.focal", "supervised.lovasz"]
    assert losses["supervised.focal"].item() == pytest.approx(0.7 * focal_by_hand(batch, out), rel=1e-4)


@pytest.mark.parametrize("method", ["erda", "erda+coarse3d", "erda+point_panoptic"])
def test_erdas_loss_is_equation_5_times_its_weight(method: str) -> None:
    whole, batch, out = made(method)
    found = whole.losses(batch, out, 0.5)["erda.alignment"].item()
    assert found == pytest.approx(0.3 * erda_by_hand(whole, batch, out), rel=1e-4)


@pytest.mark.parametrize("method", ["coarse3d", "coarse3d+erda", "coarse3d+point_panoptic"])
def test_coarse3ds_loss_is_weighted_info_nce(method: str) -> None:
    """With prototypes that all point one way every logit is equal: -log of one of (negatives + 1), whatever the anchors."""
    whole, batch, out = made(method)
    bank = whole.parts["coarse3d"].bank
    bank.keys.copy_(F.normalize(torch.ones_like(bank.keys), dim=2))
    negatives = (CLASSES - 2) * 3
    expected = 0.6 * (0.2 / 0.07) * torch.tensor(1.0 + negatives).log().item()
    assert whole.losses(batch, out, 0.5)["coarse3d.contrast"].item() == pytest.approx(expected, rel=1e-3)


def test_point_panoptics_distances_have_their_weights() -> None:
    """Regression: 0 to the own anchor, 1 to the others. Assignment: cross-entropy over the anchors. Summed over the rounds."""
    whole, batch, out = made("point_panoptic")
    part = whole.parts["point_panoptic"]
    regression = assignment = 0.0
    for scan in part._scans(batch, out):
        for distance in scan.distances:
            at = distance[:, scan.anchors.pixel].detach()
            own = F.one_hot(scan.anchors.owner, len(scan.anchors)).T.bool()
            wrong = torch.where(own, at**2, (1 - at) ** 2 / (len(scan.anchors) - 1)).sum(dim=0)
            share = F.cross_entropy(-at.T / 0.1, scan.anchors.owner, reduction="none")
            for anchor in range(len(scan.anchors)):
                mine = scan.anchors.owner == anchor
                regression += float(wrong[mine].mean()) / len(scan.anchors) / 2
                assignment += float(share[mine].mean()) / len(scan.anchors) / 2
    losses = whole.losses(batch, out, 0.1)
    assert losses["point_panoptic.distance"].item() == pytest.approx(0.5 * regression, rel=1e-4)
    assert losses["point_panoptic.assignment"].item() == pytest.approx(0.25 * assignment, rel=1e-4)


def test_a_pseudo_label_teaches_by_the_supervised_rule() -> None:
    """`pseudo` follows gamma and class weights of the supervised part: with gamma 0 it is larger than with gamma 4."""
    values = []
    for gamma in (0.0, 4.0):
        _, batch, out = made("point_panoptic")
        task = Task(LightNet(5, CLASSES, width=16), torch.ones(CLASSES), LABELS, replace(SETTINGS["supervised"], gamma=gamma))
        torch.manual_seed(0)
        part = build_method("point_panoptic", SETTINGS, task).eval().parts["point_panoptic"]
        values.append(part.losses(batch, out, 1.0)["pseudo"].item())
    assert values[0] > values[1] > 0


@pytest.mark.parametrize("names", list(itertools.permutations(["erda", "coarse3d", "point_panoptic"])))
def test_the_order_of_the_names_does_not_matter(names: tuple[str, ...]) -> None:
    whole, batch, out = made("+".join(names))
    reference, _, _ = made("supervised+coarse3d+erda+point_panoptic")
    torch.manual_seed(5)
    ours = whole.losses(batch, out, 0.9)
    torch.manual_seed(5)
    theirs = reference.losses(batch, out, 0.9)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_state_is_named_by_part_and_that_of_older_versions_is_understood() -> None:
    whole, *_ = made("erda+coarse3d+point_panoptic")
    state = whole.state_dict()
    assert {".".join(key.split(".")[:2]) for key in state} == {
        "parts.supervised", "parts.coarse3d", "parts.erda", "parts.point_panoptic",
    }  # fmt: skip
    older = {key.split(".", 2)[2]: torch.rand_like(value.float()).to(value.dtype) for key, value in state.items()}
    whole.load_state(older)
    assert torch.equal(whole.state_dict()["parts.erda.labeller.prototypes"], older["labeller.prototypes"])
    assert torch.equal(whole.state_dict()["parts.supervised.alpha"], older["alpha"])
    whole.load_state(state)


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (
            "erdaa",
            "method: unknown 'erdaa'; did you mean 'erda'?; known: supervised, coarse3d, erda, ",
        ),
        ("erda+", "method: unknown ''; known: "),
        ("", "method: unknown ''; known: "),
        ("erda + coarse3d", "method: unknown 'erda '; did you mean 'erda'?"),
        ("erda+coarse3d+erda", "method: 'erda+coarse3d+erda' names erda twice; name it once"),
    ],
)
def test_a_name_that_is_none_is_one_sentence(method: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parts_of(method)
    assert str(error.value).startswith(text)


def test_what_a_combination_asks_of_batches_is_what_its_parts_ask() -> None:
    assert not reads_instances("erda+coarse3d")
    assert reads_instances("erda+point_panoptic")


def test_nothing_to_learn_is_said() -> None:
    silent = SupervisedSettings(focal_weight=0.0, lovasz_weight=0.0)
    task = Task(LightNet(5, CLASSES, width=16), torch.ones(CLASSES), LABELS, silent)
    with pytest.raises(ConfigError, match="both 0, so nothing is learned"):
        build_method("supervised", SETTINGS, task)
    build_method("erda", SETTINGS, task)
