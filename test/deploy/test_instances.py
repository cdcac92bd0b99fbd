# SPDX-License-Identifier: Apache-2.0
"""Objects and novelty reach every point, by either engine, from heads that read known centres off the image."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros import registry
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, HeadRule, NetRule
from weakseg_ros.deploy.input_spec import IntensityRule, plain_spec
from weakseg_ros.deploy.instances import ObjectFinder
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.deploy.tensors import HEAD_OUTPUTS
from weakseg_ros.errors import EngineError
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec, project

optional("onnxruntime")
optional("onnx")
torch = optional("torch")

from weakseg_ros.deploy.engines.torch import load_graph, rules_of
from weakseg_ros.nets.heads.head import Head, Heads
from weakseg_ros.nets.output import NetOutput
from weakseg_ros.train.export import export_bundle

ROAD, CAR, TRUCK = 1, 2, 3
CLASSES = (("none", False), ("road", False), ("car", True), ("truck", True))
LABELS = LabelMap("four", tuple(LabelClass(i, name, (i, i, i), thing, (i,)) for i, (name, thing) in enumerate(CLASSES)))
SPEC = RangeSpec(height=16, width=256, fov_up_deg=10.0, fov_down_deg=-20.0, max_range_m=80.0)
CENTRES = torch.tensor([[10.0, -1.0], [10.0, 1.0]])
"""of two cars side by side that touch"""
X, Y, INTENSITY = 0, 1, 2


class ByIntensity(torch.nn.Module):
    """A net that takes the intensity for the class."""

    feature_channels, stage_channels = 3, (3,)

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("classes", torch.arange(num_classes, dtype=torch.float32)[None, :, None, None])

    def forward(self, image: torch.Tensor) -> NetOutput:
        return NetOutput(-9.0 * (image[:, INTENSITY, None] - self.classes) ** 2, image, (image,))


class KnowingHead(Head):
    """Knows the centres, as a trained head would by its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros_like(CENTRES))

    def away(self, out: NetOutput) -> torch.Tensor:
        """(B, 2 centres, 2, H, W) in m from each pixel's point to each centre."""
        return self.centres[None, :, :, None, None] - out.features[:, None, [X, Y]]

    def forward(self, out: NetOutput) -> tuple[torch.Tensor, ...]:
        away = self.away(out)
        far = (away**2).sum(dim=2)  # (B, 2, H, W)
        values = {"novelty": (far.amin(dim=1) / 100).clamp(0, 1)}
        first = (far[:, :1] < far[:, 1:]).to(away.dtype)
        nearest = away[:, 0] * first + away[:, 1] * (1 - first)
        ahead = torch.nn.functional.normalize(out.features[:, [X, Y]], dim=1)
        left = torch.stack((-ahead[:, 1], ahead[:, 0]), dim=1)
        values["offset"] = torch.stack(((nearest * ahead).sum(dim=1), (nearest * left).sum(dim=1)), dim=1)
        values["centre"] = torch.exp(-far.amin(dim=1))
        near = 5.0 * (1.0 - far[:, :, ::2, ::2])
        values["query_mask"] = torch.cat((near, -near.amax(dim=1, keepdim=True)), dim=1)  # car, truck, the road around
        surely = torch.tensor([[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0], [9.0, 0.0, 0.0, 0.0]])
        values["query_class"] = surely + 0.0 * far.sum(dim=(1, 2, 3))[:, None, None]
        return tuple(values[name] for name in self.outputs)

    @classmethod
    def behind(cls, net: torch.nn.Module, num_classes: int) -> KnowingHead:
        return cls()


KNOWING = {name: type(name, (KnowingHead,), {"name": name, "outputs": tuple(outputs)}) for name, outputs in HEAD_OUTPUTS.items()}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("heads_for_test")
    module.ByIntensity = ByIntensity
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.NETS, "by_intensity", "heads_for_test:ByIntensity")
    for name, kind in KNOWING.items():
        setattr(module, name, kind)
        monkeypatch.setitem(registry.HEADS, name, f"heads_for_test:{name}")


def export(folder: Path, *names: str) -> Bundle:
    built = [KNOWING[name]() for name in names]
    for head in built:
        head.centres.copy_(CENTRES)
    heads = Heads(built) if built else None
    told = plain_spec(SPEC, ("x", "y", "intensity"), IntensityRule(required=True))
    info = BundleInfo(name="heads", input=told, labels=LABELS, net=NetRule("by_intensity"), heads=rules_of(heads))
    images = np.random.default_rng(0).normal(size=(2, 3, SPEC.height, SPEC.width)).astype(np.float32)
    return export_bundle(ByIntensity(3, 4), info, folder, images, heads=heads)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """The bundle with the heads of these names, exported once."""
    return functools.cache(lambda *names: export(tmp_path_factory.mktemp("heads") / "b", *names))


