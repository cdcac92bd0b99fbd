# SPDX-License-Identifier: Apache-2.0
"""A net, a head, a method and an engine of somebody else's making: one file and one row each, and all of the house uses them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from support import optional

torch = optional("torch")
optional("onnx")
optional("onnxscript")
optional("onnxruntime")
optional("safetensors")

from safetensors.torch import save
from torch import nn

from weakseg_ros import registry
from weakseg_ros.batches.batches import Batch
from weakseg_ros.deploy.bundle import KIND_WEIGHTS, BundleInfo, HeadRule, NetRule, write_bundle
from weakseg_ros.deploy.engines.choice import open_engine
from weakseg_ros.deploy.engines.torch import TorchEngine, rules_of
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.deploy.tensors import TensorSpec
from weakseg_ros.errors import ConfigError, EngineError
from weakseg_ros.methods.combined import build_method
from weakseg_ros.methods.method import Method, Task
from weakseg_ros.methods.settings import SupervisedSettings
from weakseg_ros.nets.heads.head import Head, Heads
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.export import export_bundle

LABELS = LabelMap("three", tuple(LabelClass(i, f"class {i}", (i, 0, 0), False, (i,)) for i in range(4)))
SPEC = RangeSpec(height=16, width=64, fov_up_deg=30.0, fov_down_deg=-30.0)


class ToyNet(nn.Module):
    """One convolution; a second input, where it is given, raises the last class."""

    def __init__(self, channels: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.feature_channels, self.stage_channels = width, (width,)
        self.body, self.classifier = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, num_classes, 1)

    def forward(self, image: Any, prompt: Any = None) -> NetOutput:
        features = self.body(image).tanh()
        logits = self.classifier(features)
        if prompt is not None:
            last = torch.arange(logits.shape[1]) == logits.shape[1] - 1
            logits = logits + 1000.0 * prompt.sum(dim=1).view(-1, 1, 1, 1) * last.view(1, -1, 1, 1)
        return NetOutput(logits, features, (features,))


class ToyHead(Head):
    """How bright a pixel is."""

    name: ClassVar[str] = "toy"
    outputs: ClassVar[tuple[str, ...]] = ("brightness",)
    tables = {"brightness": {"dtype": "float32", "shape": ("B", "H", "W"), "meaning": "how bright a pixel is"}}  # noqa: RUF012

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    @classmethod
    def behind(cls, net: nn.Module, num_classes: int, gain: float) -> ToyHead:
        return cls(gain)

    @property
    def kwargs(self) -> dict[str, Any]:
        return {"gain": self.gain.item()}

    def forward(self, out: NetOutput) -> tuple[Any]:
        return (out.features.sum(dim=1) * self.gain,)


@dataclasses.dataclass(frozen=True)
class ToySettings:
    weight: float = 0.5


class ToyMethod(Method):
    """Keeps logits small, and deploys the toy head."""

    Settings = ToySettings

    def __init__(self, settings: ToySettings, task: Task) -> None:
        super().__init__(settings, task)
        self.weight, self.head = settings.weight, ToyHead(2.0)

    def losses(self, batch: Batch, out: NetOutput, progress: float) -> dict[str, Any]:
        return {"toy": self.weight * out.logits.square().mean()}

    def deployable(self) -> Heads:
        return Heads([self.head])


class ToyEngine(TorchEngine):
    """The torch engine under another name."""

    name = "toy"


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toys", SimpleNamespace(**{kind.__name__: kind for kind in TOYS.values()}))
    for table, kind in TOYS.items():
        monkeypatch.setitem(getattr(registry, table), "toy", f"toys:{kind.__name__}")


TOYS = {"NETS": ToyNet, "HEADS": ToyHead, "METHODS": ToyMethod, "ENGINES": ToyEngine}


def info_of(heads: tuple[HeadRule, ...] = (), **changes: Any) -> BundleInfo:
    told = InputSpec(
        geometry=SPEC, channels=("range", "z"), mean=(0.0,) * 2, std=(1.0,) * 2, intensity=IntensityRule(required=False)
    )
    return BundleInfo(name="toy", input=told, labels=LABELS, net=NetRule("toy", {"width": 6}), heads=heads, **changes)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2, 16, 64)).astype(np.float32)


def test_a_method_with_a_head_and_a_net_goes_from_losses_to_the_robot(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ToyNet(2, LABELS.num_classes, 6)
    plain = SupervisedSettings()
    method = build_method("supervised+toy", {"supervised": plain}, Task(net, torch.ones(4), LABELS, plain))
    image = torch.from_numpy(images(2))
    labels = torch.randint(0, 4, (2, 16, 64))
    losses = method.losses(Batch(image, labels, torch.ones_like(labels, dtype=torch.bool)), net(image), 0.5)
    assert losses["toy.toy"] > 0
    heads = method.deployable()
    bundle = export_bundle(net, info_of(rules_of(heads)), tmp_path / "toy", images(2), heads=heads)
    assert bundle.info.outputs["brightness"].meaning == "how bright a pixel is"
    with torch.inference_mode():
        expected = 2.0 * net(image).features.sum(dim=1).numpy()
    for name in ("onnxruntime", "torch", "toy"):
        engine, _ = open_engine(bundle, [name], threads=1)
        assert engine.name == name
        np.testing.assert_allclose(engine.run({"image": images(2)})["brightness"], expected, atol=1e-3)
    cloud = make_cloud(np.random.default_rng(1).normal(0, 10, (300, 3)).astype(np.float32), np.zeros(300, np.float32))
    answer = Segmenter(bundle).run(cloud)
    assert (answer.class_id > 0).any()


def test_the_torch_engine_takes_as_many_inputs_as_the_bundle_lists(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ToyNet(2, LABELS.num_classes, 6)
    inputs = {**info_of().inputs, "prompt": TensorSpec("float32", ("B", "T"), "words")}
    files = {"weights.safetensors": (KIND_WEIGHTS, save(net.state_dict()))}
    engine, _ = open_engine(write_bundle(tmp_path / "two", info_of(inputs=inputs), files, "card"), ["torch"], threads=1)
    plain, asked = (engine.run({"image": images(1), "prompt": np.full((1, 3), word, np.float32)}) for word in (0, 1))
    assert len(np.unique(plain["class_id"])) > 1
    assert (asked["class_id"] == 3).all()
    three = write_bundle(tmp_path / "three", info_of(inputs={**inputs, "more": inputs["prompt"]}), files, "card")
    with pytest.raises(EngineError, match="does not take the inputs image, prompt, more"):
        open_engine(three, ["torch"], threads=1)


def test_a_head_that_describes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="'toy' is unknown and describes no outputs"):
        HeadRule("toy")
