# SPDX-License-Identifier: Apache-2.0
"""The files of a bag: which there are, in which order, and what lies in those that zstd has packed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from weakseg_ros.errors import CloudError, DataError
from weakseg_ros.files import scratch_folder

STORAGE_SUFFIXES = (".mcap", ".db3")
ZSTD_SUFFIXES = (".zstd", ".zst")
BAG_SUFFIXES = (*STORAGE_SUFFIXES, ".bag")
METADATA = "metadata.yaml"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BEGINNINGS = {".mcap": b"\x89MCAP0\r\n", ".db3": b"SQLite format 3\x00", ".bag": b"#ROSBAG V"}
"""of each kind of file"""
_SHOWN_BYTES = 20
_BLOCK = 1 << 20


def storage_suffix(path: Path) -> str:
    """.mcap, .db3 or .bag of a bag's file, whether zstd has packed it or not; '' for any other file."""
    name = path.with_suffix("") if path.suffix in ZSTD_SUFFIXES else path
    return name.suffix if name.suffix in BAG_SUFFIXES else ""


def bags_in(path: Path) -> list[Path]:
    """The bags that a folder of bags, or a glob such as 'drives/*', names, in the order of their numbers; none for one bag.

    Files of one recording that was split (drive_0.mcap, drive_1.mcap) are one bag where nothing else lies in the folder; beside
    other bags each file is one, and so is each .bag of ROS 1.
    """
    if any(letter in path.name for letter in "*?[") and not path.exists():
        found = [one for one in distinct(path.parent.glob(path.name)) if _may_be_bag(one)]
        if not found:
            raise DataError(f"{path}: no bag matches this name; check the path")
        return sorted(found, key=natural)
    if not path.is_dir() or (path / METADATA).is_file():
        return []
    inside = distinct(path.iterdir())
    folders = [one for one in inside if one.is_dir() and _may_be_bag(one)]
    loose = [one for one in inside if one.is_file() and storage_suffix(one)]
    is_split = len(families(loose)) == 1 and {storage_suffix(one) for one in loose} in ({".mcap"}, {".db3"})
    several = [] if is_split and not folders else folders + loose
    return sorted(several, key=natural)


def is_bag(path: Path) -> bool:
    """Whether this is one bag: one of its files, or a folder that holds metadata.yaml or files of rosbag2."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(storage_files(path))
    return bool(storage_suffix(path))


def _may_be_bag(path: Path) -> bool:
    """Whether this is one bag as far as one can tell: a folder that may not be read counts, so that its bag is missed aloud."""
    try:
        return is_bag(path)
    except (PermissionError, DataError):
        return True


def storage_files(folder: Path) -> list[Path]:
    """The files of a rosbag2 in a folder, in the order of their numbers."""
    try:
        names = [name for name in distinct(folder.iterdir()) if storage_suffix(name) in STORAGE_SUFFIXES and name.is_file()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check the path") from None
    return sorted(names, key=natural)


def distinct(found: Iterable[Path]) -> list[Path]:
    """Those of some paths that hold data of their own, each once, sorted.

    Hidden files, links to another one of them ('latest'), and the packed copy of one beside it do not.
    """
    shown = [path for path in found if not path.name.startswith(".")]  # macOS lays a '._NAME' beside each file on other disks
    names = {path.name for path in shown}
    plain = [path for path in shown if not (path.suffix in ZSTD_SUFFIXES and path.stem in names)]
    return sorted(each_once(plain))


def each_once(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lead to the same place as another one; of a place and a link to it, the place."""
    places: dict[str, Path] = {}
    for path in paths:
        place = os.path.realpath(path)
        if place not in places or (places[place].is_symlink() and not path.is_symlink()):
            places[place] = path
    return list(places.values())


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts drive_10 behind drive_9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def unzipped(data: bytes) -> bytes:
    """A recorded message as it was before rosbag2 compressed it; any other comes back as it is. CloudError for a damaged one."""
    if data[:4] != ZSTD_MAGIC:
        return data
    try:
        return bytes(zstd_module().decompress(data))
    except (EOFError, ValueError, zstd_module().ZstdError):
        raise CloudError("its zstd compression is damaged; record or copy the bag again", "bad_cdr") from None


