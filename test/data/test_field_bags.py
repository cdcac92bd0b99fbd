# SPDX-License-Identifier: Apache-2.0
"""Bags as people have them: without metadata, packed by zstd, with edited QoS, converted from ROS 1, of Livox's own type."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml

from support import optional

optional("rosbags")

from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from support.recorded_bags import COUNT, NEW, START_NS, STORAGE, assert_read, cdr, points, split_bag, write
from weakseg_ros.cli import main as weakseg
from weakseg_ros.data.bag_files import bags_in, families, is_bag
from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import PartialBagError, find_cloud_topic, read_clouds, read_odometry, read_raw
from weakseg_ros.errors import DataError
from weakseg_ros.points.cloud import Cloud, make_cloud


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("packed", [None, rosbag2.CompressionMode.FILE, rosbag2.CompressionMode.MESSAGE])
def test_a_bag_without_metadata_is_read(tmp_path: Path, storage: str, packed: rosbag2.CompressionMode | None) -> None:
    bag = write(tmp_path / "drive", storage, packed)
    assert_read(bag)
    (bag / "metadata.yaml").unlink()
    assert is_bag(bag)
    assert_read(bag)
    (file,) = bag.iterdir()
    assert is_bag(file)
    assert_read(file)


def test_missing_metadata_is_told_once_for_a_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = write(tmp_path / "drive", "mcap", None)
    (bag / "metadata.yaml").unlink()
    assert weakseg(["import", str(bag), "--out", str(tmp_path / "scans")]) == 0
    assert sum("has no metadata.yaml" in record.getMessage() for record in caplog.records) == 1


def test_a_bag_of_the_first_ros_is_told_how_it_is_converted(tmp_path: Path) -> None:
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V1.2\n" + bytes(50))
    with pytest.raises(DataError, match="'rosbag fix OLD"):
        list(read_clouds(tmp_path / "old.bag"))


def test_a_packed_file_that_was_cut_off_gives_its_part(tmp_path: Path) -> None:
    bag = write(tmp_path / "drive", "mcap", rosbag2.CompressionMode.FILE)
    (bag / "metadata.yaml").unlink()
    (file,) = bag.iterdir()
    blob = file.read_bytes()
    file.write_bytes(blob[: len(blob) * 2 // 3])
    with pytest.raises(DataError, match=r"drive\.mcap\.zstd"):
        list(read_clouds(bag))


def test_edited_qos_does_not_matter(tmp_path: Path) -> None:
    """rosbag2's maintainers advise to zero the durations in metadata.yaml; the storage keeps the recorded ones."""
    bag = write(tmp_path / "drive", "sqlite3")
    row = (
        "- history: 3\n  depth: 0\n  reliability: 1\n  durability: 2\n  deadline: {sec: %d, nsec: 0}\n"
        "  lifespan: {sec: %d, nsec: 0}\n  liveliness: 1\n  liveliness_lease_duration: {sec: %d, nsec: 0}\n"
        "  avoid_ros_namespace_conventions: false\n"
    )
    with sqlite3.connect(bag / "drive.db3") as storage:
        storage.execute("update topics set offered_qos_profiles = ?", (row % ((2147483647,) * 3),))
    content = yaml.safe_load((bag / "metadata.yaml").read_text())
    topic = content["rosbag2_bagfile_information"]["topics_with_message_count"][0]["topic_metadata"]
    topic["offered_qos_profiles"] = row % (0, 0, 0)
    content["rosbag2_bagfile_information"]["version"] = 5
    (bag / "metadata.yaml").write_text(yaml.safe_dump(content))
    assert_read(bag)


def test_another_type_hash_does_not_matter(tmp_path: Path) -> None:
    bag = write(tmp_path / "drive", "sqlite3")
    content = yaml.safe_load((bag / "metadata.yaml").read_text())
    topic = content["rosbag2_bagfile_information"]["topics_with_message_count"][0]["topic_metadata"]
    topic["type_description_hash"] = "RIHS01_" + "0" * 64
    (bag / "metadata.yaml").write_text(yaml.safe_dump(content))
    assert_read(bag)


