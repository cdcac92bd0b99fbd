# SPDX-License-Identifier: Apache-2.0
"""A bag with a reader for each of its files, and what is known to be wrong with it before a message is read.

Bags are other people's files: whatever the parser makes of a damaged one ends as a DataError that says what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rosbags import rosbag1, rosbag2

from weakseg_ros.data import bag_files
from weakseg_ros.data.bag_types import normal
from weakseg_ros.data.mcap_mend import MendedMcap
from weakseg_ros.errors import ConfigError, DataError
from weakseg_ros.yaml_files import read_yaml

NO_GAP = 2**31
log = logging.getLogger(__name__)


class BagTopic(NamedTuple):
    """A topic of a bag."""

    name: str
    msgtype: str
    messages: int


@dataclass(frozen=True)
class OpenBag:
    """A bag as long as its files are open."""

    path: Path
    readers: Sequence[Any]
    """one for each file, in order"""
    damage: str = ""
    """why not everything can be read; empty for a sound bag"""
    promised: dict[str, int] = field(default_factory=dict)
    """messages by topic as metadata.yaml counts them"""
    gap_from: int = NO_GAP
    """number of the first reader in which messages may be missing between others, or before the first"""

    def topics(self) -> list[BagTopic]:
        """Every topic with its type and number of messages, by name."""
        counts: dict[tuple[str, str], int] = {}
        for connection in (c for reader in self.readers for c in reader.connections):
            key = (connection.topic, normal(connection.msgtype))
            counts[key] = counts.get(key, 0) + connection.msgcount
        return [BagTopic(*key, count) for key, count in sorted(counts.items())]


@contextmanager
def open_bag(path: Path) -> Iterator[OpenBag]:
    """The bag with all its readers; DataError where nothing of it can be read."""
    if not path.exists():
        raise DataError(f"{path}: there is no such bag; check the path")
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path}: is a pipe, socket or device, not a file; record it to a file first")
    with ExitStack() as stack:
        yield _open_parts(stack, path)


def _open_parts(stack: ExitStack, path: Path) -> OpenBag:
    if path.is_file() and bag_files.storage_suffix(path) == ".bag":
        file, damage = bag_files.unpacked(stack, path)
        return OpenBag(path, [_enter(stack, file, rosbag1.Reader, path)], damage)
    if path.is_dir() and (path / bag_files.METADATA).is_file():
        if any(map(bag_files.is_unsettled, bag_files.storage_files(path))):
            return _open_files(stack, path)
        try:
            whole = _enter(stack, path, rosbag2.Reader, path)
        except DataError as error:
            return _open_files(stack, path, error)
        _say_unlisted(path)
        # its files one by one: the reader of the folder leaves out topics whose QoS differs between metadata.yaml and file
        promised = {c.topic: c.msgcount for c in whole.connections}
        return OpenBag(path, whole.storage.storages, promised=promised)
    return _open_files(stack, path)


def _enter(stack: ExitStack, file: Path | MendedMcap, reader: Callable[[Any], Any], path: Path) -> Any:
    """The reader of a file that is, or stands in for, `path`."""
    try:
        return stack.enter_context(reader(file))
    except Exception as error:  # the parser of a damaged file raises anything
        strange = bag_files.stranger(file) if isinstance(file, Path) and file.is_file() else ""
        found, _, remedy = strange.partition("; ")
        raise DataError(f"{path}: cannot be read as a bag ({found or reason(error)}); {remedy or _remedy(error)}") from None


def _remedy(error: Exception) -> str:
    if "is not supported" in str(error):  # a .bag of ROS before Diamondback has another format; copying it does not help
        return "'rosbag fix OLD.bag NEW.bag' of ROS 1 converts it"
    if "index looks damaged" in str(error):
        return "'rosbag reindex' of ROS 1 restores the index, or copy the bag again"
    if "malformed" in str(error):  # SQLite's word for a file that was cut off
        return "copy the bag again, or let 'sqlite3 OLD.db3 .recover | sqlite3 NEW.db3' save what is left"
    return "check the path, or copy the bag again"


@cache
def _say_without_metadata(path: Path) -> None:
    """Once, however often the bag is opened for one command."""
    log.warning("%s: has no metadata.yaml, so its files are read by name; 'ros2 bag reindex' restores it", path)


def _open_files(stack: ExitStack, path: Path, why: DataError | None = None) -> OpenBag:
    """The storage files of a bag, each as far as it goes; `why` it does not open as a whole, where that was tried."""
    names = [path] if path.is_file() else bag_files.storage_files(path)
    metadata = path / bag_files.METADATA
    if not names:
        lost = _say_missing(metadata) or "it holds no .mcap or .db3 file"
        raise DataError(f"{path}: cannot be read as a bag ({lost}); check the path, or copy the bag again")
    missing = [metadata.parent / name for name in _missing(metadata)]
    readers: list[Any] = []
    damage, gap = "", NO_GAP
    for name in names:
        if any(bag_files.natural(lost) < bag_files.natural(name) for lost in missing):
            gap = min(gap, len(readers))
        try:
            reader, broken, has_holes = _open_file(stack, name)
            readers.append(reader)
        except DataError as error:
            why, broken, has_holes = error if not readers else why, f"{name.name} is cut off or damaged", False
        if broken:
            gap = min(gap, len(readers) - has_holes)
        damage = broken or damage
    if not readers and why:
        raise why
    if metadata.is_file():
        damage = damage or _say_missing(metadata) or ("metadata.yaml does not match its files" if why else "")
    elif not damage and path.is_dir():
        _say_without_metadata(path)
    return OpenBag(path, readers, damage=damage, promised=_promised(metadata), gap_from=gap)


def _open_file(stack: ExitStack, path: Path) -> tuple[Any, str, bool]:
    """(reader of one file, what is missing of it, whether that is between its messages and not behind them)."""
    file, damage = bag_files.unpacked(stack, path)
    try:
        return _enter(stack, file, rosbag2.Reader, path), damage, False
    except DataError:
        if file.suffix != ".mcap" or bag_files.stranger(file):
            raise
    mended = MendedMcap(file)
    damage = damage or ("" if mended.is_complete else f"{path.name} is cut off or damaged")
    try:
        return _enter(stack, mended, rosbag2.Reader, path), damage, False
    except DataError:  # one damaged chunk hides all others where no summary tells what is in them
        sound = MendedMcap(file, leaves_out=True)
        return _enter(stack, sound, rosbag2.Reader, path), has_damaged_chunks(path), True


def _listed(metadata: Path) -> list[str]:
    """The names of the files that metadata.yaml lists; none where it is damaged."""
    try:
        return [Path(str(name)).name for name in read_yaml(metadata)["rosbag2_bagfile_information"]["relative_file_paths"]]
    except (ConfigError, LookupError, TypeError):
        return []


def _missing(metadata: Path) -> list[str]:
    """The files that metadata.yaml lists and the folder lacks."""
    return [name for name in _listed(metadata) if not (metadata.parent / name).exists()]


def _say_missing(metadata: Path) -> str:
    """Which files are missing; empty where all are there."""
    lost = _missing(metadata)
    return f"{_are(lost)} missing, which metadata.yaml lists" if lost else ""


@cache
def _say_unlisted(path: Path) -> None:
    """Which files of the recording metadata.yaml does not list: rosbag2 passes over them, and so does this program."""
    listed = _listed(path / bag_files.METADATA)
    more = [file.name for file in bag_files.storage_files(path) if file.name not in listed]
    if more:
        log.warning("%s: %s not listed in metadata.yaml and not read; 'ros2 bag reindex' lists all files", path, _are(more))


def _are(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _promised(metadata: Path) -> dict[str, int]:
    try:
        rows = read_yaml(metadata)["rosbag2_bagfile_information"]["topics_with_message_count"]
        return {str(row["topic_metadata"]["name"]): int(row["message_count"]) for row in rows}
    except (ConfigError, ValueError, LookupError, TypeError):
        return {}


def has_damaged_chunks(file: Path) -> str:
    """What is said of an mcap file of which not all chunks can be read."""
    return f"{file.name} has damaged chunks, which are left out"


def reason(error: Exception) -> str:
    """A parser's complaint in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
