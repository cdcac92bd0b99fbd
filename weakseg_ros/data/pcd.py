# SPDX-License-Identifier: Apache-2.0
"""PCL's .pcd (ascii, binary, binary_compressed) and .ply (ascii, binary of either byte order): header, then columns.

The formats: https://pointclouds.org/documentation/tutorials/pcd_file_format.html and G. Turk's PLY.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.errors import DataError, counted
from weakseg_ros.files import read_regular
from weakseg_ros.reads import check_regular

_PCD_LINES = ("FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "POINTS")
_LETTERS = {"F": "f", "U": "u", "I": "i"}
_PLY = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_PLY_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
MAX_POINTS = 1 << 29
_PLY_HEAD_BYTES = 1 << 16


def read_pcd(path: Path) -> dict[str, NDArray[Any]]:
    """Columns by name, (N,) each; DataError for a header that is no PCD's or does not fit the data."""
    blob = read_regular(path)
    head, data = _pcd_header(blob, path)
    try:
        names, sizes, types = head["FIELDS"], [int(s) for s in head["SIZE"]], head["TYPE"]
        counts = [int(c) for c in head.get("COUNT", ["1"] * len(names))]
        points = int(head.get("POINTS", ["0"])[0]) or int(head["WIDTH"][0]) * int(head["HEIGHT"][0])
        grid = int(head.get("WIDTH", ["0"])[0]) * int(head.get("HEIGHT", ["1"])[0])
        kinds = [_LETTERS[letter] + str(size) for letter, size in zip(types, sizes, strict=True)]
        dtype = np.dtype([(f"{i}", kind, (count,)) for i, (kind, count) in enumerate(zip(kinds, counts, strict=True))])
        single = [name for name, count in zip(names, counts, strict=True) if name != "_" and count == 1]
    except (KeyError, ValueError, IndexError, TypeError):
        lines = ", ".join(f"{name} {' '.join(head[name][:8])}" for name in _PCD_LINES if name in head)
        absent = "".join(f", no {name}" for name in ("FIELDS", "SIZE", "TYPE") if name not in head)
        raise DataError(f"{path}: its PCD header is wrong ({lines}{absent}); write the file again") from None
    _refuse_twins(single, path)
    if points != grid and grid:
        raise DataError(f"{path}: its PCD header is wrong, WIDTH x HEIGHT is {grid} and POINTS {points}; write the file again")
    if not 0 <= points <= MAX_POINTS:
        raise DataError(f"{path}: its PCD header is wrong, POINTS is {points}; write the file again")
    table = _pcd_data(head["DATA"][0], data, dtype, points, path)
    return {name: table[f"{i}"][:, 0] for i, name in enumerate(names) if name != "_" and counts[i] == 1}


def _refuse_twins(names: Sequence[str], path: Path) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{path}: its header names '{name}' {counted(names.count(name), 'time')}, not once; write the file again"
            )


def _pcd_header(blob: bytes, path: Path) -> tuple[dict[str, list[str]], bytes]:
    head: dict[str, list[str]] = {}
    at = 0
    while at < len(blob) and len(head) < 32:
        end = blob.find(b"\n", at)
        words = blob[at : end if end >= 0 else at].decode("latin-1").split()
        at = end + 1 if end >= 0 else len(blob)
        if words and not words[0].startswith("#"):
            head[words[0].upper()] = words[1:]
        if words[:1] == ["DATA"] and len(words) == 2:
            return head, blob[at:]
    raise DataError(f"{path}: is not a PCD file (its header has no line DATA); check what wrote it")


def _pcd_data(kind: str, data: bytes, dtype: np.dtype[Any], points: int, path: Path) -> NDArray[Any]:
    if kind == "ascii":
        return _text_table(data, dtype, points, path)
    if kind == "binary_compressed":
        data, width = _unpacked(data, path), dtype.itemsize
        _check_length(len(data), points * width, points, path)
        table, at = np.empty(points, dtype), 0
        for name in dtype.names or ():
            part = dtype[name]
            table[name] = np.frombuffer(data, part, points, at)  # each field's numbers lie together
            at += points * part.itemsize
        return table
    if kind != "binary":
        raise DataError(f"{path}: its DATA is '{kind}'; only ascii, binary and binary_compressed can be read")
    _check_length(len(data), points * dtype.itemsize, points, path)
    return np.frombuffer(data, dtype, points)


def _text_table(data: bytes, dtype: np.dtype[Any], points: int, path: Path) -> NDArray[Any]:
    try:
        rows = np.loadtxt(io.BytesIO(data), np.float64, ndmin=2, max_rows=points) if points else np.zeros((0, 0))
    except ValueError as error:
        remedy = "write the file again, with spaces between the numbers and a point in them, not a comma"
        raise DataError(f"{path}: a line of its points is damaged ({str(error).rstrip('.')}); {remedy}") from None
    columns = sum(int(np.prod(dtype[name].shape)) for name in dtype.names or ())
    if points and rows.shape != (points, columns):
        found = f"{counted(rows.shape[0], 'point')} of {counted(rows.shape[1], 'number')}"
        raise DataError(
            f"{path}: its header says {counted(points, 'point')} of {counted(columns, 'number')}, "
            f"but its data are {found}; write it again"
        )
    table, at = np.zeros(points, dtype), 0
    with np.errstate(invalid="ignore"):
        for name in dtype.names or ():
            width = int(np.prod(dtype[name].shape))
            table[name] = rows[:, at : at + width].reshape((points, *dtype[name].shape)) if points else 0
            at += width
    return table


