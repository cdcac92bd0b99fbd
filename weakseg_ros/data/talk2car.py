# SPDX-License-Identifier: Apache-2.0
"""Talk2Car (Deruyttere et al., 2019): what people say to a car, each with the box of the object that they mean.

{"commands": [{"command", "obj_name", "translation", "size", "rotation", "scene_token", "sample_token", ...}], ...}

`translation` (m), `size` (width, length, height, m) and `rotation` (quaternion w, x, y, z) are given in the camera's axes, x to
the right, y down, z ahead. The commands come without point clouds, which nuScenes has under the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weakseg_ros.data.expressions import read_rows
from weakseg_ros.errors import DataError
from weakseg_ros.points.object_box import ObjectBox


@dataclass(frozen=True)
class Command:
    """What somebody said, and what is meant."""

    text: str
    object_name: str
    """nuScenes category, such as 'vehicle.car'"""
    box: ObjectBox
    """in axes x ahead, y to the left, z up, from the camera"""
    sample_token: str


def read_talk2car(path: Path | str) -> list[Command]:
    """The commands of a file; DataError where it is no file of commands, naming the first that is none."""
    path = Path(path)
    rows = read_rows(path, "name Talk2Car's file of commands", "commands")
    return [_command(row, f"{path}: command {number}") for number, row in enumerate(rows)]


def _command(row: Any, where: str) -> Command:
    try:
        box = _box(*(np.array(row[name], float) for name in ("translation", "size", "rotation")))
        return Command(str(row["command"]).strip(), str(row["obj_name"]), box, str(row.get("sample_token", "")))
    except (KeyError, TypeError, ValueError, AttributeError):
        needed = "command, obj_name, translation (3 numbers), size (3) and rotation (4)"
        raise DataError(f"{where}: is incomplete; it needs {needed}") from None


def _box(centre: np.ndarray, size: np.ndarray, turn: np.ndarray) -> ObjectBox:
    if (
        (centre.shape, size.shape, turn.shape) != ((3,), (3,), (4,))
        or not np.isfinite([*centre, *size, *turn]).all()
        or not turn.any()
    ):
        raise ValueError
    (x, y, z), (width, length, height) = centre.tolist(), size.tolist()
    w, i, j, k = turn / np.linalg.norm(turn)
    front = np.array([1 - 2 * (j * j + k * k), 2 * (i * j + w * k), 2 * (i * k - w * j)])  # where the box's own x points
    return ObjectBox((z, -x, -y), (length, width, height), float(np.arctan2(-front[0], front[2])))
