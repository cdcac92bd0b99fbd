# SPDX-License-Identifier: Apache-2.0
"""What each method adds for the robot: it shares the method's weights, and both engines answer as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import optional

torch = optional("torch")
optional("onnx")
optional("onnxruntime")

from weakseg_ros import registry
from weakseg_ros.batches.batches import Batch
from weakseg_ros.config import from_mapping
from weakseg_ros.deploy.bundle import BundleInfo, NetRule
from weakseg_ros.deploy.engines.choice import open_engine
from weakseg_ros.deploy.engines.torch import rules_of
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.methods.coarse3d import Coarse3d
from weakseg_ros.methods.combined import Combined, build_method
from weakseg_ros.methods.method import Task
from weakseg_ros.methods.parts import BASE, parts_of
from weakseg_ros.methods.prototypes import standardise
from weakseg_ros.nets.heads.novelty import STRIDE
from weakseg_ros.nets.light import LightNet
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.train.export import export_bundle

CLASSES, SPEC = 4, RangeSpec(height=16, width=48)
LABELS = LabelMap("four", tuple(LabelClass(i, f"class {i}", (i, i, i), i == 2, (i,)) for i in range(CLASSES)))
SMALL = {"coarse3d": {"embedding": 16, "prototypes_per_class": 4}}
QUERIES = {"point_panoptic": {"head": "query", "queries": 7, "query_width": 16}}
ROWS: dict[str, dict[str, Any]] = {
    "coarse3d": SMALL,
    "point_panoptic": {},
    "point_panoptic, by queries": QUERIES,
    "coarse3d+point_panoptic": SMALL,
    "erda+coarse3d+point_panoptic": SMALL | QUERIES,
}


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(2, SPEC.height, SPEC.width, generator=generator) > 0.2
    labels = torch.randint(0, CLASSES, mask.shape, generator=generator) * mask
    return Batch(torch.randn(2, 5, *mask.shape[1:], generator=generator) * mask[:, None], labels, mask)


def make_method(name: str, options: dict[str, Any]) -> tuple[torch.nn.Module, Combined]:
    torch.manual_seed(0)
    net = LightNet(5, CLASSES, width=16)
    torch.nn.init.normal_(net.classifier.weight, std=3.0)
    kinds = {part: registry.load(registry.METHODS, part).Settings for part in parts_of(name)}
    settings = {part: from_mapping(kind, options.get(part, {}), part) for part, kind in kinds.items()}
    return net, build_method(name, settings, Task(net, torch.tensor([5, 40, 30, 20]), LABELS, settings[BASE]))


def test_which_methods_deploy_something() -> None:
    added = {name: make_method(name, {})[1].deployable() for name in ("supervised", "erda", "coarse3d", "point_panoptic")}
    assert [name for name, addition in added.items() if addition is not None] == ["coarse3d", "point_panoptic"]
    together = make_method("point_panoptic+coarse3d", {})[1].deployable()
    assert together.outputs == (*added["coarse3d"].outputs, *added["point_panoptic"].outputs)


@pytest.mark.parametrize("row", ROWS)
def test_both_engines_answer_as_the_method(row: str, tmp_path: Path) -> None:
    name, options = row.partition(",")[0], ROWS[row]
    net, method = make_method(name, options)
    batch = make_batch()
    method.losses(batch, net(batch.image), 0.5)  # moves prototypes and running statistics
    heads = method.deployable()
    assert heads.outputs == tuple(name for rule in rules_of(heads) for name in rule.answers)
    own = {id(tensor) for tensor in (*method.parameters(), *method.buffers())}
    assert all(id(tensor) in own for tensor in (*heads.parameters(), *heads.buffers()))
    info = BundleInfo(
        name="x",
        input=InputSpec(
            geometry=SPEC,
            channels=("range", "x", "y", "z", "intensity"),
            mean=(0.0,) * 5,
            std=(1.0,) * 5,
            intensity=IntensityRule(required=False),
        ),
        labels=LABELS,
        net=NetRule("light", {"width": 16}),
        heads=rules_of(heads),
    )
    bundle = export_bundle(net, info, tmp_path / "b", batch.image.numpy(), heads=heads)
    with torch.inference_mode():
        expected = dict(zip(heads.outputs, heads.eval()(net.eval()(batch.image)), strict=True))
    for engine in ("onnxruntime", "torch"):
        answers = open_engine(bundle, [engine], threads=1)[0].run({"image": batch.image.numpy()})
        assert list(answers)[3:] == list(heads.outputs)
        for output, values in expected.items():
            assert values.std() > 0
            np.testing.assert_allclose(answers[output], values.numpy(), atol=1e-3, rtol=1e-3)


def moved(method: Coarse3d, filled: Any) -> torch.nn.Module:
    method.bank.moved.copy_(filled)
    return method.deployable().eval()


class TestNovelty:
    """Beside the definition: 1 - the largest cosine to a prototype that was ever moved."""

    @pytest.fixture
    def parts(self) -> tuple[Coarse3d, Any]:
        net, whole = make_method("coarse3d", SMALL)
        method = whole.part(Coarse3d)
        assert method is not None
        return method.eval(), net.eval()(make_batch().image)

    def test_is_one_minus_the_largest_cosine(self, parts: tuple[Coarse3d, Any]) -> None:
        method, out = parts
        filled = torch.zeros(3, 4, dtype=torch.bool)
        filled[0, 1] = filled[2, 3] = True
        (novelty,) = moved(method, filled)(out)
        assert novelty.shape == (2, SPEC.height, SPEC.width)
        coarse = (-(-SPEC.height // STRIDE[0]), -(-SPEC.width // STRIDE[1]))
        embedding = method.projector(out, coarse)
        for image, row, col, at in ((0, 0, 0, (0, 0)), (1, -1, -1, (-1, -1)), (1, 0, -1, (0, -1))):
            own = standardise(embedding[None, image, :, at[0], at[1]])[0]
            cosines = [torch.cosine_similarity(own, method.bank.keys[k], dim=0) for k in ((0, 1), (2, 3))]
            assert novelty[image, row, col].item() == pytest.approx(min(1.0, 1.0 - max(cosines).item()), abs=1e-5)

    def test_a_pixel_that_is_a_prototype_is_not_new(self, parts: tuple[Coarse3d, Any]) -> None:
        method, out = parts
        embedding = method.projector(out, (4, 6))
        method.bank.keys[1, 2] = standardise(embedding[:1, :, 0, 0])[0]
        (novelty,) = moved(method, True)(out)
        assert novelty[0, 0, 0].item() == pytest.approx(0.0, abs=1e-5)

    def test_where_nothing_was_learnt_all_is_new(self, parts: tuple[Coarse3d, Any]) -> None:
        method, out = parts
        (novelty,) = moved(method, False)(out)
        assert torch.equal(novelty, torch.ones_like(novelty))

    def test_nothing_is_deployed_without_prototypes(self) -> None:
        for options in ({"novelty": False}, {"memory": "pixels"}, {"weight": 0.0}):
            assert make_method("coarse3d", {"coarse3d": options})[1].deployable() is None
