# SPDX-License-Identifier: Apache-2.0
"""Screenshots of the labelling page: simulate a street, choose what to label, open the page in Chromium, use it.

    python bench/label_screenshots.py            (docs/images/label_*.png; about two minutes on one core)
    python bench/label_screenshots.py --data DIR --out DIR    (other labelled scans)

Needs the extras `label`, `browser` and `onnx`, and a Chromium or Chrome on the path.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from weakseg_ros.data.scans import open_scans
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.keys import class_key
from weakseg_ros.improve.label.page import Page
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.scene import view_points
from weakseg_ros.improve.label.serve import start_server
from weakseg_ros.improve.log.select import SelectConfig, select
from weakseg_ros.simulate.record import RecordConfig, record

SIZE = {"width": 1200, "height": 740}
WORK = Path("runs/label_screenshots")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
SETTLED_MS = 4000
STREET, DRIVE = 12, 7
RAISED_M = np.array([0.0, 0.0, 5.0])
"""how much higher the camera stands above several scans"""
LABELS_FIRST = 9
"""suggested points that are labelled before the first picture"""
NEAREST_M, FARTHEST_M = 6.0, 14.0
"""how far away the object of the second picture is"""
POLYGON = ((-150, -40), (-20, -120), (130, -70), (150, 60), (-10, 110), (-140, 70))
"""corners from the middle of the picture, pixels"""


def main() -> int:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="labelled scans in place of the simulated street")
    parser.add_argument("--bundle", default="models/street64", help="the model whose doubts are labelled")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the pictures")
    parser.add_argument("--port", type=int, default=8137)
    options = parser.parse_args()
    log, data = WORK / "log", options.data or WORK / "street"
    shutil.rmtree(WORK, ignore_errors=True)
    if options.data is None:
        record(RecordConfig(out=data, seed=STREET, scans_per_street=6, stride=25, workers=1))
    select(SelectConfig(data=data, bundle=options.bundle, out=log, frames=6, points=20))
    options.out.mkdir(parents=True, exist_ok=True)
    Photographer(log, data, options.port).take(options.out)
    if options.data is None:
        record(RecordConfig(out=WORK / "drive", seed=DRIVE, scans_per_street=7, stride=5, workers=1))
        shoot_several_scans(WORK / "drive", options.port + 1, options.out / "label_scans.png")
    return 0


def shoot_several_scans(data: Path, port: int, picture: Path) -> None:
    """The nearest car of a drive's middle scan, labelled by one click in seven scans."""
    truth = open_scans(data)
    raw = truth.labels.to_raw(truth[3].class_id)
    shutil.rmtree(data / "labels")
    source = FrameSource(data)
    state = PageState(ClickStore(data, source.labels), source)
    state.open(source.keys[3])
    cloud, car = state.frame.cloud, source.labels.id_of("car")
    on_cars = np.flatnonzero((source.labels.to_class(raw) == car) & (cloud.xyz[:, 2] > -1.2))
    near = on_cars[np.linalg.norm(cloud.xyz[on_cars], axis=1) < FARTHEST_M]
    place = cloud.xyz[near[np.argmin(np.linalg.norm(cloud.xyz[near] - np.median(cloud.xyz[near], axis=0), axis=1))]]
    server = start_server(port)
    page = Page(server, state, flight_s=0.0)
    thread = threading.Thread(target=page.run, daemon=True)
    thread.start()
    with sync_playwright() as driver:
        browser, tab = _opened(driver, port)
        client = next(iter(server.get_clients().values()))
        for action, argument in (("together", ""), ("objects", ""), ("class", str(car))):
            page.ask(action, argument, client)
        page.ask("click", (np.zeros(3), place.astype(np.float64)), client)
        _until(lambda: state.mask is not None)
        page.ask("accept", "", client)
        page._scene._camera.fly(client, view_points(place) + RAISED_M, place.astype(np.float64))
        _shoot(tab, picture)
        browser.close()
    page.stop()
    thread.join()
    server.stop()


