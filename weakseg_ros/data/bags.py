# SPDX-License-Identifier: Apache-2.0
"""Clouds in bags, read without ROS: rosbag2 folders (mcap, sqlite3), single .mcap and .db3 files, also packed by zstd, and
ROS 1 .bag; messages of Livox's own type as PointCloud2.

How a bag is opened, and what is said of a damaged one, is in `bag_open`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.typesys import Stores, get_typestore

from weakseg_ros.data import bag_files
from weakseg_ros.data.bag_chunks import Message, by_time, ros1_chunks
from weakseg_ros.data.bag_messages import FIELD_NAMES, build_message, cloud_message, header_values
from weakseg_ros.data.bag_open import BagTopic, OpenBag, has_damaged_chunks, open_bag, reason
from weakseg_ros.data.bag_types import POINT_CLOUD, hint_for, normal
from weakseg_ros.data.livox import CUSTOM_MSGS, read_custom_msg
from weakseg_ros.data.mcap_chunks import mcap_chunks, messages_in_order
from weakseg_ros.data.places import ODOMETRY
from weakseg_ros.errors import CloudError, DataError, did_you_mean
from weakseg_ros.points.cloud import Cloud, decode_cdr

READ_TYPES = (POINT_CLOUD, *CUSTOM_MSGS)

_FEWER_THAN_PROMISED = "metadata.yaml counts more messages than its files hold"

log = logging.getLogger(__name__)


class PartialBagError(DataError):
    """The end of what could be read of a damaged bag; `read` counts the messages that came before."""

    def __init__(self, text: str, read: int) -> None:
        super().__init__(text)
        self.read = read


class RawMessage(NamedTuple):
    """One recorded cloud, serialized as ROS 2 sends it."""

    stamp_ns: int
    """when it was recorded, not the stamp in its header"""
    data: bytes
    msgtype: str
    follows_gap: bool = False
    """whether messages before it are known to be lost, so that its number in the bag is not the one at which it was recorded"""


def list_topics(bag: Path | str) -> list[BagTopic]:
    """Every topic of a bag with its type and number of messages, by name; DataError where the bag cannot be read."""
    with open_bag(Path(bag)) as opened:
        return opened.topics()


def find_cloud_topic(bag: Path | str, topic: str = "") -> BagTopic:
    """The PointCloud2 topic `topic`, or the only one where it is empty.

    Raises DataError, naming the topics that there are, where it is missing, of another type, of several types, without a
    message, or where an empty name could mean more than one.
    """
    with open_bag(Path(bag)) as opened:
        chosen = _choose(opened, topic)
        if not chosen.messages:
            raise DataError(_why_empty(opened, chosen))
        return chosen


def _why_empty(opened: OpenBag, topic: BagTopic) -> str:
    """What there is to say of a topic without a message that can be read."""
    promised = opened.promised.get(topic.name, 0)
    if opened.damage or promised:
        return _share_read(opened, topic.name, 0, opened.damage or _FEWER_THAN_PROMISED)
    others = ", ".join(f"{t.name} ({t.messages})" for t in opened.topics() if t.msgtype in READ_TYPES and t.messages)
    full = f"; its PointCloud2 topics with clouds: {others}" if others else "; check that the driver ran, and record again"
    return f"{opened.path}: topic '{topic.name}' holds no cloud{full}"


def _share_read(opened: OpenBag, topic: str, read: int, damage: str) -> str:
    """What is wrong with a bag, and how many of the messages of a topic could be read of it."""
    promised = opened.promised.get(topic, 0)
    share = f"{read} of {promised}" if promised else str(read)
    return f"{opened.path}: {damage}; {share} messages of '{topic}' could be read: record or copy the bag again"


def read_raw(
    bag: Path | str, topic: str = "", from_ns: int | None = None, beside: Mapping[str, Callable[[bytes], None]] | None = None
) -> Iterator[RawMessage]:
    """The serialized messages of one PointCloud2 topic in recorded order; `topic` as in `find_cloud_topic`.

    With `from_ns` only those recorded at that time or later, which the bag's index finds without reading the rest. The messages
    of the topics `beside` are given to their functions as ROS 2 serialized them, in between and on the same way through the file.
    A damaged bag gives what can be read of it and then raises PartialBagError, so that a caller keeps the part. A message that is
    damaged inside comes without data, which `decode_cdr` refuses.
    """
    with open_bag(Path(bag)) as opened:
        chosen = _choose(opened, topic)
        read = 0
        found: list[str] = []
        for connection, stamp_ns, data, follows_gap in _messages(opened, {chosen.name, *(beside or {})}, found, from_ns):
            if connection.topic != chosen.name:
                _hand_over(beside or {}, connection, data)
                continue
            sound = _as_cdr_or_nothing(data, connection, f"{bag}: message {read}")
            yield RawMessage(stamp_ns, sound, POINT_CLOUD, follows_gap)
            read += 1
        damage = found[-1] if found else opened.damage
        promised = opened.promised.get(chosen.name, 0) if from_ns is None else 0
        if read < promised and not damage:
            damage = _FEWER_THAN_PROMISED
        if damage and not 0 < promised <= read:
            raise PartialBagError(_share_read(opened, chosen.name, read, damage), read)


def read_odometry(bag: Path | str, topic: str) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(stamp of its header in ns, x, y, z in m and quaternion x, y, z, w) of each sound pose of a topic of nav_msgs/Odometry.

    A damaged bag gives what can be read of it. Raises DataError where there is no such topic.
    """
    with open_bag(Path(bag)) as opened:
        known = [t for t in opened.topics() if t.msgtype == ODOMETRY]
        if topic not in [t.name for t in known]:
            names = ", ".join(t.name for t in known) or "none"
            raise DataError(f"{bag}: has no topic '{topic}' of {ODOMETRY}; its topics of this type: {names}")
        damage: list[str] = []
        for message in _messages(opened, {topic}, damage):
            pose = _pose_in(message.data, message.connection)
            if pose is not None:
                yield pose
        if damage:
            log.warning("%s: %s; some poses of '%s' are missing", bag, damage[-1], topic)


