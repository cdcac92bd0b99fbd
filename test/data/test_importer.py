# SPDX-License-Identifier: Apache-2.0
"""`weakseg import`: a bag becomes scans that open again, and nothing is left out in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros import cli
from weakseg_ros.data.bag_messages import header_values
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.importer import ImportConfig, guess_spec, import_bag
from weakseg_ros.data.places import ODOMETRY
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError
from weakseg_ros.points.cloud import Cloud, make_cloud
from weakseg_ros.points.projection import RangeSpec

START_NS = 1_700_000_000_000_000_000
HEIGHT, WIDTH = 16, 3600
"""large enough that every message has a chunk of the mcap file for itself"""


def sweep(index: int = 0, height: int = HEIGHT, width: int = WIDTH, sector_deg: float = 360.0) -> Cloud:
    """An organised sweep of a room at -15 to +15 degrees, top row first, with every tenth return missing."""
    inclination = np.radians(np.linspace(15, -15, height))[:, None]
    azimuth = np.radians(np.linspace(sector_deg / 2, -sector_deg / 2, width, endpoint=False))[None, :]
    direction = [np.cos(inclination) * np.cos(azimuth), np.cos(inclination) * np.sin(azimuth), np.sin(inclination) + 0 * azimuth]
    xyz = (10.0 + index) * np.stack(direction, -1).reshape(-1, 3)
    xyz[::10] = 0
    ring = np.repeat(np.arange(height), width)
    return make_cloud(xyz, np.full(len(xyz), 0.5), ring, height=height, stamp_ns=START_NS + index * 100_000_000, frame_id="lidar")


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Five sweeps, and an empty cloud in third place."""
    path = tmp_path / "drive"
    with CloudBagWriter(path, "/points") as writer:
        for i in range(6):
            writer.write(make_cloud(np.zeros((0, 3)), stamp_ns=START_NS + 200_000_000) if i == 2 else sweep(i))
    return path


def test_scans_open_again(bag: Path, tmp_path: Path) -> None:
    report = import_bag(ImportConfig(bag, out=tmp_path / "scans"))
    assert (report.written, dict(report.skipped), report.damage) == (5, {"empty": 1}, "")
    scans = open_scans(tmp_path / "scans")
    assert len(scans) == 5
    scan = scans[2]
    np.testing.assert_array_equal(scan.cloud.xyz, sweep(3).xyz)
    assert (scan.cloud.height, scan.cloud.width, scan.cloud.stamp_ns) == (HEIGHT, WIDTH, sweep(3).stamp_ns)
    assert scan.class_id is None
    assert not (tmp_path / "scans" / "labels").exists(), "there are none"
    assert (scans.spec.height, scans.spec.width) == (HEIGHT, WIDTH)


def write_with_odometry(path: Path) -> Path:
    """Three small sweeps 0.1 s apart and one long after; a body drives 2 m and turns by 0.5 rad a second, told every 0.05 s."""
    with CloudBagWriter(path, "/points") as writer:
        for i in range(5):
            stamp_ns = START_NS + i * 50_000_000
            if i % 2 == 0:
                writer.write(dataclasses.replace(sweep(height=4, width=90), stamp_ns=stamp_ns))
            half = 0.25 * i * 0.05
            sign = -1.0 if i == 1 else 1.0  # the same turn, written the other way
            turn = {"z": sign * float(np.sin(half)), "w": sign * float(np.cos(half))}
            pose = {"position": {"x": 0.1 * i}, "orientation": turn}
            values = {"header": header_values(stamp_ns - 20_000_000, "odom"), "pose": {"pose": pose}}
            writer.write_values("/odom", ODOMETRY, stamp_ns, values)
        writer.write(dataclasses.replace(sweep(height=4, width=90), stamp_ns=START_NS + 10**10))  # long after the last pose
    return path


