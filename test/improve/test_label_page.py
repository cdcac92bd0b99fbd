# SPDX-License-Identifier: Apache-2.0
"""The labelling page in a real browser: what a person sees and presses, and the labels that lie on disk afterwards."""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S, free_port, optional
from weakseg_ros.data.scan_writer import ScanWriter
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.files import write_atomic
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.colors import views_of
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.pick import pick
from weakseg_ros.improve.label.serve import start_server
from weakseg_ros.improve.log.store import FrameWriter, Origin, Suggestion, Worth
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import SensorModel

Image = optional("PIL.Image")
viser = optional("viser")
Page = importlib.import_module("weakseg_ros.improve.label.page").Page
Panel = importlib.import_module("weakseg_ros.improve.label.panel").Panel
view_points = importlib.import_module("weakseg_ros.improve.label.scene").view_points

STREET = LabelMap.load("street")
"""nothing takes so long, even on a machine that does other things"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
RING_PX = np.arange(16.0, 28.0, 0.5)
"""where the white circle is looked for; viser draws in fewer pixels where the machine is slow"""
WHITE = 175
"""least red, green and blue of white; the brightest colour of a point has a blue of 160"""
UNNAMED_BUTTONS = """[...document.querySelectorAll('button')].filter(
  button => !button.innerText.trim() && !button.getAttribute('aria-label')).map(button => button.outerHTML)"""
SOFTWARE_GRAPHICS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s in vain for: {what}"
        time.sleep(0.05)


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


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans of a coarse sensor on the simulated street."""
    folder = tmp_path_factory.mktemp("label") / "street"
    sensor = SensorModel(name="coarse", beams=32, columns=512)
    spec = RangeSpec(height=32, width=512)
    with ScanWriter(folder, STREET, spec, source="test", seed=7, intensity_full_scale=1.0) as out:
        for scan in simulate(SimulateConfig(seed=7, scans=2, stride=10, sensor=sensor)):
            out.write(scan.cloud)
    return folder