def _opened(driver: Any, port: int) -> tuple[Any, Any]:
    """A browser, and a tab of it on the page."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    browser = driver.chromium.launch(executable_path=path, args=FLAGS)
    tab = browser.new_page(viewport=SIZE)
    tab.goto(f"http://127.0.0.1:{port}")
    tab.get_by_text("suggested points labelled").wait_for()
    tab.wait_for_timeout(SETTLED_MS)
    for close in tab.locator(".mantine-Notification-closeButton").all():
        close.click()
    return browser, tab


def _shoot(tab: Any, path: Path) -> None:
    tab.wait_for_timeout(SETTLED_MS)
    Image.open(io.BytesIO(tab.screenshot())).convert("RGB").save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB", file=sys.stderr)


class Photographer:
    """The page on a frame log, with the truth at hand so that the labels in the pictures are right ones."""

    def __init__(self, log: Path, data: Path, port: int) -> None:
        self._source = FrameSource(log)
        self._state = PageState(ClickStore(log), self._source)
        self._truth = open_scans(data)
        self._server = start_server(port)
        self._page = Page(self._server, self._state, flight_s=0.0)
        self._thread = threading.Thread(target=self._page.run, daemon=True)
        self._port = port

    def take(self, out: Path) -> None:
        """Write the pictures."""
        self._thread.start()
        with sync_playwright() as driver:
            browser, tab = _opened(driver, self._port)
            self._label_suggestions(tab)
            _shoot(tab, out / "label_point.png")
            self._show_object(tab)
            _shoot(tab, out / "label_object.png")
            self._draw_polygon(tab)
            _shoot(tab, out / "label_lasso.png")
            self._show_doubts(tab)
            _shoot(tab, out / "label_frames.png")
            browser.close()
        self._page.stop()
        self._thread.join()
        self._server.stop()

    def _class_id(self) -> np.ndarray:
        record = self._source.log.record(self._state.frame.key)
        scan = self._truth[list(self._truth.keys).index(record.source_key)]
        return self._source.labels.to_class(self._truth.labels.to_raw(scan.class_id))

    def _label_suggestions(self, tab: Any) -> None:
        for _ in range(LABELS_FIRST):
            before, point = self._state.suggested, self._state.point
            class_id = int(self._class_id()[point]) if point is not None else 0
            tab.keyboard.press(class_key(class_id).lower() if class_id else "n")
            _until(lambda before=before: self._state.suggested != before)
            tab.wait_for_timeout(800)

    def _show_object(self, tab: Any) -> None:
        labels, cloud = self._source.labels, self._state.frame.cloud
        car = labels.id_of("car")
        away = np.linalg.norm(cloud.xyz[:, :2], axis=1)
        on_cars = np.flatnonzero((self._class_id() == car) & (away > NEAREST_M) & (away < FARTHEST_M) & (cloud.xyz[:, 2] > -1.2))
        point = int(on_cars[np.argmin(np.abs(away[on_cars] - np.median(away[on_cars])))])
        client = next(iter(self._server.get_clients().values()))
        place = cloud.xyz[point].astype(np.float64)
        self._page.ask("objects", "", client)
        self._page.ask("class", str(car), client)
        self._page.ask("click", (np.zeros(3), place), client)
        _until(lambda: self._state.mask is not None)
        self._page._scene._camera.fly(client, view_points(place), place)

    def _draw_polygon(self, tab: Any) -> None:
        """Around the car again, whose mask is dropped."""
        tab.keyboard.press("Escape")
        tab.keyboard.press("Shift+L")
        _until(lambda: self._state.mode == "lasso")
        box = tab.locator("canvas").last.bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for number, (x, y) in enumerate(POLYGON, start=1):
            tab.mouse.click(middle[0] + x, middle[1] + y)
            _until(lambda number=number: len(self._state.lasso) == number)

    def _show_doubts(self, tab: Any) -> None:
        client = next(iter(self._server.get_clients().values()))
        self._page.ask("accept", "", client)
        for action, argument in (("finish", ""), ("reject", ""), ("view", "uncertainty"), ("home", "")):
            self._page.ask(action, argument, client)
        tab.get_by_role("tab", name="Frames").click()


def _until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the page did not answer")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
