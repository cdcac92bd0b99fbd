# SPDX-License-Identifier: Apache-2.0
"""`weakseg doctor` finds what is wrong, and says what to do; notes alone are not a fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from support import optional

optional("onnxruntime")
optional("rosbags")

from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.importer import ImportConfig, import_bag
from weakseg_ros.doctor import main
from weakseg_ros.points.cloud import Cloud
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import load_sensor

known_machine = pytest.mark.usefixtures("known_machine")
TOLD_OF_VALUES = ("--bundle", "models/street64")
"""a bundle that intensity on another scale misleads"""


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
    assert "street" in out
    assert "No fault was found" in out


@known_machine
def test_a_missing_model_is_a_fault_with_its_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--bundle", str(tmp_path / "absent")]) == 1
    assert "fault  model             " in (out := capsys.readouterr().out)
    assert "there is no such folder" in out


@known_machine
def test_a_sensor_with_another_intensity_scale_is_told_the_factor(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [dataclasses.replace(cloud, intensity=cloud.intensity * 255) for cloud in clouds]
    bag = str(write_bag(tmp_path / "loud", loud))
    assert main(["--data", bag, "--topic", "/points", *TOLD_OF_VALUES]) == 1
    assert "intensity_scale to 0.00392" in capsys.readouterr().out
    assert main(["--data", bag, "--topic", "/points"]) == 0, "the default is told of ranks, which no scale changes"
    assert "intensity_scale" not in capsys.readouterr().out


@known_machine
def test_a_sensor_that_looks_elsewhere_is_told_the_share_without_a_class(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = [dataclasses.replace(cloud, xyz=cloud.xyz[:, [2, 1, 0]].copy()) for cloud in clouds]
    # street answers beyond its image's edge, where the rows are spread; street64 does not
    main(["--data", str(write_bag(tmp_path / "turned", turned)), "--bundle", "street64"])
    assert "of its points get no class" in capsys.readouterr().out


@known_machine
def test_a_bag_without_the_topic_names_those_it_has(clouds: list[Cloud], tmp_path: Path) -> None:
    from weakseg_ros.cli import main as weakseg

    bag = write_bag(tmp_path / "bag", clouds[:1])
    assert weakseg(["doctor", "--data", str(bag), "--topic", "/velodyne"]) == 2


def unreadable(bag: Path, names: dict[int, str]) -> Path:
    """A bag of clouds whose message of some indices names its fields a, b, c."""
    from rosbags import rosbag2
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types, kind = store.types, "sensor_msgs/msg/PointCloud2"
    header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id="lidar")
    points = np.random.default_rng(0).uniform(-20, 20, (500, 4)).astype("<f4")
    with rosbag2.Writer(bag, version=8, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/points", kind, typestore=store)
        for index in range(3):
            fields = [types["sensor_msgs/msg/PointField"](n, 4 * i, 7, 1) for i, n in enumerate(names.get(index, "xyzi"))]
            sizes = {"height": 1, "width": 500, "point_step": 16, "row_step": 8000, "is_bigendian": False, "is_dense": True}
            message = types[kind](header=header, fields=fields, data=points.reshape(-1).view(np.uint8), **sizes)
            writer.write(connection, index, store.serialize_cdr(message, kind))
    return bag


@known_machine
@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (range(3), "3 of 3 clouds cannot be read: PointCloud2: no field 'x' or 'y' or 'z' (has a, b, c, d)"),
        ((1, 2), "2 of 3 clouds cannot be read: PointCloud2: no field 'x'"),
    ],
)
def test_clouds_that_cannot_be_read_are_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: Sequence[int], text: str
) -> None:
    assert main(["--data", str(unreadable(tmp_path / "bag", dict.fromkeys(bad, "abcd")))]) == 1
    out = capsys.readouterr().out
    assert f"fault  sensor            {text}" in out
    assert "No fault was found" not in out
    assert "look like" not in out


@known_machine
def test_the_readable_part_of_a_cut_bag_is_checked(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [dataclasses.replace(cloud, intensity=cloud.intensity * 255) for cloud in clouds]
    bag = write_bag(tmp_path / "loud", loud)
    blob = (bag / "loud.mcap").read_bytes()
    (bag / "loud.mcap").write_bytes(blob[: int(len(blob) * 0.8)])
    assert main(["--data", str(bag), *TOLD_OF_VALUES]) == 1
    out = capsys.readouterr().out
    assert "loud.mcap is cut off or damaged; 2 of 3 messages" in out
    assert "intensity_scale to 0.00392" in out


@known_machine
def test_a_note_on_the_sensor_is_not_followed_by_nothing_is_wrong(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [dataclasses.replace(cloud, intensity=cloud.intensity * 255) for cloud in clouds]
    assert main(["--data", str(write_bag(tmp_path / "loud", loud)), *TOLD_OF_VALUES]) == 1
    out = capsys.readouterr().out
    assert "No fault was found" not in out
    assert "street64 on" in out
    assert "of 1: only" in out, "the fit is low, and says why"


@known_machine
def test_a_sensor_none_of_whose_points_gets_a_class_is_a_fault(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = [dataclasses.replace(cloud, xyz=cloud.xyz * 1000) for cloud in clouds]
    assert main(["--data", str(write_bag(tmp_path / "far", far))]) == 1
    assert "no point of 3 clouds gets a class" in capsys.readouterr().out


@known_machine
@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (("map", "map", "map"), "note  sensor            frame 'map' is that of a map"),
        (("front", "rear", "front"), "note  sensor            the clouds come in 2 frames ('front', 'rear')"),
    ],
)
def test_odd_frames_are_told(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str], frames: tuple[str, ...], text: str
) -> None:
    named = [dataclasses.replace(cloud, frame_id=frame) for cloud, frame in zip(clouds, frames, strict=True)]
    bag = write_bag(tmp_path / "named", named)
    assert main(["--data", str(bag)]) == 0
    assert text in capsys.readouterr().out
    report = import_bag(ImportConfig(bag, out=tmp_path / "scans"))
    assert any("is that of a map" in note for note in report.notes) == ("map" in frames)


@known_machine
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda xyz: xyz * [1, 1, 0], "all points lie at the height of the origin: a scanner of one plane"),
        (
            lambda xyz: xyz * [1, -1, -1],
            "the ground lies above the sensor, so it is mounted upside down; set rotation_rpy_deg to 180 0 0",
        ),
        (lambda xyz: xyz * 1000, "millimetres instead of metres? set unit_m to 0.001"),
        (lambda xyz: xyz[:, [1, 2, 0]] * [-1, -1, 1], "a camera's optical frame; set rotation_rpy_deg to -90 0 -90"),
        (lambda xyz: xyz + np.array([350, -120, 12]), "not in its sensor's frame (map?)"),
    ],
)
def test_a_wrong_geometry_is_a_fault_with_what_mends_it(
    clouds: list[Cloud], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[np.ndarray], np.ndarray], text: str
) -> None:
    moved = [dataclasses.replace(cloud, xyz=change(cloud.xyz).astype(np.float32)) for cloud in clouds]
    assert main(["--data", str(write_bag(tmp_path / "moved", moved))]) == 1
    out = capsys.readouterr().out
    assert text in out
    remedy = {"180 0 0": ["--rotation-rpy-deg", "180", "0", "0"], "0.001": ["--unit-m", "0.001"]}
    for advice, options in remedy.items():
        if text.endswith(advice):
            assert main(["--data", str(tmp_path / "moved"), *options]) == 0
            assert text not in capsys.readouterr().out
