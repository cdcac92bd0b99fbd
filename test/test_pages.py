# SPDX-License-Identifier: Apache-2.0
"""What the pages name exists: links, options of verbs, and records with a number each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import optional
from support.verb_settings import options_of
from weakseg_ros.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
ANCHOR = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
OF_ALL = {"--help", "--config", "--version"}


def of_page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    dead = [link for link in links if not (page.parent / link).exists()]
    assert not dead, f"{of_page(page)}: {', '.join(dead)}"


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    for link, anchor in ANCHOR.findall(page.read_text(encoding="utf-8")):
        if "://" not in link:
            target = page.parent / link if link else page
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{of_page(page)}: {link}#{anchor}"


def anchors(text: str) -> set[str]:
    """What a link to a heading of a page may name: its words in small letters, joined by hyphens."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_table_has_a_head_and_rows_of_its_width(page: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        head, line, *rows = table.splitlines()
        assert re.fullmatch(r"(\|:?-+:?)+\|", line), f"{of_page(page)}: no line of hyphens below: {head}"
        assert not [row for row in rows if cells(row) != cells(head)], f"{of_page(page)}: {head}"


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_option_behind_a_verb_is_one_of_that_verb(page: Path) -> None:
    """Code is read up to a comment; what is behind a `weakseg VERB` belongs to it."""
    optional("rclpy")
    wrong = []
    for code in CODE.findall(page.read_text(encoding="utf-8")):
        for line in code.replace("\\\n", " ").splitlines():
            for command in re.split(r"[;&|]|#|\bweakseg ", line.strip("`"))[1:]:
                verb = command.split(" ")[0]
                if verb in VERBS:
                    known = options_of(verb) | OF_ALL
                    wrong += [f"weakseg {verb} {option}" for option in OPTION.findall(command) if option not in known]
    assert not wrong, f"{of_page(page)}: {', '.join(wrong)}"


def test_every_record_has_its_own_number_and_says_why() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [record.name[:4] for record in records]
    assert len(set(numbers)) == len(numbers)
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert text.startswith(f"# {record.name[:4]} "), record.name
        assert "**Choice.**" in text, record.name
        assert "**Why.**" in text, record.name