def test_odometry_gives_each_scan_its_pose(tmp_path: Path) -> None:
    bag = write_with_odometry(tmp_path / "bag")
    report = import_bag(ImportConfig(bag, out=tmp_path / "scans", odometry="/odom", odometry_extrinsic="0 1 0 0 0 0"))
    assert (report.written, dict(report.skipped)) == (3, {"without odometry": 1})
    scans = open_scans(tmp_path / "scans")
    for number in range(2):  # 20 ms after the last pose there is no later one to look towards
        pose, seconds = scans[number].pose, 0.1 * number + 0.02
        assert pose is not None
        angle = 0.5 * seconds
        np.testing.assert_allclose(pose[:2, 0], [np.cos(angle), np.sin(angle)], atol=1e-4)
        np.testing.assert_allclose(pose[:2, 3], [2 * seconds - np.sin(angle), np.cos(angle)], atol=1e-4)


def test_points_that_are_turned_keep_their_pose(tmp_path: Path) -> None:
    """A wall lies where it lay, however the sensor is said to be mounted."""
    bag = write_with_odometry(tmp_path / "bag")
    walls = []
    for number, turned in enumerate(({}, {"rotation_rpy_deg": (0.0, 0.0, 90.0), "translation_m": (1.0, 2.0, 3.0)})):
        import_bag(ImportConfig(bag, out=tmp_path / f"scans{number}", odometry="/odom", **turned))  # type: ignore[arg-type]
        scan = open_scans(tmp_path / f"scans{number}")[1]
        assert scan.pose is not None
        xyz = scan.cloud.xyz[np.arange(len(scan.cloud)) % 10 > 0]
        walls.append(xyz @ scan.pose[:3, :3].T + scan.pose[:3, 3])
    np.testing.assert_allclose(walls[0], walls[1], atol=1e-3)


