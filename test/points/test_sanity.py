# SPDX-License-Identifier: Apache-2.0
"""A cloud that is upside down, in millimetres, in another frame or a part of a turn is named, with what mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.ground import find_ground
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.reading import moved, rotation
from weakseg_ros.points.sanity import AXES, LEVELLED_DEG, SIDES, Finding, findings
from weakseg_ros.points.sweeps import SECTORS, hidden_share, merged, sectors, segments


def street(
    down: float = -24.8,
    up: float = 2.0,
    height: float = 1.73,
    azimuth: float = 180.0,
    seed: int = 0,
    at: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """(N, 3) returns of a road between two fronts with parked cars, by a sensor of this field of view `at` x and y."""
    elevation, turn = np.meshgrid(np.radians(np.linspace(up, down, 48)), np.radians(np.linspace(-azimuth, azimuth, 360)))
    ray = np.stack([np.cos(elevation) * np.cos(turn), np.cos(elevation) * np.sin(turn), np.sin(elevation)], -1).reshape(-1, 3)
    boxes = [((-60, 9, -height), (60, 20, 7)), ((-60, -20, -height), (60, -9, 6))]
    boxes += [((x, 4.2, -height), (x + 4, 6, 1.5 - height)) for x in (-20, -8, 3, 15)]
    shift = np.array([*at, 0.0])
    with np.errstate(all="ignore"):
        best = np.where(ray[:, 2] < 0, -height / ray[:, 2], np.inf)
        for low, high in boxes:
            a, b = (np.array(low) - shift) / ray, (np.array(high) - shift) / ray
            near, far = np.minimum(a, b).max(1), np.maximum(a, b).min(1)
            best = np.where((near > 0.3) & (near < far) & (near < best), near, best)
    hit = best < 90
    noise = np.random.default_rng(seed).normal(0, 0.02, (int(hit.sum()), 3))
    return ray[hit] * best[hit, None] + noise


SENSORS = {
    "HDL-64E": {},
    "OS1": {"down": -22.5, "up": 22.5},
    "VLP-16 low": {"down": -15.0, "up": 15.0, "height": 0.6},
    "roof of a truck": {"height": 3.3},
    "front sector": {"azimuth": 60.0},
}


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sound_cloud_is_no_news(sensor: str) -> None:
    assert findings(street(**SENSORS[sensor])) == []


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("axes", AXES)
def test_wrong_axes_are_named_and_the_remedy_mends_them(sensor: str, axes: str) -> None:
    rpy_deg, text = AXES[axes]
    sent = street(**SENSORS[sensor]) @ rotation(*rpy_deg)
    (found,) = findings(sent, "lidar")
    assert found.kind == axes
    assert f"frame 'lidar': {text}; set rotation_rpy_deg to {' '.join(f'{a:g}' for a in rpy_deg)}" in str(found)
    assert findings(sent @ rotation(*InputSettings(rotation_rpy_deg=rpy_deg).rotation_rpy_deg).T) == []


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize(
    ("unit", "name", "alone"),
    [
        (0.001, "millimetres", set(SENSORS)),
        (0.01, "centimetres", set(SENSORS) - {"VLP-16 low"}),
        (0.0254, "inches", set()),
        (0.1, "decimetres", {"HDL-64E", "OS1", "front sector"}),
    ],
)
def test_another_unit_is_named(sensor: str, unit: float, name: str, alone: set[str]) -> None:
    (found,) = findings(street(**SENSORS[sensor]) / unit)
    assert found.kind == "unit"
    assert name in found.text
    assert f"{unit:g}" in found.remedy.split()
    assert (found.units == (name,)) == (sensor in alone), "where two units fit, both are named with what they mean"
    assert (found.remedy == f"set unit_m to {unit:g}") == (sensor in alone)


def test_numbers_that_are_no_lengths_get_no_unit() -> None:
    (found,) = findings(street() * 1e28)
    assert "the coordinates are no lengths in any unit" in found.text
    assert "byte order" in found.remedy


def test_a_short_range_in_decimetres_is_told_by_its_ground() -> None:
    scan = street()
    near = scan[np.linalg.norm(scan, axis=1) < 25.0]
    (found,) = findings(near * 10)
    assert found.text == "the ground lies 17 m below the origin: lengths in decimetres, or a sensor on a high mast?"
    assert found.remedy == "set unit_m to 0.1, or for a mast translation_m to 0 0 15.6"
    assert findings(near) == []


def test_a_depth_camera_in_its_optical_frame_is_named_without_a_ground_in_sight() -> None:
    rng = np.random.default_rng(0)
    forward = rng.uniform(1, 6, 3000)
    cone = np.stack([rng.uniform(-0.5, 0.5, 3000) * forward, rng.uniform(-0.4, 0.4, 3000) * forward, forward], 1)
    (found,) = findings(cone)
    assert found.kind == "optical"
    assert "heading" not in found.remedy, "a camera looks along its z axis, so its heading is known"


def test_a_cloud_in_the_map_or_in_base_link_is_named() -> None:
    assert [found.kind for found in findings(street() + np.array([350, -120, 12]))] == ["far"]
    assert [found.kind for found in findings(street() + np.array([500_000, 5_000_000, 0]))] == ["far"]
    assert [found.kind for found in findings(street() + np.array([0.9, 0, 1.73]))] == ["base frame"]


def mended(sent: np.ndarray, found: Finding) -> np.ndarray:
    """The points as they are seen once the finding's last advice is followed."""
    name, *values = found.remedy.partition("set ")[2].replace(" to ", " ").split()
    settings = InputSettings(**{name: tuple(map(float, values))})
    return np.asarray(moved(make_cloud(sent), settings).xyz)