def _check_length(there: int, due: int, points: int, path: Path) -> None:
    if there < due:
        raise DataError(
            f"{path}: its header says {counted(points, 'point')} in {counted(due, 'byte')}, "
            f"its data have {there}; copy the file again"
        )


def _unpacked(data: bytes, path: Path) -> bytes:
    sizes = np.frombuffer(data[:8].ljust(8, b"\0"), "<u4")
    if len(data) < 8 + int(sizes[0]):
        raise DataError(f"{path}: its compressed data are cut off; copy the file again")
    try:
        return lzf_decompress(data[8 : 8 + int(sizes[0])], int(sizes[1]))
    except (IndexError, ValueError):
        raise DataError(f"{path}: its compressed data are damaged; copy the file again") from None


def lzf_decompress(data: bytes, size: int) -> bytes:
    """What LZF (M. Lehmann's liblzf) packed into `data`, of which there must be `size` bytes; ValueError, IndexError if damaged.

    A control byte below 32 is followed by so many bytes and one more, taken as they are; any other repeats what was written
    before: its upper three bits are the length, its lower five the upper bits of the distance.
    """
    out = bytearray()
    at = 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[at]
            at += 1
        start = len(out) - ((control & 31) << 8) - data[at] - 1
        at += 1
        if start < 0:
            raise ValueError("a repetition of bytes that were never written")
        part = out[start : start + length + 2]
        while len(part) < length + 2:  # it repeats what it writes itself
            part += part[: length + 2 - len(part)]
        out += part
    if len(out) != size:
        raise ValueError(f"{counted(len(out), 'byte')} instead of the {size} that were packed")
    return bytes(out)


def read_ply(path: Path, short: bool = False) -> dict[str, NDArray[Any]]:
    """Columns of the vertices by name, (N,) each; DataError for a header that is no PLY's or does not fit the data.

    Binary data are read column by column, not whole. With `short`, data with fewer points than the header says are read as far
    as they go.
    """
    with open(check_regular(path), "rb") as file:
        blob = file.read(_PLY_HEAD_BYTES)
    mark = blob.find(b"end_header")
    end = blob.find(b"\n", mark)
    lines = [line.split() for line in blob[: max(mark, 0)].decode("latin-1").splitlines()]
    if mark < 0 or end < 0 or lines[:1] != [["ply"]]:
        raise DataError(f"{path}: is not a PLY file (its header does not begin with 'ply', or has no end); check what wrote it")
    order, points, fields = _ply_vertices(lines, path)
    dtype = np.dtype([(f"{i}", order + kind, (1,)) for i, (_, kind) in enumerate(fields)])
    if order == "=":
        table = _text_table(path.read_bytes()[end + 1 :], dtype, points, path)
    else:
        table = _ply_binary(path, end + 1, dtype, points, short)
    return {name: table[f"{i}"][:, 0].astype(dtype[f"{i}"].base.newbyteorder("=")) for i, (name, _) in enumerate(fields)}


def _ply_binary(path: Path, start: int, dtype: np.dtype[Any], points: int, short: bool) -> NDArray[Any]:
    """(N,) records of a PLY file, mapped and not read."""
    there = path.stat().st_size - start
    if short:
        points = min(points, there // dtype.itemsize)
    _check_length(there, points * dtype.itemsize, points, path)
    return np.memmap(path, dtype, "r", start, (points,)) if points else np.zeros(0, dtype)


def _ply_vertices(lines: Sequence[Sequence[str]], path: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """(byte order, number, (name, type) of each property) of the vertices, which must come first."""
    fields: list[tuple[str, str]] = []
    order, points, element = "", 0, ""
    try:
        for words in lines:
            if words[:1] == ["format"]:
                order = _PLY_ORDERS[words[1]]
            elif words[:1] == ["element"]:
                if words[1] != "vertex" and not fields:
                    raise ValueError(f"element {words[1]} comes before the vertices")
                element, points = words[1], int(words[2]) if words[1] == "vertex" else points
            elif words[:2] == ["property", "list"] and element == "vertex":
                raise ValueError(f"'{words[-1]}' of a vertex is a list")
            elif words[:1] == ["property"] and element == "vertex":
                fields.append((words[-1], _PLY[words[1]]))
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{path}: its PLY header cannot be read ({error}); write plain vertices with numbers") from None
    if not order or not fields or not 0 <= points <= MAX_POINTS:
        raise DataError(f"{path}: its PLY header names no format or no vertices; write the file again")
    _refuse_twins([name for name, _ in fields], path)
    return order, points, fields
