# SPDX-License-Identifier: Apache-2.0
"""Drives: the same from the same seed, consistent over time, varied over seeds, with every class."""

from __future__ import annotations

import dataclasses
from itertools import islice

import numpy as np
import pytest

from weakseg_ros.errors import ConfigError
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.simulate import kits
from weakseg_ros.simulate.drive import SimulateConfig, ego_position, scan_at, simulate
from weakseg_ros.simulate.ground import HALF_LENGTH_M
from weakseg_ros.simulate.lidar import SensorModel
from weakseg_ros.simulate.solids import PART
from weakseg_ros.simulate.street import DRIVE_HALF_M, TOWNS, Street, build_street
from weakseg_ros.simulate.traffic import moving_parts

SMALL = SensorModel(beams=32, columns=360, fov_up_deg=3.0, fov_down_deg=-24.0)
SEEDS = range(8)


@pytest.fixture(scope="module")
def streets() -> list[Street]:
    return [build_street(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def glimpses(streets):
    """Six scans of each street."""
    return {
        street.seed: [scan_at(street, SimulateConfig(street.seed, sensor=SMALL), i) for i in range(0, 360, 60)]
        for street in streets
    }


def test_the_same_seed_gives_the_same_bytes_however_many_scans_are_drawn():
    config = SimulateConfig(3, 4, 7, SMALL)
    drawn = list(simulate(config))
    alone = scan_at(build_street(3), config, 2)
    again = list(islice(simulate(dataclasses.replace(config, scans=40)), 3))[2]
    for other in (alone, again):
        assert other.cloud.xyz.tobytes() == drawn[2].cloud.xyz.tobytes()
        assert other.cloud.intensity.tobytes() == drawn[2].cloud.intensity.tobytes()
        assert other.raw_label.tobytes() == drawn[2].raw_label.tobytes()
        assert other.pose.tobytes() == drawn[2].pose.tobytes()
    assert drawn[0].cloud.xyz.tobytes() != drawn[1].cloud.xyz.tobytes()


def test_a_stride_takes_every_nth_sweep():
    street = build_street(3)
    sparse, dense = SimulateConfig(3, 10, 5, SMALL), SimulateConfig(3, 50, 1, SMALL)
    one, other = scan_at(street, sparse, 4), scan_at(street, dense, 20)
    assert one.cloud.xyz.tobytes() == other.cloud.xyz.tobytes()
    assert one.cloud.stamp_ns == other.cloud.stamp_ns
    assert other.cloud.stamp_ns - scan_at(street, dense, 19).cloud.stamp_ns == 100_000_000


def test_streets_of_different_seeds_differ(streets, glimpses):
    ways = [tuple(street.ground.centre.terms) for street in streets]
    assert len(set(ways)) == len(ways)
    assert len({street.town for street in streets}) >= 3
    shares = [np.bincount(np.concatenate([s.raw_label for s in scans]) & 0xFF, minlength=256) for scans in glimpses.values()]
    buildings = np.array([share[kits.BUILDING] / share[1:].sum() for share in shares])
    assert buildings.max() > 1.5 * buildings.min()


def test_every_class_is_seen_on_a_few_streets(glimpses):
    labels = LabelMap.load("street")
    seen = np.concatenate([labels.to_class(scan.raw_label) for scans in glimpses.values() for scan in scans])
    counts = np.bincount(seen, minlength=labels.num_classes)
    missing = [labels.names[k] for k in range(1, labels.num_classes) if counts[k] < 10]
    assert not missing
    ground = counts[1:5].sum() / counts[1:].sum()
    assert 0.35 < ground < 0.75


def test_every_town_and_label_is_known(streets):
    labels = LabelMap.load("street")
    assert set(TOWNS) >= {street.town for street in streets}
    for street in streets:
        raw = np.concatenate([street.parts["raw"], *(mover.shapes[0]["raw"] for mover in street.movers)])
        assert not labels.unknown_raw_ids(raw.astype(np.uint32))


def test_every_point_has_a_label_and_every_non_return_none(glimpses):
    for scans in glimpses.values():
        for scan in scans:
            assert scan.raw_label.shape == (len(scan.cloud),)
            np.testing.assert_array_equal(scan.raw_label != 0, scan.cloud.valid)
            assert 0.6 < scan.cloud.valid.mean() < 1


def test_a_parked_car_keeps_its_instance_and_its_place(streets):
    street = next(street for street in streets if (street.parts["raw"] == kits.CAR).sum() > 60)
    config = SimulateConfig(street.seed, sensor=dataclasses.replace(SMALL, range_noise_m=0.01))
    scans = [scan_at(street, config, i) for i in (100, 104, 108)]
    compared = 0
    for number in np.unique(street.parts["instance"][street.parts["raw"] == kits.CAR]):
        parts = street.parts[street.parts["instance"] == number]
        reach = np.hypot(*parts["size"].max(axis=0)[:2]) + 0.3
        for scan in scans:
            mine = scan.raw_label == np.uint32(kits.CAR | int(number) << 16)
            if mine.sum() < 5:
                continue
            world = scan.cloud.xyz[mine] @ scan.pose[:3, :3].T + scan.pose[:3, 3]
            away = np.linalg.norm(world[:, :2] - parts["position"][0, :2], axis=1)
            assert away.max() < reach
            compared += 1
    assert compared > 5


def test_the_world_stays_where_it_is(streets):
    """Ground and walls of one scan, taken into the world by its pose, lie on those of a later scan."""
    from scipy.spatial import cKDTree

    street = streets[0]
    sensor = dataclasses.replace(SMALL, columns=720, beams=64, range_noise_m=0.0)
    one, other = (scan_at(street, SimulateConfig(street.seed, sensor=sensor), i) for i in (100, 103))
    clouds = []
    for scan in (one, other):
        keep = np.isin(scan.raw_label & 0xFFFF, [40, 48, 50]) & (np.linalg.norm(scan.cloud.xyz, axis=1) < 10)
        clouds.append(scan.cloud.xyz[keep] @ scan.pose[:3, :3].T + scan.pose[:3, 3])
    distance, _ = cKDTree(clouds[0]).query(clouds[1])
    assert np.median(distance) < 0.15
    assert np.linalg.norm(one.pose[:3, 3] - other.pose[:3, 3]) > 1.0


def test_what_moves_moves_and_keeps_its_instance(streets):
    street = next(street for street in streets if len(street.movers) > 10)
    for mover in street.movers[:10]:
        before, after = mover.position(5.0), mover.position(6.0)
        assert 0.5 * abs(mover.speed_m_s) < abs(after - before) < 1.5 * abs(mover.speed_m_s)
        assert np.sign(after - before) == np.sign(mover.speed_m_s)
    numbers = [mover.instance for mover in street.movers]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) > street.parts["instance"].max()
    now = moving_parts(street.movers, 5.0, street.ground)
    assert len(now)
    assert (np.abs(now["position"][:, 0]) < HALF_LENGTH_M).all()
    assert set(now["raw"]) <= set(kits.MOVING.values())
    assert moving_parts((), 5.0, street.ground).dtype == PART


def test_the_drive_stays_on_its_lane_and_the_street(streets):
    for street in streets:
        config = SimulateConfig(street.seed, sensor=SMALL)
        poses = np.array(
            [
                scan_at(street, dataclasses.replace(config, sensor=dataclasses.replace(SMALL, beams=2, columns=8)), i).pose
                for i in range(0, 380, 19)
            ]
        )
        x, y = poses[:, 0, 3], poses[:, 1, 3]
        lateral = (y - street.ground.centre.at(x)) / np.hypot(1, street.ground.centre.slope(x))
        assert np.abs(lateral - street.ego_lane_m).max() < 0.5
        assert (np.abs(x) <= DRIVE_HALF_M + 1e-6).all()
        np.testing.assert_allclose(
            poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (len(poses), 1, 1)), atol=1e-9
        )
        speed = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / 1.9
        assert speed.min() > 3
        assert speed.max() < 16


def test_nothing_stands_in_the_way(glimpses):
    for scans in glimpses.values():
        for scan in scans:
            solid = ~np.isin(scan.raw_label & 0xFFFF, [0, 40, 44, 48, 49, 60, 72])
            x, y, z = scan.cloud.xyz[solid].T
            box = (np.abs(x) < 2.0) & (np.abs(y) < 0.8) & (np.abs(z) < 1.5)
            assert not box.any()


def test_a_drive_that_outruns_its_street_is_refused():
    with pytest.raises(ConfigError, match="use at most"):
        next(simulate(SimulateConfig(1, 5000, 1, SMALL)))
    with pytest.raises(ConfigError, match="use at most") as refused:
        next(simulate(SimulateConfig(1, 100, 20, SMALL)))
    most = int(str(refused.value).split("at most ")[1].split(",")[0])
    street = build_street(1)
    assert ego_position((most - 1) * 2.0, street.speed_m_s) <= DRIVE_HALF_M < ego_position((most + 2) * 2.0, street.speed_m_s)
