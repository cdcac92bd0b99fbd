# SPDX-License-Identifier: Apache-2.0
"""Files of others that never end, unpack to more than there is, or are something else than their name says: one sentence."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from weakseg_ros.cli import main
from weakseg_ros.data.arrays import load_array, open_archive
from weakseg_ros.data.cloud_files import READERS, read_cloud_file
from weakseg_ros.data.scan_files import fingerprint, read_points, read_raw_labels
from weakseg_ros.errors import DataError
from weakseg_ros.files import read_json_lines
from weakseg_ros.reads import check_regular, read_json

DEEP = "[" * 100_000


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("suffix", sorted(set(READERS) - {".las", ".laz", ".feather"}))
def test_a_pipe_among_the_clouds_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match="not a regular file"):
        read_cloud_file(pipe(tmp_path / f"0{suffix}"))


@pytest.mark.parametrize("read", [read_points, lambda path: read_raw_labels(path, 1)])
def test_a_pipe_among_the_scans_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match="not a regular file"):
        read(pipe(tmp_path / "0.bin"))
    with pytest.raises(DataError, match="not a regular file"):
        read_raw_labels(pipe(tmp_path / "0.npy"), 1)
    with pytest.raises(OSError, match="not a regular file"):
        fingerprint(tmp_path, ["0.bin"])


def test_a_folder_of_scans_with_a_pipe_in_it_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "velodyne").mkdir()
    pipe(tmp_path / "velodyne" / "000000.bin")
    assert main(["sparse", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train.npz", "drives.txt", "scene0000_00.aggregation.json"])
def test_a_pipe_under_the_name_of_a_data_set_or_list_ends_in_a_sentence(tmp_path: Path, name: str) -> None:
    pipe(tmp_path / name)
    for data in (tmp_path, tmp_path / name):
        assert main(["import", str(data), "--out", str(tmp_path / "out")]) == 2
        assert main(["sparse", str(data), "--out", str(tmp_path / "out")]) == 2


def test_json_of_others_is_a_value_or_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text(DEEP)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(tmp_path / "deep.json")
    with pytest.raises(OSError, match="not a regular file"):
        read_json(pipe(tmp_path / "pipe.json"))
    (tmp_path / "lines").write_text(f'{DEEP}\n{{"step": 1}}\n')
    assert read_json_lines(tmp_path / "lines", "step") == [{"step": 1}]
    assert check_regular(tmp_path / "lines") == tmp_path / "lines"


@pytest.mark.parametrize("name", ["deep.json", "pipe.json"])
def test_compare_says_what_it_cannot_read(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep.json").write_text(DEEP)
    pipe(tmp_path / "pipe.json")
    assert main(["compare", str(tmp_path / name), str(tmp_path / name)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def npz_of(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_an_archive_that_unpacks_to_too_much_is_refused_before() -> None:
    with pytest.raises(ValueError, match="unpacks to"), open_archive(npz_of(a=np.zeros(1 << 20)), 1 << 16):
        pass


@pytest.mark.parametrize("damage", [b"PK\x03\x04" + b"x" * 100, npz_of(a=np.arange(9000))[:-40], b"", b"\x93NUMPY\x01\x00"])
def test_a_damaged_archive_or_array_is_a_value_error(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(ValueError, match=r"zip|pickled|data|early|EOF|magic|header"), open_archive(damage) as archive:
        archive["a"]
    for suffix in (".npy", ".npz"):
        (tmp_path / f"0{suffix}").write_bytes(damage)
        with pytest.raises(DataError):
            read_cloud_file(tmp_path / f"0{suffix}")


def test_a_flipped_bit_in_an_archive_is_a_value_error() -> None:
    blob = bytearray(npz_of(a=np.random.default_rng(0).integers(0, 255, 9000)))
    blob[len(blob) // 2] ^= 255
    with pytest.raises(ValueError, match=r"CRC|decompress"), open_archive(bytes(blob)) as archive:
        archive["a"]


def test_an_archive_under_the_name_of_an_array_is_told(tmp_path: Path) -> None:
    (tmp_path / "0.npy").write_bytes(npz_of(a=np.zeros((3, 4))))
    for read in (read_cloud_file, lambda path: read_raw_labels(path, 3)):
        with pytest.raises(DataError, match="archive of several arrays"):
            read(tmp_path / "0.npy")
    np.save(tmp_path / "1.npy", np.zeros((3, 4)))
    os.replace(tmp_path / "1.npy", tmp_path / "1.npz")
    with pytest.raises(DataError, match="one array"):
        read_cloud_file(tmp_path / "1.npz")


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    with open(tmp_path / "0.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 45, 4)})
    with pytest.raises(ValueError, match=r"allocate|data|EOF|large"):
        load_array(tmp_path / "0.npy")
    with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
        archive.write(tmp_path / "0.npy", "a.npy")
    with pytest.raises(DataError):
        read_cloud_file(tmp_path / "0.npz")