def test_messages_that_metadata_promises_and_files_lack_are_said(tmp_path: Path) -> None:
    bag = write(tmp_path / "drive", "sqlite3")
    with sqlite3.connect(bag / "drive.db3") as storage:
        storage.execute("delete from messages where id > 1")
    with pytest.raises(PartialBagError, match=r"counts more messages than its files hold; 1 of 3 messages") as caught:
        list(read_raw(bag))
    assert caught.value.read == 1


CUSTOM_MSG = {
    "livox_ros_driver2/msg/CustomPoint": "uint32 offset_time\nfloat32 x\nfloat32 y\nfloat32 z\nuint8 reflectivity\nuint8 tag\n"
    "uint8 line\n",
    "livox_ros_driver2/msg/CustomMsg": "std_msgs/Header header\nuint64 timebase\nuint32 point_num\nuint8 lidar_id\n"
    "uint8[3] rsvd\nlivox_ros_driver2/CustomPoint[] points\n",
}


def livox(ros1: bool, count: int, frame_id: str) -> tuple[object, object]:
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    for name, definition in CUSTOM_MSG.items():
        store.register(get_types_from_msg(definition, name))
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](sec=5, nanosec=7)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id, **({"seq": 1} if ros1 else {}))
    rows = [
        types["livox_ros_driver2/msg/CustomPoint"](i * 10, *map(float, points(0)[i, :3]), reflectivity=i, tag=0, line=i % 4)
        for i in range(count)
    ]
    kind = types["livox_ros_driver2/msg/CustomMsg"]
    return store, kind(header=header, timebase=9, point_num=count, lidar_id=0, rsvd=np.zeros(3, np.uint8), points=rows)


@pytest.mark.parametrize("count", [0, 1, 20])
@pytest.mark.parametrize("frame_id", ["", "l", "livox_frame"])
@pytest.mark.parametrize("ros1", [False, True])
def test_livox_custom_messages_are_clouds(tmp_path: Path, count: int, frame_id: str, ros1: bool) -> None:
    store, sent = livox(ros1, count, frame_id)
    kind = "livox_ros_driver2/msg/CustomMsg"
    bag = tmp_path / ("drive.bag" if ros1 else "drive")
    blob = store.serialize_ros1(sent, kind) if ros1 else store.serialize_cdr(sent, kind)
    make = rosbag1.Writer(bag) if ros1 else rosbag2.Writer(bag, version=8, storage_plugin=STORAGE["mcap"])
    with make as writer:
        writer.write(writer.add_connection("/livox/lidar", kind, typestore=store), START_NS, blob)
    ((_, cloud),) = read_clouds(bag)
    np.testing.assert_array_equal(cloud.xyz, points(0)[:count, :3])
    assert (len(cloud), cloud.stamp_ns, cloud.frame_id) == (count, 5_000_000_007, frame_id)
    if count:
        np.testing.assert_array_equal(cloud.intensity, np.arange(count))
        assert (cloud.intensity_field, cloud.intensity_full_scale) == ("reflectivity", 255)


def test_a_damaged_custom_message_costs_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, sent = livox(False, 20, "l")
    kind = "livox_ros_driver2/msg/CustomMsg"
    blob = bytes(store.serialize_cdr(sent, kind))
    with rosbag2.Writer(tmp_path / "drive", version=8, storage_plugin=STORAGE["mcap"]) as writer:
        connection = writer.add_connection("/livox/lidar", kind, typestore=store)
        for index, data in enumerate((blob, blob[:-30], blob)):
            writer.write(connection, START_NS + index, data)
    bad: list[int] = []
    assert len(list(read_clouds(tmp_path / "drive", on_bad=lambda index, _: bad.append(index)))) == 2
    assert bad == [1]
    assert "message 1: CustomMsg: the serialized message is damaged" in caplog.text


