# SPDX-License-Identifier: Apache-2.0
"""NumPy files of others: whatever is wrong with one is a ValueError or OSError with a reason, and nothing is unpickled."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.files import read_regular
from weakseg_ros.reads import check_regular

MOST_UNPACKED_BYTES = 1 << 34
"""of an archive; a few kilobytes can be packed zeros that no memory holds"""
_DAMAGE = (EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def load_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file; OSError where it cannot be read, ValueError where it holds no array, or less than it says."""
    try:
        values = np.load(io.BytesIO(read_regular(path)), allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(str(error) or "it ends too early") from None
    if not isinstance(values, np.ndarray):
        raise ValueError("it is an archive of several arrays")
    return values


@contextmanager
def open_archive(source: Path | bytes, most_bytes: int = MOST_UNPACKED_BYTES) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The arrays of an .npz file by name, read when they are asked for.

    What goes wrong inside the block, too, is an OSError or ValueError: damage, and more than `most_bytes` when unpacked.
    """
    try:
        archive = np.load(io.BytesIO(source) if isinstance(source, bytes) else check_regular(source), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is one array, not an archive of arrays by name")
        with archive:
            entries = archive.zip.infolist() if archive.zip else []
            size = sum(int(entry.file_size) for entry in entries)
            if size > most_bytes:
                raise ValueError(f"it unpacks to {size} bytes, more than the limit of {most_bytes}")
            yield archive
    except _DAMAGE as error:
        raise ValueError(str(error) or "it ends too early") from None
