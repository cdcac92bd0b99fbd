# SPDX-License-Identifier: Apache-2.0
"""Single .mcap files as other tools write them: of any profile, without a summary, with chunks whose checksum is wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from support import optional

optional("rosbags")

from support.recorded_bags import COUNT, NEW, OLD, START_NS, assert_read, cdr, message, points, write
from weakseg_ros.data.bag_types import POINT_CLOUD
from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.data.bags import PartialBagError, list_topics, read_clouds, read_raw
from weakseg_ros.points.cloud import make_cloud


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def record(opcode: int, body: bytes) -> bytes:
    return bytes([opcode]) + struct.pack("<Q", len(body)) + body


def write_mcap(path: Path, profile: str, schema: tuple[str, str, str], encoding: str, blobs: list[bytes], library: str) -> Path:
    """A file as `mcap convert` and other tools make it, without a summary."""
    magic = b"\x89MCAP0\r\n"
    out = magic + record(1, text(profile) + text(library)) + record(3, struct.pack("<H", 1) + b"".join(map(text, schema)))
    out += record(4, struct.pack("<HH", 1, 1) + text("/points") + text(encoding) + struct.pack("<I", 0))
    for index, blob in enumerate(blobs):
        out += record(5, struct.pack("<HIQQ", 1, index, START_NS + index, START_NS + index) + blob)
    path.write_bytes(out + record(15, struct.pack("<I", 0)) + record(2, struct.pack("<QQI", 0, 0, 0)) + magic)
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


def test_a_chunk_whose_checksum_is_wrong_is_said(tmp_path: Path) -> None:
    """rosbag2 writes the checksum of each chunk; what was read before the damaged one counts."""
    rng = np.random.default_rng(0)
    with CloudBagWriter(tmp_path / "bag", "/points") as bag:
        for stamp in range(60):
            bag.write(make_cloud(rng.normal(size=(4000, 3)), rng.random(4000), stamp_ns=stamp + 1, frame_id="lidar"))
    file = next((tmp_path / "bag").glob("*.mcap"))
    blob = bytearray(file.read_bytes())
    chunks = _with_checksums(blob)
    start, size = chunks[len(chunks) // 2]
    file.write_bytes(blob)
    assert sum(1 for _ in read_raw(tmp_path / "bag")) == 60
    blob[start + size // 2] ^= 0xFF
    file.write_bytes(blob)
    read = []
    with pytest.raises(PartialBagError, match=r"checksum mismatch; \d+ of 60 messages"):
        read.extend(read_raw(tmp_path / "bag"))
    assert 0 < len(read) < 60


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
