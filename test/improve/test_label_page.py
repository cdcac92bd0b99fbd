# SPDX-License-Identifier: Apache-2.0
"""The labelling page in a real browser: what a person sees and presses, and the labels that lie on disk afterwards."""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S, free_port, optional
from support.browser import open_page, see
from support.label_server import until
from support.running_page import running_page
from weakseg_ros.errors import counted
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.colors import views_of
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.pick import pick
from weakseg_ros.points.labels import LabelMap

Image = optional("PIL.Image")
optional("viser")
view_points = importlib.import_module("weakseg_ros.improve.label.scene").view_points

STREET = LabelMap.load("street")
RING_PX = np.arange(16.0, 28.0, 0.5)
"""where the white circle is looked for; viser draws in fewer pixels where the machine is slow"""
WHITE = 175
"""least red, green and blue of white; the brightest colour of a point has a blue of 160"""
UNNAMED_BUTTONS = """[...document.querySelectorAll('button')].filter(
  button => !button.innerText.trim() && !button.getAttribute('aria-label')).map(button => button.outerHTML)"""


class Served:
    """`weakseg label` as a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "weakseg_ros", "label", str(self.folder)]
        command += ["--port", str(self.port), "--flight-s", "0.05"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline(), self.process.stdout.readline()]
        assert f"http://localhost:{self.port}" in lines[1], lines

    def end(self, with_signal: int) -> int:
        assert self.process is not None
        os.kill(self.process.pid, with_signal)
        return self.process.wait(PATIENCE_S)

    def raw(self, key: str = "000000") -> np.ndarray:
        file = self.folder / "sparse" / "clicks" / f"{key}.label"
        return np.fromfile(file, "<u4") if file.exists() else np.zeros(0, np.uint32)

    def labelled(self) -> int:
        return int(np.count_nonzero(self.raw()))


@pytest.fixture
def served(street: Path, tmp_path: Path) -> Iterator[Served]:
    """The page of a fresh copy of the scans."""
    page = Served(Path(shutil.copytree(street, tmp_path / "street")))
    page.start()
    yield page
    if page.process is not None and page.process.poll() is None:
        page.end(signal.SIGKILL)


def open_tab(browser: Any, served: Served) -> Any:
    return open_page(browser, served.port, r"suggested points labelled")


def click_middle(tab: Any) -> None:
    box = tab.locator("canvas").first.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_a_person_labels_by_keys_clicks_and_masks(browser: Any, served: Served) -> None:
    frame = FrameSource(served.folder).frame("000000")
    tab = open_tab(browser, served)
    tab.keyboard.press("5")
    until(lambda: served.labelled() == 1, "the label of a key press on disk")
    raw = served.raw()
    first = frame.suggestions[0].point
    assert raw[first] & 0xFFFF == STREET.to_raw(np.array(5))
    see(tab, r"1 of \d+ suggested points labelled")
    see(tab, r"Suggested point 2 of \d+")

    second = frame.cloud.xyz[frame.suggestions[1].point].astype(np.float64)
    eye = view_points(second)
    tab.wait_for_timeout(1500)  # the flight to the second point; where the camera is, no element of the page tells
    tab.keyboard.press("c")
    see(tab, "labels what is under the brush")
    tab.keyboard.press("3")
    see(tab, "labels the point under it as sidewalk")
    click_middle(tab)
    until(lambda: served.labelled() == 2, "the label of a mouse click on disk")
    expected = pick(frame.cloud.xyz, frame.cloud.valid, eye, second - eye, 0.03)
    clicked = next(at for at in np.flatnonzero(served.raw()) if at != first)
    assert served.raw()[clicked] & 0xFFFF == STREET.to_raw(np.array(3))
    assert np.linalg.norm(frame.cloud.xyz[clicked] - frame.cloud.xyz[expected]) < 0.5

    tab.keyboard.press("z")
    until(lambda: served.labelled() == 1, "undo")
    tab.keyboard.press("y")
    until(lambda: served.labelled() == 2, "redo")
    tab.reload()
    see(tab, "2 labels here · 2 clicks in all")

    tab.wait_for_selector("canvas")
    tab.keyboard.press("o")
    see(tab, "Click an object of class car")
    click_middle(tab)
    see(tab, r"car, \d+ points")
    assert served.labelled() == 2
    tab.keyboard.press("u")
    tab.keyboard.press("Enter")
    tab.wait_for_timeout(1000)
    tab.keyboard.press("Enter")  # a wall is larger than a car, and so the page asks once more
    until(lambda: served.labelled() > 2, "the mask on disk")
    assert int(STREET.to_raw(np.array(STREET.id_of("car")))) | 1 << 16 in served.raw()
    see(tab, "3 clicks in all")
    tab.get_by_role("tab", name="Frames").click()
    tab.get_by_role("button", name=re.compile("000001")).click()
    tab.get_by_role("tab", name="Label").click()
    see(tab, "Frame 2 of 2")
    tab.close()


def ring_pixels(tab: Any) -> np.ndarray:
    """(P,) least of red, green and blue of the ring's white circle, in the middle of the canvas, where the camera looks at."""
    box = tab.locator("canvas").last.bounding_box()
    picture = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")).astype(int)
    angle = np.radians(np.arange(0, 360, 5))[:, None]
    column = box["x"] + box["width"] / 2 + RING_PX * np.cos(angle)
    row = box["y"] + box["height"] / 2 + RING_PX * np.sin(angle)
    return picture[row.round().astype(int), column.round().astype(int)].min(axis=-1).max(axis=1)