def test_odometry_that_is_not_there_is_named(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no topic '/odom' of nav_msgs/msg/Odometry; its topics of this type: none"):
        import_bag(ImportConfig(bag, out=tmp_path / "scans", odometry="/odom"))
    assert not (tmp_path / "scans").exists()


def test_every_and_limit(bag: Path, tmp_path: Path) -> None:
    report = import_bag(ImportConfig(bag, out=tmp_path / "scans", every=3, limit=1))
    assert report.written == len(open_scans(tmp_path / "scans")) == 1


def test_command_line(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scans"
    assert cli.main(["import", str(bag), "--topic", "/points", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "left out: 1 empty" in printed
    assert f"5 scans in {out}" in printed
    assert f"next: weakseg evaluate {out}" in printed
    assert cli.main(["import", str(bag), "--topic", "/point", "--out", str(out)]) == 2
    assert "did you mean '/points'?" in capsys.readouterr().err


def test_cut_bag_gives_a_part_and_exit_code_1(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bag / "drive.mcap"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.7)])
    out = tmp_path / "scans"
    assert cli.main(["import", str(bag), "--out", str(out)]) == 1
    assert "incomplete: " in capsys.readouterr().out
    assert len(open_scans(out)) == 3


def test_clouds_of_which_none_is_usable(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with CloudBagWriter(path) as writer:
        writer.write(make_cloud(np.zeros((0, 3))))
    with pytest.raises(DataError, match=r"topic '/points' has no usable cloud \(1 empty\)"):
        import_bag(ImportConfig(path, out=tmp_path / "scans"))


def test_wrong_intensity_field_is_counted_once_logged_once(bag: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match=r"5 no_intensity.*1 empty|1 empty.*5 no_intensity"):
        import_bag(ImportConfig(bag, out=tmp_path / "scans", intensity_field="reflectivity"))
    assert caplog.text.count("no field 'reflectivity'") == 1


@pytest.mark.parametrize(
    ("cloud", "size", "fov"),
    [
        (sweep(), (16, 3600), (16.0, -16.0, 180.0, -180.0)),
        (sweep(height=8, width=200, sector_deg=90), (8, 200), (16.0, -16.0, 46.0, -46.0)),
        (make_cloud(sweep(height=32, width=1000).xyz, ring=np.arange(32000) // 1000), (32, 1024), (16.0, -16.0, 180.0, -180.0)),
        (make_cloud(sweep().xyz), (64, 2048), (16.0, -16.0, 180.0, -180.0)),
    ],
)
def test_image_that_suits_the_sensor(cloud: Cloud, size: tuple[int, int], fov: tuple[float, ...]) -> None:
    spec = guess_spec(cloud)
    assert (spec.height, spec.width) == size
    np.testing.assert_allclose((spec.fov_up_deg, spec.fov_down_deg, spec.fov_left_deg, spec.fov_right_deg), fov, atol=0.6)


def test_image_without_any_point() -> None:
    assert guess_spec(make_cloud(np.full((5, 3), np.nan))) == RangeSpec()
    assert guess_spec(make_cloud([[0, 0, 3]])).fov_up_deg == 90


def test_what_is_odd_about_the_clouds_is_said_at_once(tmp_path: Path) -> None:
    millimetres = dataclasses.replace(sweep(), xyz=sweep().xyz * np.float32(1000))
    nothing = make_cloud(np.full((9, 3), np.nan), stamp_ns=START_NS)
    for name, cloud, text in (
        ("unit", millimetres, "set unit_m to 0.001"),
        ("nothing", nothing, "no point of the first cloud is usable"),
        ("dark", make_cloud(sweep().xyz, stamp_ns=START_NS), "--intensity-field names it"),
    ):
        with CloudBagWriter(tmp_path / name, "/points") as writer:
            if name == "dark":
                points = np.zeros(len(cloud), [(axis, "<f4") for axis in "xyz"])
                for number, axis in enumerate("xyz"):
                    points[axis] = cloud.xyz[:, number]
                writer.write_points("/points", points, cloud)
            else:
                writer.write(cloud)
        report = import_bag(ImportConfig(tmp_path / name, out=tmp_path / f"{name}_scans"))
        assert any(text in note for note in report.notes), report.notes
    (left,) = import_bag(ImportConfig(tmp_path / "unit", out=tmp_path / "metres", unit_m=0.001)).notes
    assert "is 0.5 in all points" in left, "only that nothing measured the intensity"


def test_clouds_that_cannot_be_read_are_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with CloudBagWriter(tmp_path / "drive", "/points") as writer:
        writer.write(sweep())
        writer.write_points("/points", np.zeros(5, [("a", "<f4")]), make_cloud(np.ones((5, 3)), stamp_ns=START_NS + 1))
    assert cli.main(["import", str(tmp_path / "drive"), "--out", str(tmp_path / "scans")]) == 1
    assert "left out: 1 no_xyz" in capsys.readouterr().out
    assert "no field 'x'" in caplog.text
    assert len(open_scans(tmp_path / "scans")) == 1


def test_a_path_that_is_empty_is_not_the_current_folder(
    bag: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bag)
    assert cli.main(["import", ""]) == 2
    assert "no data is given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("intensity", "told"),
    [
        (np.zeros(500), "field 'intensity' is 0 in all points of the first cloud"),
        (np.full(500, np.nan), "field 'intensity' is 0 in all points of the first cloud"),
        (np.linspace(-3, 1, 500), "field 'intensity' is below 0 in 75% of the points of the first cloud"),
        (np.linspace(0, 1, 500), ""),
    ],
)
def test_an_intensity_that_nothing_measured_is_told(tmp_path: Path, intensity: np.ndarray, told: str) -> None:
    """Simulators write 0 or what is not a number, and some drivers levels below 0."""
    xyz = np.random.default_rng(0).uniform(2, 20, (500, 3))
    with CloudBagWriter(tmp_path / "bag", "/points") as bag:
        bag.write(make_cloud(xyz, intensity, stamp_ns=1, frame_id="lidar"))
    notes = import_bag(ImportConfig(tmp_path / "bag", out=tmp_path / "scans")).notes
    assert [note for note in notes if "'intensity'" in note and (told and told in note)] == notes[-1:] * bool(told)
    assert any("'intensity'" in note for note in notes) == bool(told)
