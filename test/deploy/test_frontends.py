# SPDX-License-Identifier: Apache-2.0
"""From clouds to network inputs: one implementation for numpy and torch, for training and the robot."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import optional
from weakseg_ros.deploy.frontends import FrontendSettings, make_frontend
from weakseg_ros.deploy.frontends.range_numpy import range_input, raw_planes
from weakseg_ros.deploy.input_spec import CHANNELS as ALL_CHANNELS
from weakseg_ros.deploy.input_spec import COLORS, PLANES, InputSpec, IntensityRule, plain_spec
from weakseg_ros.deploy.tensors import ANSWERS, HEAD_OUTPUTS, TensorSpec, check_tensors
from weakseg_ros.errors import CloudError, ConfigError, EngineError
from weakseg_ros.points.cloud import FLAG_NON_RETURN, FLAG_OUT_OF_RANGE, Cloud, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec, project

SPEC = RangeSpec(height=16, width=64, fov_up_deg=10.0, fov_down_deg=-30.0, min_range_m=0.5, max_range_m=100.0)
CHANNELS = [name for name in ALL_CHANNELS if name not in COLORS]
ANY_INTENSITY = IntensityRule(required=False, full_scale=0.0)
LABELS = LabelMap("two", tuple(LabelClass(i, f"class {i}", (i, 0, 0), i == 2, (i,)) for i in range(3)))
PACKAGE = Path(__file__).resolve().parents[2] / "weakseg_ros"

coordinate = st.one_of(
    st.floats(-60, 60, width=32),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-40, 1e-20, 0.5, 100.0, 1e30, -1e38, 3.4e38, math.nan, math.inf, -math.inf]),
)


def make(points: list[tuple[float, float, float]]) -> Cloud:
    return make_cloud(np.array(points, np.float32).reshape(-1, 3), np.arange(len(points), dtype=np.float32))


def spec_of(channels: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...], **changes: object) -> InputSpec:
    facts = {"geometry": SPEC, "channels": channels, "mean": mean, "std": std, "intensity": ANY_INTENSITY}
    return InputSpec(**{**facts, **changes})


def scattered(count: int = 800) -> Cloud:
    rng = np.random.default_rng(3)
    return make_cloud(rng.normal(0, 10, (count, 3)).astype(np.float32), rng.random(count).astype(np.float32))


@given(st.lists(st.tuples(coordinate, coordinate, coordinate), max_size=60).map(make))
@settings(deadline=None, max_examples=50)
def test_channels_hold_the_owners_values_and_are_finite(cloud: Cloud) -> None:
    view = project(cloud, SPEC)
    image = range_input(cloud, view, plain_spec(SPEC, tuple(CHANNELS), ANY_INTENSITY), 0.5)
    assert image.shape == (len(CHANNELS), 16, 64)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    planes = dict(zip(CHANNELS, image, strict=True))
    filled = view.point_of_pixel >= 0
    owner = view.point_of_pixel[filled]
    np.testing.assert_allclose(planes["range"][filled], view.range_of_point[owner], rtol=2**-22)
    for axis, name in enumerate("xyz"):
        assert np.array_equal(planes[name][filled], cloud.xyz[owner, axis])
    assert np.array_equal(planes["intensity"][filled], cloud.intensity[owner] * np.float32(0.5))
    assert np.array_equal(planes["valid"], filled)
    assert (image[:, ~filled] == 0).all()


def test_the_input_is_normalised_where_a_point_is_and_nothing_elsewhere() -> None:
    cloud = scattered()
    view = project(cloud, SPEC)
    spec = spec_of(("range", "valid", "z", "intensity"), (12.0, 0.9, -1.0, 0.2), (9.0, 0.1, 0.9, 0.3))
    image = range_input(cloud, view, spec)
    filled = view.point_of_pixel >= 0
    owner = view.point_of_pixel[filled]
    np.testing.assert_allclose(image[0][filled], (view.range_of_point[owner] - 12.0) / 9.0, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(image[2][filled], (cloud.xyz[owner, 2] + 1.0) / 0.9, rtol=1e-6, atol=1e-6)
    assert np.array_equal(image[1], filled)
    assert (image[:, ~filled] == 0).all()


@given(st.permutations(CHANNELS))
@settings(deadline=None, max_examples=20)
def test_the_input_that_is_written_over_its_planes_is_that_of_planes_that_stay(channels: list[str]) -> None:
    cloud = scattered()
    view = project(cloud, SPEC)
    spec = spec_of(tuple(channels), (0.3,) * len(CHANNELS), (1.7,) * len(CHANNELS))
    planes, mask = dict(zip(PLANES, raw_planes(cloud, view), strict=True)), (view.point_of_pixel >= 0).astype(np.float32)
    np.testing.assert_array_equal(range_input(cloud, view, spec), np.stack(spec.image(planes, mask, np)))


def test_torch_and_numpy_make_the_same_input_of_the_same_planes() -> None:
    torch = optional("torch")
    cloud = scattered()
    view = project(cloud, SPEC)
    planes, mask = dict(zip(PLANES, raw_planes(cloud, view), strict=True)), view.point_of_pixel >= 0
    count = len(CHANNELS)
    spec = spec_of(tuple(CHANNELS), (0.3,) * count, (1.7,) * count)
    ours = np.stack(spec.image(planes, mask, np))
    tensors = {name: torch.from_numpy(plane) for name, plane in planes.items()}
    theirs = torch.stack(spec.image(tensors, torch.from_numpy(mask), torch))
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=2**-21, atol=2**-21)  # each rounds at most a few times


def test_intensity_that_is_not_finite_is_zero_and_an_absurd_one_is_cut() -> None:
    points = np.array([[10, 0, 0], [0, 10, 0], [-10, 0, 0]], np.float32)
    cloud = make_cloud(points, np.array([np.nan, np.inf, 3e38], np.float32))
    spec = spec_of(("intensity",), (0.0,), (0.5,), clip_deviations=100.0)
    image = range_input(cloud, project(cloud, SPEC), spec)
    assert sorted(np.unique(image).tolist()) == [0.0, 100.0]


def test_an_intensity_that_is_required_is_asked_for_unless_zeros_are_allowed() -> None:
    cloud = make_cloud(np.array([[10, 0, 0]], np.float32), np.zeros(1, np.float32))
    cloud = Cloud(cloud.xyz, cloud.intensity, cloud.flags, width=1, intensity_field="")
    frontend = make_frontend(spec_of(("intensity",), (0.0,), (1.0,), intensity=IntensityRule(True)), LABELS, name="yard")
    with pytest.raises(CloudError, match="model 'yard' was trained with") as caught:
        frontend.encode(cloud)
    assert caught.value.reason == "no_intensity"
    frontend.settings = FrontendSettings(allow_no_intensity=True)
    assert not frontend.encode(cloud)[0]["image"].any()


@pytest.mark.parametrize(("theirs", "asked", "expected"), [(255.0, 0.0, 1 / 255), (0.0, 0.0, 1.0), (255.0, 0.5, 0.5)])
def test_intensity_is_brought_to_the_training_datas_scale(theirs: float, asked: float, expected: float) -> None:
    one = np.ones(1, np.float32)
    cloud = Cloud(np.ones((1, 3), np.float32), one, np.zeros(1, np.uint8), width=1, intensity_full_scale=theirs)
    assert IntensityRule(required=False, full_scale=1.0).scale_of(cloud, asked) == pytest.approx(expected)


def test_answers_return_to_every_point_in_order() -> None:
    xyz = np.array([[10, 0, 0], [0, 0, 0], [0, 0, 50], [10.1, 0, 0], [0, 10, 0]], np.float32)
    frontend = make_frontend(spec_of(("range",), (0.0,), (1.0,)), LABELS, ("novelty",), {**ANSWERS, **HEAD_OUTPUTS["novelty"]})
    inputs, view = frontend.encode(make_cloud(xyz, np.ones(5, np.float32)))
    assert inputs["image"].shape == (1, 1, 16, 64)
    shape = (1, 16, 64)
    outputs = {"class_id": np.full(shape, 2, np.uint8)}
    outputs |= {
        name: np.full(shape, value, np.float32) for name, value in (("confidence", 0.9), ("uncertainty", 0.2), ("novelty", 0.4))
    }
    answer = frontend.decode(outputs, view)
    assert answer.class_id.tolist() == [2, 0, 0, 2, 2]  # the fourth lies behind the first
    assert answer.flags.tolist() == [0, FLAG_NON_RETURN, FLAG_OUT_OF_RANGE, 0, 0]
    np.testing.assert_allclose(answer.novelty, np.float32([0.4, 0, 0, 0.4, 0.4]))
    assert (answer.class_image > 0).sum() == 2


def test_unknown_channels_and_statistics_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'intensity'"):
        plain_spec(SPEC, ("intensty",), ANY_INTENSITY)
    with pytest.raises(ConfigError, match="expected 2 finite values"):
        spec_of(("range", "x"), (0.0,), (1.0, 1.0))
    with pytest.raises(ConfigError, match="must be positive"):
        spec_of(("range",), (0.0,), (0.0,))


def test_tensors_are_held_against_their_table() -> None:
    table = {"image": TensorSpec("float32", ("B", "C", "H")), "prompt": TensorSpec("int64", ("B", "T"))}
    image, prompt = np.zeros((2, 3, 4), np.float32), np.zeros((2, 9), np.int64)
    sizes = check_tensors("network input", {"image": image, "prompt": prompt}, table, {"C": 3})
    assert sizes == {"C": 3, "B": 2, "H": 4, "T": 9}
    for wrong, found in (
        ({"image": image}, "'prompt' is missing"),
        ({"image": image.astype(np.float64), "prompt": prompt}, "expected float32, found float64"),
        ({"image": image[:, :2], "prompt": prompt}, r"expected shape \(2, 3, H\)"),
        ({"image": image, "prompt": prompt[:1]}, r"expected shape \(2, T\)"),
        ({"image": image * np.nan, "prompt": prompt}, "NaN or infinite"),
    ):
        with pytest.raises(EngineError, match=found):
            check_tensors("network input", wrong, table, {"C": 3})


def mentioned(source: str) -> set[str]:
    """Every name that a file imports, reads, takes as an attribute or spells in a string, whatever it calls it afterwards."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def asked_of_a_frontend(source: str) -> set[str]:
    """Which of `encode` and `decode` a file takes from a frontend, called at once or under another name."""
    taken = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute) and node.attr in ("encode", "decode")
    )
    return {node.attr for node in taken if ast.unparse(node.value).endswith("frontend")}