def test_the_asked_point_stands_out_in_every_colour_and_one_key_flies_to_it(browser: Any, served: Served) -> None:
    tab = open_tab(browser, served)
    assert tab.title() == f"Label {served.folder.name}"
    assert tab.evaluate("document.documentElement.lang") == "en"
    until(lambda: not tab.evaluate(UNNAMED_BUTTONS), "names of all buttons")
    views = len(views_of(FrameSource(served.folder).frame("000000")))
    for _ in range(views):
        see_ring(tab)
        tab.keyboard.press("v")
        tab.wait_for_timeout(500)
    canvas = tab.locator("canvas").last.bounding_box()
    tab.mouse.move(canvas["x"] + 100, canvas["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(canvas["x"] + 300, canvas["y"] + 160, steps=5)
    tab.mouse.up()
    tab.mouse.wheel(0, -400)
    tab.keyboard.press("Space")
    see_ring(tab)
    tab.close()


def see_ring(tab: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while (share := float((ring_pixels(tab) > WHITE).mean())) < 0.9:
        assert time.monotonic() < end, f"{share:.0%} of the ring are white"
        tab.wait_for_timeout(300)


def test_a_box_is_drawn_named_and_accepted(browser: Any, served: Served) -> None:
    tab = open_tab(browser, served)
    see_ring(tab)
    canvas = tab.locator("canvas").last.bounding_box()
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    tab.keyboard.down("Shift")
    tab.mouse.move(middle[0] - 40, middle[1] - 40)
    tab.mouse.down()
    tab.mouse.move(middle[0] + 40, middle[1] + 40, steps=5)
    tab.mouse.up()
    tab.keyboard.up("Shift")
    see(tab, r"road, [\d,]+ points, [\d.]+ x [\d.]+ x [\d.]+ m")
    assert served.labelled() == 0
    tab.keyboard.press("7")
    see(tab, r"vegetation, [\d,]+ points")
    tab.keyboard.press("Enter")
    until(lambda: served.labelled() > 1, "the labels of the box on disk")
    point = FrameSource(served.folder).frame("000000").suggestions[0].point
    assert served.raw()[point] == STREET.to_raw(np.array(STREET.id_of("vegetation")))
    tab.keyboard.press("Shift+H")
    see(tab, "some points are hidden")
    tab.keyboard.press("Backspace")
    see(tab, "All points are shown")
    tab.close()


def test_two_tabs_a_killed_server_and_another_program_lose_no_click(browser: Any, served: Served) -> None:
    one, two = open_tab(browser, served), open_tab(browser, served)
    one.keyboard.press("1")
    see(two, "1 click in all")
    two.keyboard.press("2")
    see(one, "2 clicks in all")
    assert served.labelled() == 2

    ClickStore(served.folder, STREET).add("000000", np.flatnonzero(served.raw() == 0)[:1], 4)
    see(one, "3 clicks in all")
    see(two, "3 clicks in all")

    served.end(signal.SIGKILL)
    served.start()
    see(one, "Frame 1 of 2")
    one.keyboard.press("3")  # a key into a lost connection does nothing, so press until it is back
    end = time.monotonic() + PATIENCE_S
    while served.labelled() < 4 and time.monotonic() < end:
        one.wait_for_timeout(1500)
        if served.labelled() < 4:
            one.keyboard.press("3")
    see(one, "[4-9] clicks in all")
    see(two, "[4-9] clicks in all")
    assert served.labelled() >= 4
    assert served.end(signal.SIGINT) == 130
    one.close()
    two.close()


def test_a_mask_that_a_second_click_corrects_is_drawn_again(
    street: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_page(street, tmp_path) as (page, session):
        source = session.source
        xyz = source.frame("000000").cloud.xyz
        point = source.frame("000000").suggestions[0].point
        page.ask("objects", "", None)
        page.ask("click", (np.zeros(3), xyz[point].astype(np.float64)), None)
        until(lambda: session.mask is not None, "a mask")
        for action in ("grow", "shrink", "shrink"):
            first = session.mask
            page.ask(action, "", None)
            until(lambda: session.mask is not first, "another mask")  # noqa: B023
        page.ask("lasso", "", None)
        for y in (-0.1, 0.1):
            page.ask("click", (np.zeros(3), np.array([1.0, y, 0.0])), None)
        until(lambda: len(session.lasso) == 2, "two corners")
        page.ask("reject", "", None)
        until(lambda: not len(session.lasso), "no corners")
        assert not session.warning
    assert [record.getMessage() for record in caplog.records] == []


def test_a_polygon_is_drawn_named_and_accepted(browser: Any, served: Served) -> None:
    tab = open_tab(browser, served)
    see_ring(tab)
    tab.keyboard.press("Shift+L")
    see(tab, "Click the corners of a polygon")
    canvas = tab.locator("canvas").last.bounding_box()
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    for number, (x, y) in enumerate(((-60, -30), (60, -40), (50, 40), (-50, 30)), start=1):
        tab.mouse.click(middle[0] + x, middle[1] + y)
        see(tab, counted(number, "corner"))
    tab.keyboard.press("Enter")
    see(tab, r"road, [\d,]+ points")
    tab.keyboard.press("7")
    see(tab, r"vegetation, [\d,]+ points")
    tab.keyboard.press("Enter")
    until(lambda: served.labelled() > 1, "the labels of the polygon on disk")
    tab.close()


def test_scans_that_are_shown_together_are_labelled_and_undone_together(browser: Any, served: Served) -> None:
    tab = open_tab(browser, served)
    see_ring(tab)
    tab.keyboard.press("Shift+V")
    see(tab, "The neighbouring scans are shown in grey")
    tab.keyboard.press("Shift+M")
    see(tab, "label 2 scans at once")
    for key in ("c", "3", *"uuuuuuuu"):  # a brush of 40 cm
        tab.keyboard.press(key)
    see(tab, "all points within 0.[3-9]. m of it as sidewalk")
    see(tab, "in 2 scans")
    canvas = tab.locator("canvas").last.bounding_box()
    tab.mouse.click(canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2)
    see(tab, r"sidewalk, [\d,]+ points in 2 scans. Undo: Z")
    first, second = served.raw("000000"), served.raw("000001")
    sidewalk = STREET.to_raw(np.array(STREET.id_of("sidewalk")))
    assert {*np.unique(first), *np.unique(second)} == {0, int(sidewalk)}
    see(tab, "1 click in all")
    tab.keyboard.press("z")
    until(lambda: not len(served.raw("000000")) and not len(served.raw("000001")), "one undo in both scans")
    tab.close()
