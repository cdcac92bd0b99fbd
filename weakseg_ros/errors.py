# SPDX-License-Identifier: Apache-2.0
"""The errors a user can meet; each text reads *where: what was found; what to do*.

The command line prints the sentence and ends with exit code 2; the node turns it into a diagnostic. A traceback is
kept for faults of our own.
"""

from __future__ import annotations

import contextlib
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


def is_text(word: str) -> bool:
    """Whether a word can be written as UTF-8; a name of a file need not be."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_bytes(names: Iterable[str], where: str = "") -> None:
    """DataError, which begins with `where`, for the first name that is no text: settings and reports are UTF-8."""
    for name in names:
        if not is_text(name):
            raise DataError(f"{where}'{name}': contains bytes that are not UTF-8; rename it, or set LC_ALL=C.UTF-8")


def shortened(text: str, most: int) -> str:
    """On one line, and of a longer text its first `most` characters and '...'."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def say(*lines: object) -> None:
    """Print to stdout what a verb found. With `complain` the only way to the terminal: names in it cannot steer that."""
    _print(lines, sys.stdout)


def complain(*lines: object) -> None:
    """Print to stderr what is wrong, or how far the work is."""
    _print(lines, sys.stderr)


def _print(lines: Iterable[object], stream: TextIO) -> None:
    text = "\n".join(map(printable, lines))
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, or a terminal that was closed
        forget(stream)
        if stream is not sys.stderr:
            error.filename = "standard output"
            raise


def open_missing_streams() -> None:
    """Open stdin, stdout and stderr where this process was started without them, as services and `>&-` do, on the null device.

    Otherwise the first file that is opened takes their number, and what a library tells stderr is written into that.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            _to_null_device(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def forget(stream: TextIO) -> None:
    """Let what is written to a stream that takes nothing any more go nowhere, what it still holds included."""
    with contextlib.suppress(OSError, ValueError):
        _to_null_device(stream.fileno())


def _to_null_device(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, number)
        os.close(null)


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
