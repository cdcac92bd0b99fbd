# SPDX-License-Identifier: Apache-2.0
"""`weakseg check`: whether a data set is whole, before a training of days stops at a damaged file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

from tyro.conf import Positional

from weakseg_ros import registry
from weakseg_ros.config import check_ranges, parse, setting
from weakseg_ros.data.findings import Finding, fault, some
from weakseg_ros.data.scan_sets import OpensScans, ScanSet
from weakseg_ros.data.scans import recognised_as
from weakseg_ros.errors import ConfigError, DataError, WeaksegError, counted, refusal_of, say
from weakseg_ros.memory import lack_told_by
from weakseg_ros.progress import Progress

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".bz2")
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError)
"""what content that nobody foresaw may raise in a reader"""


@dataclass(frozen=True)
class CheckConfig:
    """Check that data sets are complete, undamaged and of the expected version. The exit code is 1 if there is a fault."""

    data: Positional[tuple[Path, ...]] = ()
    """Names the folders to check: scans in SemanticKITTI's layout, or a data set of docs/datasets.md in its published layout."""
    sequences: tuple[str, ...] = ()
    """Limits the check to these recordings, areas, scenes or tiles, and does not look for missing ones; an empty list checks
    everything."""
    read: bool = True
    """Reads every scan and its labels; without it, only names, counts and sizes of the files are checked."""
    most: int = setting(50, 1)
    """Limits how many faults are printed for each folder (1 or more); the rest are only counted."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.data:
            raise ConfigError("data: no folder is given; name at least one")


def main(argv: Sequence[str]) -> int:
    """The verb; exit code 1 where a folder is not whole."""
    config = parse(CheckConfig, argv, "check")
    return max([_say_findings(config, folder) for folder in config.data])


def _say_findings(config: CheckConfig, folder: Path) -> int:
    faults = 0
    for finding in findings(folder, config.sequences, config.read):
        faults += finding.wrong
        if not finding.wrong or faults <= config.most:
            say(f"{'FAULT' if finding.wrong else 'note '}  {finding.text}")
    if faults > config.most:
        say(
            f"FAULT  {folder}: {counted(faults - config.most, 'more fault is', 'more faults are')} "
            f"not printed; raise --most to see {'it' if faults == config.most + 1 else 'them'}"
        )
    what = "names and sizes were" if not config.read else "every scan was"
    say(f"{folder}: {faults} fault{'s' * (faults > 1)}" if faults else f"{folder}: no fault was found ({what} looked at)")
    return int(faults > 0)


def findings(folder: Path, sequences: Sequence[str] = (), read: bool = True) -> Iterator[Finding]:
    """All that is to say on a folder, as it is found; DataError where there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; check the path")
    strange = list(islice(_irregular(folder), 1000))
    if strange:
        yield fault(
            f"{folder}: holds {counted(len(strange), 'entry that is', 'entries that are')} "
            f"neither files nor folders ({some(strange)}); remove them"
        )
        return  # a pipe would be waited for
    try:
        kind = recognised_as(folder)
        opener = cast(OpensScans, registry.load(registry.DATASETS, kind))
        yield Finding(False, f"{folder}: is read as '{kind}'")
    except WeaksegError as error:
        yield fault(f"{error}{_packed(folder)}")
        return
    if not sequences:
        yield from _guarded(opener.inspect(folder), folder)
    if read:
        for part in opener.parts(folder, sequences):
            yield from _unreadable(opener, folder, part)


def _unreadable(opener: OpensScans, folder: Path, part: Sequence[str]) -> Iterator[Finding]:
    """A fault for each scan of a part that cannot be read."""
    try:
        scans = opener.open(folder, "", None, part)
    except (WeaksegError, OSError, *_UNREADABLE) as error:
        yield fault(_sentence(folder, error))
        return
    for index in Progress(range(len(scans)), what=" ".join(part) or scans.name, unit="scan", stays=False):
        yield from _fault_of(scans, index, folder)


def _fault_of(scans: ScanSet, index: int, folder: Path) -> Iterator[Finding]:
    try:
        scans[index]
    except (WeaksegError, OSError, *_UNREADABLE) as error:
        yield fault(_sentence(folder / scans.keys[index], error))


def _guarded(looked: Iterator[Finding], folder: Path) -> Iterator[Finding]:
    """The findings; what stops the look is one more."""
    try:
        yield from looked
    except (WeaksegError, OSError, *_UNREADABLE) as error:
        yield fault(_sentence(folder, error))


def _sentence(where: Path, error: BaseException) -> str:
    if isinstance(error, WeaksegError):
        return str(error)
    if isinstance(error, OSError):
        return f"{refusal_of(error)}; check its permissions and the disk"
    if lack := lack_told_by(error):
        return f"{where}: {lack}"
    return f"{where}: has unexpected content ({type(error).__name__}: {error}); copy it again"


def _irregular(folder: Path) -> Iterator[str]:
    """Pipes, sockets and devices below a folder, by their path in it; links are followed as to files, not as to folders."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            try:
                mode = path.stat().st_mode
            except OSError:
                yield f"{path.relative_to(folder)} (a link to nothing)"
                continue
            if not stat.S_ISREG(mode):
                yield str(path.relative_to(folder))


def _packed(folder: Path) -> str:
    packed = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in ARCHIVES)
    return f"; archives lie there ({some(packed)}): unpack them" if packed else ""
