# SPDX-License-Identifier: Apache-2.0
"""Sensor models: their files, their range images, their noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from weakseg_ros.errors import ConfigError
from weakseg_ros.points.projection import project
from weakseg_ros.simulate.drive import SimulateConfig, ego_pose, scan_at
from weakseg_ros.simulate.lidar import SensorModel, Shift, load_sensor
from weakseg_ros.simulate.street import Street, build_street

SENSORS = sorted(["generic64", "generic128", "hdl64e", "os0_32", "os1_64", "os1_128", "vlp16", "vlp32c", "yard16"])
SMALL = SensorModel(beams=16, columns=180, fov_up_deg=2.0, fov_down_deg=-24.0)


@pytest.fixture(scope="module")
def street() -> Street:
    return build_street(5)


def take(street: Street, sensor: SensorModel = SMALL, index: int = 40, **shift: float):
    return scan_at(street, SimulateConfig(street.seed, sensor=sensor, shift=Shift(**shift)), index)


def test_every_shipped_sensor_is_listed_here(root):
    assert [path.stem for path in sorted((root / "config" / "sensors").glob("*.yaml"))] == sorted(SENSORS)


@pytest.mark.parametrize("name", SENSORS)
def test_points_lie_on_their_beam_and_column_and_in_their_pixel(street, name):
    sensor = dataclasses.replace(load_sensor(name), columns=90)
    assert sensor.name == name
    scan = take(street, sensor)
    cloud, valid = scan.cloud, scan.cloud.valid
    assert (cloud.height, cloud.width) == (len(sensor.beams_deg), 90)
    assert 0.2 < valid.mean() < 1
    x, y, z = cloud.xyz[valid].T.astype(np.float64)
    row, column = np.divmod(np.flatnonzero(valid), 90)
    np.testing.assert_allclose(np.degrees(np.arctan2(z, np.hypot(x, y))), sensor.beams_deg[row], atol=0.01)
    step = (sensor.fov_left_deg - sensor.fov_right_deg) / 90
    np.testing.assert_allclose(np.degrees(np.arctan2(y, x)), sensor.fov_left_deg - (column + 0.5) * step, atol=0.01)
    np.testing.assert_array_equal(cloud.ring, np.repeat(np.arange(cloud.height), 90))
    spec = sensor.range_spec()
    owners = project(cloud, spec).pixel_of_point
    if spec.rows == "ring" or not sensor.inclinations_deg:
        np.testing.assert_array_equal(owners[valid], np.flatnonzero(valid))
    else:
        assert (owners[valid] >= 0).all()


@pytest.mark.parametrize("name", SENSORS)
def test_ranges_and_intensities_keep_their_bounds(street, name):
    sensor = dataclasses.replace(load_sensor(name), columns=120)
    cloud = take(street, sensor).cloud
    reach = np.linalg.norm(cloud.xyz[cloud.valid], axis=1)
    assert reach.min() >= sensor.range_min_m * 0.9999
    assert reach.max() <= sensor.range_max_m * 1.0001
    assert (cloud.xyz[~cloud.valid] == 0).all()
    assert (cloud.intensity[~cloud.valid] == 0).all()
    assert cloud.intensity.max() <= sensor.intensity_full_scale
    assert cloud.intensity.max() > 0.1 * sensor.intensity_full_scale
    assert cloud.intensity_full_scale == sensor.intensity_full_scale


def test_noise_has_the_stated_spread(street):
    quiet = take(street, dataclasses.replace(SMALL, range_noise_m=0.0))
    noisy = take(street, dataclasses.replace(SMALL, range_noise_m=0.05))
    both = quiet.cloud.valid & noisy.cloud.valid & ((quiet.raw_label & 0xFFFF) == 40)
    away = np.linalg.norm(noisy.cloud.xyz, axis=1) - np.linalg.norm(quiet.cloud.xyz, axis=1)
    assert both.sum() > 300
    assert away[both].std() == pytest.approx(0.05, rel=0.15)
    assert abs(away[both].mean()) < 0.01


def test_losses_are_as_frequent_as_asked(street):
    none = take(street, dataclasses.replace(SMALL, drop_probability=0.0)).cloud.valid
    some = take(street, dataclasses.replace(SMALL, drop_probability=0.2)).cloud.valid
    more = take(street, dataclasses.replace(SMALL, drop_probability=0.2), extra_drop=0.5).cloud.valid
    assert some.sum() / none.sum() == pytest.approx(0.8, abs=0.03)
    assert more.sum() / none.sum() == pytest.approx(0.4, abs=0.03)


def test_fog_night_and_rain_change_what_they_say(street):
    clear, fog = take(street), take(street, attenuation_per_m=0.05)
    far = np.linalg.norm(clear.cloud.xyz[clear.cloud.valid], axis=1).max()
    assert np.linalg.norm(fog.cloud.xyz[fog.cloud.valid], axis=1).max() < 0.75 * far
    dim = take(street, intensity_gain=0.5)
    bright = clear.cloud.intensity > 0.1
    assert np.median(dim.cloud.intensity[bright] / clear.cloud.intensity[bright]) == pytest.approx(0.5, abs=0.03)
    rain = take(street, clutter=0.3)
    drops = (rain.raw_label & 0xFFFF) == 1
    assert 0.05 < drops.mean() < 0.3
    assert np.linalg.norm(rain.cloud.xyz[drops], axis=1).max() < 9.2
    assert not ((clear.raw_label & 0xFFFF) == 1).any()


def test_the_vehicle_hides_the_ground_before_and_behind_it(street):
    low = dataclasses.replace(SMALL, fov_down_deg=-40.0, drop_probability=0.0)
    seen = take(street, low).cloud
    bare = take(street, dataclasses.replace(low, vehicle_m=(0.0, 0.0, 0.0))).cloud
    x, y, z = bare.xyz.T
    hidden = bare.valid & ~seen.valid
    assert hidden.sum() > 20
    reach = (low.mount_height_m - low.vehicle_m[2]) / -z[hidden]
    assert (np.abs(x[hidden] * reach) <= low.vehicle_m[0] / 2 + 0.05).all()
    assert (np.abs(y[hidden] * reach) <= low.vehicle_m[1] / 2 + 0.05).all()


def test_oblique_beams_see_the_road_at_the_mounting_height(street):
    scan = take(street, dataclasses.replace(SMALL, range_noise_m=0.0))
    pose = ego_pose(4.0, street, SMALL.mount_height_m)
    np.testing.assert_array_equal(scan.pose, pose)
    near = ((scan.raw_label & 0xFFFF) == 40) & (np.linalg.norm(scan.cloud.xyz, axis=1) < 8)
    assert np.median((scan.cloud.xyz[near] @ pose[:3, :3].T)[:, 2]) == pytest.approx(-SMALL.mount_height_m, abs=0.1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: load_sensor("generic46"), "did you mean 'generic64'"),
        (lambda: load_sensor("nowhere/mine.yaml"), "unknown 'nowhere/mine.yaml'"),
        (lambda: SensorModel(inclinations_deg=(-3.0, 2.0)), "must be sorted from the highest beam"),
        (lambda: SensorModel(fov_up_deg=-10.0, fov_down_deg=5.0), "must lie above"),
        (lambda: SensorModel(columns=0), "columns: 0 is outside"),
        (lambda: SensorModel(range_min_m=8.0, range_max_m=6.0), "must exceed range_min_m"),
        (lambda: SensorModel(rows="angel"), "did you mean 'angle'"),
        (lambda: SensorModel(fov_left_deg=-90.0, fov_right_deg=90.0), "must lie left of"),
    ],
)
def test_a_wrong_sensor_is_refused_with_a_reason(make, text):
    with pytest.raises(ConfigError, match=text.replace("(", r"\(")):
        make()


def test_a_sensor_of_ones_own_comes_from_its_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nbeams: 8\nmount_height_m: 0.9\n")
    sensor = load_sensor(file)
    assert (sensor.name, len(sensor.beams_deg), sensor.range_spec(512).width) == ("mine", 8, 512)
    file.write_text("hieght: 3\n")
    with pytest.raises(ConfigError, match="unknown key"):
        load_sensor(file)