def test_raw_channels_become_network_inputs_in_one_place() -> None:
    """Whoever needs an input calls a frontend, or `InputSpec.image` on planes that a frontend took: nobody normalises alone."""
    makers = {"raw_planes", "range_input"}
    allowed = {
        "deploy/frontends/range_numpy.py": makers,
        "batches/batches.py": {"raw_planes"},  # augmented between planes and input
    }
    for file in PACKAGE.rglob("*.py"):
        relative = file.relative_to(PACKAGE).as_posix()
        assert mentioned(file.read_text()) & makers <= allowed.get(relative, set()), relative


@pytest.mark.parametrize(
    "source",
    [
        "from frontends import raw_planes as planes\nplanes(cloud)",
        "make = range_numpy.raw_planes\nmake(cloud)",
        "getattr(range_numpy, 'raw_planes')(cloud)",
        "functools.partial(raw_planes, spec)(cloud)",
    ],
)
def test_a_call_under_another_name_is_seen(source: str) -> None:
    assert "raw_planes" in mentioned(source)


def test_robot_validation_export_labelling_and_retraining_ask_a_frontend() -> None:
    both = {"encode", "decode"}
    expected = {"deploy/segmenter.py": both, "train/validate.py": both, "train/export.py": {"encode"}}
    expected |= {f"train/{name}.py": {"encode"} for name in ("click_segmenter", "cloud_views", "variants", "wrap")}
    for name, asked in expected.items():
        assert asked_of_a_frontend((PACKAGE / name).read_text()) >= asked, name
    assert asked_of_a_frontend("see = self._frontend.encode\nsee(cloud)") == {"encode"}


def test_every_network_answers_the_three() -> None:
    assert list(ANSWERS) == ["class_id", "confidence", "uncertainty"]