class _Recorded(NamedTuple):
    """A message as it lies in the bag."""

    connection: Any
    stamp_ns: int
    data: bytes
    follows_gap: bool


def _messages(opened: OpenBag, topics: Container[str], damage: list[str], from_ns: int | None = None) -> Iterator[_Recorded]:
    """The messages of some topics, file after file; what is found damaged on the way, and left out, is added to `damage`."""
    for number, reader in enumerate(opened.readers):
        connections = [connection for connection in reader.connections if connection.topic in topics]
        try:
            for connection, stamp_ns, data in _messages_of(reader, connections, damage, from_ns) if connections else ():
                yield _Recorded(connection, stamp_ns, data, bool(damage) or number >= opened.gap_from)
        except Exception as error:  # the parser of a damaged file raises anything
            damage.append(reason(error))


def _messages_of(reader: Any, connections: Sequence[Any], damage: list[str], from_ns: int | None) -> Iterator[Message]:
    """The messages of some topics of a file."""
    storage = getattr(reader, "storage", reader)
    text = has_damaged_chunks(Path(str(storage.path)))
    if isinstance(storage, McapReader) and not storage.chunks:
        return messages_in_order(storage, connections, from_ns, lambda: damage.append(text))
    if isinstance(storage, McapReader):
        return by_time(mcap_chunks(storage, connections, from_ns), lambda: damage.append(text))
    if isinstance(storage, Ros1Reader):
        return by_time(list(ros1_chunks(storage, connections, from_ns)), lambda: damage.append(text))
    return iter(reader.messages(connections, start=from_ns))


def _pose_in(data: bytes, connection: Any) -> tuple[int, NDArray[np.float64]] | None:
    """What a message of nav_msgs/Odometry says; None where it says nothing."""
    is_ros1 = getattr(connection.ext, "serialization_format", "ros1") == "ros1"
    try:
        data = bag_files.unzipped(data)
        message = _ros1_types().deserialize_ros1(data, ODOMETRY) if is_ros1 else ros2_types().deserialize_cdr(data, ODOMETRY)
    except Exception:  # the parser of a damaged message raises anything
        return None
    place, turn, stamp = message.pose.pose.position, message.pose.pose.orientation, message.header.stamp
    pose = np.array([place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w])
    if not np.isfinite(pose).all() or np.linalg.norm(pose[3:]) < 0.5:
        return None
    return stamp.sec * 10**9 + stamp.nanosec, pose


def _hand_over(beside: Mapping[str, Callable[[bytes], None]], connection: Any, data: bytes) -> None:
    """Give a message of another topic to whoever wants it; damaged ones, and those of ROS 1, laid out otherwise, are left out."""
    if getattr(connection.ext, "serialization_format", "ros1") != "cdr":
        return
    try:
        plain = bag_files.unzipped(data)
    except CloudError:
        return
    beside[connection.topic](plain)