@pytest.mark.parametrize("damage", [b"\x28\xb5\x2f\xfd" + bytes(20), b"", b"\0\1\0\0" + b"\xff" * 4])
def test_a_damaged_message_costs_itself_alone(tmp_path: Path, damage: bytes) -> None:
    with rosbag2.Writer(tmp_path / "drive", version=8, storage_plugin=STORAGE["mcap"]) as writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=NEW)
        for index, data in enumerate((cdr(0), damage, cdr(2))):
            writer.write(connection, START_NS + index, data)
    bad: list[str] = []
    clouds = [cloud for _, cloud in read_clouds(tmp_path / "drive", on_bad=lambda _, error: bad.append(str(error)))]
    np.testing.assert_array_equal(clouds[1].xyz, points(2)[:, :3])
    assert len(bad) == 1
    assert "message 1: PointCloud2: the serialized message is damaged (it" in bad[0]
    assert "unpack_from" not in bad[0]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "'git lfs pull' fetches"),
        (b"<!DOCTYPE html><html>", r"it is a web page\); download"),
        (b"PK\3\4 and more", "it begins with b'PK"),
    ],
)
@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.bag"])
def test_a_file_that_is_no_bag_at_all_is_told_for_what_it_is(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / name).write_bytes(content)
    for path in (tmp_path / "bag", tmp_path / "bag" / name):
        if path.is_file() or name != "a.bag":
            with pytest.raises(DataError, match=text):
                find_cloud_topic(path)


def test_a_database_that_was_cut_off_comes_with_how_it_is_saved(tmp_path: Path) -> None:
    bag = write(tmp_path / "drive", "sqlite3")
    file = bag / "drive.db3"
    file.write_bytes(file.read_bytes()[:8192])
    with pytest.raises(DataError, match=r"sqlite3 OLD\.db3 \.recover"):
        find_cloud_topic(bag)


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("point_cloud_interfaces/msg/CompressedPointCloud2", "point_cloud_transport republish"),
        ("nebula_msgs/msg/NebulaPackets", "play the bag through the sensor's driver"),
        ("ouster_sensor_msgs/msg/PacketMsg", "play the bag through the sensor's driver"),
        ("velodyne_msgs/msg/VelodyneScan", "play the bag through the sensor's driver"),
        ("sensor_msgs/msg/LaserScan", "more than one plane"),
    ],
)
def test_clouds_of_another_type_come_with_what_to_do(tmp_path: Path, kind: str, hint: str) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    if kind not in store.types:
        store.register(get_types_from_msg("uint8[] data\n", kind))
    with rosbag2.Writer(tmp_path / "drive", version=8, storage_plugin=STORAGE["mcap"]) as writer:
        writer.write(writer.add_connection("/packed", kind, typestore=store), START_NS, b"\0\1\0\0" + bytes(80))
    with pytest.raises(DataError, match=rf"has 0 PointCloud2 topics, .*/packed \[{kind}\].*{hint}"):
        list(read_raw(tmp_path / "drive"))
    with pytest.raises(DataError, match=hint):
        list(read_raw(tmp_path / "drive", "/packed"))


def test_split_files_belong_together(tmp_path: Path) -> None:
    names = ["drive_10.mcap", "drive_2.mcap", "other.db3", "drive.mcap.zstd"]
    groups = families([tmp_path / name for name in names])
    assert [[file.name for file in group] for group in groups] == [
        ["drive.mcap.zstd", "drive_2.mcap", "drive_10.mcap"],
        ["other.db3"],
    ]