LEANINGS = [(0.0, 12.0, 0.0), (0.0, -20.0, 0.0), (25.0, 0.0, 0.0), (0.0, 35.0, 0.0), (-14.0, 15.0, 0.0)]
STEEP_LEANINGS = [(60.0, 0.0, 0.0), (0.0, -65.0, 0.0), (0.0, 70.0, 0.0), (40.0, 40.0, 0.0)]


@pytest.mark.parametrize("rpy_deg", [*LEANINGS, *STEEP_LEANINGS])
def test_a_tilted_sensor_is_named_and_the_remedy_levels_it(rpy_deg: tuple[float, float, float]) -> None:
    sent = street(up=10.0, down=-40.0) @ rotation(*rpy_deg)
    (found,) = findings(sent)
    tilt_deg = np.degrees(np.arccos(np.cos(np.radians(rpy_deg)).prod()))
    assert found.kind == ("tilted" if tilt_deg < LEVELLED_DEG else "steep")
    level = mended(sent, found)
    assert findings(level) == []
    assert find_ground(level).tilt_deg < 1.0


@pytest.mark.parametrize(("shift_m", "kind"), [(-5.0, "high"), (-8.0, "high"), (2.8, "buried"), (4.0, "buried")])
def test_an_origin_far_from_the_ground_is_named_and_the_remedy_moves_it(shift_m: float, kind: str) -> None:
    sent = street() + np.array([0.0, 0.0, shift_m])
    (found,) = findings(sent)
    assert found.kind == kind
    assert findings(mended(sent, found)) == []


def test_clouds_of_several_sensors_are_told_by_what_hides_behind_something() -> None:
    near, far = street(), street() * 3.0
    assert merged(near) is None
    assert hidden_share(np.array([[10.0, 0, 0], [20.0, 0, 0], [0, 10.0, 0], [0, 10.5, 0]])) == 0.25
    found = merged(np.concatenate([near, far]))
    assert found is not None
    assert found.kind == "merged"


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 3)),
        np.ones((1, 3)),
        np.ones((5000, 3)),
        np.random.default_rng(0).normal(0, 10, (5000, 3)),
        np.full((9, 3), 1e30),
    ],
)
def test_nothing_is_claimed_of_what_says_nothing(points: np.ndarray) -> None:
    assert [found.kind for found in findings(points) if found.kind in AXES] == []


def turn(parts: int) -> list[np.ndarray]:
    points = street()
    place = ((np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi) + 0.5) * parts).astype(int) % parts
    return [points[place == part] for part in range(parts)]


@pytest.mark.parametrize(
    ("clouds", "named"), [(turn(12), True), (turn(4), True), ([street()] * 5, False), ([turn(6)[2]] * 5, False)]
)
def test_parts_of_a_turn_are_told_from_a_narrow_sensor(clouds: list[np.ndarray], named: bool) -> None:
    found = segments([sectors(cloud) for cloud in clouds])
    assert (found is not None) == named
    if found:
        assert "parts of one revolution? use the driver's topic with full revolutions" in str(found)


def test_sectors_cover_the_circle() -> None:
    assert sectors(street()).sum() == SECTORS
    assert not sectors(np.zeros((0, 3))).any()


