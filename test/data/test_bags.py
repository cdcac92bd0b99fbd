# SPDX-License-Identifier: Apache-2.0
"""Real bags, written here: whole, cut off, without metadata, split, of several topics and types, ROS 1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import PartialBagError, find_cloud_topic, list_topics, read_clouds, read_raw
from weakseg_ros.errors import CloudError, DataError
from weakseg_ros.points.cloud import Cloud, decode_cdr, make_cloud

STORE = get_typestore(Stores.ROS2_JAZZY)
START_NS = 1_700_000_000_000_000_000
POINTS = 55_000
"""a cloud of them fills a chunk of the mcap file"""
FOOTER_BYTES = (1 + 8) + (8 + 8 + 4) + 8
"""head and body of an mcap file's last record, and the magic that ends the file"""


def clouds(count: int, points: int = POINTS) -> list[Cloud]:
    rng = np.random.default_rng(3)
    return [
        make_cloud(
            rng.normal(size=(points, 3)),
            rng.random(points),
            np.arange(points) % 32,
            stamp_ns=START_NS + i * 100_000_000,
            frame_id="lidar",
            height=2,
        )
        for i in range(count)
    ]


def write(path: Path, topic: str, sent: Iterable[Cloud]) -> Path:
    with CloudBagWriter(path, topic) as writer:
        for cloud in sent:
            writer.write(cloud)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bag of six clouds on /points."""
    return write(tmp_path_factory.mktemp("bags") / "drive", "/points", clouds(6))


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """The same bag, its mcap file cut off within the fifth cloud."""
    folder = tmp_path / "drive"
    folder.mkdir()
    (folder / "metadata.yaml").write_text((whole / "metadata.yaml").read_text())
    blob = (whole / "drive.mcap").read_bytes()
    (folder / "drive.mcap").write_bytes(blob[: int(len(blob) * 4.5 / 6)])
    return folder


def read_all(bag: Path, topic: str = "") -> tuple[list[Cloud], DataError | None]:
    """What a caller has in hand when the bag ends, and the error that ended it."""
    kept: list[Cloud] = []
    try:
        kept.extend(cloud for _, cloud in read_clouds(bag, topic))
    except DataError as error:
        return kept, error
    return kept, None


def assert_same(one: Cloud, other: Cloud) -> None:
    for name in ("xyz", "intensity", "ring", "flags"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.stamp_ns, one.frame_id, one.height, one.width) == (other.stamp_ns, other.frame_id, other.height, other.width)


def test_written_clouds_come_back(whole: Path) -> None:
    received = list(read_clouds(whole))
    assert [stamp for stamp, _ in received] == [START_NS + i * 100_000_000 for i in range(6)]
    for (_, cloud), sent in zip(received, clouds(6), strict=True):
        assert_same(cloud, sent)


def test_metadata_is_of_version_9(whole: Path) -> None:
    information = yaml.safe_load((whole / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (information["version"], information["storage_identifier"], information["message_count"]) == (9, "mcap", 6)


def test_topics(whole: Path) -> None:
    assert list_topics(whole) == [("/points", POINT_CLOUD, 6)]
    assert find_cloud_topic(whole) == find_cloud_topic(whole, "/points") == ("/points", POINT_CLOUD, 6)


def test_raw_messages_are_what_was_recorded(whole: Path) -> None:
    messages = list(read_raw(whole, "/points"))
    assert [m.stamp_ns for m in messages] == [START_NS + i * 100_000_000 for i in range(6)]
    assert {m.msgtype for m in messages} == {POINT_CLOUD}
    assert_same(decode_cdr(messages[2].data), clouds(3)[2])


def test_single_mcap_file(whole: Path) -> None:
    assert len(read_all(whole / "drive.mcap")[0]) == 6


def test_every_second_cloud(whole: Path) -> None:
    assert [stamp - START_NS for stamp, _ in read_clouds(whole, every=2)] == [0, 200_000_000, 400_000_000]


def test_cut_mcap_gives_its_whole_messages_then_says_so(cut: Path) -> None:
    kept, error = read_all(cut)
    assert len(kept) == 4
    assert_same(kept[3], clouds(4)[3])
    assert isinstance(error, PartialBagError)
    assert error.read == 4
    assert re.search(r"drive\.mcap is cut off or damaged; 4 of 6 messages of '/points' could be read: ", str(error))


def test_cut_mcap_without_metadata(cut: Path) -> None:
    (cut / "metadata.yaml").unlink()
    for bag in (cut, cut / "drive.mcap"):
        kept, error = read_all(bag)
        assert len(kept) == 4
        assert isinstance(error, PartialBagError)
        assert "; 4 messages of '/points' could be read" in str(error)


@pytest.mark.parametrize("missing", range(1, 12))
def test_mcap_cut_off_in_its_last_record(whole: Path, tmp_path: Path, missing: int) -> None:
    blob = (whole / "drive.mcap").read_bytes()
    file = tmp_path / "cut.mcap"
    file.write_bytes(blob[: -FOOTER_BYTES - missing])
    kept, error = read_all(file)
    assert len(kept) == 6
    assert isinstance(error, PartialBagError)


def test_sound_files_without_metadata_are_read(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "drive.mcap").write_bytes((whole / "drive.mcap").read_bytes())
    kept, error = read_all(tmp_path)
    assert (len(kept), error) == (6, None)
    assert "has no metadata.yaml" in caplog.text


def test_split_bag_is_read_in_order_up_to_its_damage(whole: Path, cut: Path) -> None:
    for number, source in ((2, whole), (10, cut)):
        (cut / f"part_{number}.mcap").write_bytes((source / "drive.mcap").read_bytes())
    (cut / "drive.mcap").unlink()
    information = yaml.safe_load((cut / "metadata.yaml").read_text())
    information["rosbag2_bagfile_information"]["relative_file_paths"] = ["part_2.mcap", "part_10.mcap"]
    information["rosbag2_bagfile_information"]["topics_with_message_count"][0]["message_count"] = 12
    (cut / "metadata.yaml").write_text(yaml.safe_dump(information))
    kept, error = read_all(cut)
    assert [(c.stamp_ns - START_NS) // 100_000_000 for c in kept] == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert isinstance(error, PartialBagError)
    assert "part_10.mcap is cut off or damaged; 10 of 12" in str(error)


def test_altered_chunk_costs_itself_alone(whole: Path, cut: Path) -> None:
    blob = bytearray((whole / "drive.mcap").read_bytes())
    at = 0
    for _ in range(4):  # the record that holds the fourth message: spoil the length within its chunk
        at = blob.index(b"lidar\0", at + 1)
    blob[at - 60 : at - 20] = b"\xff" * 40
    (cut / "drive.mcap").write_bytes(blob)
    kept, error = read_all(cut)
    assert isinstance(error, PartialBagError)
    assert error.read == len(kept) == 5
    assert "drive.mcap has damaged chunks, which are left out; 5 of 6 messages of '/points'" in str(error)
    assert_same(kept[3], clouds(5)[4])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_bag_cut_anywhere_ends_as_data_error(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    blob = (whole / "drive.mcap").read_bytes()
    length = data.draw(st.integers(0, len(blob) - 1) | st.integers(0, 4000) | st.integers(len(blob) - 2000, len(blob) - 1))
    file = tmp_path_factory.mktemp("cut") / "cut.mcap"
    file.write_bytes(blob[:length])
    kept, error = read_all(file)
    assert isinstance(error, DataError)
    for cloud, sent in zip(kept, clouds(len(kept)), strict=True):
        assert_same(cloud, sent)


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=400), st.sampled_from(["x.mcap", "x.db3", "x.bag", "x.pcd"]))
def test_random_files_end_as_data_error(tmp_path_factory: pytest.TempPathFactory, blob: bytes, name: str) -> None:
    file = tmp_path_factory.mktemp("random") / name
    for content in (blob, b"\x89MCAP0\r\n" + blob):
        file.write_bytes(content)
        with pytest.raises(DataError):
            list(read_clouds(file))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cloud topics, a string topic, and a topic that carries two types, in a sqlite3 bag."""
    path = tmp_path_factory.mktemp("bags") / "mixed"
    text = STORE.types["std_msgs/msg/String"]("hello")
    sent = [decode_to_message(cloud) for cloud in clouds(2, 10)]
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.SQLITE3) as writer:
        for topic, kind in (("/front", POINT_CLOUD), ("/rear", POINT_CLOUD), ("/chat", "std_msgs/msg/String")):
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for i in range(2):
                writer.write(connection, START_NS + i, STORE.serialize_cdr(sent[i] if kind == POINT_CLOUD else text, kind))
        for kind, content in ((POINT_CLOUD, sent[0]), ("std_msgs/msg/String", text)):
            writer.write(writer.add_connection("/both", kind, typestore=STORE), START_NS, STORE.serialize_cdr(content, kind))
    return path


