# SPDX-License-Identifier: Apache-2.0
"""What tests of all chapters share: how long they wait, which libraries they may lack, a free port, files of no package."""

from __future__ import annotations

import contextlib
import importlib.util
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from weakseg_ros.extras import LIBRARIES

PATIENCE_S = 600.0
"""how long a test waits for an event or for a process to end; a slow machine only makes it wait, so minutes"""
EXTRAS = {library.module: library.extra for library in LIBRARIES if library.extra} | {
    "rclpy": "ros-pip",
    "sensor_msgs": "ros-pip",
    "std_msgs": "ros-pip",
    "playwright": "browser",
    "PIL": "label",
    "websockets": "label",
    "msgspec": "label",
    "sklearn": "test",
}
"""the libraries that tests, like users, may lack, each with the extra of setup.py that brings it"""


def optional(module: str) -> Any:
    """The module; where its library is not installed, the test or the file is skipped, and the reason says what installs it."""
    __tracebackhide__ = True  # the reason is told at the line that asked
    name = module.partition(".")[0]
    hint = f": pip install 'weakseg_ros[{EXTRAS[name]}]'" if name in EXTRAS else ""
    return pytest.importorskip(module, reason=f"{name} is not installed{hint}")


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit to the bytes of a file stands for a full disk."""
    limits, former = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)


def load_file(path: Path, name: str = "") -> ModuleType:
    """A file that belongs to no package, as a module, under this name or its own."""
    name = name or path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
