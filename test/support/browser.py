# SPDX-License-Identifier: Apache-2.0
"""A browser without a screen, for the tests of pages."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from support import PATIENCE_S, optional

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SOFTWARE_GRAPHICS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-gpu-watchdog",  # on a busy machine it takes slow drawing for a hang, and ends it; pages then lose their 3D view
]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium that draws without a GPU; the test is skipped where there is none."""
    api = optional("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=SOFTWARE_GRAPHICS, timeout=PATIENCE_S * 1000)
        yield opened
        opened.close()


def new_tab(browser: Any, width: int = 800, height: int = 480) -> Any:
    """An empty tab that waits as long as a busy machine needs."""
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.set_default_timeout(PATIENCE_S * 1000)
    return tab


def open_page(browser: Any, port: int, first_words: str) -> Any:
    """A tab on a page of this machine, once it shows these words and has a 3D view."""
    tab = new_tab(browser)
    tab.goto(f"http://127.0.0.1:{port}")
    see(tab, first_words)
    tab.wait_for_selector("canvas")
    return tab


def see(tab: Any, pattern: str) -> None:
    """Wait until a text is on the page."""
    tab.get_by_text(re.compile(pattern)).first.wait_for(state="visible")
