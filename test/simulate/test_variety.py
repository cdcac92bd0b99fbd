# SPDX-License-Identifier: Apache-2.0
"""Varied streets and sensors: another one for each seed, the same one for the same seed, plain streets as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.simulate.drive import SimulateConfig, scan_at
from weakseg_ros.simulate.kits import VEGETATION
from weakseg_ros.simulate.record import RecordConfig
from weakseg_ros.simulate.street import build_street
from weakseg_ros.simulate.variety import DRAWN, clipped_hedge, draw_sensor, draw_shift


def test_every_street_has_its_own_sensor_and_the_same_one_again() -> None:
    sensors = [draw_sensor(seed) for seed in range(40)]
    assert sensors == [draw_sensor(seed) for seed in range(40)]
    assert len({sensor.mount_height_m for sensor in sensors}) == 40
    assert len({len(sensor.beams_deg) for sensor in sensors}) >= 3
    for sensor in sensors:
        assert (np.diff(sensor.beams_deg) < 0).all()
        assert 0.5 <= sensor.mount_height_m <= 3.3


def test_a_varied_street_holds_more_and_brightens_differently_and_repeats() -> None:
    plain, varied = build_street(5), build_street(5, varied=True)
    assert len(varied.parts) > len(plain.parts)
    assert not np.allclose(varied.ground.albedo, plain.ground.albedo)
    np.testing.assert_array_equal(varied.parts, build_street(5, varied=True).parts)


def test_the_recording_draws_a_sensor_for_each_street() -> None:
    config = RecordConfig(out=Path("nowhere"), sensor=DRAWN, varied=True, streets=3, columns=128, scans_per_street=1)
    drives = config.drives()
    assert len({drive.sensor.mount_height_m for drive in drives}) == 3
    assert [drive.shift for drive in drives] == [draw_shift(seed) for seed in range(3)]
    scan = scan_at(build_street(0, drives[0].varied), drives[0], 0)
    assert scan.cloud.width == 128
    assert scan.cloud.valid.mean() > 0.2


@pytest.mark.parametrize("seed", range(3))
def test_a_clipped_hedge_is_vegetation_and_dense(seed: int) -> None:
    hedge = clipped_hedge(np.random.default_rng(seed), 8.0)
    assert (hedge["raw"] == VEGETATION).all()
    assert hedge["density"][0] >= 8.0


def test_settings_of_a_varied_drive_are_part_of_what_identifies_it() -> None:
    assert SimulateConfig(1, 1) != SimulateConfig(1, 1, varied=True)
