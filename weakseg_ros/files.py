# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are never half written, hashes of what was read, and paths that stay in their folder."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from weakseg_ros.errors import DataError
from weakseg_ros.half_written import is_dead, is_ours, name_beside, remove, told_as
from weakseg_ros.locks import claim, wait_for

LEAST_READ = 1 << 16
"""bytes that are asked of a file of unknown size, as those of /proc are"""
_EXCHANGE, _HERE = 2, -100
"""RENAME_EXCHANGE and AT_FDCWD of Linux"""


def users_path(text: Path | str) -> Path:
    """A path as a user writes it, where `~` is the home folder; DataError for the home of nobody here."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise DataError(f"{text}: nobody here has such a home folder; write the whole path") from None


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file `path` by `content`, or leave it as it was: temporary file, fsync, rename.

    The temporary file lies beside its target (a rename does not cross file systems) and is removed on any failure; one that
    a killed process left behind is removed by `sweep`.
    """
    blob = content.encode() if isinstance(content, str) else content
    temporary = name_beside(path, "tmp")
    try:
        with told_as(path, temporary), open(temporary, "wb") as file:
            claim(file.fileno())
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target` in one step, whatever link was there."""
    fresh = name_beside(path, "new")
    try:
        fresh.symlink_to(target)
        os.replace(fresh, path)
        _sync(path.parent)
    except OSError as error:
        error.filename = os.fspath(path)
        if os.path.lexists(fresh):
            fresh.unlink()
        raise


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=False) + "\n")


def append_json_line(path: Path, row: Mapping[str, Any], durable: bool = True) -> None:
    """Add one line to a JSON-lines file, apart from a line that a crash cut short; `durable` waits until the disk has it.

    A line that the disk does not take whole is taken back.
    """
    with open(path, "ab", buffering=0) as file:
        wait_for(file.fileno())
        end = file.seek(0, os.SEEK_END)
        rest = b"\n" * _is_torn(path, end) + json.dumps(dict(row)).encode() + b"\n"
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise
        if durable:
            os.fsync(file.fileno())


def _is_torn(path: Path, end: int) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, end - 1))
        return end > 0 and file.read(1) != b"\n"


def read_json_lines(path: Path, key: str) -> list[dict[str, Any]]:
    """Every row of a JSON-lines file that has `key`, none where there is no file; a line that a crash cut short is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    rows = map(_parsed, lines)
    return [row for row in rows if isinstance(row, dict) and key in row]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def read_regular(path: Path, most_bytes: int | None = None) -> bytes:
    """The content of a regular file; OSError for a pipe or a device, which may never end, and for a file above `most_bytes`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if most_bytes is None:
            return file.read()
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes, at most {most_bytes} are read", str(path))
        return file.read(min(most_bytes, max(status.st_size, LEAST_READ)) + 1)[
            :most_bytes
        ]  # Python allocates what it is asked for


# folders: prepared aside, put in place at once, swept where a process died at it


def content_of(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without our own half-written files; empty where there is not a folder."""
    return sorted(entry for entry in folder.iterdir() if not is_ours(entry.name)) if folder.is_dir() else []


def sweep(target: Path) -> None:
    """Remove what dead processes left half-written of the file or folder `target`, beside it and in it.

    A folder that was moved aside and never replaced is put back.
    """
    target = _absolute(target)
    if not target.parent.is_dir():
        return
    beside = [entry for entry in target.parent.iterdir() if entry.name.startswith(f".{target.name}.") and is_ours(entry.name)]
    inside = [entry for entry in target.iterdir() if is_ours(entry.name)] if target.is_dir() else []
    for entry in [*beside, *inside]:
        if is_dead(entry):
            if entry.name.endswith(".old") and entry in beside and not os.path.lexists(target):
                os.replace(entry, target)
            else:
                remove(entry)


def is_being_written(target: Path) -> bool:
    """Whether a living process prepares something that is to become `target`."""
    target = _absolute(target)
    beside = target.parent.iterdir() if target.parent.is_dir() else []
    return any(e.name.startswith(f".{target.name}.") and is_ours(e.name) and not is_dead(e) for e in beside)


def make_folder(folder: Path) -> None:
    """Make a folder to write files into, and sweep what dead processes left half-written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)


@contextlib.contextmanager
def staged(target: Path, inside: bool = False) -> Iterator[Path]:
    """An empty folder beside `target`, or in it, to prepare its content in; gone when the block ends, unless it was moved.

    What dead processes left of earlier attempts is swept first.
    """
    target = _absolute(target)
    sweep(target)
    (target if inside else target.parent).mkdir(parents=True, exist_ok=True)
    fresh = name_beside(target / target.name if inside else target, "new")
    with told_as(target, fresh):
        fresh.mkdir()
        descriptor = os.open(fresh, os.O_RDONLY)
        try:
            claim(descriptor)
            yield fresh
        finally:
            os.close(descriptor)
            remove(fresh)


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """An empty folder for large files in the system's temporary folder, gone when the block ends.

    What dead processes left in folders of the same name is removed first.
    """
    place = Path(tempfile.gettempdir())
    sweep(place / name)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=f".{os.getpid()}.new") as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            claim(descriptor)
            with told_as(place, Path(folder)):
                yield Path(folder)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let a library make its temporary files in a folder of ours, which is swept where this process is killed."""
    former = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = former


def put_in_place(fresh: Path, target: Path) -> None:
    """Make the prepared folder `fresh` the folder `target`, in one step and on the disk; what was there is removed.

    Where the file system cannot exchange two names, a reader may find nothing at `target` for a moment.
    """
    target = _absolute(target)
    sync_tree(fresh)
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        os.replace(fresh, target)
    elif _exchanged(fresh, target):
        remove(fresh)
    else:
        _replace_in_two_steps(fresh, target)
    _sync(target.parent)


def move_into(fresh: Path, target: Path, last: str) -> None:
    """Move the content of `fresh` into the existing folder `target`, the entry `last` after all others.

    For a folder that cannot be replaced as a whole: a mount point, or one that holds other people's files, too.
    """
    sync_tree(fresh)
    for entry in sorted(fresh.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
        there = target / entry.name
        if entry.is_dir() and there.is_dir() and any(there.iterdir()):
            move_into(entry, there, "")
        else:
            os.replace(entry, there)
    _sync(target)


def cannot_be_replaced(folder: Path) -> bool:
    """Whether a folder has to stay the folder it is: a mount point, the one we are in, or in one where we may not write."""
    if not folder.is_dir():
        return False
    return os.path.ismount(folder) or folder.resolve() == Path.cwd() or not os.access(_absolute(folder).parent, os.W_OK)


def sync_tree(folder: Path) -> None:
    """Wait until the disk has every file of a folder."""
    for root, _, names in os.walk(folder):
        for name in names:
            if not (Path(root) / name).is_symlink():
                _sync(Path(root) / name)
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that knows no such wish for folders
            raise
    finally:
        os.close(descriptor)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the kernel exchanged two names, which takes them no moment."""
    rename: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _replace_in_two_steps(fresh: Path, target: Path) -> None:
    old = name_beside(target, "old")
    os.replace(target, old)
    try:
        os.replace(fresh, target)
    except OSError:
        os.replace(old, target)
        raise
    remove(old)


def _absolute(path: Path) -> Path:
    """A path whose last part is a name; a link at its end is kept."""
    return Path(os.path.abspath(path))


def check_can_write(folder: Path, option: str) -> None:
    """Raise DataError where `folder`, or the nearest of its parents that exists, takes no new file; `option` names the setting.

    To be called before the work whose result goes there.
    """
    places = (folder.absolute(), *folder.absolute().parents)
    nearest = next(place for place in places if place.exists() or place.is_symlink())
    if not nearest.exists():
        raise DataError(
            f"{nearest}: is a link to {os.readlink(nearest)}, which is not there; remove it, or name another folder with {option}"
        )
    try:
        _try_a_file(nearest)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); name another folder with {option}") from None


def _try_a_file(folder: Path) -> None:
    """Make a file in `folder` that is gone at once; OSError where that cannot be done."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))  # without a name: nothing is left of it, however we end
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        tempfile.NamedTemporaryFile(dir=folder, prefix=".weakseg.").close()  # a file system without such files


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of one file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_parts(parts: Iterable[str | bytes]) -> str:
    """Hex SHA-256 over several strings in order, each with its length, so that moving a border changes the hash."""
    digest = hashlib.sha256()
    for part in parts:
        blob = part.encode() if isinstance(part, str) else part
        digest.update(len(blob).to_bytes(8, "little") + blob)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused with DataError where it would leave the folder (`../`, absolute, a link outwards)."""
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: the entry '{name}' points outside its folder and is refused")
    return target


def share_folder() -> Path:
    """The folder that holds `config`, `launch` and `models`: the checkout, or where pip or colcon put them.

    Raises DataError where none is found, which means a broken installation.
    """
    package = Path(__file__).resolve().parent
    prefixes = [*package.parents, Path(sys.prefix), *map(Path, filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(":")))]
    candidates = [package.parent, *(prefix / "share" / "weakseg_ros" for prefix in prefixes)]
    for folder in candidates:
        if (folder / "config" / "labels").is_dir():
            return folder
    raise DataError(
        f"weakseg_ros: its config folder was found neither next to {package} nor under share/; install the package again"
    )
