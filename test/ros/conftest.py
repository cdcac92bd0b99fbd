# SPDX-License-Identifier: Apache-2.0
"""Real DDS between real processes, on this machine and in a domain of this test run only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import load_file, optional
from weakseg_ros.ros.transport import apply_transport


@pytest.fixture(scope="session")
def rig(ros_domain: int) -> Iterator[Any]:
    """rig.py: a client, node processes, clouds and tiny models; rclpy is initialised, tuned as a driver's process should be."""
    rclpy = optional("rclpy")
    os.environ["ROS_DOMAIN_ID"] = str(ros_domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["AMENT_PREFIX_PATH"] = os.environ.get("AMENT_PREFIX_PATH") or sys.prefix
    apply_transport()
    module = load_file(Path(__file__).with_name("rig.py"))
    rclpy.init()
    yield module
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def bundle(rig: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model; read it, do not change it."""
    return rig.make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def start(rig: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Start a node process with these arguments, and a client for it; both end with the module."""
    folder = tmp_path_factory.mktemp("nodes")
    opened: list[Any] = []

    def run(*arguments: str, client: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
        process = rig.NodeProcess(folder, "--diagnostics-period-s", "0.1", *arguments, **options)
        opened.append(process)
        opened.append(rig.Client(process.namespace, **(client or {})))
        return process, opened[-1]

    yield run
    for thing in reversed(opened):
        thing.close()
