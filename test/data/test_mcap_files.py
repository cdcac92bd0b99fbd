# SPDX-License-Identifier: Apache-2.0
"""Single .mcap files as other tools write them: of any profile, without a summary, with chunks whose checksum is wrong."""

from __future__ import annotations

import struct
import sys
import zlib
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from support import optional

optional("rosbags")

import lz4.frame as lz4

from support.recorded_bags import COUNT, NEW, OLD, START_NS, assert_read, cdr, message, points, write
from weakseg_ros.data.bag_messages import build_message, header_values
from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import PartialBagError, list_topics, read_clouds, read_odometry, read_raw
from weakseg_ros.errors import DataError
from weakseg_ros.points.cloud import make_cloud

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def record(opcode: int, body: bytes) -> bytes:
    return bytes([opcode]) + struct.pack("<Q", len(body)) + body


MAGIC = b"\x89MCAP0\r\n"


def header(profile: str = "ros2", library: str = "mcap") -> bytes:
    return MAGIC + record(1, text(profile) + text(library))


def topic(number: int, name: str, schema: tuple[str, str, str], encoding: str = "cdr") -> bytes:
    """The records of a schema and a topic of it."""
    declared = record(3, struct.pack("<H", number) + b"".join(map(text, schema)))
    return declared + record(4, struct.pack("<HH", number, number) + text(name) + text(encoding) + struct.pack("<I", 0))


def sent(number: int, stamp_ns: int, blob: bytes) -> bytes:
    return record(5, struct.pack("<HIQQ", number, 0, stamp_ns, stamp_ns) + blob)


def footer(summary_start: int = 0) -> bytes:
    return record(2, struct.pack("<QQI", summary_start, 0, 0)) + MAGIC


def write_mcap(path: Path, profile: str, schema: tuple[str, str, str], encoding: str, blobs: list[bytes], library: str) -> Path:
    """A file as `mcap convert` and other tools make it, without a summary."""
    out = header(profile, library) + topic(1, "/points", schema, encoding)
    out += b"".join(sent(1, START_NS + index, blob) for index, blob in enumerate(blobs))
    path.write_bytes(out + record(15, struct.pack("<I", 0)) + footer())
    return path


ROS1 = ("sensor_msgs/PointCloud2", "ros1msg", OLD.generate_msgdef(POINT_CLOUD)[0])
ROS2 = (POINT_CLOUD, "ros2msg", NEW.generate_msgdef(POINT_CLOUD, ros_version=2)[0])


@pytest.mark.parametrize("library", ["mcap go v1.0.4", "go", ""])
@pytest.mark.parametrize(
    ("profile", "schema", "encoding"),
    [
        ("ros1", ROS1, "ros1"),
        ("", ROS2, "cdr"),
        ("drone", ROS2, "cdr"),
        ("ros2", ("sensor_msgs/PointCloud2", *ROS2[1:]), "cdr"),
        ("ros2", (POINT_CLOUD, "ros2msg", POINT_CLOUD), "cdr"),
    ],
)
def test_an_mcap_file_of_another_profile_is_read(
    tmp_path: Path, profile: str, schema: tuple[str, str, str], encoding: str, library: str
) -> None:
    blobs = [bytes(OLD.serialize_ros1(message(i, OLD), POINT_CLOUD)) if encoding == "ros1" else cdr(i) for i in range(COUNT)]
    file = write_mcap(tmp_path / "drive.mcap", profile, schema, encoding, blobs, library)
    assert list_topics(file) == [("/points", POINT_CLOUD, COUNT)]
    assert_read(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(points(COUNT - 1).tobytes())])
    with pytest.raises(PartialBagError, match=r"cut off or damaged; 2 messages"):
        list(read_clouds(file))


def test_an_indexed_mcap_file_without_a_profile_is_read(tmp_path: Path) -> None:
    file = next(write(tmp_path / "drive").glob("*.mcap"))
    blob = file.read_bytes()
    length = struct.unpack_from("<I", blob, 17)[0]
    assert blob[21 : 21 + length] == b"ros2"
    library_length = struct.unpack_from("<I", blob, 25)[0]
    library = blob[29 : 29 + library_length].decode()
    file.write_bytes(blob[:17] + text("") + text(library + "    ") + blob[29 + library_length :])
    assert_read(file)


