# SPDX-License-Identifier: Apache-2.0
"""A floor written as an area of S3DIS's aligned layout: a folder for each room, a text file for each object in it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from weakseg_ros.files import write_atomic
from weakseg_ros.simulate.rooms.palette import NAMES
from weakseg_ros.simulate.rooms.scans import RoomScan


def write_room(area: Path, name: str, scan: RoomScan) -> None:
    """Write a room into the folder of an area: `name`/`name`.txt and `name`/Annotations/class_i.txt."""
    annotations = area / name / "Annotations"
    annotations.mkdir(parents=True)
    order = np.lexsort((scan.instance, scan.raw))
    lines = [_line(*row) for row in zip(*scan.xyz[order].T.tolist(), *scan.rgb[order].T.tolist(), strict=True)]
    write_atomic(area / name / f"{name}.txt", "".join(lines))
    instance, counts = scan.instance[order], Counter[str]()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(instance)) + 1, [len(instance)]])
    for start, end in pairwise(starts):
        kind = NAMES[int(scan.raw[order[start]]) - 1]
        counts[kind] += 1
        write_atomic(annotations / f"{kind}_{counts[kind]}.txt", "".join(lines[start:end]))


def _line(x: float, y: float, z: float, red: int, green: int, blue: int) -> str:
    return f"{x:.3f} {y:.3f} {z:.3f} {red} {green} {blue}\n"