def read_clouds(
    bag: Path | str,
    topic: str = "",
    intensity_field: str = "auto",
    on_bad: Callable[[int, CloudError], None] | None = None,
    every: int = 1,
) -> Iterator[tuple[int, Cloud]]:
    """(recorded stamp in ns, cloud) of one PointCloud2 topic, every `every`-th message of it; see `read_raw`, `cloud.decode`.

    A cloud that cannot be decoded is given to `on_bad` with its index and skipped; without `on_bad` its CloudError is
    raised.
    """
    for index, message in enumerate(read_raw(bag, topic)):
        if index % every:
            continue
        try:
            cloud = decode_cdr(message.data, intensity_field)
        except CloudError as error:
            named = CloudError(f"{bag}: message {index}: {error}", error.reason)
            if on_bad is None:
                raise named from None
            on_bad(index, named)
            continue
        yield message.stamp_ns, cloud


def _choose(opened: OpenBag, topic: str) -> BagTopic:
    topics = opened.topics()
    where = f"{opened.path}: {opened.damage}," if opened.damage else f"{opened.path}:"
    names = [t.name for t in topics]
    clouds = [t for t in topics if t.msgtype in READ_TYPES and names.count(t.name) == 1]
    listing = ", ".join(f"{t.name} ({t.messages})" for t in clouds) or "none"
    others = ", ".join(f"{t.name} [{t.msgtype}]" for t in topics if t not in clouds) or "none"
    if not topic:
        plain = [t for t in clouds if t.msgtype == POINT_CLOUD] or clouds
        plain = [t for t in plain if t.messages] or plain  # which empty topic is meant, nobody asks
        if len(plain) == 1:
            return plain[0]
        hint = hint_for(t.msgtype for t in topics)
        advice = f"choose one with a topic: {listing}" if clouds else f"its topics: {others}{hint}"
        raise DataError(f"{where} has {len(clouds)} PointCloud2 topics, expected one; {advice}")
    named = [t for t in topics if t.name == topic]
    if not named:
        hint = did_you_mean(topic, [t.name for t in clouds])
        raise DataError(f"{where} has no topic '{topic}'{hint or ';'} its PointCloud2 topics: {listing}; others: {others}")
    types = ", ".join(t.msgtype for t in named)
    if len(named) > 1:
        raise DataError(f"{where} topic '{topic}' mixes the types {types}; record it again with one type per topic")
    if named[0].msgtype not in READ_TYPES:
        hint = hint_for([named[0].msgtype])
        raise DataError(f"{where} topic '{topic}' is a {types}, not a PointCloud2; its PointCloud2 topics: {listing}{hint}")
    return named[0]


@cache
def ros2_types() -> Any:
    """The message classes of ROS 2; those of a PointCloud2 have not changed since Humble."""
    return get_typestore(Stores.ROS2_HUMBLE)


@cache
def _ros1_types() -> Any:
    return get_typestore(Stores.ROS1_NOETIC)


def _as_cdr(data: bytes, connection: Any) -> bytes:
    """A recorded message of one of READ_TYPES as a PointCloud2 in plain CDR."""
    data = bag_files.unzipped(data)
    is_ros1 = getattr(connection.ext, "serialization_format", "ros1") == "ros1"
    if normal(connection.msgtype) in CUSTOM_MSGS:
        stamp_ns, frame_id, points = read_custom_msg(data, is_ros1)
        return serialized(cloud_message(ros2_types(), points, (1, len(points)), stamp_ns, frame_id, False))
    return _ros1_to_cdr(data) if is_ros1 else data


def _as_cdr_or_nothing(data: bytes, connection: Any, where: str) -> bytes:
    """As `_as_cdr`; no bytes, which decode as no cloud, for a damaged message: those behind it may be sound."""
    try:
        return _as_cdr(data, connection)
    except Exception as error:  # the parser of a damaged message raises anything
        log.warning("%s: %s", where, reason(error))
        return b""


def _ros1_to_cdr(data: bytes) -> bytes:
    old = _ros1_types().deserialize_ros1(data, POINT_CLOUD)
    stamp = old.header.stamp
    values = {
        "header": header_values(stamp.sec * 10**9 + stamp.nanosec, old.header.frame_id),
        "fields": [{name: getattr(field, name) for name in FIELD_NAMES} for field in old.fields],
    }
    same = ("height", "width", "is_bigendian", "point_step", "row_step", "data", "is_dense")
    return serialized(build_message(ros2_types(), POINT_CLOUD, values | {name: getattr(old, name) for name in same}))


def serialized(message: Any) -> bytes:
    """A PointCloud2 as ROS 2 sends it."""
    return bytes(ros2_types().serialize_cdr(message, POINT_CLOUD))