def sweep(rings: int, columns: int, ring_of_row: object = None) -> Cloud:
    """A sensor of evenly spaced beams, its points in disorder."""
    inclination, azimuth = np.meshgrid(np.radians(np.linspace(-20, 10, rings)), np.linspace(-3.1, 3.1, columns), indexing="ij")
    xyz = 12 * np.stack([np.cos(inclination) * np.cos(azimuth), np.cos(inclination) * np.sin(azimuth), np.sin(inclination)], -1)
    row = np.repeat(np.arange(rings), columns)
    order = np.random.default_rng(0).permutation(row.size)
    ring = row if ring_of_row is None else np.asarray(ring_of_row)[row]
    return make_cloud(xyz.reshape(-1, 3)[order], np.ones(row.size), ring[order], stamp_ns=START_NS)


@pytest.mark.parametrize(
    ("cloud", "height"),
    [
        (sweep(16, 512), 16),
        (sweep(32, 256, np.arange(32)[::-1]), 32),
        (make_cloud(sweep(40, 256).xyz, np.ones(40 * 256), np.arange(40 * 256) % 4), 64),
        (sweep(40, 256, np.arange(40) // 10), 64),
    ],
    ids=["rings", "rings from above", "Livox lines", "bands"],
)
def test_only_rings_that_are_rows_become_rows(tmp_path: Path, cloud: Cloud, height: int) -> None:
    from weakseg_ros.data.importer import ImportConfig, import_bag
    from weakseg_ros.data.scans import open_scans

    with CloudBagWriter(tmp_path / "bag") as writer:
        writer.write(cloud)
    report = import_bag(ImportConfig(tmp_path / "bag", out=tmp_path / "scans"))
    assert open_scans(tmp_path / "scans").spec.height == height
    assert any("laser index" in note for note in report.notes) == (height == 64)


def test_every_file_of_a_folder_of_bags_counts(tmp_path: Path) -> None:
    for name in ("a_0.mcap", "a_1.mcap", "b_0.mcap"):
        (tmp_path / "mixed" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mixed" / name).touch()
    (tmp_path / "ros1").mkdir()
    for name in ("drive_1.bag", "drive_2.bag"):
        (tmp_path / "ros1" / name).touch()
    (tmp_path / "split").mkdir()
    for name in ("drive_0.mcap", "drive_1.mcap"):
        (tmp_path / "split" / name).touch()
    assert [bag.name for bag in bags_in(tmp_path / "mixed")] == ["a_0.mcap", "a_1.mcap", "b_0.mcap"]
    assert [bag.name for bag in bags_in(tmp_path / "ros1")] == ["drive_1.bag", "drive_2.bag"]
    assert bags_in(tmp_path / "split") == [], "one recording in two files"


def test_a_pipe_under_the_name_of_a_bag_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "drive.mcap")
    with pytest.raises(DataError, match="is a pipe, socket or device, not a file"):
        find_cloud_topic(tmp_path / "drive.mcap")
    with pytest.raises(DataError, match=r"holds no \.mcap or \.db3 file"):
        find_cloud_topic(tmp_path)


def test_a_missing_part_of_a_split_bag_is_named(tmp_path: Path) -> None:
    bag = split_bag(tmp_path)
    assert_read(bag)
    (bag / "drive_1.mcap").unlink()
    text = r"drive_1\.mcap is missing, which metadata\.yaml lists; 2 of 3 messages of '/points' could be read"
    with pytest.raises(PartialBagError, match=text):
        list(read_raw(bag))
    for name in ("drive_0.mcap", "drive_2.mcap"):
        (bag / name).unlink()
    with pytest.raises(DataError, match=r"drive_0\.mcap, drive_1\.mcap, drive_2\.mcap are missing, which metadata\.yaml lists"):
        find_cloud_topic(bag)


def test_a_damaged_part_of_a_split_bag_costs_itself_alone(tmp_path: Path) -> None:
    bag = split_bag(tmp_path, "sqlite3")
    assert_read(bag)
    blob = bytearray((bag / "drive_1.db3").read_bytes())
    at = blob.index(points(1).tobytes()[:64])
    page = at // 4096 * 4096
    blob[page : page + 100] = bytes(range(100))
    (bag / "drive_1.db3").write_bytes(blob)
    read = []
    with pytest.raises(PartialBagError, match=r"2 of 3 messages of '/points' could be read"):
        read.extend(read_raw(bag))
    assert [message.data for message in read] == [cdr(0), cdr(2)]
    assert [message.follows_gap for message in read] == [False, True]


def test_a_damaged_message_beside_the_clouds_costs_no_cloud(tmp_path: Path) -> None:
    with rosbag2.Writer(tmp_path / "drive", version=8, storage_plugin=STORAGE["mcap"]) as writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=NEW)
        odometry = writer.add_connection("/odom", "nav_msgs/msg/Odometry", typestore=NEW)
        for index in range(COUNT):
            writer.write(odometry, START_NS + index, b"\x28\xb5\x2f\xfd" + bytes(20))
            writer.write(connection, START_NS + index, cdr(index))
    beside: list[bytes] = []
    assert len(list(read_raw(tmp_path / "drive", beside={"/odom": beside.append}))) == COUNT
    assert beside == []
    assert list(read_odometry(tmp_path / "drive", "/odom")) == []


def test_a_part_that_metadata_does_not_list_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = split_bag(tmp_path)
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace("  - drive_2.mcap\n", "").replace("message_count: 3", "message_count: 2"))
    assert_read(bag, 2)
    assert "drive_2.mcap is not listed in metadata.yaml and not read; 'ros2 bag reindex' lists all files" in caplog.text


