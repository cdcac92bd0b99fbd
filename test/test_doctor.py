# SPDX-License-Identifier: Apache-2.0
"""`weakseg doctor` finds what is wrong, and says what to do; notes alone are not a fault."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="no engine is installed")
pytest.importorskip("rosbags", reason="rosbags is not installed")

from weakseg_ros.data.bags import CloudBagWriter
from weakseg_ros.doctor import main
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor


@pytest.fixture(scope="module")
def clouds() -> list[Cloud]:
    sensor = dataclasses.replace(load_sensor("generic64"), columns=512)
    return [scan.cloud for scan in simulate(SimulateConfig(seed=7, scans=3, stride=10, sensor=sensor))]


def write_bag(folder: Path, clouds: list[Cloud]) -> Path:
    with CloudBagWriter(folder, "/points") as writer:
        for cloud in clouds:
            writer.write(cloud)
    return folder


def test_a_sound_machine_has_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "street64" in out
    assert "Nothing is wrong" in out


def test_a_missing_model_is_a_fault_with_its_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--bundle", str(tmp_path / "absent")]) == 1
    assert "fault  model             " in (out := capsys.readouterr().out)
    assert "there is no such folder" in out


def test_a_sensor_with_another_intensity_scale_is_told_the_factor(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [dataclasses.replace(cloud, intensity=cloud.intensity * 255) for cloud in clouds]
    assert main(["--data", str(write_bag(tmp_path / "loud", loud)), "--topic", "/points"]) == 0
    assert "intensity_scale to 0.00392" in capsys.readouterr().out


def test_a_sensor_that_looks_elsewhere_is_told_the_share_without_a_class(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = [dataclasses.replace(cloud, xyz=cloud.xyz[:, [2, 1, 0]].copy()) for cloud in clouds]
    main(["--data", str(write_bag(tmp_path / "turned", turned))])
    assert "of its points get no class" in capsys.readouterr().out


def test_a_bag_without_the_topic_names_those_it_has(clouds: list[Cloud], tmp_path: Path) -> None:
    from weakseg_ros.cli import main as weakseg

    bag = write_bag(tmp_path / "bag", clouds[:1])
    assert weakseg(["doctor", "--data", str(bag), "--topic", "/velodyne"]) == 2
