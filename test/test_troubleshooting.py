# SPDX-License-Identifier: Apache-2.0
"""The page on what to do quotes sentences that the program really prints."""

from __future__ import annotations

import re
from pathlib import Path

OF_OTHERS = ("command not found", "externally-managed-environment", "unable to be reached")
"""sentences of the shell, of pip and of nav2"""
SOURCES = ("weakseg_ros", "launch")
HOLES = re.compile(r"\.\.\.|…|\b[XYN]\b|\(…\)")


def quotations(page: str) -> list[str]:
    """What stands between backticks in the first column of the tables under 'you read'."""
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ") and not line.startswith("| you ")]
    return [quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row) if " " in quoted]


def test_every_quoted_sentence_is_one_of_the_program(root: Path) -> None:
    files = [file for folder in SOURCES for file in (root / folder).rglob("*.py")]
    text = " ".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in files)
    # what is filled in stands in braces in the program, and as X, Y, N or a value on the page
    program = re.sub(r"\{[^{}]*\}", "{}", text)
    found = [quoted for quoted in quotations((root / "docs" / "troubleshooting.md").read_text()) if not _is_of_others(quoted)]
    assert len(found) > 12
    for quoted in found:
        pieces = [piece.strip(" ()'\";,?:") for piece in HOLES.split(quoted)]
        longest = max(pieces, key=len)
        assert longest in program or longest in re.sub(r"\{\}", "", program) or _with_values(longest, program), quoted


def _is_of_others(quoted: str) -> bool:
    return any(text in quoted for text in OF_OTHERS)


def _with_values(piece: str, program: str) -> bool:
    """Whether the program has the piece with one word of it filled in."""
    words = piece.split()
    return any(" ".join([*words[:i], "{}", *words[i + 1 :]]) in program for i in range(len(words)))