@pytest.mark.parametrize(
    ("name", "storage", "advice"),
    [
        ("drive.MCAP", "mcap", "drive.MCAP holds a bag: rename it to drive.mcap"),
        ("drive.mcap.active", "mcap", "drive.mcap.active holds a bag: rename it to drive.mcap"),
        ("drive", "sqlite3", "drive holds a bag: rename it to drive.db3"),
        ("drive.bag", "mcap", "its content is that of a .mcap file); rename it to drive.mcap"),
        ("drive.mcap", "sqlite3", "its content is that of a .db3 file); rename it to drive.db3"),
    ],
)
@pytest.mark.parametrize("verb", ["import", "predict"])
def test_a_bag_under_another_name_is_told_what_it_is(
    tmp_path: Path, name: str, storage: str, advice: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = (one for one in write(tmp_path / "made", storage).iterdir() if one.suffix != ".yaml")
    (tmp_path / name).write_bytes(file.read_bytes())
    assert weakseg([verb, str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert advice in capsys.readouterr().err


def test_a_bag_two_folders_below_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "day" / "first").mkdir(parents=True)
    bag = write(tmp_path / "day" / "first" / "drive")
    assert weakseg(["import", str(tmp_path / "day"), "--out", str(tmp_path / "out")]) == 2
    assert f"; name {bag}" in capsys.readouterr().err


def test_a_bag_of_ros_1_without_its_index_is_told_how_it_is_restored(tmp_path: Path) -> None:
    with rosbag1.Writer(tmp_path / "drive.bag") as bag:
        connection = bag.add_connection("/points", POINT_CLOUD, typestore=get_typestore(Stores.ROS1_NOETIC))
        bag.write(connection, START_NS, bytes(10))
    blob = (tmp_path / "drive.bag").read_bytes()
    (tmp_path / "drive.bag").write_bytes(blob[:-200])
    with pytest.raises(DataError, match="'rosbag reindex' of ROS 1 restores the index"):
        find_cloud_topic(tmp_path / "drive.bag")


def test_one_recording_in_two_storages_is_two_bags(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    for storage in STORAGE:
        (file,) = (one for one in write(tmp_path / storage / "drive", storage).iterdir() if one.suffix != ".yaml")
        file.rename(tmp_path / "both" / file.name)
    assert [bag.name for bag in bags_in(tmp_path / "both")] == ["drive.db3", "drive.mcap"]
