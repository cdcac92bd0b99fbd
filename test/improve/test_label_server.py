# SPDX-License-Identifier: Apache-2.0
"""The labelling page's server without a browser: damaged files, replaced frames, and who gets in."""

from __future__ import annotations

import importlib
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from support import PATIENCE_S, free_port, optional
from support.label_server import until
from support.running_page import running_page
from weakseg_ros.data.frame_log import Suggestion
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.errors import ConfigError
from weakseg_ros.files import write_atomic
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.serve import start_server
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec
from weakseg_ros.simulate.drive import SimulateConfig, simulate
from weakseg_ros.simulate.lidar import SensorModel

viser = optional("viser")
Panel = importlib.import_module("weakseg_ros.improve.label.panel").Panel


def test_the_page_outlives_a_damaged_file(street: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_page(street, tmp_path) as (page, session):

        def done(mode: str) -> None:
            """Ask for a mode and wait for it: actions are taken in order, so all that was asked before is over."""
            page.ask(mode, "", None)
            until(lambda: session.mode == mode, f"the mode {mode}")

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


def test_the_panel_outlives_a_frame_that_the_log_has_replaced(tmp_path: Path) -> None:
    cloud = next(simulate(SimulateConfig(seed=7, scans=1, sensor=SensorModel(name="coarse", beams=32, columns=512)))).cloud
    spec, (height, width) = RangeSpec(height=32, width=512), (32, 512)
    nothing, image = np.zeros(len(cloud), np.float32), np.zeros((height, width), np.uint8)
    classes, objects = nothing.astype(np.uint8), nothing.astype(np.uint16)
    answer = Segmentation(classes, objects, nothing, nothing, cloud.flags, image, image.astype(np.uint16))
    with FrameWriter(tmp_path / "log", LabelMap.load("street"), spec, source="test", intensity_full_scale=1.0) as log:
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
            assert session.frame.key not in session.source.keys
            assert "Frame 0 of 1" in panel._task.content
        finally:
            server.stop()


def test_a_port_that_cannot_be_opened_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        with pytest.raises(ConfigError, match=r"65535 is in use, perhaps by another 'weakseg view'; .* choose --port 65534"):
            start_server(65535, "view")
    monkeypatch.setattr("weakseg_ros.improve.label.serve.HOST", "192.0.2.1")  # an address of no machine
    with pytest.raises(ConfigError, match=r"cannot be opened on 192\.0\.2\.1"):
        start_server(free_port())


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
