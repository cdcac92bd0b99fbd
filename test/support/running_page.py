# SPDX-License-Identifier: Apache-2.0
"""The labelling page at work in this process, on a copy of a folder of frames."""

from __future__ import annotations

import importlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import PATIENCE_S, free_port
from weakseg_ros.improve.label.clicks import ClickStore
from weakseg_ros.improve.label.frame_source import FrameSource
from weakseg_ros.improve.label.page_state import PageState
from weakseg_ros.improve.label.serve import start_server


@contextmanager
def running_page(frames: Path, folder: Path) -> Iterator[tuple[Any, PageState]]:
    """The page and its state on a copy of `frames` in `folder`; its thread has ended afterwards."""
    source = FrameSource(Path(shutil.copytree(frames, folder / "street")))
    state = PageState(ClickStore(source.folder, source.labels), source)
    server = start_server(free_port())
    page = importlib.import_module("weakseg_ros.improve.label.page").Page(server, state, flight_s=0.0)
    worker = threading.Thread(target=page.run)
    worker.start()
    try:
        yield page, state
    finally:
        page.stop()
        worker.join(PATIENCE_S)
        server.stop()
    assert not worker.is_alive()
