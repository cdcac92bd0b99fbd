# SPDX-License-Identifier: Apache-2.0
"""Labels travel through time: to the same surfaces, never across a border, and with the weight that speaks for them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros.data.pose_files import format_pose
from weakseg_ros.data.scan_sets import Scan, ScanSet
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.data.scans import open_scans
from weakseg_ros.errors import DataError
from weakseg_ros.extras import MissingLibraryError
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import SensorModel
from weakseg_ros.weak.propagate import PropagatedScans, PropagateSettings, reached_scans
from weakseg_ros.weak.propagated_share import measure_propagated
from weakseg_ros.weak.scan_poses import lies_on, moved, poses_of_scans, scaled_motion, write_poses

STREET = LabelMap.load("street")
ROAD, CAR, BUILDING = (STREET.id_of(name) for name in ("road", "car", "building"))
PERIOD_NS = 100_000_000


class Drive:
    """A sensor that moves 0.5 m a scan through a yard of walls and poles, and sees the same points from everywhere."""

    name, labels, spec, content_hash, intensity_full_scale = "yard", STREET, RangeSpec(), "0", 1.0

    def __init__(self, count: int = 6, with_poses: bool = True, world: int = 0, gap: int = 1) -> None:
        rng = np.random.default_rng(world)
        ground = np.stack([rng.uniform(-15, 15, 3000), rng.uniform(-15, 15, 3000), np.full(3000, -1.7)], axis=1)
        walls = np.stack([rng.choice([-15.0, 15.0], 2000), rng.uniform(-15, 15, 2000), rng.uniform(-1.7, 3, 2000)], axis=1)
        across = np.stack([rng.uniform(-15, 15, 2000), rng.choice([-13.0, 9.0], 2000), rng.uniform(-1.7, 3, 2000)], axis=1)
        poles = np.repeat(rng.uniform(-12, 12, (30, 2)), 40, axis=0)
        poles = np.concatenate([poles, rng.uniform(-1.7, 2, (1200, 1))], axis=1)
        turn = np.array([[np.cos(world), -np.sin(world), 0.0], [np.sin(world), np.cos(world), 0.0], [0.0, 0.0, 1.0]])
        self.world = (np.concatenate([ground, walls, across, poles]) @ turn.T).astype(np.float32)
        self.keys = tuple(f"{i:06d}" for i in range(count))
        self.clicked: dict[int, dict[int, int]] = {}
        self.with_poses, self.gap = with_poses, gap

    def __len__(self) -> int:
        return len(self.keys)

    def pose(self, index: int) -> np.ndarray:
        pose = np.eye(4)
        pose[0, 3] = 0.5 * index if index < 3 else 0.5 * (index - 1 + self.gap)
        return pose

    def __getitem__(self, index: int) -> Scan:
        pose = self.pose(index)
        stamp = 1 + PERIOD_NS * (index if index < 3 else index - 1 + self.gap)
        class_id = np.zeros(len(self.world), np.uint8)
        for point, wanted in self.clicked.get(index, {}).items():
            class_id[point] = wanted
        cloud = make_cloud(self.world - pose[:3, 3].astype(np.float32), stamp_ns=stamp)
        return Scan(self.keys[index], cloud, class_id, None, pose if self.with_poses else None)


def settings(**changes: object) -> PropagateSettings:
    return PropagateSettings(**{"scans": 3, **changes})  # type: ignore[arg-type]


def test_a_click_labels_the_same_surface_in_the_scans_around() -> None:
    drive = Drive()
    drive.clicked = {2: {0: ROAD, 3500: BUILDING}}
    propagated = PropagatedScans(drive, settings())
    near = np.linalg.norm(drive.world - drive.world[0], axis=1) <= 0.29
    for number in range(6):
        scan = propagated[number]
        assert scan.class_id is not None
        assert scan.label_weight is not None
        assert scan.class_id[0] == ROAD
        assert scan.class_id[3500] == BUILDING
        assert (scan.class_id[near] == ROAD).all()
        assert (scan.label_weight > 0).tolist() == (scan.class_id > 0).tolist()
        assert (scan.label_weight[[0, 3500]] == 1.0).all() == (number == 2)


def test_dense_labels_say_how_many_propagated_ones_are_right() -> None:
    clicked, dense = Drive(4), Drive(4)
    clicked.clicked = {0: {0: ROAD, 3500: CAR}}
    dense.clicked = {i: dict.fromkeys(range(len(dense.world)), ROAD) for i in range(4)}  # so the car is a wrong click
    share = measure_propagated(dense, PropagatedScans(clicked, settings()))
    assert share.given.sum() == 2
    assert share.given[[ROAD, CAR]].tolist() == [1, 1]
    assert share.propagated[ROAD] >= 3  # the point itself in three scans, and those near it
    assert (share.judged == share.propagated).all()
    assert share.right[ROAD] == share.propagated[ROAD]
    assert share.right[CAR] == 0 < share.propagated[CAR]
    assert 0 < share.weight[ROAD] < share.propagated[ROAD]
    assert share.points == 4 * len(dense.world)
    assert "building" not in share.summary
    assert f"{share.propagated.sum()} of {share.points} points" in share.summary


def test_labels_that_reach_nothing_are_said_so() -> None:
    share = measure_propagated(Drive(2), PropagatedScans(Drive(2), settings()))
    assert share.summary.startswith("no label is propagated")


def test_a_label_goes_no_farther_than_asked_and_what_moves_hardly_at_all() -> None:
    drive = Drive(6)
    drive.clicked = {0: {0: ROAD, 3500: CAR}}
    propagated = PropagatedScans(drive, settings(scans=3, thing_scans=1))
    seen = [[int(propagated[i].class_id[point]) for i in range(6)] for point in (0, 3500)]
    assert seen == [[ROAD] * 4 + [0] * 2, [CAR] * 2 + [0] * 4]


def test_points_between_two_classes_get_none() -> None:
    drive = Drive(2)
    beside = int(np.argsort(np.linalg.norm(drive.world - drive.world[0], axis=1))[1])
    drive.world[beside] = drive.world[0] + np.array([0.2, 0, 0], np.float32)
    between = len(drive.world)
    steps = np.array([[0.1, 0.0, 0.0], [0.02, 0.0, 0.0]], np.float32)
    drive.world = np.concatenate([drive.world, drive.world[0] + steps])
    drive.clicked = {0: {0: ROAD, beside: BUILDING}}
    scan = PropagatedScans(drive, settings())[1]
    assert scan.class_id is not None
    assert scan.class_id[between] == 0
    assert scan.class_id[between + 1] == ROAD  # ten times nearer to one of them


def test_the_weight_falls_with_distance_lag_and_the_labels_that_there_are() -> None:
    drive = Drive()
    drive.clicked = {0: {0: ROAD}}
    drive.world = np.concatenate([drive.world, drive.world[:1] + np.array([[0.15, 0.0, 0.0]], np.float32)])
    propagated = PropagatedScans(drive, settings(half_scans=2.0))
    weights = [propagated[i].label_weight for i in (1, 3)]
    assert all(weight is not None for weight in weights)
    assert 0.0 < weights[0][-1] < weights[0][0] < 1.0
    np.testing.assert_allclose(weights[1][0], weights[0][0] / 2, rtol=1e-5)  # two scans later, half as much
    many = Drive()
    many.world = drive.world
    many.clicked = {0: dict.fromkeys(range(500), ROAD)}
    fewer = PropagatedScans(many, settings(half_scans=2.0, half_labels=500))[1].label_weight
    assert fewer is not None
    assert fewer[0] < 0.51 * weights[0][0] * 2


def test_labels_that_others_contradict_weigh_less() -> None:
    """What a person said at the same place tells how far the propagation can be trusted, class by class."""
    honest, noisy = Drive(), Drive()
    honest.clicked = {i: dict.fromkeys(range(40), ROAD) for i in (0, 1)}
    noisy.clicked = {0: dict.fromkeys(range(40), ROAD), 1: dict.fromkeys(range(40), BUILDING)}
    trust = [PropagatedScans(drive, settings()).propagation for drive in (honest, noisy)]
    assert trust[0].agreement.same == trust[0].agreement.reached == 80
    assert trust[1].agreement.same == 0
    assert trust[1].class_weight[ROAD] == 0.0 < trust[0].class_weight[ROAD]


def test_nothing_is_propagated_between_recordings_nor_between_scans_that_do_not_lie_on_each_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drive, other = Drive(4), Drive(4, world=1)
    drive.clicked = {0: {0: ROAD}}

    class Both(Drive):
        def __getitem__(self, index: int) -> Scan:
            return (drive if index < 2 else other)[index]

    with caplog.at_level("WARNING"):
        propagated = PropagatedScans(Both(4), settings())
    assert propagated.poses.drive.tolist() == [0, 0, 1, 1]
    assert "1 of 4 scans do not match the previous scan" in caplog.text
    assert propagated[1].class_id is not None
    assert propagated[1].class_id.any()
    assert not propagated[2].class_id.any()  # type: ignore[union-attr]
    assert list(reached_scans(propagated).keys) == ["000000", "000001"]
    drive.keys = ("a/0", "a/1", "b/0", "b/1")
    assert PropagatedScans(drive, settings()).poses.drive.tolist() == [0, 0, 1, 1]


def test_left_handed_scans_beside_right_handed_poses_are_told(caplog: pytest.LogCaptureFixture) -> None:
    class Turning(Drive):
        side = 1.0

        def pose(self, index: int) -> np.ndarray:
            pose = super().pose(index)
            pose[:2, :2] = [[np.cos(0.2 * index), -np.sin(0.2 * index)], [np.sin(0.2 * index), np.cos(0.2 * index)]]
            return pose

        def __getitem__(self, index: int) -> Scan:
            seen = np.linalg.inv(self.pose(index))
            cloud = make_cloud((self.world @ seen[:3, :3].T + seen[:3, 3]) * [1.0, self.side, 1.0])
            return Scan(self.keys[index], cloud, None, None, self.pose(index))

    drive = Turning(4)
    assert poses_of_scans(drive).drive.tolist() == [0, 0, 0, 0]
    drive.side = -1.0
    with caplog.at_level("WARNING"):
        assert poses_of_scans(drive).drive.tolist() == [0, 1, 2, 3]
    assert "with y mirrored they match, so the scans are left-handed" in caplog.text


def test_scans_far_apart_on_a_street_are_one_drive_and_other_streets_and_wrong_poses_are_not() -> None:
    far = [scan for seed in (1000, 1001) for scan in simulate(SimulateConfig(seed, 3, 8, SensorModel(columns=512)))]
    points = [scan.cloud.xyz[scan.cloud.valid] for scan in far]
    for number in (1, 2, 4, 5):  # 6 to 8 m on
        assert lies_on(points[number - 1], moved(points[number], far[number].pose, far[number - 1].pose))
    assert not lies_on(points[0], moved(points[4], far[4].pose, far[3].pose)), "a scan of another street"
    assert not lies_on(points[0], points[2]), "as if the sensor had stood still"


def test_poses_are_estimated_from_the_scans_and_their_stamps() -> None:
    optional("kiss_icp")
    drive = Drive(8, with_poses=False, gap=4)  # a pause of four periods in which the sensor went on
    poses = poses_of_scans(drive)
    truth = np.array([drive.pose(i)[:3, 3] for i in range(8)])
    assert np.abs(poses.matrices[:, :3, 3] - truth).max() < 0.1
    assert not poses.drive.any()
    np.testing.assert_array_equal(poses.matrices, poses_of_scans(drive).matrices)


def test_a_motion_goes_on_for_longer() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    turn[0, 3] = 2.0
    scaled = scaled_motion(turn, 3.0)
    assert np.arctan2(scaled[1, 0], scaled[0, 0]) == pytest.approx(0.3)
    assert scaled[0, 3] == pytest.approx(6.0)


def test_a_file_of_poses_is_used_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    drive = Drive(4, with_poses=False)
    drive.clicked = {0: {0: ROAD}}
    file = tmp_path / "poses.txt"
    file.write_text("".join(format_pose(drive.pose(i)) + "\n" for i in range(4)))
    propagated = PropagatedScans(drive, settings(poses_file=file))
    assert propagated[3].class_id[0] == ROAD  # type: ignore[index]
    write_poses(tmp_path / "again.txt", propagated.poses)
    assert PropagatedScans(drive, settings(poses_file=tmp_path / "again.txt")).content_hash == propagated.content_hash
    with pytest.raises(DataError, match="has 4 lines for 3 scans"):
        poses_of_scans(_named(Drive(3)), file=file)
    with pytest.raises(DataError, match="there is no such file of poses"):
        poses_of_scans(drive, file=tmp_path / "none.txt")
    with pytest.raises(DataError, match="not every scan has a pose"):
        poses_of_scans(drive, "data")


def _named(drive: Drive) -> ScanSet:
    """The drive with names that are no numbers, so that lines cannot be found by them."""
    drive.keys = tuple(f"scan_{key}" for key in drive.keys)
    return drive


def test_without_the_library_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kiss_icp", None)
    with pytest.raises(MissingLibraryError, match=r"kiss_icp: .* pip install .*kiss-icp"):
        poses_of_scans(Drive(2, with_poses=False))


def test_the_hash_tells_other_settings_and_other_poses() -> None:
    drive = Drive(3)
    drive.clicked = {0: {0: ROAD}}
    hashes = [PropagatedScans(drive, settings(**changes)).content_hash for changes in ({}, {"radius_m": 0.4}, {"scans": 2})]
    poses = poses_of_scans(drive)
    shifted = dataclasses.replace(poses, matrices=poses.matrices + 0.01)
    hashes.append(PropagatedScans(drive, settings(), shifted).content_hash)
    assert len(set(hashes)) == 4


def test_clicks_reach_scans_that_nobody_has_clicked_and_no_validation_scan(tmp_path: Path) -> None:
    optional("torch")
    from weakseg_ros.improve.label.clicks import ClickStore
    from weakseg_ros.train.config import TrainConfig
    from weakseg_ros.train.training_data import open_data, with_propagated_labels

    drive = Drive(5)
    with ScanWriter(tmp_path / "scans", STREET, RangeSpec(), source="yard", seed=0, intensity_full_scale=1.0) as out:
        for number in range(5):
            out.write(drive[number].cloud, None, drive.pose(number))
    store = ClickStore(tmp_path / "scans", STREET)
    store.add_raw("000002", np.array([0]), np.array([STREET.classes[ROAD].raw_ids[0]], np.uint32))
    config = TrainConfig(
        data=tmp_path / "scans",
        hold_out=0.2,
        sparse_labels=tmp_path / "scans" / "sparse" / "clicks",
        propagate=settings(scans=2),
    )
    train, val = open_data(config)
    train = with_propagated_labels(config, train)
    assert val is not None
    assert set(train.keys) == {"000000", "000001", "000002", "000003"}
    assert all(train[i].class_id[0] == ROAD for i in range(4))  # type: ignore[index]
    assert val.keys == ("000004",)
    assert val[0].label_weight is None
    assert val[0].class_id is None or not val[0].class_id.any()
    alone = open_data(dataclasses.replace(config, propagate=PropagateSettings()))[0]
    assert list(alone.keys) == ["000002"]
    assert open_scans(tmp_path / "scans")[0].label_weight is None