def two_cars(hidden: int = 300) -> Cloud:
    """Road all around, a car at the right and one at the left of straight ahead, and points behind both."""
    rng = np.random.default_rng(0)
    azimuth, distance = rng.uniform(0.3, 2 * np.pi - 0.3, 4000), rng.uniform(6, 30, 4000)
    road = np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), np.full(4000, -1.7)], 1)
    cars = np.stack([np.full(3000, 10.0), rng.uniform(-1.95, 1.95, 3000), rng.uniform(-1.6, 0.2, 3000)], 1)
    behind = cars[:hidden] * rng.uniform(1.02, 1.4, (hidden, 1))
    intensity = np.repeat([ROAD, CAR, CAR], [4000, 3000, hidden]).astype(np.float32)
    return make_cloud(np.concatenate([road, cars, behind]).astype(np.float32), intensity)


ENGINES = ("onnxruntime", "torch")
HEADS = (("centres",), ("queries",), ("queries", "centres", "novelty"))


@pytest.mark.slow
@pytest.mark.parametrize("heads", HEADS, ids="-".join)
def test_a_head_parts_cars_that_touch_by_either_engine(heads: tuple[str, ...], bundles: Callable[..., Bundle]) -> None:
    bundle, cloud = bundles(*heads), two_cars(0)
    assert bundle.info.heads == Bundle.load(bundle.folder).info.heads != ()
    assert all(bundle.info.parity[f"{name}_difference"] < 1e-4 for name in list(bundle.info.outputs)[3:])
    answers = [Segmenter(bundle, engine, threads=1).run(cloud) for engine in ENGINES]
    for answer in answers:
        car = slice(4000, 7000)
        assert not answer.instance_id[:4000].any()
        left = cloud.xyz[car, 1] > 0
        wrong = np.abs(cloud.xyz[car, 1]) > 0.35  # a pixel on the border, and a query's of half the size, hold points of both
        if heads[0] == "queries":
            wrong &= np.hypot(cloud.xyz[car, 0] - 10, np.abs(cloud.xyz[car, 1]) - 1) < 0.7  # the mask is a disk of 1 m
        ids = answer.instance_id[car]
        assert len(set(ids[left & wrong])) == len(set(ids[~left & wrong])) == 1
        assert ids.max() == 2
        of_image = answer.instance_image[answer.class_image == ROAD]
        assert not of_image.any()
    np.testing.assert_array_equal(answers[0].instance_id, answers[1].instance_id)
    np.testing.assert_array_equal(answers[0].class_id, answers[1].class_id)


def test_an_object_of_a_query_has_the_querys_class(bundles: Callable[..., Bundle]) -> None:
    answer = Segmenter(bundles("queries"), threads=1).run(two_cars(0))
    for number, class_id in ((1, CAR), (2, TRUCK)):
        assert set(answer.class_id[answer.instance_id == number]) in ({class_id}, {CAR + TRUCK - class_id})
    assert set(answer.class_id[answer.instance_id > 0]) == {CAR, TRUCK}
    assert set(answer.class_id[answer.instance_id == 0]) <= {ROAD, CAR}
    assert not answer.instance_id[answer.class_id == ROAD].any()


def test_without_a_head_what_touches_is_one(bundles: Callable[..., Bundle]) -> None:
    cloud = two_cars(0)
    plain = Segmenter(bundles(), threads=1).run(cloud)
    assert plain.novelty is None
    assert set(plain.instance_id[4000:]) == {1}
    bundle = bundles("centres")
    np.testing.assert_array_equal(Segmenter(bundle, threads=1, instances="components").run(cloud).instance_id, plain.instance_id)
    assert not Segmenter(bundle, threads=1, instances="none").run(cloud).instance_id.any()


@pytest.mark.parametrize("lift", ["pixel", "vote", "knn"])
@pytest.mark.parametrize("instances", ["auto", "components"])
def test_an_object_has_one_class_and_stuff_is_no_object(lift: str, instances: str, bundles: Callable[..., Bundle]) -> None:
    bundle = bundles("centres")
    cloud = two_cars()
    intensity = cloud.intensity.copy()
    swapped = np.random.default_rng(1).random(len(cloud)) < 0.2
    intensity[swapped] = np.random.default_rng(2).integers(ROAD, TRUCK + 1, swapped.sum())
    answer = Segmenter(bundle, threads=1, lift=lift, instances=instances).run(make_cloud(cloud.xyz, intensity))
    assert answer.instance_id.any()
    assert not answer.instance_id[~LABELS.things[answer.class_id]].any()
    for number in np.unique(answer.instance_id[answer.instance_id > 0]):
        assert len(set(answer.class_id[answer.instance_id == number])) == 1


