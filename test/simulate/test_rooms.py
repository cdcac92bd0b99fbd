# SPDX-License-Identifier: Apache-2.0
"""The simulated building: labels and instances fit, the same seed gives the same floor, and what is written reads back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg_ros.cli import main
from weakseg_ros.data.bags import read_clouds
from weakseg_ros.data.s3dis import S3dis
from weakseg_ros.data.scans import open_scans
from weakseg_ros.simulate.raycast import Windows, cast
from weakseg_ros.simulate.rooms.building import Floor, build_floor
from weakseg_ros.simulate.rooms.camera import CameraModel
from weakseg_ros.simulate.rooms.palette import CEILING, DOOR, FLOOR, NAMES, WALL
from weakseg_ros.simulate.rooms.pinhole import PinholeRays, pinhole_rays
from weakseg_ros.simulate.rooms.record import RoomsConfig
from weakseg_ros.simulate.rooms.room import Footprint
from weakseg_ros.simulate.rooms.scans import SCANNER_NOISE_M, Tour, scan_at, scan_room
from weakseg_ros.simulate.rooms.walk import plan_walk
from weakseg_ros.simulate.solids import BLOCK, CYLINDER, Parts, block, cylinder, ellipsoid, join

SEED = 3
SMALL_LIDAR = "name: tiny\nbeams: 16\nfov_up_deg: 40.0\nfov_down_deg: -40.0\ncolumns: 90\nrange_min_m: 0.1\n"
SMALL_CAMERA = CameraModel(width=48, height=36)


@pytest.fixture(scope="module")
def floor() -> Floor:
    return build_floor(SEED)


@pytest.fixture
def lidar(tmp_path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(SMALL_LIDAR)
    return str(path)


def test_a_seed_is_a_floor(floor):
    np.testing.assert_array_equal(build_floor(SEED).parts, floor.parts)
    assert len(build_floor(SEED + 1).parts) != len(floor.parts)


def test_floors_of_a_building_share_its_materials_and_differ_in_their_plan(floor):
    other = build_floor(SEED, 1)
    assert [room.name for room in other.rooms] != [room.name for room in floor.rooms]
    assert other.rooms[0].room.palette.albedo == floor.rooms[0].room.palette.albedo
    assert build_floor(SEED + 1).rooms[0].room.palette.albedo != floor.rooms[0].room.palette.albedo


def test_every_class_occurs_and_every_thing_has_one():
    for seed in range(4):
        floor = build_floor(seed)
        assert set(floor.class_of_thing[1:]) == set(range(1, len(NAMES) + 1))
        assert set(floor.parts["instance"]) == set(range(1, len(floor.class_of_thing)))
        for thing in np.unique(floor.parts["instance"]):
            assert set(floor.parts["raw"][floor.parts["instance"] == thing]) == {floor.class_of_thing[thing]}
        assert len({placed.name for placed in floor.rooms}) == len(floor.rooms)


def test_the_robot_drives_into_nothing(floor):
    walk = plan_walk(floor)
    places = np.array([walk.at(way) for way in np.arange(0, walk.length_m, 0.1)])
    solid = floor.parts[~np.isin(floor.parts["raw"], [FLOOR, CEILING])]
    low = solid[(solid["position"][:, 2] < 1.2) & (solid["position"][:, 2] + solid["size"][:, 2] > 0.1)]
    offset = places[:, None] - low["position"][None, :, :2]
    cos, sin = np.cos(low["yaw"]), np.sin(low["yaw"])
    along = np.abs(offset[..., 0] * cos + offset[..., 1] * sin) - low["size"][:, 0]
    across = np.abs(offset[..., 1] * cos - offset[..., 0] * sin) - low["size"][:, 1]
    assert np.maximum(along, across).min() > 0.1


def test_a_scan_shows_the_floor_below_the_ceiling_above_and_the_things_that_are_there(floor, lidar, tmp_path):
    tour = RoomsConfig(out=tmp_path, seed=SEED, scans=4, step_m=7.0, sensor=lidar).tours()[0]
    seen = set()
    for index in range(tour.scans):
        scan = scan_at(tour, index)
        raw, thing = scan.raw_label & 0xFFFF, scan.raw_label >> 16
        np.testing.assert_array_equal(raw == 0, ~scan.cloud.valid)
        np.testing.assert_array_equal(floor.class_of_thing[thing], raw)
        world = scan.cloud.xyz @ scan.pose[:3, :3].T + scan.pose[:3, 3]
        assert np.abs(world[raw == FLOOR, 2]).max() < 0.2
        assert world[raw == CEILING, 2].min() > 2.0
        seen |= set(raw.tolist())
    assert {FLOOR, CEILING, WALL, DOOR} <= seen


def test_a_camera_gives_an_organised_cloud_with_colours_and_holes(floor):
    tour = Tour(SEED, 0, 1, 3.0, SMALL_CAMERA, 0.8, 5.0)
    scan = scan_at(tour, 1)
    cloud = scan.cloud
    assert (cloud.height, cloud.width) == (36, 48)
    assert cloud.rgb is not None
    assert cloud.rgb.std() > 5
    depth = cloud.xyz[:, 0][cloud.valid]
    assert ((depth >= SMALL_CAMERA.range_min_m) & (depth <= SMALL_CAMERA.range_max_m)).all()
    assert 0 < np.count_nonzero(~cloud.valid) < len(cloud) * 0.9
    columns = np.tile(np.arange(48), 36)[cloud.valid]
    focal = 24 / np.tan(np.radians(35))
    np.testing.assert_allclose(24 - focal * cloud.xyz[cloud.valid, 1] / depth - 0.5, columns, atol=0.01)
    again = scan_at(tour, 1)
    np.testing.assert_array_equal(again.cloud.xyz, cloud.xyz)
    np.testing.assert_array_equal(again.cloud.rgb, cloud.rgb)


def test_noise_of_a_camera_grows_with_the_square_of_the_depth():
    quiet = CameraModel(width=96, height=72, noise_at_1m=0.0, step_at_1m=0.0, drop_probability=0.0)
    loud = dataclasses.replace(quiet, noise_at_1m=0.01)
    errors, depths = [], []
    for index in range(3):
        one, two = (scan_at(Tour(SEED, 0, 1, 2.0, camera, 0.8), index).cloud for camera in (quiet, loud))
        both = one.valid & two.valid
        errors.append(two.xyz[both, 0] - one.xyz[both, 0])
        depths.append(one.xyz[both, 0])
    error, depth = np.concatenate(errors), np.concatenate(depths)
    assert 0.009 < (error / depth**2).std() < 0.011


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_no_part_of_a_picture_is_missed(seed):
    rng = np.random.default_rng(seed)
    parts = join([_any_part(rng, raw) for raw in range(1, 13)])
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    rays = pinhole_rays(rotation, 18, 24, rng.uniform(30, 110))
    limit = np.full(18 * 24, np.inf, np.float32)
    found = cast(parts, np.zeros(3), rays, limit, np.random.default_rng(0))
    truth = cast(parts, np.zeros(3), _Everywhere(**vars(rays)), limit, np.random.default_rng(0))
    np.testing.assert_array_equal(found.distance, truth.distance)
    np.testing.assert_array_equal(found.part, truth.part)


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_footprints_meet_where_they_share_a_point(seed):
    rng = np.random.default_rng(seed)
    one, two = (Footprint(*rng.uniform(-1, 1, 2), tuple(rng.uniform(0.1, 1, 2)), rng.uniform(-3, 3), 0.0, 1.0) for _ in range(2))
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 2)
    inside = [_within(footprint, np.array((one.x, one.y)) + 1.5 * grid) for footprint in (one, two)]
    if (inside[0] & inside[1]).any():
        assert one.meets(two)
        assert two.meets(one)
    assert not one.meets(two._replace(low=1.0, high=2.0))


def test_rooms_in_s3dis_layout_read_back(tmp_path, capsys):
    out = tmp_path / "s3dis"
    arguments = ["simulate", "--rooms", "--view", "s3dis", "--out", str(out), "--seed", str(SEED), "--points", "1500"]
    assert main([*arguments, "--workers", "1"]) == 0
    assert "next: weakseg benchmark" in capsys.readouterr().out
    rooms = open_scans(out)
    assert isinstance(rooms, S3dis)
    floor = build_floor(SEED)
    assert set(rooms.keys) == {f"Area_1/{placed.name}" for placed in floor.rooms}
    number = next(row for row, placed in enumerate(floor.rooms) if placed.name.startswith("conferenceRoom"))
    scan, truth = rooms[rooms.keys.index(f"Area_1/{floor.rooms[number].name}")], scan_room(SEED, 0, number, 1500)
    assert scan.cloud.rgb is not None
    assert scan.class_id is not None
    order, own = (np.lexsort(np.round(xyz, 3).T) for xyz in (scan.cloud.xyz, truth.xyz))
    np.testing.assert_allclose(scan.cloud.xyz[order], truth.xyz[own], atol=6e-4)
    np.testing.assert_array_equal(np.bincount(scan.class_id, minlength=14), np.bincount(truth.raw, minlength=14))
    np.testing.assert_array_equal(np.sort(scan.cloud.rgb.sum(axis=1)), np.sort(truth.rgb.sum(axis=1)))
    assert len(np.unique(scan.instance_id)) == len(np.unique(truth.instance))
    on_floor = truth.xyz[truth.raw == FLOOR, 2]
    assert np.abs(on_floor).max() < 6 * SCANNER_NOISE_M
    before = sorted(path.stat().st_mtime_ns for path in out.rglob("*.txt"))
    assert main([*arguments, "--workers", "1"]) == 0  # it is there, and kept
    assert sorted(path.stat().st_mtime_ns for path in out.rglob("*.txt")) == before
    assert main([*arguments[:-1], "2000", "--workers", "1"]) == 2
    assert "was simulated with other settings" in capsys.readouterr().err


def test_an_area_that_is_not_ours_is_left_alone(tmp_path, capsys):
    real = tmp_path / "Area_1" / "office_1"
    real.mkdir(parents=True)
    (real / "office_1.txt").write_text("0 0 0 1 2 3\n")
    arguments = ["simulate", "--rooms", "--view", "s3dis", "--out", str(tmp_path), "--overwrite", "--workers", "1"]
    assert main(arguments) == 2
    assert "was not simulated by this program" in capsys.readouterr().err
    assert (real / "office_1.txt").read_text() == "0 0 0 1 2 3\n"


def test_scans_and_bag_of_a_robot_read_back(tmp_path, lidar):
    out, bag = tmp_path / "out", tmp_path / "bag"
    common = ["simulate", "--rooms", "--seed", str(SEED), "--scans", "2", "--workers", "1", "--out", str(out)]
    assert main([*common, "--view", "camera", "--camera.width", "32", "--camera.height", "24", "--bag", str(bag)]) == 0
    scans = open_scans(out)
    truth = scan_at(RoomsConfig(out=out, seed=SEED, scans=2, view="camera", camera=CameraModel(32, 24)).tours()[0], 1)
    np.testing.assert_array_equal(scans[1].cloud.rgb, truth.cloud.rgb)
    np.testing.assert_array_equal(scans[1].cloud.xyz, truth.cloud.xyz)
    np.testing.assert_array_equal(scans[1].class_id, truth.raw_label & 0xFFFF)
    np.testing.assert_allclose(scans[1].pose, truth.pose, atol=1e-9)
    assert (scans[1].cloud.height, scans[1].cloud.width) == (24, 32)
    assert scans.verify() == []
    played = [cloud for _, cloud in read_clouds(bag, "/points")]
    np.testing.assert_array_equal(played[1].rgb, truth.cloud.rgb)
    lasers = tmp_path / "lidar"
    assert main([*common[:-1], str(lasers), "--sensor", lidar, "--buildings", "2"]) == 0
    assert len(open_scans(lasers)) == 4
    assert main([*common[:-1], str(lasers), "--sensor", lidar, "--buildings", "2"]) == 0  # kept


def test_settings_that_fit_no_floor_are_refused(tmp_path, capsys):
    for arguments, text in (
        (["--view", "s3dis"], "give --out FOLDER"),
        (["--view", "s3dis", "--out", str(tmp_path / "a"), "--buildings", "7"], "S3DIS's layout has 6 areas"),
        (["--out", str(tmp_path / "a"), "--sensor", "vlp15"], "did you mean 'vlp16'"),
        ([], "nothing would be written"),
    ):
        assert main(["simulate", "--rooms", *arguments]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


class _Everywhere(PinholeRays):
    """Rays that look for each part in the whole image."""

    def windows(self, parts: Parts, origin: np.ndarray) -> Windows:
        count = np.int32(len(parts))
        whole = np.zeros(count, np.int32)
        number = np.arange(count, dtype=np.int32)
        return Windows(number, np.zeros(count, np.float32), whole, whole + self.rows, whole, whole + self.columns)


def _any_part(rng: np.random.Generator, raw: int) -> Parts:
    place, size = rng.uniform(-3, 3, 3), tuple(rng.uniform(0.05, 1.5, 3))
    kind = rng.integers(3)
    if kind == BLOCK:
        return block(raw, *place, size, yaw=rng.uniform(-3, 3))
    if kind == CYLINDER:
        return cylinder(raw, *place, size[0], size[2])
    return ellipsoid(raw, *place, size, yaw=rng.uniform(-3, 3))


def _within(footprint: Footprint, points: np.ndarray) -> np.ndarray:
    offset = points - (footprint.x, footprint.y)
    cos, sin = np.cos(footprint.yaw), np.sin(footprint.yaw)
    own = np.abs(offset @ np.array([[cos, -sin], [sin, cos]]))
    return (own < np.array(footprint.half) - 1e-9).all(axis=1)
