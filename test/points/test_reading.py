# SPDX-License-Identifier: Apache-2.0
"""What a model sees of a cloud whose frame, unit or intensity its message does not say rightly."""

from __future__ import annotations

import numpy as np
import pytest

from weakseg_ros.errors import ConfigError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.intensity import QUANTILES, intensity_fit, quantiles, suggest_factor
from weakseg_ros.points.reading import as_asked, as_sent, followed_by, moved, rotation

POINTS = np.random.default_rng(0).uniform(-20, 20, (200, 3)).astype(np.float32)


def test_without_settings_the_cloud_is_untouched() -> None:
    cloud = make_cloud(POINTS, np.ones(200))
    assert moved(cloud, InputSettings()) is cloud
    assert as_asked(cloud, InputSettings(intensity_field="intensity")) is cloud


@pytest.mark.parametrize(
    ("rpy_deg", "sent", "seen"),
    [
        ((180.0, 0.0, 0.0), (1, 2, 3), (1, -2, -3)),
        ((-90.0, 0.0, -90.0), (0, 0, 5), (5, 0, 0)),
        ((-90.0, 0.0, -90.0), (1, 0, 0), (0, -1, 0)),
        ((0.0, 0.0, 90.0), (1, 0, 0), (0, 1, 0)),
        ((0.0, 90.0, 0.0), (1, 0, 0), (0, 0, -1)),
    ],
)
def test_axes_are_turned_as_by_a_static_transform(rpy_deg: tuple[float, float, float], sent: object, seen: object) -> None:
    cloud = moved(make_cloud([sent]), InputSettings(rotation_rpy_deg=rpy_deg, unit_m=2.0))
    np.testing.assert_allclose(cloud.xyz[0], np.multiply(seen, 2.0), atol=1e-6)
    np.testing.assert_allclose(rotation(*rpy_deg) @ rotation(*rpy_deg).T, np.eye(3), atol=1e-12)


def test_what_was_moved_comes_back_to_where_it_was_sent() -> None:
    settings = InputSettings(mirror="y", rotation_rpy_deg=(10.0, 20.0, 30.0), unit_m=0.001, translation_m=(0.5, 0.0, -1.7))
    sent = make_cloud(POINTS)
    np.testing.assert_allclose(as_sent(moved(sent, settings), settings).xyz, sent.xyz, rtol=1e-5, atol=2e-3)
    assert as_sent(sent, InputSettings()) is sent


@pytest.mark.parametrize(("axis", "seen"), [("none", (1, 2, 3)), ("x", (-1, 2, 3)), ("y", (1, -2, 3)), ("z", (1, 2, -3))])
def test_an_axis_is_mirrored_before_the_points_are_turned(axis: str, seen: tuple[int, ...]) -> None:
    np.testing.assert_allclose(moved(make_cloud([(1, 2, 3)]), InputSettings(mirror=axis)).xyz[0], seen)
    turned = moved(make_cloud([(1, 2, 3)]), InputSettings(mirror=axis, rotation_rpy_deg=(0.0, 0.0, 90.0)))
    np.testing.assert_allclose(turned.xyz[0], (-seen[1], seen[0], seen[2]), atol=1e-6)


def test_millimetres_become_metres_and_flags_stay() -> None:
    millimetres = POINTS * 1000
    millimetres[3] = np.nan
    millimetres[4] = 0.0
    cloud = moved(make_cloud(millimetres), InputSettings(unit_m=0.001))
    np.testing.assert_allclose(cloud.xyz[5:], POINTS[5:], rtol=1e-5)
    assert list(cloud.flags[:6]) == [0, 0, 0, 1, 2, 0]


def test_a_shifted_cloud_keeps_its_non_returns_at_the_origin() -> None:
    points = POINTS.copy()
    points[4] = 0.0
    cloud = moved(make_cloud(points), InputSettings(translation_m=(1.0, 2.0, 3.0)))
    np.testing.assert_allclose(cloud.xyz[5:], points[5:] + np.array([1, 2, 3]), rtol=1e-5, atol=1e-5)
    assert not cloud.xyz[4].any()


@pytest.mark.parametrize(
    "rpy_deg", [(0.0, 0.0, 0.0), (180.0, 0.0, 0.0), (-90.0, 0.0, -90.0), (10.0, -90.0, 30.0), (5.0, 20.0, 130.0)]
)
def test_settings_followed_by_a_transform_move_as_the_two_do(rpy_deg: tuple[float, float, float]) -> None:
    settings = InputSettings(mirror="x", rotation_rpy_deg=rpy_deg, unit_m=0.5, translation_m=(1.0, 2.0, 3.0))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(30.0, -10.0, 70.0), (4.0, 5.0, -6.0)
    first = moved(make_cloud(POINTS), settings).xyz
    both = moved(make_cloud(POINTS), followed_by(settings, matrix)).xyz
    np.testing.assert_allclose(both, first @ matrix[:3, :3].T + matrix[:3, 3], atol=1e-4)


def test_no_intensity_is_fed_where_none_is_asked_for() -> None:
    cloud = as_asked(make_cloud(POINTS, np.ones(200), intensity_full_scale=255.0), InputSettings(intensity_field=""))
    assert (cloud.intensity.any(), cloud.intensity_field, cloud.intensity_full_scale) == (False, "", 0.0)


@pytest.mark.parametrize("values", [{"rotation_rpy_deg": (np.nan, 0.0, 0.0)}, {"unit_m": 0.0}, {"intensity_scale": -1.0}])
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        InputSettings(**values)


def returns(count: int = 5000, seed: int = 0) -> np.ndarray:
    """Intensities 0..1 of a scene of a few materials."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.choice([0.1, 0.2, 0.35, 0.6], count, p=[0.3, 0.4, 0.2, 0.1]) + rng.normal(0, 0.05, count), 0.01, 1)


TRAINED = quantiles(returns().astype(np.float32))


@pytest.mark.parametrize("full_scale", [100.0, 255.0, 4095.0, 65535.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_factor_of_a_usual_scale_is_found_whatever_part_of_the_data_is_seen(full_scale: float, seed: int) -> None:
    values = (returns(300, seed) * full_scale).round().astype(np.float32)
    factor = suggest_factor(values, TRAINED, 1.0)
    assert factor == 1.0 / full_scale
    assert intensity_fit(values, TRAINED) < 0.1
    assert intensity_fit(values, TRAINED, factor) > 0.8


def test_a_factor_that_does_not_help_is_not_advised() -> None:
    rng = np.random.default_rng(3)
    wide = np.exp(rng.normal(0, 6, 5000)).astype(np.float32)
    assert suggest_factor(wide, TRAINED, 1.0) is None
    assert suggest_factor(returns(seed=4).astype(np.float32), TRAINED, 1.0) is None, "it is alike already"
    assert suggest_factor(np.zeros(100, np.float32), TRAINED, 1.0) is None
    assert suggest_factor(np.zeros(0, np.float32), TRAINED, 1.0) is None


def test_fit_is_one_for_the_training_data_and_where_nothing_is_known() -> None:
    values = returns().astype(np.float32)
    assert intensity_fit(values, TRAINED) > 0.99
    assert intensity_fit(values, {}) == intensity_fit(values[:0], TRAINED) == 1.0
    assert tuple(TRAINED) == QUANTILES
    assert intensity_fit(np.full(100, 0.2, np.float32), {q: 0.2 for q in QUANTILES}) == 1.0