def test_a_hidden_point_is_of_the_object_as_far_away_as_itself() -> None:
    """A car 20 m away, and one 10 m away before half of it, so that points of the far one lie in the near one's pixels."""
    width = 64
    azimuth = np.radians(180 - (np.arange(width) + 0.5) * 360 / width)
    ray = np.stack([np.cos(azimuth), np.sin(azimuth), 0 * azimuth], 1)[28:36]
    near, far = ray[:4] * 10, ray * 20
    cloud = make_cloud(np.concatenate([near, far]).astype(np.float32), np.zeros(12, np.float32))
    spec = RangeSpec(height=3, width=width, fov_up_deg=3.0, fov_down_deg=-3.0)
    view = project(cloud, spec)
    finder = ObjectFinder(LABELS, (), full_circle=True)
    class_image = np.where(view.point_of_pixel >= 0, CAR, 0).astype(np.uint8)
    instance_image = np.where(view.point_of_pixel >= 0, np.where(view.point_of_pixel < 4, 1, 2), 0).astype(np.uint16)
    class_id = np.full(12, CAR, np.uint8)
    by_pixel = finder.lift(instance_image, class_image, class_id, view, voted=False)
    np.testing.assert_array_equal(by_pixel, [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2])
    asked = finder.lift(instance_image, class_image, class_id, view, voted=True)
    np.testing.assert_array_equal(asked[:4], 1)
    np.testing.assert_array_equal(asked[7:], 2)  # those that find two pixels of the far car within reach


def test_novelty_is_lifted_and_nothing_where_no_class_is(bundles: Callable[..., Bundle]) -> None:
    bundle, cloud = bundles("novelty"), two_cars(0)
    xyz = np.concatenate([cloud.xyz, [[np.nan] * 3, [500, 0, 0], [0, 0, 0]]]).astype(np.float32)
    for engine in ENGINES:
        answer = Segmenter(bundle, engine, threads=1).run(make_cloud(xyz, np.append(cloud.intensity, [CAR] * 3)))
        far = np.min(((xyz[:-3, None, :2] - CENTRES.numpy()) ** 2).sum(2), axis=1) / 100
        np.testing.assert_array_equal(answer.novelty[-3:], 0)
        assert np.quantile(np.abs(answer.novelty[:-3] - far.clip(0, 1)), 0.9) < 0.1
        assert 0 <= answer.novelty.min() < answer.novelty.max() <= 1
    empty = Segmenter(bundle, threads=1).run(make_cloud(np.full((5, 3), np.nan), np.zeros(5)))
    assert not empty.novelty.any()


@pytest.mark.parametrize("heads", HEADS, ids="-".join)
def test_a_cloud_without_points_has_no_objects(heads: tuple[str, ...], bundles: Callable[..., Bundle]) -> None:
    opened = Segmenter(bundles(*heads), threads=1, lift="knn")
    for xyz in (np.zeros((0, 3)), np.full((4, 3), np.nan), np.array([[10.0, 1.0, 0.0]])):
        answer = opened.run(make_cloud(xyz, np.full(len(xyz), CAR)))
        assert not answer.instance_id.any()


def test_heads_that_the_file_does_not_hold_are_refused(bundles: Callable[..., Bundle]) -> None:
    bundle = bundles("novelty")
    other = Bundle(bundle.folder, dataclasses.replace(bundle.info, heads=(HeadRule("centres"),), outputs={}))
    two = dataclasses.replace(bundle.info, heads=(HeadRule("novelty"), HeadRule("queries")), outputs={})
    with pytest.raises(EngineError, match="does not fit the net"):
        load_graph(Bundle(bundle.folder, two))
    with pytest.raises(EngineError, match=r"the outputs class_id, .*, centre, offset; found"):
        Segmenter(other, "onnxruntime")


def test_heads_of_format_1_answer_in_onnxruntime_alone(bundles: Callable[..., Bundle]) -> None:
    bundle = bundles("centres")
    older = Bundle(bundle.folder, dataclasses.replace(bundle.info, heads=(HeadRule("centres", None),)))
    cloud = two_cars()
    np.testing.assert_array_equal(Segmenter(older).run(cloud).instance_id, Segmenter(bundle).run(cloud).instance_id)
    with pytest.raises(EngineError, match="before bundles said how their heads are built"):
        load_graph(older)
