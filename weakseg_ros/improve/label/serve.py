# SPDX-License-Identifier: Apache-2.0
"""`weakseg label FOLDER`: the page on this machine's own address, for a person who answers "which class is this?"."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import tyro

from weakseg_ros.config import check_ranges, setting
from weakseg_ros.errors import ConfigError, counted, say
from weakseg_ros.improve.label.clicks import CLICKS, ClickStore
from weakseg_ros.improve.label.door import guarded, keep_inside
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.processes import when_asked_to_end

if TYPE_CHECKING:
    import viser

    from weakseg_ros.improve.label.masks import MasksOfClicks

HOST, MOST_PORT = "127.0.0.1", 65535
INTERRUPTED = 130
"""exit code after Ctrl+C, the only end there is"""
STOP_S = 5.0


@dataclass(frozen=True)
class LabelConfig:
    """Label points of scans on a page in the browser."""

    folder: tyro.conf.Positional[Path]
    """Names the frame log of a node or of 'weakseg select', or any folder of scans."""
    label_map: str = setting("", was="labels")
    """Selects a label map, by name or as a YAML file, that replaces the folder's own; an empty string keeps the folder's."""
    name: str = CLICKS
    """Sets the name of the label set, which is written to FOLDER/sparse/NAME; a different name keeps a second person's labels
    separate."""
    objects: Path | None = None
    """Names the run folder of a training with the method point_panoptic, which then finds the points of a clicked object;
    without it, a rule that follows surfaces finds them."""
    port: int = setting(8080, 1, MOST_PORT)
    """Sets the TCP port of the page (1 to 65535), which is reachable from this machine only; from another one, run 'ssh -L
    8080:localhost:8080 HOST' first."""
    flight_s: float = setting(0.35, 0.0, 10.0)
    """Sets how long the camera takes to move to the next point, in seconds (0 to 10)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.name.strip() or "/" in self.name:
            raise ConfigError(f"name: '{self.name}' is not a folder name; choose a single word")


def serve(config: LabelConfig, masks_of_clicks: MasksOfClicks) -> int:
    """Serve the page until Ctrl+C; `masks_of_clicks` finds the points of a clicked object. Returns the exit code."""
    from weakseg_ros.improve.label.frame_source import FrameSource
    from weakseg_ros.improve.label.page import Page
    from weakseg_ros.improve.label.page_state import PageState

    source = FrameSource(config.folder, LabelMap.load(config.label_map) if config.label_map else None)
    store = ClickStore(config.folder, source.labels, config.name)
    state = PageState(store, source, masks_of_clicks)
    server = start_server(config.port)
    try:
        page = Page(server, state, config.flight_s)
        say(f"{counted(len(source), 'frame')} of {config.folder}; {counted(store.clicks, 'click')} so far, in {store.path}")
        say(f"open http://localhost:{config.port} in a browser; Ctrl+C ends the program, and everything is saved already")
        run_until_ended(page)
    finally:
        stop_server(server)
    return INTERRUPTED


class Runs(Protocol):
    """A page that works until it is told to stop."""

    def run(self) -> None:
        """Work off what tabs ask for."""

    def stop(self) -> None:
        """End `run`."""


def run_until_ended(page: Runs) -> None:
    """Run a page until Ctrl+C, SIGTERM or the end of the terminal."""
    when_asked_to_end(page.stop)  # as an exception, Ctrl+C may come up in a callback that swallows it
    page.run()


def stop_server(server: viser.ViserServer) -> None:
    """Stop the server; a tab that does not let go of it must not keep the terminal."""
    with contextlib.redirect_stdout(io.StringIO()):
        stopper = threading.Thread(target=server.stop, daemon=True)
        stopper.start()
        stopper.join(STOP_S)
    if stopper.is_alive():
        os._exit(INTERRUPTED)  # nothing is lost: every click is on disk


def start_server(port: int, verb: str = "label") -> viser.ViserServer:
    """The server of a verb's page, on this machine's own address and for it alone; ConfigError where the port cannot be taken."""
    import viser

    _check_port(port, verb)
    with contextlib.redirect_stdout(io.StringIO()), guarded():
        server = viser.ViserServer(host=HOST, port=port, label=f"weakseg {verb}", verbose=False)
    if server.get_port() != port:
        server.stop()
        raise _in_use(port, verb)
    keep_inside(server)
    return server


def _check_port(port: int, verb: str) -> None:
    """ConfigError, with the reason, where nothing can listen at a port; viser would take the next one, or wait for ever."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _in_use(port, verb) from None
        raise ConfigError(f"port: {port} cannot be opened on {HOST} ({error.strerror}); choose a port above 1023") from None


def _in_use(port: int, verb: str) -> ConfigError:
    other = port + 1 if port < MOST_PORT else port - 1
    return ConfigError(f"port: {port} is in use, perhaps by another 'weakseg {verb}'; end that program, or choose --port {other}")