def test_a_chunk_whose_checksum_is_wrong_costs_itself_alone(tmp_path: Path) -> None:
    """rosbag2 writes the checksum of each chunk."""
    rng = np.random.default_rng(0)
    with CloudBagWriter(tmp_path / "bag", "/points") as bag:
        for stamp in range(60):
            bag.write(make_cloud(rng.normal(size=(4000, 3)), rng.random(4000), stamp_ns=stamp + 1, frame_id="lidar"))
    file = next((tmp_path / "bag").glob("*.mcap"))
    blob = bytearray(file.read_bytes())
    chunks = _with_checksums(blob)
    start, size = chunks[len(chunks) // 2]
    file.write_bytes(blob)
    sound = list(read_raw(tmp_path / "bag"))
    assert len(sound) == 60
    lost = [bytes(blob[start : start + size]).count(struct.pack("<QQ", n, n)) for n in range(1, 61)]
    assert 0 < sum(lost) < 30
    blob[start + size // 2] ^= 0xFF
    file.write_bytes(blob)
    read = []
    text = rf"{file.name} has damaged chunks, which are left out; {60 - sum(lost)} of 60 messages of '/points' could be read"
    with pytest.raises(PartialBagError, match=text):
        read.extend(read_raw(tmp_path / "bag"))
    assert [message.data for message in read] == [m.data for m, is_lost in zip(sound, lost, strict=True) if not is_lost]
    assert [message.follows_gap for message in read] == [False] * lost.index(1) + [True] * (len(read) - lost.index(1))


def _with_checksums(blob: bytearray) -> list[tuple[int, int]]:
    """Write the checksum into each chunk; (offset, size) of their records."""
    at, chunks = 8, []
    while blob[at] != 2:
        opcode, length = struct.unpack_from("<BQ", blob, at)
        if opcode == 6:
            compression = struct.unpack_from("<I", blob, at + 9 + 28)[0]
            start = at + 9 + 32 + compression + 8
            size = struct.unpack_from("<Q", blob, start - 8)[0]
            struct.pack_into("<I", blob, at + 9 + 24, zlib.crc32(blob[start : start + size]))
            chunks.append((start, size))
        at += 9 + length
    return chunks


@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
@pytest.mark.parametrize("end", ["whole", "killed", "chunk cut"])
def test_packed_chunks_are_read_with_and_without_a_summary(tmp_path: Path, compression: str, end: str) -> None:
    packed = chunk(compression, topic(1, "/points", ROS2) + sent(1, START_NS, cdr(0)) + sent(1, START_NS + 1, cdr(1)))
    last = chunk(compression, sent(1, START_NS + 2, cdr(2)))
    file = tmp_path / "drive.mcap"
    if end == "whole":
        file.write_bytes(header() + packed + last + footer())
        assert_read(file)
        return
    file.write_bytes(header() + packed + (last if end == "killed" else last[: len(last) // 2]))
    read = []
    with pytest.raises(PartialBagError, match=rf"drive\.mcap is cut off or damaged; {3 if end == 'killed' else 2} messages"):
        read.extend(read_raw(file))
    assert [message.data for message in read] == [cdr(i) for i in range(3 if end == "killed" else 2)]


def chunk(compression: str, records: bytes, start_ns: int = START_NS, checksum: int | None = None) -> bytes:
    """The record of a chunk that holds others."""
    checksum = zlib.crc32(records) if checksum is None else checksum
    packed = {"": lambda: records, "zstd": lambda: zstd.compress(records), "lz4": lambda: lz4.compress(records)}[compression]()
    body = struct.pack("<QQQI", start_ns, start_ns + 2, len(records), checksum) + text(compression)
    return record(6, body + struct.pack("<Q", len(packed)) + packed)


def test_times_that_fall_end_no_file_of_a_killed_recorder(tmp_path: Path) -> None:
    """Topics are recorded side by side, and the time of a simulation starts again."""
    speed = ("std_msgs/msg/Float32", "ros2msg", "float32 data")
    records = topic(1, "/points", ROS2) + topic(2, "/speed", speed)
    for index, stamp in enumerate((START_NS + 5, START_NS + 6, 3)):
        records += sent(1, stamp, cdr(index)) + sent(2, stamp - 2, b"\0\1\0\0" + bytes(4))
    (tmp_path / "drive.mcap").write_bytes(header() + records)
    read, beside = [], []
    with pytest.raises(PartialBagError, match="cut off or damaged; 3 messages"):
        read.extend(read_raw(tmp_path / "drive.mcap", beside={"/speed": beside.append}))
    assert [message.data for message in read] == [cdr(i) for i in range(3)]
    assert len(beside) == 3


def test_chunks_that_are_indexed_without_their_messages_are_read(tmp_path: Path) -> None:
    records = b"".join(sent(1, START_NS + i, cdr(i)) for i in range(COUNT))
    made = chunk("zstd", topic(1, "/points", ROS2) + records)
    data = header() + made + record(15, struct.pack("<I", 0))
    index = (
        struct.pack("<QQQQIQ", START_NS, START_NS + 2, len(header()), len(made), 0, 0) + text("zstd") + struct.pack("<QQ", 0, 0)
    )
    counts = struct.pack("<QHIIIIQQ", COUNT, 1, 1, 0, 0, 1, START_NS, START_NS + 2) + struct.pack("<IHQ", 10, 1, COUNT)
    summary = topic(1, "/points", ROS2) + record(8, index) + record(11, counts)
    (tmp_path / "drive.mcap").write_bytes(data + summary + footer(len(data)))
    assert_read(tmp_path / "drive.mcap")


@pytest.mark.parametrize("summary", [True, False])
def test_topics_in_other_encodings_do_not_hide_those_of_ros(tmp_path: Path, summary: bool) -> None:
    foreign = topic(2, "/seen", ("foxglove.PointCloud", "protobuf", "any"), "protobuf")
    foreign += topic(3, "/log", ("log", "jsonschema", "{}"), "json")
    records = topic(1, "/points", ROS2) + foreign + sent(2, START_NS, b"any")
    records += b"".join(sent(1, START_NS + i, cdr(i)) for i in range(COUNT))
    data = header() + records + record(15, struct.pack("<I", 0))
    told = topic(1, "/points", ROS2) + foreign if summary else b""
    (tmp_path / "drive.mcap").write_bytes(data + told + footer(len(data) if summary else 0))
    assert_read(tmp_path / "drive.mcap")
    with pytest.raises(DataError, match=r"'/seen' is a foxglove\.PointCloud, not a PointCloud2"):
        list(read_raw(tmp_path / "drive.mcap", "/seen"))


@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_damaged_chunk_costs_itself_alone_where_there_is_no_summary(tmp_path: Path, compression: str, is_closed: bool) -> None:
    """A disk that lost its power leaves blocks of zeros."""
    chunks = [bytearray(chunk(compression, sent(1, START_NS + i, cdr(i)))) for i in range(3)]
    chunks[1][-200:] = bytes(200)
    file = tmp_path / "drive.mcap"
    file.write_bytes(header() + topic(1, "/points", ROS2) + b"".join(chunks) + (footer() if is_closed else b""))
    read = []
    with pytest.raises(PartialBagError, match=r"drive\.mcap has damaged chunks, which are left out; 2 messages"):
        read.extend(read_raw(file))
    assert [message.data for message in read] == [cdr(0), cdr(2)]


@pytest.mark.parametrize("index", ["messages", "chunks", "statistics"])
@pytest.mark.parametrize(
    ("compression", "damage"),
    [*product(["", "zstd", "lz4"], ["zeros", "a length inside"]), ("zstd", "another compression")],
)
def test_a_damaged_chunk_costs_itself_alone_where_there_is_a_summary(
    tmp_path: Path, compression: str, index: str, damage: str
) -> None:
    """As without one: the same clouds, and the same message."""
    records = [sent(1, START_NS + i, cdr(i)) for i in range(4)]
    chunks = [chunk(compression, one, START_NS + i) for i, one in enumerate(records)]
    if damage == "zeros":
        chunks[1] = chunks[1][:-200] + bytes(200)
    elif damage == "a length inside":
        chunks[1] = chunk(compression, records[1][:1] + struct.pack("<Q", 2**60) + records[1][9:], START_NS + 1, checksum=0)
    else:
        chunks[1] = chunk(compression, records[1], START_NS + 1).replace(text(compression), text("x" * len(compression)), 1)
    file = tmp_path / "drive.mcap"
    file.write_bytes(indexed(chunks, compression, index, [len(one) for one in records]))
    assert list_topics(file) == [("/points", POINT_CLOUD, 4)]
    read = []
    with pytest.raises(PartialBagError, match=r"drive\.mcap has damaged chunks, which are left out; 3 messages"):
        read.extend(read_raw(file))
    assert [message.data for message in read] == [cdr(0), cdr(2), cdr(3)]
    assert [message.follows_gap for message in read] == [False, True, True]
    later = []
    with pytest.raises(PartialBagError, match="damaged chunks") if index == "statistics" else nullcontext():
        later.extend(read_raw(file, from_ns=START_NS + 2))
    assert [message.data for message in later] == [cdr(2), cdr(3)]


def indexed(
    chunks: list[bytes],
    compression: str,
    index: str,
    sizes: list[int],
    name: str = "/points",
    schema: tuple[str, str, str] = ROS2,
) -> bytes:
    """A file of chunks of one message each and a summary: an index of the messages, of the chunks alone, or statistics alone."""
    summary = topic(1, name, schema)
    data = header() + summary
    for number, (made, size) in enumerate(zip(chunks, sizes, strict=True)):
        start, stamp = len(data), START_NS + number
        data += made
        offsets, behind = b"", b""
        if index == "messages":
            offsets, behind = struct.pack("<HQ", 1, len(data)), record(7, struct.pack("<HIQQ", 1, 16, stamp, 0))
        data += behind
        times = struct.pack("<QQQQ", stamp, stamp, start, len(made))
        places = struct.pack("<I", len(offsets)) + offsets + struct.pack("<Q", len(behind))
        packed = len(made) - 9 - 28 - 4 - len(compression) - 8
        if index != "statistics":
            summary += record(8, times + places + text(compression) + struct.pack("<QQ", packed, size))
    data += record(15, struct.pack("<I", 0))
    count = len(chunks)
    summary += record(
        11,
        struct.pack("<QHIIIIQQ", count, 1, 1, 0, 0, count, START_NS, START_NS + count - 1) + struct.pack("<IHQ", 10, 1, count),
    )
    return data + summary + footer(len(data))


def test_odometry_behind_a_damaged_chunk_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kind = "nav_msgs/msg/Odometry"
    schema = (kind, "ros2msg", NEW.generate_msgdef(kind, ros_version=2)[0])
    records = []
    for index in range(3):
        spot = {"position": {"x": float(index), "y": 0.0, "z": 0.0}, "orientation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0}}
        odometry = build_message(NEW, kind, {"header": header_values(index, "odom"), "pose": {"pose": spot}})
        records.append(sent(1, START_NS + index, bytes(NEW.serialize_cdr(odometry, kind))))
    chunks = [chunk("zstd", one, START_NS + i) for i, one in enumerate(records)]
    chunks[1] = chunks[1][:-10] + bytes(10)
    (tmp_path / "drive.mcap").write_bytes(indexed(chunks, "zstd", "messages", [len(one) for one in records], "/odom", schema))
    assert [pose[0] for _, pose in read_odometry(tmp_path / "drive.mcap", "/odom")] == [0, 2]
    assert "drive.mcap has damaged chunks, which are left out; some poses of '/odom' are missing" in caplog.text
