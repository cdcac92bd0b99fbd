# SPDX-License-Identifier: Apache-2.0
"""`weakseg import`: a bag becomes scans that open again, and nothing is left out in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from weakseg_ros import cli
from weakseg_ros.data.bags import CloudBagWriter
from weakseg_ros.data.importer import ImportConfig, guess_spec, import_bag
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
