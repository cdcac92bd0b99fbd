# SPDX-License-Identifier: Apache-2.0
"""A robot hears, in a sentence it can act on, that its sensor is another one than the training data's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from weakseg_ros.deploy.bundle import BundleInfo, NetRule, TrainingStatistics
from weakseg_ros.deploy.domain import DomainMonitor
from weakseg_ros.deploy.frontends.range_numpy import CloudView
from weakseg_ros.deploy.input_spec import InputSpec, IntensityRule
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.labels import LabelClass, LabelMap
from weakseg_ros.points.projection import RangeSpec, project
from weakseg_ros.points.reading import rotation

INFO = BundleInfo(
    name="yard",
    input=InputSpec(
        geometry=RangeSpec(height=64, width=512, fov_up_deg=3.0, fov_down_deg=-25.0),
        channels=("range", "intensity"),
        mean=(10.0, 0.2),
        std=(10.0, 0.2),
        intensity=IntensityRule(required=True, full_scale=1.0),
    ),
    labels=LabelMap("two", tuple(LabelClass(i, f"class {i}", (0, 0, 0), False, (i,)) for i in range(3))),
    net=NetRule("light"),
    statistics=TrainingStatistics(
        intensity={0.01: 0.0, 0.05: 0.02, 0.25: 0.1, 0.5: 0.2, 0.75: 0.3, 0.95: 0.45, 0.99: 0.6},
        outside_share=0.01,
        filled_share=0.9,
        beams=64,
    ),
)


def sensor(low_deg: float, high_deg: float, beams: int, intensity: Callable[[np.ndarray], np.ndarray]) -> Cloud:
    """A full turn of a sensor whose beams lie evenly between two inclinations; `intensity` makes it from 0..0.45."""
    azimuth, inclination = np.meshgrid(np.linspace(-3.14, 3.14, 1024), np.radians(np.linspace(low_deg, high_deg, beams)))
    xyz = np.stack([np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination), np.sin(inclination)], -1)
    values = np.random.default_rng(0).uniform(0.0, 0.47, azimuth.size)
    return make_cloud((8 * xyz).reshape(-1, 3), intensity(values))


def report(cloud: Cloud, info: BundleInfo = INFO, scale: float = 1.0) -> list[str]:
    monitor = DomainMonitor(info)
    assert monitor.report() == []
    for _ in range(12):
        monitor.add(CloudView(cloud, project(cloud, info.input.geometry), scale))
    return monitor.report()


def test_the_trained_sensor_is_no_news() -> None:
    assert report(sensor(-24.9, 2.9, 64, lambda i: i)) == []


def test_another_field_of_view() -> None:
    (sentence,) = report(sensor(-15.0, 15.0, 64, lambda i: i))
    assert sentence.startswith("model 'yard': trained for -25.0..3.0 deg, this cloud spans -15.0..15.0; ")
    assert "39% of its points get no class; use a model that covers them" in sentence


def test_fewer_beams() -> None:
    (sentence,) = report(sensor(-24.9, 2.9, 16, lambda i: i))
    assert "fills 25% of the range image, the training data by 64 beams filled 90%" in sentence


@pytest.mark.parametrize(
    ("intensity", "expected"),
    [
        (lambda i: i * 255, "trained on 0.45 (scale 0..1); set intensity_scale to 0.00392"),
        (lambda i: i * 65535, "set intensity_scale to 1.53e-05"),
        (lambda i: i * 7, "set intensity_scale to 0.12"),
        (lambda i: i * 0, "intensity is all zero"),
        (lambda i: i * 0 + 0.3, "intensity is constant 0.3"),
        (lambda i: i - 0.1, "intensity goes down to -0.0"),
    ],
)
def test_another_intensity(intensity: Callable[[np.ndarray], np.ndarray], expected: str) -> None:
    (sentence,) = report(sensor(-24.9, 2.9, 64, intensity))
    assert expected in sentence


def test_the_advised_scale_ends_the_complaint() -> None:
    assert report(sensor(-24.9, 2.9, 64, lambda i: i * 255), scale=0.00392) == []


def test_the_advice_replaces_a_scale_that_is_set() -> None:
    (sentence,) = report(sensor(-24.9, 2.9, 64, lambda i: i), scale=0.1)
    assert "set intensity_scale to 1" in sentence


def test_a_factor_that_was_tried_in_vain_is_not_advised() -> None:
    cloud = sensor(-24.9, 2.9, 64, lambda i: i * 255)
    monitor = DomainMonitor(INFO)
    monitor.add(CloudView(cloud, project(cloud, INFO.input.geometry), 1.0))
    factor = monitor.untried_factor()
    assert factor == pytest.approx(1 / 255)
    monitor.tried(factor, better=False)
    assert monitor.untried_factor() is None
    (sentence,) = monitor.report()
    assert "was tried and does not help" in sentence
    assert "set intensity_scale" not in sentence


def test_a_model_of_ranks_needs_no_scale_and_one_of_level_clouds_no_frame() -> None:
    ranks = dataclasses.replace(INFO.input, intensity=dataclasses.replace(INFO.input.intensity, ranks=True))
    assert report(sensor(-24.9, 2.9, 64, lambda i: i * 255), dataclasses.replace(INFO, input=ranks)) == []


@pytest.mark.parametrize(("roll_deg", "named"), [(12.0, False), (30.0, True)])
def test_a_model_of_level_clouds_hears_of_a_tilt_that_is_more_than_can_be_put_level(roll_deg: float, named: bool) -> None:
    azimuth, inclination = np.meshgrid(np.linspace(-3.1, 3.1, 600), np.radians(np.linspace(-40.0, 15.0, 64)))
    direction = np.stack([np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination), np.sin(inclination)], -1)
    reach = np.where(direction[..., 2] < 0, 1.8 / np.maximum(-direction[..., 2], 1e-3), 20.0).clip(max=20.0)
    street = (direction * reach[..., None]).reshape(-1, 3) @ rotation(roll_deg, 0, 0).T
    level = dataclasses.replace(INFO, input=dataclasses.replace(INFO.input, level=True))
    found = [sentence for sentence in report(make_cloud(street, np.full(len(street), 0.2)), level) if "tilted" in sentence]
    assert [f"set rotation_rpy_deg to {-roll_deg:.0f} 0 0" in sentence for sentence in found] == [True] * named


def test_a_model_of_level_clouds_hears_of_a_height_that_another_unit_would_explain_and_is_no_less_trusted() -> None:
    azimuth, inclination = np.meshgrid(np.linspace(-3.1, 3.1, 600), np.radians(np.linspace(-24.0, 2.0, 64)))
    direction = np.stack([np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination), np.sin(inclination)], -1)
    reach = np.where(direction[..., 2] < 0, 1.8 / np.maximum(-direction[..., 2], 1e-3), 20.0).clip(max=20.0)
    cloud = make_cloud((direction * reach[..., None]).reshape(-1, 3) / 0.3048, np.full(direction[..., 0].size, 0.2))
    level = dataclasses.replace(INFO, input=dataclasses.replace(INFO.input, level=True))
    monitor = DomainMonitor(level)
    monitor.add(CloudView(cloud, project(cloud, level.input.geometry), 1.0))
    assert monitor.geometry() == []
    assert "or lengths in feet (then unit_m is 0.3048)" in monitor.report()[0]


def test_missing_intensity() -> None:
    cloud = sensor(-24.9, 2.9, 64, lambda i: i)
    (sentence,) = report(make_cloud(cloud.xyz))
    assert "this cloud has none" in sentence
    grey = dataclasses.replace(INFO, input=dataclasses.replace(INFO.input, channels=("range",), mean=(10.0,), std=(10.0,)))
    assert report(make_cloud(cloud.xyz), grey) == []


def test_only_recent_clouds_count() -> None:
    monitor = DomainMonitor(INFO)
    for high, expected in ((15.0, 1), (2.9, 0)):
        cloud = sensor(-24.9, high, 128, lambda i: i)
        for _ in range(10):
            monitor.add(CloudView(cloud, project(cloud, INFO.input.geometry), 1.0))
        assert len(monitor.report()) == expected


def test_clouds_without_a_usable_point_say_nothing() -> None:
    assert report(make_cloud(np.full((100, 3), np.nan), np.zeros(100))) == []
    assert report(make_cloud(np.zeros((0, 3)), np.zeros(0))) == []


def test_unknown_statistics_are_not_compared() -> None:
    unknown = dataclasses.replace(INFO, statistics=TrainingStatistics())
    assert report(sensor(-24.9, 2.9, 16, lambda i: i * 255), unknown) == []
