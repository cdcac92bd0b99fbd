# SPDX-License-Identifier: Apache-2.0
"""What is missing from recordings in SemanticKITTI's layout: sequences, scans, labels, lines beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from weakseg_ros.data.findings import Finding, fault, missing_parts, note, some
from weakseg_ros.data.scan_files import LABEL_SUFFIXES, own_files
from weakseg_ros.data.side_files import label_file, poses_of, stamps_of
from weakseg_ros.errors import DataError, counted

KITTI_COUNTS = {
    **{"00": 4541, "01": 1101, "02": 4661, "03": 801, "04": 271, "05": 2761, "06": 1101, "07": 1101, "08": 4071, "09": 1591},
    **{"10": 1201, "11": 921, "12": 1061, "13": 3281, "14": 631, "15": 1901, "16": 1731, "17": 491, "18": 1801, "19": 4981},
    **{"20": 831, "21": 2721},
}
"""scans in each sequence of SemanticKITTI"""
SCRIBBLES = "scribbles"
POSS_COUNTS = {"00": 500, "01": 500, "02": 500, "03": 500, "04": 500, "05": 488}
"""scans in each sequence of SemanticPOSS"""


def published_findings(
    root: Path, found: Mapping[str, Path], splits: Mapping[str, Sequence[str]], counts: Mapping[str, int]
) -> Iterator[Finding]:
    """What a copy of a published data set lacks: sequences of its splits, scans of its sequences."""
    yield from missing_parts(root / "sequences", "sequences", found, splits)
    for name, folder in found.items():
        scans = len(own_files(folder.glob("velodyne/*.bin")))
        if scans != counts.get(name, scans):
            yield fault(
                f"{folder / 'velodyne'}: has {counted(scans, 'scan')}, {counts[name]} were published; copy the sequence again"
            )
        elif name not in counts:
            yield note(f"{folder}: is not a sequence of the published data set; it is used only if it is named with --sequences")


def recording_findings(folder: Path, labelled: bool) -> Iterator[Finding]:
    """What one recording lacks: labels of its scans where it should be `labelled`, lines of poses.txt and times.txt."""
    keys = [file.stem for file in own_files(folder.glob("velodyne/*.bin"))]
    without = [key for key in keys if label_file(folder, key) is None]
    if without:
        text = f"{folder / 'labels'}: lacks the labels of {len(without)} of {counted(len(keys), 'scan')} ({some(without)})"
        there = f"; {SCRIBBLES}/ of ScribbleKITTI lies there, which is read if it is called labels/"
        text += there if (folder / SCRIBBLES).is_dir() else ""
        yield fault(f"{text}; copy them") if labelled else note(text)
    labels = own_files(file for suffix in LABEL_SUFFIXES for file in folder.glob(f"labels/*{suffix}"))
    strays = list(dict.fromkeys(file.stem for file in labels if file.stem not in set(keys)))
    if strays:
        yield fault(f"{folder / 'velodyne'}: lacks the scans of {counted(len(strays), 'label file')} ({some(strays)}); copy them")
    yield from _of_side_file(lambda: stamps_of(folder, keys, listed=True))
    yield from _of_side_file(lambda: poses_of(folder, keys, stamps_of(folder, keys, listed=False), listed=True))


def _of_side_file(read: Callable[[], object]) -> Iterator[Finding]:
    """A fault where a file beside the scans is damaged or does not fit them."""
    try:
        read()
    except DataError as error:
        yield fault(str(error))