def stranger(file: Path) -> str:
    """What a file of a bag is, which begins as no bag does, and what to do; empty where it begins as it should."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(64)
    except OSError:
        return ""
    if not head:
        return "it is empty; record or copy the bag again"
    if head.startswith(BEGINNINGS.get(file.suffix, b"")):
        return ""
    if kind := _kind_of(head):
        return f"its content is that of a {kind} file; rename it to {file.with_suffix(kind).name}"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; 'git lfs pull' fetches the file itself"
    if head.lstrip().startswith(b"<"):
        return "it is a web page; download the file itself"
    return f"it begins with {head[:_SHOWN_BYTES]!r}, as no {file.suffix} file does; check what wrote it"


def under_another_name(file: Path) -> str:
    """What to do with a file that holds a bag and is not named as one, as a clause; empty for any other file."""
    if storage_suffix(file):
        return ""
    try:
        with open(file, "rb") as opened:
            kind = _kind_of(opened.read(64))
    except OSError:
        return ""
    name = file.name.removesuffix(".active")  # as recorders call what they have not finished
    bare = name[: -len(kind)] if name.lower().endswith(kind) else name
    return f"{file.name} holds a bag: rename it to {bare}{kind}" if kind else ""


def _kind_of(head: bytes) -> str:
    """The ending of the files of bags that begin so; empty where none does."""
    return next((suffix for suffix, beginning in BEGINNINGS.items() if head.startswith(beginning)), "")


def unpacked(stack: ExitStack, path: Path) -> tuple[Path, str]:
    """(the file that holds what zstd packed into `path`, what is wrong with it), itself where it is not packed.

    The unpacked file lives in the system's temporary folder as long as the stack is open. Of a file that was cut off, the
    part before that is unpacked.
    """
    if path.suffix not in ZSTD_SUFFIXES:
        return (_settled(stack, path) if is_unsettled(path) else path), ""
    target = stack.enter_context(scratch_folder("weakseg_unpacked")) / path.stem
    damage = ""
    try:
        with open(path, "rb") as packed, zstd_module().open(packed, "rb") as source, open(target, "wb") as out:
            while block := source.read(_BLOCK):
                out.write(block)
    except OSError as error:
        why = f"cannot be unpacked into {target.parent} ({error.strerror or error})"
        raise DataError(f"{path}: {why}; free some space, or unpack it yourself with 'zstd -d'") from None
    except (EOFError, ValueError, zstd_module().ZstdError):
        damage = f"{path.name} is cut off or damaged"
    return target, damage


def is_unsettled(path: Path) -> bool:
    """Whether a database is read from a copy, or under another name.

    A recorder that was killed leaves messages in a log beside it, which the reader does not see; and the reader takes some
    characters of a name for those of an address.
    """
    return path.suffix == ".db3" and (bool(_logs_of(path)) or bool(set("?#%") & set(str(path))))


def _logs_of(path: Path) -> list[Path]:
    """What SQLite has yet to take into a database, or to take back, as a killed recorder leaves it."""
    beside = [Path(f"{path}-{ending}") for ending in ("wal", "journal")]
    return [log for log in beside if log.is_file() and log.stat().st_size]


def _settled(stack: ExitStack, path: Path) -> Path:
    """The file that stands in for such a database, in the system's temporary folder as long as the stack is open."""
    target = stack.enter_context(scratch_folder("weakseg_database")) / "bag.db3"
    logs = _logs_of(path)
    if not logs:
        target.symlink_to(path.absolute())
        return target
    try:
        for file in (path, *logs):
            shutil.copyfile(file, str(file).replace(str(path), str(target), 1))
    except OSError as error:
        why = f"cannot be copied to {target.parent}, to take {logs[0].name} into it ({error.strerror or error})"
        raise DataError(f"{path}: {why}; free some space") from None
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(target)) as database:
        database.execute("pragma wal_checkpoint(truncate)").fetchall()
    return target


def zstd_module() -> Any:
    """The module that packs and unpacks zstd in this Python."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def family(path: Path) -> str:
    """What the files of one split recording share: the name without its number, 'drive' of drive_0.mcap."""
    name = path.with_suffix("") if path.suffix in ZSTD_SUFFIXES else path
    return re.sub(r"_\d+$", "", name.stem)


def families(files: Sequence[Path]) -> list[list[Path]]:
    """Files of a folder by the recording that they belong to, in order."""
    found: dict[str, list[Path]] = {}
    for file in sorted(files, key=natural):
        found.setdefault(family(file), []).append(file)
    return list(found.values())
