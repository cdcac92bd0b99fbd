# SPDX-License-Identifier: Apache-2.0
"""Frames of a log as bags: what came around them, their tags, and a command that is run until it has ended well once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from support import optional
from weakseg_ros.cli import main
from weakseg_ros.deploy.segmentation import Segmentation
from weakseg_ros.improve.log.context import TimedMessage, write_context
from weakseg_ros.improve.log.store import FrameWriter, Origin, Worth
from weakseg_ros.points.cloud import make_cloud
from weakseg_ros.points.labels import LabelMap
from weakseg_ros.points.projection import RangeSpec

optional("rosbags")
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log of two frames, one with a tag and the messages around it."""
    cloud = make_cloud(np.arange(30, dtype=np.float32).reshape(10, 3), np.arange(10) / 10, stamp_ns=5_000_000_000)
    image, zeros = np.zeros((1, 1), np.uint8), np.zeros(10, np.float32)
    answer = Segmentation(
        np.ones(10, np.uint8), np.zeros(10, np.uint16), zeros, zeros, cloud.flags, image, image.astype(np.uint16)
    )
    with FrameWriter(tmp_path / "log", LabelMap.load("street"), RangeSpec(), source="test", intensity_full_scale=1.0) as log:
        log.write(cloud, answer, Origin(sensor="/ouster/points"), Worth(0.3, "uncertain"))
        tagged = log.write(cloud, answer, Origin(sensor="/ouster/points"), Worth(0.2, "asked", tag="near miss!", note="a dog"))
    text = TYPES.types["std_msgs/msg/String"](data="seen")
    messages = [
        TimedMessage("/camera", "std_msgs/msg/String", 4_000_000_000, bytes(TYPES.serialize_cdr(text, "std_msgs/msg/String"))),
        TimedMessage("/own", "my_msgs/msg/Strange", 4_500_000_000, b"??"),
    ]
    write_context(tmp_path / "log", tagged.key, messages)
    return tmp_path / "log"


def test_a_frame_becomes_a_bag_with_its_tag_and_what_came_around_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-frames", str(folder), "--out", str(tmp_path / "bags")]) == 0
    told = capsys.readouterr().out
    assert "2 new bags of 2 frames" in told
    assert "1 message of type my_msgs/msg/Strange was left out" in told
    bag = tmp_path / "bags" / "0000_000002_near-miss"
    with AnyReader([bag], default_typestore=TYPES) as reader:
        ((connection, stamp_ns, raw),) = reader.messages()
        assert (connection.topic, stamp_ns, reader.deserialize(raw, connection.msgtype).data) == ("/camera", 4 * 10**9, "seen")
    metadata = (bag / "metadata.yaml").read_text()
    assert "near miss!" in metadata
    assert "a dog" in metadata
    with AnyReader([tmp_path / "bags" / "0000_000001"], default_typestore=TYPES) as reader:
        ((connection, stamp_ns, _),) = reader.messages()
        assert (connection.topic, connection.msgtype) == ("/ouster/points", "sensor_msgs/msg/PointCloud2")
    assert main(["export-frames", str(folder), "--out", str(tmp_path / "bags")]) == 0
    assert "0 new bags of 2 frames" in capsys.readouterr().out


def test_the_command_is_run_for_each_bag_until_it_has_ended_well(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "send.py"
    script.write_text(
        "import pathlib, sys\n"
        "log = pathlib.Path(sys.argv[2])\n"
        "log.write_text((log.read_text() if log.exists() else '') + pathlib.Path(sys.argv[1]).name + '\\n')\n"
        "sys.exit(log.with_name('broken').exists())\n"
    )
    told = tmp_path / "told"
    arguments = ["export-frames", str(folder), "--out", str(tmp_path / "bags"), "--tag", "near miss!"]
    arguments += ["--then", f"{sys.executable} {script} {{}} {told}"]
    (tmp_path / "broken").touch()
    assert main(arguments) == 1
    (tmp_path / "broken").unlink()
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert told.read_text().split() == ["0000_000002_near-miss"] * 2


def test_faults_are_sentences(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-frames", str(folder), "--out", str(tmp_path / "bags"), "--tag", "dog"]) == 2
    assert "no frame has the tag 'dog'; there are: near miss!" in capsys.readouterr().err
    assert main(["export-frames", str(folder), "--then", "rclone copy"]) == 2
    assert "write {} where the bag's folder belongs" in capsys.readouterr().err
    assert main(["export-frames", str(folder), "--out", str(tmp_path / "bags"), "--then", "no-such-program {}"]) == 2
    assert "no-such-program cannot be run" in capsys.readouterr().err
