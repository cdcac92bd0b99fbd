# SPDX-License-Identifier: Apache-2.0
"""A place that cannot be written is a sentence before the work, in every verb that writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros.cli import main

optional("rosbags")
optional("onnxruntime")

from weakseg_ros.data.bag_writer import CloudBagWriter
from weakseg_ros.points.cloud import Cloud


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    xyz = np.ones((4, 3), np.float32)
    with CloudBagWriter(tmp_path / "bag", "/points") as writer:
        writer.write(Cloud(xyz, np.zeros(4, np.float32), np.zeros(4, np.uint8), stamp_ns=10**18, width=4))
    return tmp_path / "bag"


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "BAG", "--out", "PLACE"),
        ("import", "BAG", "--out", "PLACE"),
        ("select", "BAG", "--out", "PLACE"),
        ("replay", "BAG", "--out", "PLACE/result.json"),
        ("simulate", "--out", "PLACE"),
        ("simulate", "--bag", "PLACE"),
        ("demo", "--out", "PLACE"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("place", ["/proc/nowhere", "a file/below"])
def test_it_is_said_before_the_work(
    command: tuple[str, ...], place: str, bag: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if command[0] == "replay":
        optional("rclpy")
    if command[0] == "demo":
        optional("torch")
    (tmp_path / "a file").touch()
    target = place if place.startswith("/") else str(tmp_path / place)
    arguments = [word.replace("BAG", str(bag)).replace("PLACE", target) for word in command]
    assert main(arguments) == 2
    said = capfd.readouterr()
    assert f"weakseg {command[0]}: {target}" in said.err
    assert "cannot be written" in said.err
    assert "Traceback" not in said.err
    assert not said.out


@pytest.mark.parametrize("verb", ["evaluate", "import", "select", "predict"])
def test_a_link_that_leads_nowhere_is_said_before_the_work(
    verb: str, bag: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to("gone")
    assert main([verb, str(bag), "--out", str(tmp_path / "link")]) == 2
    said = capfd.readouterr()
    assert f"weakseg {verb}: {tmp_path / 'link'}: is a link to gone, which is not there" in said.err
    assert not (tmp_path / "gone").exists()
