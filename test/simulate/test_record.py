# SPDX-License-Identifier: Apache-2.0
"""`weakseg simulate`: what it writes reads back, on one process or two."""

from __future__ import annotations

import numpy as np
import pytest

from weakseg_ros.cli import main
from weakseg_ros.data.bags import read_clouds
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import ConfigError
from weakseg_ros.simulate.drive import SimulateConfig, scan_at
from weakseg_ros.simulate.record import RecordConfig, record
from weakseg_ros.simulate.street import build_street

SENSOR = "name: tiny\nbeams: 12\ncolumns: 90\nmount_height_m: 1.6\n"


@pytest.fixture
def sensor(tmp_path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(SENSOR)
    return str(path)


def test_scans_and_bag_read_back_as_they_were_simulated(tmp_path, sensor, capsys):
    out, bag = tmp_path / "sim", tmp_path / "bag"
    arguments = ["--out", str(out), "--bag", str(bag), "--seed", "4", "--streets", "2", "--scans", "3", "--sensor", sensor]
    assert main(["simulate", *arguments, "--workers", "1", "--topic", "/roof/points"]) == 0
    assert "weakseg train" in capsys.readouterr().out
    scans = open_scans(out)
    assert list(scans.keys) == [f"street_000{s}/00000{i}" for s in (4, 5) for i in range(3)]
    assert (scans.spec.height, scans.spec.width, scans.intensity_full_scale) == (12, 90, 1.0)
    config = RecordConfig(out=out, seed=4, streets=2, scans_per_street=3, sensor=sensor).drives()[1]
    truth = scan_at(build_street(5), config, 1)
    scan = scans[4]
    np.testing.assert_array_equal(scan.cloud.xyz, truth.cloud.xyz)
    np.testing.assert_array_equal(scan.cloud.intensity, truth.cloud.intensity)
    np.testing.assert_array_equal(scan.class_id, scans.labels.to_class(truth.raw_label))
    np.testing.assert_array_equal(scan.instance_id, truth.raw_label >> 16)
    np.testing.assert_allclose(scan.pose, truth.pose, atol=1e-9)
    assert (scan.cloud.height, scan.cloud.width) == (12, 90)
    clouds = list(read_clouds(bag, "/roof/points"))
    assert len(clouds) == 6
    assert (np.diff([stamp for stamp, _ in clouds]) == 100_000_000).all()
    np.testing.assert_array_equal(clouds[4][1].xyz, truth.cloud.xyz)


def test_processes_change_nothing(tmp_path, sensor):
    for workers in (1, 2):
        config = RecordConfig(out=tmp_path / str(workers), scans_per_street=5, sensor=sensor, workers=workers, stride=4)
        assert record(config) == 5
    one, two = open_scans(tmp_path / "1"), open_scans(tmp_path / "2")
    assert one.content_hash == two.content_hash
    assert len(one) == 5


def test_columns_replace_the_sensors_own(tmp_path, sensor):
    drive = RecordConfig(out=tmp_path, sensor=sensor, columns=40).drives()[0]
    assert drive.sensor.columns == 40
    assert scan_at(build_street(0), SimulateConfig(0, sensor=drive.sensor), 0).cloud.width == 40


def test_a_folder_that_holds_scans_is_not_touched_without_leave(tmp_path, sensor, capsys):
    arguments = ["simulate", "--out", str(tmp_path / "sim"), "--scans", "1", "--sensor", sensor, "--workers", "1"]
    assert main(arguments) == 0
    before = open_scans(tmp_path / "sim").content_hash
    assert main([*arguments, "--seed", "1"]) == 2
    assert open_scans(tmp_path / "sim").content_hash == before
    assert main([*arguments, "--seed", "1", "--streets", "2"]) == 2
    assert "is a single recording" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1", "--overwrite"]) == 0
    assert open_scans(tmp_path / "sim").content_hash != before


def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, capsys):
    with pytest.raises(ConfigError, match="nothing would be written"):
        RecordConfig()
    out = tmp_path / "sim"
    for arguments, text in (
        (["--scans", "100000"], "use at most"),
        (["--sensor", "vlp15"], "did you mean 'vlp16'"),
        (["--streets", "0"], "streets: 0 is outside"),
    ):
        assert main(["simulate", "--out", str(out), *arguments]) == 2
        assert text in capsys.readouterr().err
    assert not out.exists()
