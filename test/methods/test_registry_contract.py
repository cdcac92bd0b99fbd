# SPDX-License-Identifier: Apache-2.0
"""Every row of the registry keeps its contract; a new one is tested by being there."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load, save
from torch import nn

from weakseg_ros import registry
from weakseg_ros.batches.batches import Batch
from weakseg_ros.deploy.bundle import KIND_ONNX, Bundle, BundleInfo, HeadRule, NetRule
from weakseg_ros.deploy.engines.choice import open_engine
from weakseg_ros.deploy.engines.torch import rules_of, tables_of
from weakseg_ros.deploy.frontends import make_frontend
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.deploy.tensors import ANSWERS, check_tensors
from weakseg_ros.methods.combined import Combined, build_method
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.parts import BASE
from weakseg_ros.nets.heads.head import Heads
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.crops import PointsSpec
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.config import TrainConfig
from weakseg_ros.train.export import export_bundle

CHANNELS, CLASSES = 5, 6
SPEC = RangeSpec(height=16, width=48)
PLANES = ("range", "x", "y", "z", "intensity")
LABELS = LabelMap("six", tuple(LabelClass(i, f"class {i}", (i, i, i), i in (1, 2), (i,)) for i in range(CLASSES)))


IMAGE_NETS = [name for name in registry.NETS if getattr(registry.load(registry.NETS, name), "representation", "range") == "range"]
"""nets on points have a pyramid of their own to be given: see test_nets_points.py"""


def make_net(name: str) -> nn.Module:
    torch.manual_seed(0)
    return registry.load(registry.NETS, name)(CHANNELS, CLASSES, width=16)


def make_batch(height: int = 16, width: int = 48, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, height, width, generator=generator) > 0.2
    image = torch.randn(2, CHANNELS, height, width, generator=generator) * mask[:, None]
    labels = torch.randint(0, CLASSES, (2, height, width), generator=generator) * mask
    xyz = 20 * torch.randn(2, 3, height, width, generator=generator) * mask[:, None]
    return Batch(image, labels, mask, xyz)


def exported(net: nn.Module, rule: NetRule, folder: Path, heads: Heads | None = None) -> Bundle:
    """The net, with what stands behind it, as a bundle."""
    told = plain_spec(SPEC, PLANES, IntensityRule(required=False))
    info = BundleInfo(name="x", input=told, labels=LABELS, net=rule, heads=rules_of(heads))
    images = np.random.default_rng(0).normal(size=(2, CHANNELS, SPEC.height, SPEC.width)).astype(np.float32)
    return export_bundle(net, info, folder / "bundle", images, heads=heads)


def make_method(name: str, net: nn.Module) -> Combined:
    config = TrainConfig(method=name)
    task = Task(net, torch.tensor([50, 10, 20, 30, 40, 0]), LABELS, config.supervised)
    return build_method(name, config.method_settings, task)


def combinations() -> list[str]:
    """Every single method, and every combination of them."""
    names = [name for name in registry.METHODS if name != BASE]
    return [BASE, *("+".join(some) for count in range(1, len(names) + 1) for some in itertools.combinations(names, count))]


@pytest.mark.parametrize("name", IMAGE_NETS)
class TestNet:
    @pytest.mark.parametrize(("height", "width"), [(16, 48), (32, 240), (40, 90), (17, 33)])
    def test_answers_at_the_image_size(self, name: str, height: int, width: int) -> None:
        net = make_net(name).eval()
        out = net(torch.randn(1, CHANNELS, height, width))
        assert out.logits.shape == (1, CLASSES, height, width)
        assert out.features.shape == (1, net.feature_channels, height, width)
        assert tuple(stage.shape[1] for stage in out.stages) == net.stage_channels
        assert torch.isfinite(out.logits).all()

    def test_stages_lie_over_the_image(self, name: str) -> None:
        """Stretched to the image, a stage's columns and rows fall where they come from: none is left of padding."""
        stages = make_net(name).eval()(torch.randn(1, CHANNELS, 17, 90)).stages
        for stage in stages:
            assert stage.shape[-2] in [-(-17 // 2**i) for i in range(4)]
            assert stage.shape[-1] in [-(-90 // 2**i) for i in range(5)]

    def test_gradient_reaches_every_parameter(self, name: str) -> None:
        net, batch = make_net(name), make_batch(64, 96)  # several pixels are left at the coarsest stage
        out = net(batch.image)
        (out.logits * torch.randn_like(out.logits)).sum().backward()
        silent = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not silent

    def test_every_channel_matters(self, name: str) -> None:
        net, image = make_net(name).eval(), make_batch().image
        for channel in range(CHANNELS):
            other = image.clone()
            other[:, channel] += 1.0
            assert not torch.allclose(net(other).logits, net(image).logits)

    def test_scans_of_a_batch_do_not_mix_in_eval(self, name: str) -> None:
        net, image = make_net(name).eval(), make_batch().image
        torch.testing.assert_close(net(image).logits[:1], net(image[:1]).logits, atol=1e-5, rtol=1e-4)

    def test_state_survives_save_and_load(self, name: str) -> None:
        net, image = make_net(name), make_batch().image
        net(image)  # moves the running statistics
        other = registry.load(registry.NETS, name)(CHANNELS, CLASSES, width=16)
        other.load_state_dict(load(save(net.state_dict())))
        torch.testing.assert_close(other.eval()(image).logits, net.eval()(image).logits, rtol=0, atol=0)

    @pytest.mark.slow
    def test_exports_to_onnx(self, name: str, tmp_path: Path) -> None:
        """`export_bundle` raises where the file answers otherwise than torch; a net that cannot be exported says why."""
        net = make_net(name).eval()
        bundle = exported(net, NetRule(name, {"width": 16}), tmp_path)
        assert (bundle.file_of(KIND_ONNX) is None) == bool(getattr(net, "why_no_onnx", ""))


@pytest.mark.parametrize("name", combinations())
class TestMethod:
    @pytest.mark.slow
    def test_losses_fall_when_trained_on_one_batch(self, name: str) -> None:
        net, batch = make_net("light"), make_batch()
        method = make_method(name, net)
        optimizer = torch.optim.Adam([*net.parameters(), *method.parameters()], 3e-3)
        history = []
        for step in range(25):
            losses = method.losses(batch, net(batch.image), 0.5)  # the same losses all along, no warm-up
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            method.after_step(net, step / 25)
            history.append(total.item())
        assert history[-1] < 0.8 * history[0]

    def test_gradient_reaches_net_and_method(self, name: str) -> None:
        net, batch = make_net("light"), make_batch()
        method = make_method(name, net)
        torch.stack(list(method.losses(batch, net(batch.image), 1.0).values())).sum().backward()
        named = [*net.named_parameters(), *method.named_parameters()]
        assert not [key for key, p in named if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]

    def test_loss_depends_on_the_labels(self, name: str) -> None:
        net, batch = make_net("light").eval(), make_batch()
        method, out = make_method(name, net), net(batch.image)
        other = Batch(batch.image, batch.labels.roll(7, dims=-1), batch.mask)
        ours, theirs = (torch.stack(list(method.losses(b, out, 1.0).values())).sum() for b in (batch, other))
        assert ours.item() != theirs.item()

    def test_a_batch_without_labels_gives_a_finite_loss_with_gradient(self, name: str) -> None:
        net, batch = make_net("light"), make_batch()
        empty = Batch(batch.image, torch.zeros_like(batch.labels), batch.mask)
        total = torch.stack(list(make_method(name, net).losses(empty, net(batch.image), 1.0).values())).sum()
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)

    def test_state_survives_save_and_load(self, name: str) -> None:
        net, batch = make_net("light").eval(), make_batch()
        method = make_method(name, net)
        method.losses(batch, net(batch.image), 1.0)
        method.after_step(net, 1.0)
        other = make_method(name, net)
        other.load_state_dict(load(save(method.state_dict())))
        for key, tensor in method.state_dict().items():
            torch.testing.assert_close(other.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("name", registry.HEADS)
class TestHead:
    def made(self, name: str) -> tuple[nn.Module, Any]:
        net = make_net("light")
        kwargs = {"novelty": {"dim": 8, "hidden": 12, "prototypes": 3}, "centres": {"width": 16}}.get(name, {})
        torch.manual_seed(1)
        return net.eval(), registry.load(registry.HEADS, name).behind(net, CLASSES, **kwargs).eval()

    def test_answers_as_its_table_says(self, name: str) -> None:
        net, head = self.made(name)
        image = make_batch().image
        outputs = {key: value.detach().numpy() for key, value in zip(head.outputs, head(net(image)), strict=True)}
        assert head.name == name
        told = HeadRule(name, head.kwargs, tables_of(head)).answers
        assert list(outputs) == list(told)
        check_tensors(name, outputs, told, {"B": 2, "H": 16, "W": 48, "K": CLASSES})

    def test_its_rule_builds_it_again(self, name: str) -> None:
        net, head = self.made(name)
        again = registry.load(registry.HEADS, name).behind(net, CLASSES, **yaml.safe_load(yaml.safe_dump(head.kwargs))).eval()
        again.load_state_dict(load(save({key: value.contiguous() for key, value in head.state_dict().items()})))
        out = net(make_batch().image)
        for ours, theirs in zip(again(out), head(out), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    @pytest.mark.slow
    def test_both_engines_answer_as_it_does(self, name: str, tmp_path: Path) -> None:
        net, head = self.made(name)
        bundle = exported(net, NetRule("light", {"width": 16}), tmp_path, Heads([head]))
        image = torch.randn(1, CHANNELS, SPEC.height, SPEC.width)
        with torch.inference_mode():
            expected = dict(zip(head.outputs, head(net(image)), strict=True))
        for engine in ("onnxruntime", "torch"):
            found = open_engine(bundle, [engine], threads=1)[0].run({"image": image.numpy()})
            for output, values in expected.items():
                np.testing.assert_allclose(found[output], values.numpy(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", registry.FRONTENDS)
def test_a_frontend_answers_every_point_in_order(name: str) -> None:
    labels = LabelMap("two", tuple(LabelClass(i, f"class {i}", (i, 0, 0), False, (i,)) for i in range(3)))
    points = PointsSpec(grid_m=2.0, points=64, neighbours=4, ratios=(4, 2)) if name == "points" else None
    spec = plain_spec(RangeSpec(16, 64), ("range", "z"), IntensityRule(False), points=points)
    assert spec.representation == name
    frontend = make_frontend(spec, labels)
    cloud = make_cloud(np.random.default_rng(0).normal(0, 10, (500, 3)).astype(np.float32), np.zeros(500, np.float32))
    inputs, view = frontend.encode(cloud)
    sizes = check_tensors("network input", inputs, frontend.inputs, {"C": 2, **spec.image_sizes})
    nothing = frontend.nothing(view)
    check_tensors("network output", nothing, ANSWERS, {"B": sizes["B"], "H": sizes["H"], "W": sizes["W"]})
    assert not frontend.sees_nothing(view)
    outputs = {**nothing, "class_id": nothing["class_id"] + np.uint8(2), "confidence": nothing["confidence"] + np.float32(0.5)}
    answer = frontend.decode(outputs, view)
    assert len(answer.class_id) == 500
    assert set(np.unique(answer.class_id)) <= {0, 2}
    values, view = frontend.channels(cloud)
    assert values.shape == (2, np.count_nonzero(view.pixels.point_of_pixel >= 0))


def test_every_row_of_every_table_is_there() -> None:
    for table in (
        registry.NETS,
        registry.HEADS,
        registry.METHODS,
        registry.DATASETS,
        registry.FRONTENDS,
        registry.SOURCES,
        registry.ENGINES,
    ):
        for name in table:
            assert callable(registry.load(table, name))
