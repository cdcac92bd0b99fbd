# SPDX-License-Identifier: Apache-2.0
"""The fit is high where a model's answers are right, low where they are not, and says why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from support import optional
from weakseg_ros.deploy.bundle import Bundle
from weakseg_ros.deploy.fit import ENOUGH, FLOOR, LOW, WEIGHTS, Fit, combine, ground_classes, thinned
from weakseg_ros.deploy.segmenter import Segmenter
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.surroundings import difference
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor
from weakseg_ros.simulate.rooms.scans import Tour
from weakseg_ros.simulate.rooms.scans import scan_at as scan_in_room

optional("onnxruntime")


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.load("models/street64")


@pytest.fixture(scope="module")
def clouds() -> list[Cloud]:
    """Two scans of a sensor like those that the shipped model was trained with, in a street of its own."""
    sensor = dataclasses.replace(load_sensor("generic64"), columns=512)
    return [scan.cloud for scan in simulate(SimulateConfig(seed=7, scans=2, stride=10, sensor=sensor))]


def moved(cloud: Cloud, xyz: np.ndarray) -> Cloud:
    return dataclasses.replace(cloud, xyz=xyz.astype(np.float32))


def fit_of(bundle: Bundle, clouds: list[Cloud], watch: str = "now", **settings: float) -> tuple[Fit, Segmenter]:
    segmenter = Segmenter(bundle, watch=watch, **settings)
    for cloud in clouds:
        segmenter.run(cloud)
        segmenter.look()
    fit = segmenter.fit()
    assert fit is not None
    return fit, segmenter


def test_a_sensor_like_the_training_data_fits(shipped: Bundle, clouds: list[Cloud]) -> None:
    fit, _ = fit_of(shipped, clouds)
    assert fit.value > 0.6
    assert fit.reasons == ()
    assert set(fit.parts) == {"ground", "clarity", "stability", "answered", "intensity"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: moved(c, c.xyz * [1, -1, -1]), "mounted upside down; set rotation_rpy_deg to 180 0 0"),
        (lambda c: moved(c, c.xyz * 1000), "set unit_m to 0.001"),
        (lambda c: dataclasses.replace(c, intensity=c.intensity * 255), "of the ground near the sensor is predicted as ground"),
        (
            lambda c: moved(c, np.where(c.valid[:, None], c.xyz + np.array([0, 0, 1.75]), 0)),
            "the ground lies at the height of the origin",
        ),
    ],
)
def test_garbage_has_a_low_fit_with_its_reason_first_and_is_not_certain(
    shipped: Bundle, clouds: list[Cloud], change: Callable[[Cloud], Cloud], why: str
) -> None:
    bad = [change(cloud) for cloud in clouds]
    fit, segmenter = fit_of(shipped, bad)
    assert fit.low
    assert why in fit.reasons[0]
    answer = segmenter.run(bad[0])
    answered = answer.class_id > 0
    assert answer.uncertainty[answered].min(initial=1.0) >= 1 - LOW
    assert answer.confidence.max() <= LOW


def test_it_is_looked_at_when_asked_and_never_where_nobody_wants_it(shipped: Bundle, clouds: list[Cloud]) -> None:
    later = Segmenter(shipped, watch="later")
    later.run(clouds[0])
    assert later.fit() is None
    later.look()
    assert later.fit() is not None
    never = Segmenter(shipped, watch="never")
    never.run(clouds[0])
    never.look()
    assert never.fit() is None


def test_looking_in_parts_says_the_same_and_runs_the_engine_once_at_most_after_a_cloud(
    shipped: Bundle, clouds: list[Cloud]
) -> None:
    whole, parts = (Segmenter(shipped, "onnxruntime", watch="later") for _ in range(2))
    whole.run(clouds[0])
    whole.look()
    runs, run = [], parts.engine.run
    parts.engine.run = lambda inputs: runs.append(1) or run(inputs)
    parts.run(clouds[0])
    while True:
        before = len(runs)
        more = parts.look_on()
        assert len(runs) <= before + 1
        if not more:
            break
        np.testing.assert_array_equal(parts.run(clouds[1]).class_id, whole.run(clouds[1]).class_id)
    assert parts.fit().parts == whole.fit().parts
    assert len(runs) > 2


def test_looking_does_not_change_the_answers(shipped: Bundle, clouds: list[Cloud]) -> None:
    answers = [Segmenter(shipped, watch=watch).run(clouds[0]) for watch in ("now", "never")]
    np.testing.assert_array_equal(answers[0].class_id, answers[1].class_id)
    np.testing.assert_array_equal(answers[0].uncertainty, answers[1].uncertainty)


def test_a_factor_on_the_intensity_is_advised_where_it_was_tried_and_helped(shipped: Bundle, clouds: list[Cloud]) -> None:
    loud = [dataclasses.replace(cloud, intensity=cloud.intensity * 255) for cloud in clouds]
    _, segmenter = fit_of(shipped, loud)
    assert "set intensity_scale to 0.00392" in " ".join(segmenter.domain_report())
    mended, _ = fit_of(shipped, loud, intensity_scale=0.00392)
    assert mended.value > 0.6


def test_too_few_points_tell_nothing(shipped: Bundle) -> None:
    segmenter = Segmenter(shipped)
    segmenter.run(make_cloud(np.ones((20, 3)), np.ones(20)))
    segmenter.run(make_cloud(np.zeros((0, 3)), np.zeros(0)))
    assert segmenter.fit() is None


def test_parts_multiply_and_the_worst_is_named_first() -> None:
    assert combine({"answered": 1.0, "stability": 1.0}).value == 1.0
    fit = combine({"answered": 0.5, "ground": 0.0})
    assert fit.value == pytest.approx(0.5 ** WEIGHTS["answered"] * FLOOR ** WEIGHTS["ground"])
    assert fit.reasons == ("only 0% of the ground near the sensor is predicted as ground", "50% of the points get no class")
    assert fit.to_mapping()["low"] is fit.low is True
    assert str(fit).startswith("fit 0.15 of 1: only 0%")


def test_hesitation_lowers_the_fit_and_stability_only_where_it_collapses() -> None:
    steady, clear = {"stability": 1.0, "clarity": 0.9}, {"stability": ENOUGH["stability"], "clarity": 0.9}
    assert combine(steady).value == combine(clear).value == pytest.approx(0.9)
    collapsed = combine({"stability": 0.1, "clarity": 0.9})
    assert collapsed.value < 0.6
    assert "only 10% keep their class" in collapsed.reasons[0]
    torn = combine({"stability": 1.0, "clarity": 0.5})
    assert torn.value == pytest.approx(0.5)
    assert torn.reasons == ("the model hesitates between classes: its uncertainty is 0.50 of 1 on average",)


@pytest.mark.parametrize("name", ["street", "semantickitti", "nuscenes", "semanticposs", "vlp32"])
def test_each_label_map_that_ships_names_its_ground(name: str) -> None:
    labels = LabelMap.load(name)
    ground = ground_classes(labels)
    assert ground.any()
    assert not ground[0]
    assert not (ground & labels.things).any()


def test_half_of_the_points_are_left() -> None:
    cloud = make_cloud(np.random.default_rng(0).normal(0, 9, (5000, 3)))
    fewer = thinned(cloud)
    assert 0.45 < fewer.valid.mean() < 0.55
    np.testing.assert_array_equal(fewer.xyz[fewer.valid], cloud.xyz[fewer.valid])
    assert not fewer.xyz[~fewer.valid].any()


def test_a_model_of_streets_says_indoors_in_a_room(shipped: Bundle, clouds: list[Cloud]) -> None:
    sensor = dataclasses.replace(load_sensor("os0_32"), columns=256, vehicle_m=(0.0, 0.0, 0.0))
    rooms = [scan_in_room(Tour(5, 0, 3, 6.0, sensor, 0.7), index).cloud for index in range(3)]
    fit, _ = fit_of(shipped, rooms)
    assert fit.low
    assert "this looks indoors, and the model was trained outdoors; use models/rooms" in fit.reasons[0]
    outdoors, _ = fit_of(shipped, clouds)
    assert "surroundings" not in outdoors.parts
    own, _ = fit_of(Bundle.load("models/rooms"), rooms)
    assert own.value > 0.5
    assert own.reasons == ()
    assert "surroundings" not in own.parts
    away, _ = fit_of(Bundle.load("models/rooms"), clouds)
    assert "this looks outdoors, and the model was trained in rooms" in away.reasons[0]


@pytest.mark.parametrize(
    ("reach", "trained", "word"),
    [(5.0, 37.0, "indoors"), (9.0, 15.0, ""), (35.0, 37.0, ""), (30.0, 5.0, "outdoors"), (10.9, 5.0, ""), (60.0, 37.0, "")],
)
def test_surroundings_differ_where_ranges_say_room_on_one_side_only(reach: float, trained: float, word: str) -> None:
    said = difference(reach, trained)
    assert (f"looks {word}," in said) if word else not said
