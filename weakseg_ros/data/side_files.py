# SPDX-License-Identifier: Apache-2.0
"""What lies beside the scans of a recording: times and poses by line, labels by name; and what of it belongs to no scan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.scan_files import LABEL_SUFFIXES, read_poses, read_stamps
from weakseg_ros.errors import DataError

log = logging.getLogger(__name__)

DEFAULT_PERIOD_NS = 100_000_000
"""scans without times.txt are taken as 10 Hz"""


def stamps_of(folder: Path, keys: Sequence[str], listed: bool) -> list[int]:
    """Nanoseconds of each scan, by the lines of times.txt; 10 Hz where it is absent or fits no scan.

    `listed`: a manifest vouches for the file, so that one which does not fit is a fault (DataError) and not left out.
    """
    path = folder / "times.txt"
    stamps = _of_scans(path, lambda: read_stamps(path), keys, listed) if path.is_file() else None
    return [i * DEFAULT_PERIOD_NS for i in range(len(keys))] if stamps is None else stamps


def poses_of(folder: Path, keys: Sequence[str], listed: bool) -> NDArray[np.float64] | None:
    """(scans, 4, 4) by the lines of poses.txt; None where it is absent or fits no scan. `listed` as in `stamps_of`."""
    path = folder / "poses.txt"
    poses = _of_scans(path, lambda: list(read_poses(path)), keys, listed) if path.is_file() else None
    return None if poses is None else np.array(poses)


def label_file(folder: Path, key: str) -> Path | None:
    """The label file of a scan, None where it has none."""
    files = (folder / "labels" / f"{key}{suffix}" for suffix in LABEL_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def say_strays(folder: Path, keys: Sequence[str]) -> None:
    """Warn of label files that belong to no scan: they are under another name, and nobody would miss them."""
    labels = sorted(file for suffix in LABEL_SUFFIXES for file in (folder / "labels").glob(f"*{suffix}"))
    strays = [file for file in labels if file.stem not in set(keys)]
    if strays:
        say_once(
            f"{folder / 'labels'}: {len(strays)} of {len(labels)} label files belong to no scan and are left out (the first: "
            f"{strays[0].name}; a scan is called {keys[0]}.bin); give them the names of their scans"
        )


@lru_cache(maxsize=1024)
def say_once(sentence: str) -> None:
    """A warning that is given once in a process, however often the folder is opened."""
    log.warning("%s", sentence)


def _of_scans(path: Path, read: Callable[[], list[Any]], keys: Sequence[str], listed: bool) -> list[Any] | None:
    """The line of each scan: one a scan, or by the scans' numbers; None, said once, where neither fits."""
    try:
        lines = read()
        numbers = numbers_of(keys, len(lines))
        if numbers is None:
            raise DataError(f"{path}: has {len(lines)} lines for {len(keys)} scans; repair or remove the file")
    except DataError as error:
        if listed:
            raise
        say_once(f"{error} (it is optional and is ignored)")
        return None
    return [lines[number] for number in numbers]


def numbers_of(keys: Sequence[str], lines: int) -> Sequence[int] | None:
    """Which of the lines of a side file belongs to each scan: one a scan, or by the scans' numbers; None where neither fits."""
    if lines == len(keys):
        return range(lines)
    if lines > len(keys) and all(key.isdecimal() and int(key) < lines for key in keys):
        return [int(key) for key in keys]  # some scans of a longer recording, under the names that they had there
    return None
