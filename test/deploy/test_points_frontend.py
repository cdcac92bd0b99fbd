# SPDX-License-Identifier: Apache-2.0
"""Clouds as points: every point answered, whatever the cloud; crops that cover it and vote; organised clouds keep their grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.deploy.frontends import FrontendSettings, answer, make_frontend
from weakseg_ros.deploy.frontends.points_numpy import PointsFrontend, PointsView
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule, plain_spec
from weakseg_ros.deploy.tensors import ANSWERS, check_tensors
from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import FLAG_OUT_OF_RANGE, Cloud, make_cloud
from weakseg_ros.points.crops import PointsSpec, covering_crops
from weakseg_ros.points.grid import group_points
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec

LABELS = LabelMap("three", tuple(LabelClass(i, f"class {i}", (i, 0, 0), i == 2, (i,)) for i in range(4)))
POINTS = PointsSpec(grid_m=0.5, points=64, neighbours=5, ratios=(4, 2))
CHANNELS = ("x", "y", "z", "red", "green", "blue", "intensity", "height")

coordinate = st.one_of(
    st.floats(-9, 9, width=32), st.sampled_from([0.0, -0.0, 1e-40, 1e30, -3e38, math.nan, math.inf, -math.inf])
)


def spec_of(points: PointsSpec = POINTS, channels: tuple[str, ...] = CHANNELS) -> InputSpec:
    return plain_spec(RangeSpec(16, 64), channels, IntensityRule(False), points=points)


def frontend_of(points: PointsSpec = POINTS, channels: tuple[str, ...] = CHANNELS) -> PointsFrontend:
    made = make_frontend(spec_of(points, channels), LABELS)
    assert isinstance(made, PointsFrontend)
    return made


def answers_by_cell(view: PointsView, class_of_cell: np.ndarray) -> dict[str, np.ndarray]:
    """What a network would answer that knows the class of each grid point."""
    shape = (len(view.crops), 1, view.crops.shape[1])
    found = {name: np.full(shape, 0.5, np.float32) for name in ("confidence", "uncertainty")}
    return {"class_id": class_of_cell[view.crops].astype(np.uint8).reshape(shape), **found}


def room(count: int = 500, seed: int = 0) -> Cloud:
    rng = np.random.default_rng(seed)
    return make_cloud(rng.uniform(-4, 4, (count, 3)).astype(np.float32), rng.random(count), rgb=rng.integers(0, 256, (count, 3)))


@given(st.lists(st.tuples(coordinate, coordinate, coordinate), max_size=40))
@settings(deadline=None, max_examples=40)
def test_every_usable_point_is_answered_and_no_other(points: list[tuple[float, float, float]]) -> None:
    cloud = make_cloud(np.array(points, np.float32).reshape(-1, 3))
    frontend = frontend_of()
    in_scene = cloud.valid & (np.nan_to_num(np.abs(cloud.xyz), nan=np.inf) < 1e6).all(axis=1)
    inputs, view = frontend.encode(cloud)
    found = answer(frontend, lambda part: answers_by_cell(view, np.full(view.points.grid.count, 3)), inputs, view)
    answered = frontend.decode(found, view)
    if frontend.sees_nothing(view):
        assert not answered.class_id.any()
        assert not in_scene.any()
        return
    for name, values in inputs.items():
        assert values.dtype.kind == "i" or np.isfinite(values).all(), name
    sizes = check_tensors("network input", inputs, frontend.inputs, {"C": len(CHANNELS), "H": 1})
    check_tensors("network output", found, ANSWERS, {"B": sizes["B"], "H": 1, "W": sizes["W"], "K": 4})
    np.testing.assert_array_equal(answered.class_id, np.where(in_scene, 3, 0))
    np.testing.assert_array_equal(answered.flags, np.where(cloud.valid & ~in_scene, FLAG_OUT_OF_RANGE, cloud.flags))


def test_a_point_gets_the_answer_of_its_cell_in_any_crop() -> None:
    cloud, frontend = room(2000), frontend_of()
    inputs, view = frontend.encode(cloud)
    assert inputs["features"].shape[0] > 3
    of_cell = np.random.default_rng(1).integers(1, 4, view.points.grid.count)
    answered = frontend.decode(answers_by_cell(view, of_cell), view)
    np.testing.assert_array_equal(answered.class_id, of_cell[group_points(cloud.xyz, 0.5).cell_of_point])
    np.testing.assert_allclose(answered.confidence, 0.5, rtol=1e-6)
    pixel = view.pixels.pixel_of_point
    np.testing.assert_array_equal(view.points.grid.cell_of_point, view.crops.ravel()[pixel])


def test_crops_vote_and_their_disagreement_lowers_the_confidence() -> None:
    cloud, frontend = room(40), frontend_of()
    frontend.settings = FrontendSettings(passes=3)
    _, view = frontend.encode(cloud)
    assert len(view.crops) == 3
    found = answers_by_cell(view, np.full(view.points.grid.count, 1))
    found["class_id"][2] = 3
    answered = frontend.decode(found, view)
    assert set(answered.class_id) == {1}
    np.testing.assert_allclose(answered.confidence, 2 * 0.5 / 3, rtol=1e-6)


@pytest.mark.parametrize("passes", [1, 3])
def test_crops_cover_a_cloud_evenly(passes: int) -> None:
    xyz = np.random.default_rng(0).uniform(0, 10, (1000, 3)).astype(np.float32)
    crops = covering_crops(xyz, 100, passes)
    times = np.bincount(crops.ravel(), minlength=1000)
    assert times.min() >= passes
    assert times.mean() < 4 * passes
    assert all(len(set(crop)) == 100 for crop in crops)
    np.testing.assert_array_equal(crops, covering_crops(xyz, 100, passes))


def test_an_organised_cloud_keeps_its_grid() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, 3, (48, 3)).astype(np.float32)
    xyz[5] = np.nan
    cloud = make_cloud(xyz, height=6, width=8)
    frontend = frontend_of()
    _, view = frontend.encode(cloud)
    answered = frontend.decode(answers_by_cell(view, np.full(view.points.grid.count, 2)), view)
    assert answered.class_image.shape == answered.instance_image.shape == (6, 8)
    assert answered.class_image[0, 5] == 0
    np.testing.assert_array_equal(answered.class_image.ravel(), answered.class_id)


def test_things_that_lie_apart_are_two_objects() -> None:
    rng = np.random.default_rng(0)
    near = rng.uniform(0, 1, (60, 3))
    cloud = make_cloud(np.concatenate([near, near + np.array([9.0, 0.0, 0.0])]).astype(np.float32))
    frontend = frontend_of()
    _, view = frontend.encode(cloud)
    answered = frontend.decode(answers_by_cell(view, np.full(view.points.grid.count, 2)), view)
    first, second = answered.instance_id[:60], answered.instance_id[60:]
    assert len(set(first)) == len(set(second)) == 1
    assert 0 not in {first[0], second[0]}
    assert first[0] != second[0]
    frontend.settings = FrontendSettings(instances="none")
    assert not frontend.decode(answers_by_cell(view, np.full(view.points.grid.count, 2)), view).instance_id.any()


def test_cells_hold_means_and_coordinates_count_from_the_middle() -> None:
    xyz = np.array([[0, 0, 0.1], [0.2, 0, 0.1], [4, 4, 4]], np.float32)
    rgb = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8)
    frontend = frontend_of(channels=("x", "red", "green", "blue"))
    values, view = frontend.channels(make_cloud(xyz, rgb=rgb))
    by_cell = values[:, np.argsort(view.crops[0])]
    np.testing.assert_allclose(by_cell, [[-1.95, 1.95], [0.5, 0], [0, 1], [0.5, 0]], atol=1e-6)
    colourless, _ = frontend.channels(make_cloud(xyz))
    assert not colourless[1:].any()


@given(st.integers(1, 60), st.floats(0.01, 5.0), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_a_grid_groups_what_lies_in_one_cube(count: int, cell_m: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = (rng.uniform(-3, 3, (count, 3)) * rng.choice([1.0, 1e6])).astype(np.float32)
    grid = group_points(xyz, cell_m)
    cube = np.floor((xyz.astype(float) - xyz.astype(float).min(axis=0)) / cell_m)
    same = (cube[:, None] == cube[None]).all(axis=2)
    np.testing.assert_array_equal(grid.cell_of_point[:, None] == grid.cell_of_point[None], same)
    assert sorted(set(grid.cell_of_point)) == list(range(grid.count))
    np.testing.assert_array_equal(grid.cell_of_point[grid.first_point], np.arange(grid.count))


def test_the_most_frequent_label_of_a_cell_is_its_own() -> None:
    grid = group_points(np.zeros((5, 3), np.float32), 1.0)
    assert grid.most_frequent(np.array([0, 0, 2, 3, 3], np.uint8)).tolist() == [3]
    assert grid.most_frequent(np.zeros(5, np.uint8)).tolist() == [0]


def test_channels_belong_to_their_representation() -> None:
    with pytest.raises(ConfigError, match="'bend' needs a net on range images"):
        spec_of(channels=("x", "bend"))
    with pytest.raises(ConfigError, match="'red' needs a net on points"):
        plain_spec(RangeSpec(16, 64), ("x", "red"), IntensityRule(False))