def decode_to_message(cloud: Cloud, store: object = STORE) -> object:
    """A rosbags message of the types of `store`, as someone else's recorder would have made it."""
    types = store.types
    seconds, nanoseconds = divmod(cloud.stamp_ns, 10**9)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    sequence = {"seq": 7} if store is not STORE else {}
    data = np.concatenate([cloud.xyz, cloud.intensity[:, None]], 1).astype("<f4")
    names = ("x", "y", "z", "intensity")
    return types[POINT_CLOUD](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=cloud.frame_id, **sequence),
        height=cloud.height,
        width=cloud.width,
        fields=[types["sensor_msgs/msg/PointField"](name, 4 * i, 7, 1) for i, name in enumerate(names)],
        is_bigendian=False,
        point_step=16,
        row_step=16 * cloud.width,
        data=data.reshape(-1).view(np.uint8),
        is_dense=True,
    )


def test_sqlite3_bag(mixed: Path) -> None:
    received = [cloud for _, cloud in read_clouds(mixed, "/rear")]
    for cloud, sent in zip(received, clouds(2, 10), strict=True):
        np.testing.assert_array_equal(cloud.xyz, sent.xyz)
    assert len(list(read_raw(next(mixed.glob("*.db3")), "/front"))) == 2


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("", r"has 2 PointCloud2 topics, expected one; choose one with a topic: /front \(2\), /rear \(2\)"),
        (
            "/fornt",
            r"has no topic '/fornt'; did you mean '/front'\? its PointCloud2 topics: .* others: .*/chat \[std_msgs/msg/String\]",
        ),
        ("/chat", "topic '/chat' is a std_msgs/msg/String, not a PointCloud2; its PointCloud2 topics: /front"),
        ("/both", "topic '/both' mixes the types sensor_msgs/msg/PointCloud2, std_msgs/msg/String"),
    ],
)
def test_wrong_topic_names_the_right_ones(mixed: Path, topic: str, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        list(read_clouds(mixed, topic))
    assert not isinstance(caught.value, PartialBagError)


def test_a_topic_without_clouds_is_no_choice(tmp_path: Path) -> None:
    with rosbag2.Writer(tmp_path / "bag", version=9) as bag:
        bag.add_connection("/empty", POINT_CLOUD, typestore=STORE)
        full = bag.add_connection("/full", POINT_CLOUD, typestore=STORE)
        for number, cloud in enumerate(clouds(2, 10)):
            bag.write(full, number, bytes(STORE.serialize_cdr(decode_to_message(cloud), POINT_CLOUD)))
    assert find_cloud_topic(tmp_path / "bag").name == "/full"
    assert len(list(read_clouds(tmp_path / "bag"))) == 2


def test_damaged_sqlite3_bag(mixed: Path, tmp_path: Path) -> None:
    blob = next(mixed.glob("*.db3")).read_bytes()
    file = tmp_path / "cut.db3"
    file.write_bytes(blob[: len(blob) // 2])
    with pytest.raises(DataError, match=r"cut\.db3"):
        list(read_clouds(file, "/front"))


def test_bag_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such bag"):
        list_topics(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot be read as a bag"):
        list_topics(tmp_path)


def test_cloud_that_cannot_be_read_is_named_or_skipped(tmp_path: Path) -> None:
    good, path = clouds(3, 10), tmp_path / "bag"
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=STORE)
        for i, cloud in enumerate(good):
            blob = bytes(STORE.serialize_cdr(decode_to_message(cloud), POINT_CLOUD))
            writer.write(connection, START_NS + i, blob[:50] if i == 1 else blob)
    with pytest.raises(CloudError, match=r"bag: message 1: PointCloud2: the serialized message is damaged") as caught:
        list(read_clouds(path))
    assert caught.value.reason == "bad_cdr"
    bad: list[int] = []
    received = list(read_clouds(path, on_bad=lambda index, error: bad.append(index)))
    assert (bad, [stamp - START_NS for stamp, _ in received]) == ([1], [0, 2])


def test_ros1_bag(tmp_path: Path) -> None:
    store, path = get_typestore(Stores.ROS1_NOETIC), tmp_path / "old.bag"
    sent = clouds(2, 10)
    with rosbag1.Writer(path) as writer:
        connection = writer.add_connection("/velodyne_points", POINT_CLOUD, typestore=store)
        for cloud in sent:
            writer.write(connection, cloud.stamp_ns, store.serialize_ros1(decode_to_message(cloud, store), POINT_CLOUD))
    received = list(read_clouds(path))
    for (stamp, cloud), original in zip(received, sent, strict=True):
        np.testing.assert_array_equal(cloud.xyz, original.xyz)
        assert (stamp, cloud.stamp_ns, cloud.frame_id, cloud.height) == (original.stamp_ns, original.stamp_ns, "lidar", 2)
    (tmp_path / "cut.bag").write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match="cannot be read as a bag"):
        list_topics(tmp_path / "cut.bag")


@pytest.mark.parametrize("compression", [None, "bz2", "lz4"])
def test_a_damaged_chunk_of_a_ros1_bag_costs_itself_alone(tmp_path: Path, compression: str | None) -> None:
    store, path, sent = get_typestore(Stores.ROS1_NOETIC), tmp_path / "old.bag", clouds(5, 500)
    writer = rosbag1.Writer(path)
    if compression:
        writer.set_compression(rosbag1.Writer.CompressionFormat[compression.upper()])
    writer.chunk_threshold = 1000  # one cloud each
    with writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=store)
        for cloud in sent:
            writer.write(connection, cloud.stamp_ns, store.serialize_ros1(decode_to_message(cloud, store), POINT_CLOUD))
    assert len(read_all(path)[0]) == 5
    with rosbag1.Reader(path) as reader:
        chunks = [reader.chunks[info.pos] for info in reader.chunk_infos]
    assert len(chunks) == 5
    blob = bytearray(path.read_bytes())
    blob[chunks[2].datapos : chunks[2].datapos + 40] = bytes(40)
    path.write_bytes(blob)
    kept, error = read_all(path)
    assert [cloud.stamp_ns for cloud in kept] == [sent[i].stamp_ns for i in (0, 1, 3, 4)]
    assert isinstance(error, PartialBagError)
    assert "old.bag has damaged chunks, which are left out; 4 messages of '/points' could be read" in str(error)
    assert [message.follows_gap for message in read_raw(path, from_ns=sent[3].stamp_ns)] == [False, False]


def test_bag_without_messages(tmp_path: Path) -> None:
    bag = write(tmp_path / "empty", "/points", [])
    assert (list_topics(bag), list(read_clouds(bag))) == ([("/points", POINT_CLOUD, 0)], [])


def test_writer_never_overwrites_unasked(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"exists already; set overwrite"):
        CloudBagWriter(whole)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"exists already; choose another name"):
        CloudBagWriter(tmp_path / "photos", overwrite=True)
    bag = write(tmp_path / "bag", "/points", clouds(2, 10))
    with CloudBagWriter(bag, "/new", "renamed", overwrite=True) as writer:
        writer.write(clouds(1, 10)[0])
    assert [(cloud.frame_id, len(cloud)) for _, cloud in read_clouds(bag, "/new")] == [("renamed", 10)]


def test_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Cloud]:
        yield from clouds(1, 10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "bag", "/points", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_a_parser_that_complains_in_several_lines_is_told_in_one(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("a: [1,2")
    with pytest.raises(DataError, match=r"cannot be read as a bag \(.*\); check the path, or copy the bag again") as caught:
        list(read_clouds(tmp_path))
    assert "\n" not in str(caught.value)
