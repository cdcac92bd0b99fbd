# SPDX-License-Identifier: Apache-2.0
"""Points as text, one line a point: read strictly, and mended where one bit of a character was lost.

S3DIS was published with three such lines (version 1.2, both variants): Area_5/hallway_6/Annotations/ceiling_1.txt line 180389,
Area_2/auditorium_1/auditorium_1.txt line 741101 and Area_3/hallway_2/hallway_2.txt line 926337. In each of them a digit or
space is a control character, which differs from it in bit 0x20 or stands for a space.
"""

from __future__ import annotations

import io
import logging
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import read_regular

log = logging.getLogger(__name__)

_STRANGE = re.compile(rb"[^\t\n\r -~]")
_LOST_BIT = 0x20
MOST_MENDED = 20
"""a file with more strange bytes than this is not one of points"""


def read_point_text(path: Path, columns: int) -> NDArray[np.float64]:
    """(N, columns) numbers of a text file, N = 0 for an empty one; DataError with the line where one cannot be read."""
    try:
        blob = read_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the data set") from None
    blob = mended(blob, columns, path)
    if not blob.strip():
        return np.zeros((0, columns))
    try:
        table = np.loadtxt(io.BytesIO(blob), np.float64, comments=None, ndmin=2, encoding="latin-1")
    except ValueError:
        raise DataError(_first_fault(blob, columns, path)) from None
    if table.shape[1] != columns or not np.isfinite(table).all():
        raise DataError(_first_fault(blob, columns, path))
    return table


def mended(blob: bytes, columns: int, path: Path) -> bytes:
    """The text with each strange byte replaced by what makes its line one of `columns` numbers; the log says which."""
    found = list(_STRANGE.finditer(blob))
    if len(found) > MOST_MENDED:
        raise DataError(
            f"{path}: is not a text file of points ({counted(len(found), 'byte is', 'bytes are')} not text); copy the file again"
        )
    for match in reversed(found):
        at = match.start()
        number = blob.count(b"\n", 0, at) + 1
        for instead in (bytes([match[0][0] | _LOST_BIT]), b" "):
            start, end = blob.rfind(b"\n", 0, at) + 1, blob.find(b"\n", at)
            line = blob[start:at] + instead + blob[at + 1 : len(blob) if end < 0 else end]
            if _numbers(line, columns):
                _say_mended(f"{path}:{number}: has a damaged character (byte 0x{match[0][0]:02x}); read as '{line.decode()}'")
                blob = blob[:at] + instead + blob[at + 1 :]
                break
        else:
            raise DataError(f"{path}:{number}: has a damaged character (byte 0x{match[0][0]:02x}); copy the file again")
    return blob


@lru_cache(maxsize=1024)
def _say_mended(sentence: str) -> None:
    log.warning("%s", sentence)


def _numbers(line: bytes, columns: int) -> bool:
    """Whether a line is so many finite numbers, the last three of which can be a colour."""
    try:
        values = np.array(line.split(), np.float64)
    except ValueError:
        return False
    return len(values) == columns and bool(np.isfinite(values).all()) and bool((np.abs(values[3:6]) <= 255).all())


def _first_fault(blob: bytes, columns: int, path: Path) -> str:
    lines = blob.splitlines()
    number, line = next((n, text) for n, text in enumerate(lines, 1) if not _numbers_any(text, columns))
    cut = " (the last line: the file is cut off)" if number == len(lines) else ""
    return f"{path}:{number}: '{line[:60].decode()}' is not {counted(columns, 'number')}{cut}; copy the file again"


def _numbers_any(line: bytes, columns: int) -> bool:
    try:
        values = np.array(line.split(), np.float64)
    except ValueError:
        return False
    return len(values) in (0, columns) and bool(np.isfinite(values).all())