@pytest.fixture
def served(street: Path, tmp_path: Path) -> Iterator[Served]:
    """The page of a fresh copy of the scans."""
    page = Served(Path(shutil.copytree(street, tmp_path / "street")))
    page.start()
    yield page
    if page.process is not None and page.process.poll() is None:
        page.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that draws without a GPU."""
    api = optional("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    with api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=SOFTWARE_GRAPHICS, timeout=PATIENCE_S * 1000)
        yield chromium
        chromium.close()


def open_tab(browser: Any, served: Served) -> Any:
    tab = browser.new_page(viewport={"width": 800, "height": 480})
    tab.set_default_timeout(PATIENCE_S * 1000)
    tab.goto(f"http://127.0.0.1:{served.port}")
    see(tab, r"suggested points labelled")
    tab.wait_for_selector("canvas")
    return tab


def see(tab: Any, pattern: str) -> None:
    """Wait until a text is on the page."""
    tab.get_by_text(re.compile(pattern)).first.wait_for(state="visible")


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
    see(two, "1 clicks in all")
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


def test_the_page_outlives_a_damaged_file(street: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = FrameSource(Path(shutil.copytree(street, tmp_path / "street")))
    session = PageState(ClickStore(source.folder, source.labels), source)
    server = start_server(free_port())
    page = Page(server, session, flight_s=0.0)
    worker = threading.Thread(target=page.run)
    worker.start()

    def done(mode: str) -> None:
        """Ask for a mode and wait for it: actions are taken in order, so all that was asked before is over."""
        page.ask(mode, "", None)
        until(lambda: session.mode == mode, f"the mode {mode}")

    try:
        page.ask("class", "3", None)
        done("erase")
        assert session.store.count("000000") == 1
        done("mark")
        file = session.store.path / "000000.label"
        whole = file.read_bytes()
        write_atomic(file, whole[:-4])
        page.ask("class", "3", None)
        until(lambda: session.warning and "000000.label" in session.message, "the complaint")
        done("paint")  # drawing complains, too: the click must have been refused before the file is mended
        write_atomic(file, whole)
        for action in ("undo", "view", "above", "home", "following", "previous", "objects", "paint", "erase", "mark", "finish"):
            page.ask(action, "", None)
        page.ask("row", "0", None)
        page.ask("row", "99", None)
        page.ask("click", (np.zeros(3), np.array([0.0, 0.0, 1.0])), None)
        until(lambda: "no point here" in session.message, "the last action")
        assert session.store.count("000000") == 0
        assert session.store.done == ("000000",)
        assert not caplog.records
    finally:
        page.stop()
        worker.join(PATIENCE_S)
        server.stop()
    assert not worker.is_alive()


def test_a_mask_that_a_second_click_corrects_is_drawn_again(
    street: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = FrameSource(Path(shutil.copytree(street, tmp_path / "street")))
    session = PageState(ClickStore(source.folder, source.labels), source)
    server = start_server(free_port())
    page = Page(server, session, flight_s=0.0)
    worker = threading.Thread(target=page.run)
    worker.start()
    try:
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
    finally:
        page.stop()
        worker.join(PATIENCE_S)
        server.stop()
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
        see(tab, f"{number} corners")
    tab.keyboard.press("Enter")
    see(tab, r"road, [\d,]+ points")
    tab.keyboard.press("7")
    see(tab, r"vegetation, [\d,]+ points")
    tab.keyboard.press("Enter")
    until(lambda: served.labelled() > 1, "the labels of the polygon on disk")
    tab.close()


def test_the_panel_outlives_a_frame_that_the_log_has_replaced(tmp_path: Path) -> None:
    cloud = next(simulate(SimulateConfig(seed=7, scans=1, sensor=SensorModel(name="coarse", beams=32, columns=512)))).cloud
    spec, (height, width) = RangeSpec(height=32, width=512), (32, 512)
    nothing, image = np.zeros(len(cloud), np.float32), np.zeros((height, width), np.uint8)
    classes, objects = nothing.astype(np.uint8), nothing.astype(np.uint16)
    answer = Segmentation(classes, objects, nothing, nothing, cloud.flags, image, image.astype(np.uint16))
    with FrameWriter(tmp_path / "log", STREET, spec, source="test", intensity_full_scale=1.0) as log:
        for score in (0.2, 0.9):
            log.write(cloud, answer, Origin(), Worth(score, "uncertain", (), [Suggestion(0, 0.5, "")]))
        source = FrameSource(log.folder)
        session = PageState(ClickStore(log.folder, source.labels), source)
        server = start_server(free_port())
        try:
            panel = Panel(server, session, lambda *_: None)
            panel.show("height")
            log.remove(session.frame.key)
            session.refresh()
            panel.show("height")
        finally:
            server.stop()


def test_only_pages_of_this_machine_get_in() -> None:
    client = optional("websockets.sync.client")
    refused = optional("websockets.exceptions").InvalidStatus
    protocol = [f"viser-v{viser.__version__}"]
    server = start_server(free_port())
    try:
        port = server.get_port()
        for origin in ("http://evil.example", "http://localhost.evil.example", f"https://evil.example:{port}", "null"):
            with pytest.raises(refused, match="403"):
                client.connect(f"ws://127.0.0.1:{port}", origin=origin, subprotocols=protocol)
        for origin in (f"http://localhost:{port}", f"http://127.0.0.1:{port}", "http://localhost:9000"):
            with client.connect(f"ws://127.0.0.1:{port}", origin=origin, subprotocols=protocol) as connection:
                assert connection.recv(timeout=PATIENCE_S)
        with pytest.raises(ConnectionRefusedError):  # an address that a server on all interfaces would answer
            socket.create_connection(("127.0.0.2", port), timeout=PATIENCE_S)
    finally:
        server.stop()


def test_a_foreign_host_does_not_get_in_and_nothing_opens_a_tunnel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """DNS rebinding makes another site's name mean 127.0.0.1, and a program sends no Origin at all."""
    client = optional("websockets.sync.client")
    refused = optional("websockets.exceptions").InvalidStatus
    msgspec = optional("msgspec")
    asked: list[object] = []
    monkeypatch.setattr("viser._viser.ViserTunnel", lambda *arguments: asked.append(arguments))
    protocol = [f"viser-v{viser.__version__}"]
    server = start_server(free_port())
    try:
        port = server.get_port()
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        plain.sendall(b"GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n")
        assert b"403" in plain.recv(100)
        plain.close()
        for host in ("rebound.example", "localhost.evil.example", f"127.0.0.1.nip.io:{port}"):
            sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            with pytest.raises(refused, match="403"):
                client.connect(f"ws://{host}/", sock=sock, subprotocols=protocol)
        with client.connect(f"ws://127.0.0.1:{port}", subprotocols=protocol, max_size=None) as connection:
            connection.send(msgspec.msgpack.encode({"type": "ShareUrlRequest"}))
            for wild in (
                b"",
                b"\xc1",
                b"\x91" * 5000,
                msgspec.msgpack.encode({"type": "NoSuchMessage"}),
                msgspec.msgpack.encode(7),
            ):
                connection.send(wild)
            connection.send("text")
            connection.send(msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"update_cb": []}}))
            assert connection.recv(timeout=PATIENCE_S), "the connection is as it was"
            connection.ping().wait(PATIENCE_S)
            deadline = time.monotonic() + PATIENCE_S
            while len(caplog.records) < 8 and time.monotonic() < deadline:
                time.sleep(0.05)
        assert server.request_share_url() is None
    finally:
        server.stop()
    assert asked == []
    assert sum("left a message out" in record.message for record in caplog.records) == 8
    assert not any(record.exc_info for record in caplog.records)
