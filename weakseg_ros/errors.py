# SPDX-License-Identifier: Apache-2.0
"""The errors a user can meet; each text reads *where: what was found; what to do*.

The command line prints the sentence and ends with exit code 2; the node turns it into a diagnostic. A traceback is
kept for faults of our own.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable
from typing import TextIO


class WeaksegError(Exception):
    """A fault the user can do something about; its text is a full sentence."""


class ConfigError(WeaksegError):
    """A setting that does not exist, has the wrong type, or is out of its range."""


class CloudError(WeaksegError):
    """A PointCloud2 that cannot be read; `reason` is the short key under which the node counts the drop."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class DataError(WeaksegError):
    """A scan, label file, bag or data set that is missing, damaged or does not fit."""


class BundleError(WeaksegError):
    """A model folder that is missing, damaged, altered or made for something else."""


class EngineError(WeaksegError):
    """An inference engine that is absent, cannot load the model, or gave an unusable result."""


class ReplayError(WeaksegError):
    """A replay over DDS that did not get every answer it was promised."""


def counted(count: float, noun: str, nouns: str = "", spec: str = "") -> str:
    """A count with what it counts, as '1 scan', '2 scans' or, with `spec` ',', '1,000 scans'.

    `noun` may have more words, of which the last one is counted; `nouns` is the plural where no rule gives it, or where a verb
    follows ('frame is', 'frames are').
    """
    number = format(count, spec)
    if number == "1":
        return f"1 {noun}"
    if nouns:
        return f"{number} {nouns}"
    if re.search("[^aeiou]y$", noun):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if re.search('(s|x|ch|sh)$', noun) else 's'}"


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def printable(text: object) -> str:
    """A text with its control characters shown as `\\x1b` instead of obeyed by the terminal; line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def say(*lines: object) -> None:
    """Print to stdout what a verb found. With `complain` the only way to the terminal: names in it cannot steer that."""
    _print(lines, sys.stdout)


def complain(*lines: object) -> None:
    """Print to stderr what is wrong, or how far the work is."""
    _print(lines, sys.stderr)


def _print(lines: Iterable[object], stream: TextIO) -> None:
    text = "\n".join(map(printable, lines))
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def refusal_of(error: OSError) -> str:
    """What the system refused, as a sentence without its end: `runs/x: No space left on device`.

    Of a copy or a renaming that a full disk refused, the place is told, of any other one what was to be copied.
    """
    reason = error.strerror or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, os.PathLike))]
    return f"{names[-1 if error.errno in DISK_FULL else 0]}: {reason}" if names else reason


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` where a known name is close to `word` but for its capitals, else an empty string."""
    names = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), list(names), n=1)
    return f"; did you mean '{names[close[0]]}'?" if close else ""
