# SPDX-License-Identifier: Apache-2.0
"""What lies beside the scans of a recording: times and poses by line, labels by name; and what of it belongs to no scan."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.data.pose_files import read_poses
from weakseg_ros.data.scan_files import LABEL_SUFFIXES, format_stamp, own_files, read_stamps
from weakseg_ros.errors import DataError, counted

log = logging.getLogger(__name__)

DEFAULT_PERIOD_NS = 100_000_000
"""scans without times.txt are taken as 10 Hz"""


def stamps_of(folder: Path, keys: Sequence[str], listed: bool) -> list[int]:
    """Nanoseconds of each scan, by the lines of times.txt; 10 Hz where it is absent or fits no scan.

    `listed`: a manifest vouches for the file, so that one which does not fit is a fault (DataError) and not left out.
    """
    path = folder / "times.txt"
    stamps = _of_scans(lambda: _by_line(path, read_stamps(path), keys), listed) if path.is_file() else None
    named = [stamp_of(key) for key in keys]
    if stamps is None and all(named):
        return named
    return assumed_stamps(len(keys)) if stamps is None else stamps


def assumed_stamps(count: int) -> list[int]:
    """Nanoseconds of scans without any times: 10 Hz from 0."""
    return [i * DEFAULT_PERIOD_NS for i in range(count)]


def stamp_of(name: str) -> int:
    """The time in a file's name without its ending, as recorders write it in s, ms, us or ns since 1970; 0 where it is none."""
    digits, _, fraction = name.partition(".")
    if not digits.isdecimal() or not 9 < len(digits) <= 19:
        return 0
    unit: int = 10 ** {10: 9, 13: 6, 16: 3, 19: 0}.get(len(digits), 0)
    return int(digits) * unit + (int(fraction[:9].ljust(9, "0")) if fraction.isdecimal() and unit == 10**9 else 0)


def poses_of(folder: Path, keys: Sequence[str], stamps_ns: Sequence[int], listed: bool) -> NDArray[np.float64] | None:
    """(scans, 4, 4) of poses.txt; None where it is absent or does not fit the scans. `listed` as in `stamps_of`."""
    path = folder / "poses.txt"
    poses = _of_scans(lambda: list(poses_by_scan(path, keys, stamps_ns)), listed) if path.is_file() else None
    return None if poses is None else np.array(poses)


def poses_by_scan(path: Path, keys: Sequence[str], stamps_ns: Sequence[int]) -> NDArray[np.float64]:
    """(scans, 4, 4) the pose of each scan: by its time, by its number, or one line a scan; DataError where none of these fits.

    Times count where the scans have any besides the assumed ones, since those of two recorders differ.
    """
    found = read_poses(path)
    by_time = found.at(stamps_ns)
    have_times = list(stamps_ns) != assumed_stamps(len(keys))
    if by_time is not None and (have_times or len(found.poses) != len(keys)):
        return by_time
    if found.numbers is not None:
        line = {number: place for place, number in enumerate(found.numbers)}
        lacking = [key for key in keys if not key.isdecimal() or int(key) not in line]
        if lacking:
            raise DataError(
                f"{path}: has no line for scan {lacking[0]} ({len(lacking)} of {len(keys)} lack one); add or remove it"
            )
        return found.poses[[line[int(key)] for key in keys]]
    if found.stamps_ns is not None and len(found.poses) != len(keys):
        poses, scans = (f"{format_stamp(min(times))} to {format_stamp(max(times))} s" for times in (found.stamps_ns, stamps_ns))
        raise DataError(
            f"{path}: has {counted(len(found.poses), 'pose')} from {poses}, {counted(len(keys), 'scan')} "
            f"from {scans}, and not each scan has a "
            "pose within half a second; give one clock to both, with the scans' times in times.txt"
        )
    return np.array(_by_line(path, list(found.poses), keys))


def label_file(folder: Path, key: str) -> Path | None:
    """The label file of a scan, None where it has none."""
    files = (folder / "labels" / f"{key}{suffix}" for suffix in LABEL_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def say_strays(folder: Path, keys: Sequence[str]) -> None:
    """Warn of label files that belong to no scan, that no reader knows or that are two for one scan: nobody would miss them."""
    _say_other_kinds(folder, set(keys))
    labels = own_files(file for suffix in LABEL_SUFFIXES for file in (folder / "labels").glob(f"*{suffix}"))
    twice = [name for name, files in Counter(file.stem for file in labels).items() if files > 1]
    if twice:
        say_once(
            f"{folder / 'labels'}: {counted(len(twice), 'scan has', 'scans have')} two label files (the first: {twice[0]}.label "
            f"and {twice[0]}.npy), of which .label is read; remove the wrong ones"
        )
    strays = [file for file in labels if file.stem not in set(keys)]
    if strays:
        say_once(
            f"{folder / 'labels'}: {len(strays)} of {counted(len(labels), 'label file')} "
            f"{'belongs' if len(strays) == 1 else 'belong'} to no scan and "
            f"{'is' if len(strays) == 1 else 'are'} left out (the first: "
            f"{strays[0].name}; a scan is called {keys[0]}.bin); give them the names of their scans"
        )


def _say_other_kinds(folder: Path, keys: AbstractSet[str]) -> None:
    """Warn of files beside the labels that bear the names of scans, but that are of another kind than labels are."""
    files = (folder / "labels").iterdir() if (folder / "labels").is_dir() else ()
    others = sorted(file for file in files if file.suffix not in LABEL_SUFFIXES and file.stem in keys)
    others = [file for file in others if label_file(folder, file.stem) is None]
    if others:
        say_once(
            f"{folder / 'labels'}: {counted(len(others), 'scan')} with a file of another kind than .label and .npy "
            f"(the first: {others[0].name}), which is not read; write the labels as uint32 to .label, or with numpy.save as .npy"
        )


@lru_cache(maxsize=1024)
def say_once(sentence: str) -> None:
    """A warning that is given once in a process, however often the folder is opened."""
    log.warning("%s", sentence)


def _of_scans(read: Callable[[], list[Any]], listed: bool) -> list[Any] | None:
    """What `read` finds for each scan; None, said once, where the file is damaged or does not fit the scans."""
    try:
        return read()
    except DataError as error:
        if listed:
            raise
        say_once(f"{error} (it is optional and is ignored)")
        return None


def _by_line(path: Path, lines: list[Any], keys: Sequence[str]) -> list[Any]:
    """The line of each scan: one a scan, or by the scans' numbers; DataError where neither fits."""
    numbers = numbers_of(keys, len(lines))
    if numbers is None:
        raise DataError(f"{path}: has {counted(len(lines), 'line')} for {counted(len(keys), 'scan')}; repair or remove the file")
    return [lines[number] for number in numbers]


def numbers_of(keys: Sequence[str], lines: int) -> Sequence[int] | None:
    """Which of the lines of a side file belongs to each scan: one a scan, or by the scans' numbers; None where neither fits."""
    if lines == len(keys):
        return range(lines)
    if lines > len(keys) and all(key.isdecimal() and int(key) < lines for key in keys):
        return [int(key) for key in keys]  # some scans of a longer recording, under the names that they had there
    return None
