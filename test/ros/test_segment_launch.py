# SPDX-License-Identifier: Apache-2.0
"""The launch file brings the node to `active` by events, and back after a crash; needs a real ROS 2 (launch is not on PyPI)."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "segment.launch.py"


def test_the_launch_file_compiles() -> None:
    compile(LAUNCH_FILE.read_text(), LAUNCH_FILE.name, "exec")


@pytest.fixture(scope="module")
def launch_module() -> Any:
    pytest.importorskip("launch_ros", reason="launch_ros comes with an apt ROS 2, not from PyPI")
    spec = importlib.util.spec_from_file_location("segment_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_parameter_is_an_explained_argument(launch_module: Any) -> None:
    from weakseg_ros.ros.params import FIELDS, choices

    arguments = {argument.name: argument for argument in launch_module.generate_launch_description().get_launch_arguments()}
    assert set(FIELDS) - {"autostart"} < set(arguments)
    assert all(argument.description and argument.default_value is not None for argument in arguments.values())
    assert arguments["mode"].choices == ["", *choices("mode")]


@pytest.fixture
def launched(launch_module: Any, rig: Any, bundle: Any, tmp_path: Path) -> Iterator[tuple[Any, Path, Any]]:
    """`ros2 launch` in a process of its own, its log, and a client."""
    namespace = f"/launched{os.getpid()}"
    log = tmp_path / "launch.log"
    command = ["ros2", "launch", str(LAUNCH_FILE), f"bundle:={bundle.folder}", f"namespace:={namespace}", "input_topic:=points"]
    with open(log, "wb") as stream:
        process = subprocess.Popen([*command, "diagnostics_period_s:=0.1"], stdout=stream, stderr=stream, start_new_session=True)
    client = rig.Client(namespace)
    yield process, log, client
    client.close()
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def node_pid(log: Path) -> int:
    """Process id that launch printed last for the node."""
    lines = [line for line in log.read_text().splitlines() if "segment_node" in line and "started with pid" in line]
    return int(lines[-1].rpartition("[")[2].rstrip("]")) if lines else 0


def test_it_becomes_active_survives_a_crash_and_ends_cleanly(rig: Any, launched: tuple[Any, Path, Any]) -> None:
    process, log, client = launched
    client.connect()
    assert client.state() == "active"
    first = node_pid(log)
    os.kill(first, signal.SIGKILL)
    client.wait(lambda: node_pid(log) not in (0, first), "the respawn", 30)
    client.wait(lambda: client.answer_to(rig.make_cloud(rig.street_points(100)), 0.5), "answers of the new process", 30)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0
    assert "Traceback" not in log.read_text()


if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="signals as on Linux")
