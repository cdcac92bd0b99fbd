# SPDX-License-Identifier: Apache-2.0
"""What is particular to RangeNet and SqueezeSegV3; what all nets share is in test_registry_contract."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from support import optional
from weakseg_ros import registry
from weakseg_ros.batches.batches import Batch
from weakseg_ros.deploy.bundle import BundleInfo, NetRule
from weakseg_ros.deploy.graph import DeployGraph
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.errors import ConfigError
from weakseg_ros.methods.combined import build_method
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.settings import SupervisedSettings
from weakseg_ros.methods.supervised import Supervised
from weakseg_ros.nets.build import build_net
from weakseg_ros.nets.rangenet import RangeNet21, RangeNet53
from weakseg_ros.nets.squeezesegv3 import SqueezeSegV3, neighbourhood
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig

FOUR = LabelMap("four", tuple(LabelClass(i, f"class {i}", (i, i, i), i == 1, (i,)) for i in range(4)))

CHANNELS = ("range", "x", "y", "z", "intensity")


def build(name: str, channels: tuple[str, ...] = CHANNELS, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_net(name, channels, [0.0] * len(channels), [1.0] * len(channels), 4, {"width": 4, **options})


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (lambda: RangeNet21(5, 20), 24_712_980),
        (lambda: RangeNet53(5, 20), 50_377_364),
        (lambda: SqueezeSegV3(5, 20, deep_supervision=True), 9_247_140),
        (lambda: SqueezeSegV3(5, 20, layers=53, deep_supervision=True), 25_959_588),
    ],
)
def test_published_sizes(net: type[torch.nn.Module], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in net().parameters()) == count


@pytest.mark.parametrize(("name", "multiple"), [("rangenet21", 32), ("squeezesegv3", 8)])
def test_padding_is_zeros_at_the_right(name: str, multiple: int) -> None:
    net, image = build(name).eval(), torch.randn(1, 5, 6, 2 * multiple - 3)
    ours, padded = net(image), net(F.pad(image, (0, 3)))
    torch.testing.assert_close(ours.logits, padded.logits[..., :-3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.features, padded.features[..., :-3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["rangenet21", "squeezesegv3"])
def test_detached_skips_change_gradients_and_no_answer(name: str) -> None:
    image, gradients, logits = torch.randn(1, 5, 8, 64), [], []
    for detach in (False, True):
        net = build(name, detach_skips=detach).eval()
        out = net(image)
        out.logits.square().sum().backward()
        gradients.append(net.stem[0].weight.grad)
        logits.append(out.logits.detach())
    torch.testing.assert_close(*logits, rtol=0, atol=0)
    assert gradients[1].abs().sum() > 0
    assert not torch.allclose(*gradients)


def test_neighbourhood_is_unfold() -> None:
    x = torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(neighbourhood(x), F.unfold(x, 3, padding=1).view(2, 27, 5, 7), rtol=0, atol=0)


def test_further_heads_learn_from_every_label() -> None:
    """Each sparse label counts at each head, although a coarse head has a cell for eight columns."""
    net = build("squeezesegv3", deep_supervision=True)
    batch = Batch(torch.randn(1, 5, 8, 60), torch.zeros(1, 8, 60, dtype=torch.long), torch.ones(1, 8, 60, dtype=torch.bool))
    batch.labels[0, 3, 13] = 2  # no multiple of 8, which a strided copy of the labels would lose
    out = net(batch.image)
    assert [tuple(a.shape) for a in out.auxiliary] == [(1, 4, 8, 60)] * 4
    method = Supervised(SupervisedSettings(), Task(net, torch.tensor([479, 0, 1, 0]), FOUR, SupervisedSettings()))
    torch.stack(list(method.losses(batch, out, 0.0).values())).sum().backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in [*net.coarse_classifiers, net.classifier])


@pytest.mark.parametrize(
    ("name", "channels", "options", "said"),
    [
        ("squeezesegv3", ("x", "y", "z", "range"), {}, "needs range, x, y, z first; found x, y, z, range"),
        ("squeezesegv3", ("range",), {}, "needs range, x, y, z first"),
        ("squeezesegv3", CHANNELS, {"layers": 22}, "layers: 22"),
        ("squeezesegv3", CHANNELS, {"layer": 53}, "has no setting 'layer'; did you mean 'layers'"),
        ("rangenet21", CHANNELS, {"width": 1}, "net_width: 1"),
        ("squeezesegv3", CHANNELS, {"width": 1}, "net_width: 1"),
        ("randlanet", CHANNELS, {"width": 6}, "net_width: 6"),
        ("salsanex", CHANNELS, {}, "did you mean 'salsanext'"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, channels: tuple[str, ...], options: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        build(name, channels, **options)


@pytest.mark.parametrize("method", registry.METHODS)
@pytest.mark.parametrize("name", ["rangenet21", "squeezesegv3"])
def test_every_method_trains_every_net_on_images(name: str, method: str) -> None:
    """Methods see features, logits and stages only; an image whose width is no multiple of the nets' is no obstacle."""
    net, config = build(name), TrainConfig(method=method)
    mask = torch.rand(2, 12, 70) > 0.2
    labels = torch.randint(0, 4, (2, 12, 70)) * (mask & (torch.rand(2, 12, 70) < 0.1))
    batch = Batch(torch.randn(2, 5, 12, 70) * mask[:, None], labels, mask)
    task = Task(net, torch.bincount(labels.flatten(), minlength=4), FOUR, config.supervised)
    trained = build_method(method, config.method_settings, task)
    total = torch.stack(list(trained.losses(batch, net(batch.image), 0.5).values())).sum()
    total.backward()
    assert torch.isfinite(total)
    parameters = [*net.parameters(), *trained.parameters()]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters if p.requires_grad)


@pytest.mark.slow
def test_onnx_file_answers_as_torch() -> None:
    """With padding (70 columns) and with the further heads left out of the file; the decoder is RangeNet's as well."""
    optional("onnx")
    from weakseg_ros.train.onnx_file import compare, export_onnx

    net = build("squeezesegv3", deep_supervision=True)
    images = torch.randn(2, 5, 8, 70)
    net(images)  # running statistics of its own
    labels = LabelMap("four", tuple(LabelClass(i, f"class {i}", (i, i, i), False, (i,)) for i in range(4)))
    spec = RangeSpec(height=8, width=70, fov_up_deg=20.0, fov_down_deg=-20.0)
    told = plain_spec(spec, CHANNELS, IntensityRule(required=True))
    info = BundleInfo(name="small", input=told, labels=labels, net=NetRule("squeezesegv3"))
    graph = DeployGraph(net.eval(), 4).eval()
    parity = compare(graph, export_onnx(graph, info), images.numpy())
    assert parity["class_agreement"] == 1.0
    assert parity["max_difference"] < 1e-5