def kitti(shared: Path) -> np.ndarray:
    return np.fromfile(shared / "semantickitti_seq00" / "velodyne" / "000000.bin", "<f4").reshape(-1, 4)[:, :3]


def ouster(shared: Path) -> np.ndarray:
    points = np.load(shared / "other_sensors" / "os1_128.npz")["xyz"][0].reshape(-1, 3)
    return points[np.abs(points).sum(1) > 0]


def front(shared: Path) -> np.ndarray:
    points = np.load(shared / "vlp32_drive" / "val.npz")["xyz"][0].reshape(-1, 3)
    return points[np.abs(points).sum(1) > 0]


@pytest.mark.parametrize("read", [kitti, ouster, front])
def test_real_scans(shared_data: Path, read: Callable[[Path], np.ndarray]) -> None:
    every = read(shared_data).astype(np.float64)
    points = every[:: max(1, len(every) // 6000)]
    assert findings(points) == []
    for axes, (rpy_deg, _) in AXES.items():
        assert [found.kind for found in findings(points @ rotation(*rpy_deg))] == [axes]
    for unit_m, name in {0.001: "millimetres", 0.01: "centimetres", 0.0254: "inches", 0.1: "decimetres"}.items():
        (found,) = findings(points / unit_m)
        assert found.kind == "unit"
        assert found.units[0] == name
    assert findings(points / 0.3048)[0].units[0] == "feet"
    assert merged(points) is None
    for roll, pitch, kind in ((0, 12, "tilted"), (25, 0, "steep"), (0, -30, "steep"), (62, 0, "steep"), (35, 45, "steep")):
        assert [found.kind for found in findings(points @ rotation(roll, pitch, 0).T)] == [kind]
    assert [found.kind for found in findings(points - np.array([0, 0, 6]))] == ["high"]
    assert [found.kind for found in findings(points + np.array([0, 0, 5]))] == ["buried"]
    assert [found.kind for found in findings(points + np.array([0, 0, 1.75]))] == ["base frame"]


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("sensor", ["HDL-64E", "OS1"])
def test_a_sensor_on_its_side_is_no_sensor_on_a_mast(sensor: str, name: str) -> None:
    rpy_deg, text = SIDES[name]
    (found,) = findings(street(**SENSORS[sensor]) @ rotation(*rpy_deg))
    assert found.kind == name
    assert text in found.text
    rolled = findings(street(**SENSORS[sensor]) @ rotation(90.0, 0.0, 0.0))
    assert [one.kind for one in rolled] == ["y up"], "the ground does not tell a roll from these axes"
    assert (
        "the ground does not show which way is forward (90 0 0 keeps x forward, for a sensor that is rolled)" in rolled[0].remedy
    )
    assert "does not show which way is forward" in found.remedy


def test_feet_kilometres_and_marks_for_no_return_are_named() -> None:
    scan = street()
    (feet,) = findings(scan / 0.3048)
    assert "or lengths in feet (then unit_m is 0.3048)" in feet.text
    (kilometres,) = findings(scan / 1000)
    assert "the lengths are not in metres" in kilometres.text
    (marks,) = findings(np.concatenate([scan, np.full((len(scan), 3), -9999.0)]), "lidar")
    assert "frame 'lidar': 50% of the points lie at one and the same place (-9999, -9999, -9999)" in marks.text
    (mast,) = findings(street(height=12.0))
    assert "feet" not in str(mast)


def test_a_wall_right_ahead_is_no_ground() -> None:
    rng = np.random.default_rng(0)
    wall = np.column_stack([np.full(3000, 2.0), rng.uniform(-4, 4, 3000), rng.uniform(-1, 2, 3000)])
    assert findings(wall + rng.normal(0, 0.01, wall.shape)) == []


def test_points_at_one_height_are_told() -> None:
    """Drivers of RoboSense without the sensor's angles do this to every cloud."""
    (flat,) = findings(street() * [1, 1, 0], "rslidar")
    assert flat.kind == "flat"
    assert "frame 'rslidar': all points lie at the height of the origin" in str(flat)
    (plane,) = findings(street(down=-0.01, up=0.01) * [1, 1, 0.1])
    assert plane.kind == "flat"
    low = street(height=0.3)
    assert all(found.kind != "flat" for found in findings(low))
    assert all(found.kind != "flat" for found in findings(low[low[:, 2] < -0.2]))
