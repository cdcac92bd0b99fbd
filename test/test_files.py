# SPDX-License-Identifier: Apache-2.0
"""Files are whole or untouched, hashes depend on borders, and no path leaves its folder."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest

from weakseg_ros.environment import environment
from weakseg_ros.errors import DataError
from weakseg_ros.files import inside, read_regular, sha256_of, sha256_of_parts, share_folder, write_atomic


def test_write_atomic_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "one")
    write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """A child process with a file-size limit stands for the full disk."""
    target = tmp_path / "a.txt"
    write_atomic(target, "old")
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_atomic(target, b"x" * 5000)
        except OSError as error:
            os._exit(0 if error.errno == errno.EFBIG else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_a_path_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="outside its folder"):
        inside(tmp_path, name)


def test_a_link_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="outside its folder"):
        inside(folder, "link/x")
    assert inside(folder, "a/b") == folder / "a" / "b"


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of_parts(["ab", "c"]) != sha256_of_parts(["a", "bc"])


def test_share_folder_and_environment() -> None:
    assert (share_folder() / "config" / "labels").is_dir()
    assert environment()["python"].count(".") == 2


def test_a_small_file_is_read_in_little_memory_however_large_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert read_regular(tmp_path / "small", 1 << 32) == b"x" * 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert read_regular(Path("/proc/self/stat"), 1 << 32).endswith(b"\n"), "the system knows no size for it"
    with pytest.raises(OSError, match="at most 999 are read"):
        read_regular(tmp_path / "small", 999)
