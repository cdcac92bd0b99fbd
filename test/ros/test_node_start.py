# SPDX-License-Identifier: Apache-2.0
"""The node's process as others start, name, watch and end it: managers, namespaces, frames, log folders, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import PATIENCE_S, optional
from weakseg_ros.data.scans import open_scans
from weakseg_ros.points.labelled import unpack_labelled

Start = Callable[..., tuple[Any, Any]]
TRIES = 10
"""enough: where the fault was, every other try showed it"""


def test_a_second_signal_at_any_moment_of_the_end_is_a_clean_end(rig: Any, bundle: Any, tmp_path: Path) -> None:
    """Python's own end restores the default handlers; a second SIGINT in it ended with -2 in every other try."""
    codes = []
    for number in range(TRIES):
        process = rig.NodeProcess(tmp_path, "--bundle", str(bundle.folder))
        process.wait_for_text("labelling")
        process.process.send_signal(signal.SIGINT)
        time.sleep(0.8 * number / (TRIES - 1))
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGINT)
        codes.append(process.end(signal.SIGINT))
        assert "Traceback" not in process.text()
    assert codes == [0] * TRIES


def test_a_process_after_a_crash_is_active_by_itself(rig: Any, start: Start, bundle: Any, tmp_path: Path) -> None:
    """Discovery still lists the dead process then, and a transition sent from outside would reach its service."""
    process, client = start("--bundle", str(bundle.folder))
    client.connect()
    process.process.kill()
    process.process.wait()
    rig.NodeProcess.count -= 1  # the same name again
    second = rig.NodeProcess(tmp_path, "--bundle", str(bundle.folder))
    assert second.namespace == process.namespace
    second.wait_for_text("labelling")
    client.wait(lambda: client.answer_to(rig.make_cloud(rig.street_points(100)), 0.5), "answers of the new process")
    assert second.end() == 0


@pytest.mark.parametrize("settings", [{"HOME": None}, {"HOME": "/proc/self"}, {"ROS_LOG_DIR": "/proc/self/logs"}], ids=str)
@pytest.mark.parametrize("verb", ["node", "replay"])
def test_no_folder_for_the_logs_of_ros_is_one_sentence(
    rig: Any, verb: str, settings: dict[str, str | None], tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("ROS_HOME", "ROS_LOG_DIR", *settings)}
    environment |= {name: value for name, value in settings.items() if value}
    arguments = [str(make_bag(tmp_path))] if verb == "replay" else []
    command = [sys.executable, "-m", "weakseg_ros", verb, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S)
    assert done.returncode == 2
    why = "HOME is not set" if "HOME" in settings and not settings["HOME"] else "cannot be written"
    assert done.stderr.splitlines()[-1].startswith(
        f"weakseg {verb}: ROS has no folder for its logs; set ROS_LOG_DIR to one that can be written ("
    )
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def make_bag(folder: Path) -> Path:
    optional("rosbags")
    from weakseg_ros.data.bag_writer import CloudBagWriter
    from weakseg_ros.points.cloud import Cloud

    xyz = np.ones((4, 3), np.float32)
    with CloudBagWriter(folder / "bag", "/points") as writer:
        writer.write(Cloud(xyz, np.zeros(4, np.float32), np.zeros(4, np.uint8), stamp_ns=10**18, width=4))
    return folder / "bag"


def test_diagnostics_carry_the_full_name_and_the_log_level_works_in_a_namespace(rig: Any, start: Start, bundle: Any) -> None:
    process, client = start("--bundle", str(bundle.folder), "--log-level", "debug")
    client.wait(lambda: "model" in client.status, "the diagnostics")
    status = client.status["model"]
    assert status.name == f"{process.namespace}/weakseg: model"
    assert status.hardware_id == f"{process.namespace}/weakseg"
    assert process.end() == 0
    quiet, client = start("--bundle", str(bundle.folder), "--log-level", "error")
    client.wait(lambda: client.state() == "active", "the node")
    assert quiet.end() == 0
    assert "labelling" not in quiet.text()
    assert "labelling" in process.text()


def test_what_is_taken_at_configure_can_be_set_while_unconfigured(rig: Any, start: Start, bundle: Any) -> None:
    process, client = start("--bundle", str(bundle.folder), "--autostart", "false")
    transition = rig.Transition
    assert client.state() == "unconfigured"
    assert "read" in client.set(autostart=True)
    assert client.set(mode="replay", labels_reliability="reliable", diagnostics_period_s=0.2) == ""
    assert client.change(transition.TRANSITION_CONFIGURE)
    assert "can be changed only while the node is unconfigured" in client.set(mode="live")
    assert client.change(transition.TRANSITION_ACTIVATE)
    client.wait(lambda: client.value("input", "mode") == "replay", "the mode as set")
    assert client.change(transition.TRANSITION_DEACTIVATE)
    assert client.change(transition.TRANSITION_CLEANUP)
    assert client.set(mode="live") == ""
    assert process.end() == 0


def test_labels_can_be_reliable(rig: Any, start: Start, bundle: Any) -> None:
    """What create_subscription(..., 10) asks for, and hears nothing of a best-effort publisher."""
    reliable = rig.QoSProfile(depth=10, reliability=rig.ReliabilityPolicy.RELIABLE)
    process, client = start("--bundle", str(bundle.folder), "--labels-reliability", "reliable", client={"listen": reliable})
    client.connect()
    assert process.end() == 0


def test_an_empty_cloud_is_answered_whatever_the_bundle_requires(rig: Any, start: Start, tmp_path: Path) -> None:
    from weakseg_ros.deploy.input_spec import IntensityRule

    demanding = rig.make_bundle(tmp_path, "demanding", intensity=IntensityRule(required=True, full_scale=1.0))
    process, client = start("--bundle", str(demanding.folder), "--intensity-field", "reflectivity")
    client.wait(lambda: client.state() == "active", "the node")
    empty = rig.make_cloud(np.zeros((0, 4)))
    empty.fields = empty.fields[:3]

    def answered() -> Any:
        empty.header.stamp = rig.next_stamp()
        return client.answer_to(empty, 0.5)

    answer = client.wait(answered, "an answer to an empty cloud")
    assert answer.width == 0
    full = rig.make_cloud(np.ones((5, 4)))
    client.points.publish(full)
    client.wait(lambda: client.value("input", "dropped no_intensity"), "the count of the drop")
    assert all(answer.header.stamp != full.header.stamp for answer in client.answers)
    assert process.end() == 0


# libraries of a full ROS 2 that PyPI has not: stand-ins with their interface, in the real node

BONDPY = """
import json, os
class Bond:
    def __init__(self, node, topic, id, on_broken=None, on_formed=None):
        self.facts = {"topic": topic, "id": id, "namespace": node.get_namespace()}
    def start(self):
        self._say("start")
    def shutdown(self):
        self._say("shutdown")
    def _say(self, what):
        facts = {"what": what, "period": self.heartbeat_period, "timeout": self.heartbeat_timeout, **self.facts}
        with open(os.environ["BONDS"], "a") as file:
            file.write(json.dumps(facts) + "\\n")
"""


def test_under_a_manager_the_active_node_holds_a_bond(rig: Any, start: Start, bundle: Any, tmp_path: Path) -> None:
    (tmp_path / "bondpy").mkdir()
    (tmp_path / "bondpy" / "__init__.py").touch()
    (tmp_path / "bondpy" / "bondpy.py").write_text(BONDPY)
    places = {"PYTHONPATH": str(tmp_path), "BONDS": str(tmp_path / "bonds")}
    process, client = start("--bundle", str(bundle.folder), "--autostart", "false", **places)
    transition = rig.Transition
    assert client.state() == "unconfigured"
    assert client.change(transition.TRANSITION_CONFIGURE)
    assert not (tmp_path / "bonds").exists()
    assert client.change(transition.TRANSITION_ACTIVATE)
    assert client.change(transition.TRANSITION_DEACTIVATE)
    bonds = [json.loads(line) for line in (tmp_path / "bonds").read_text().splitlines()]
    assert [bond["what"] for bond in bonds] == ["start", "shutdown"]
    assert bonds[0] | {"what": ""} == {
        "what": "", "topic": "bond", "id": "weakseg", "namespace": process.namespace, "period": 0.1, "timeout": 4.0
    }  # fmt: skip
    assert process.end() == 0
    (tmp_path / "bonds").unlink()
    alone, client = start("--bundle", str(bundle.folder), **places)
    client.connect()
    assert alone.end() == 0
    assert not (tmp_path / "bonds").exists(), "a node that starts itself has no manager"


TF2_ROS = """
from geometry_msgs.msg import TransformStamped
class TransformException(Exception):
    pass
class Buffer:
    def lookup_transform(self, target, source, time, timeout):
        known = {("base", "lidar"): 1.5, ("body", "lidar"): 1.5}
        if (target, source) not in known:
            raise TransformException(f"'{source}' is unknown")
        found = TransformStamped()
        found.transform.translation.z = known[target, source]
        found.transform.rotation.w = found.transform.rotation.z = 0.5 ** 0.5
        return found
class TransformListener:
    def __init__(self, buffer, node):
        pass
    def unregister(self):
        pass
"""


def test_labels_and_boxes_come_in_the_target_frame(rig: Any, start: Start, bundle: Any, tmp_path: Path) -> None:
    (tmp_path / "tf2_ros.py").write_text(TF2_ROS)
    process, client = start("--bundle", str(bundle.folder), "--target-frame", "base", PYTHONPATH=str(tmp_path))
    client.connect()
    points = rig.street_points(50)
    points[3] = np.nan
    answer = client.answer_to(rig.make_cloud(points))
    assert answer.header.frame_id == "base"
    columns = unpack_labelled(answer)
    turned = np.stack((-points[:, 1], points[:, 0], points[:, 2] + 1.5), 1)
    np.testing.assert_allclose(np.stack([columns[name] for name in "xyz"], 1), turned, atol=1e-4)
    elsewhere = rig.make_cloud(points)
    elsewhere.header.frame_id = "mast"
    client.points.publish(elsewhere)
    client.wait(lambda: client.value("input", "dropped no_transform") == "1", "the count of the drop")
    assert all(answer.header.stamp != elsewhere.header.stamp for answer in client.answers)
    assert "TF has no transform from 'mast' to 'base'" in process.text()
    assert process.end() == 0


def test_the_model_sees_clouds_in_the_input_frame_and_answers_in_their_own(
    rig: Any, start: Start, bundle: Any, tmp_path: Path
) -> None:
    (tmp_path / "tf2_ros.py").write_text(TF2_ROS)
    process, client = start(
        *("--bundle", str(bundle.folder), "--input-target-frame", "base"),
        *("--log-folder", str(tmp_path / "log"), "--log-spacing-s", "0", "--log-min-free-mib", "0"),
        PYTHONPATH=str(tmp_path),
    )
    client.connect()
    points = rig.street_points(50)
    answer = client.answer_to(rig.make_cloud(points))
    assert answer.header.frame_id != "base"
    columns = unpack_labelled(answer)
    np.testing.assert_allclose(np.stack([columns[name] for name in "xyz"], 1), points[:, :3], atol=1e-4)
    elsewhere = rig.make_cloud(points)
    elsewhere.header.frame_id = "mast"
    client.points.publish(elsewhere)
    client.wait(lambda: client.value("input", "dropped no_transform") == "1", "the count of the drop")
    assert process.end() == 0
    kept = [scan.cloud.xyz for scan in open_scans(tmp_path / "log")]
    assert kept, "the first cloud is always kept"
    for xyz in kept:  # which others are kept is for the log to say
        given = points if len(xyz) == len(points) else np.ones((1, 4))
        np.testing.assert_allclose(xyz, np.stack((-given[:, 1], given[:, 0], given[:, 2] + 1.5), 1), atol=1e-3)


def test_a_frame_that_cannot_be_asked_for_is_a_sentence(rig: Any, start: Start, bundle: Any) -> None:
    if "tf2_ros" in sys.modules or any((Path(path) / "tf2_ros").exists() for path in sys.path):
        pytest.skip("tf2_ros is installed here")
    process, client = start("--bundle", str(bundle.folder), "--target-frame", "base")
    process.wait_for_text("target_frame: tf2_ros cannot be imported")
    assert client.state() == "unconfigured"
    assert client.set(target_frame="") == ""
    assert client.change(rig.Transition.TRANSITION_CONFIGURE)
    assert process.end() == 0


# programs beside the node


@pytest.mark.parametrize(("until", "shown"), [("active", "go"), ("frame", "go lidar")])
def test_a_program_beside_the_node_waits_for_it(rig: Any, start: Start, bundle: Any, until: str, shown: str) -> None:
    process, client = start("--bundle", str(bundle.folder), "--autostart", "false")
    command = [sys.executable, "-m", "weakseg_ros.ros.beside", until, f"{process.namespace}/weakseg", "echo", "go", "{frame}"]
    beside = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.state() == "unconfigured"
    client.spin(1.0)
    assert beside.poll() is None, "it waits"
    assert client.change(rig.Transition.TRANSITION_CONFIGURE)
    assert client.change(rig.Transition.TRANSITION_ACTIVATE)
    if until == "frame":
        client.wait(lambda: client.node.count_subscribers(client.labels.topic_name) > 1, "its subscription")
        while beside.poll() is None:
            client.answer_to(rig.make_cloud(rig.street_points(10)), 0.2)
    assert beside.communicate(timeout=PATIENCE_S)[0].strip() == shown.strip()
    assert process.end() == 0


# the odometry of a body that is not the sensor


def test_the_extrinsic_brings_odometry_to_the_sensor(rig: Any) -> None:
    from nav_msgs.msg import Odometry

    from weakseg_ros.points.poses import matrix_of_text
    from weakseg_ros.ros.odometry import OdometryTopic

    node = rig.rclpy.create_node("listener", namespace="/extrinsic_test")
    topic = OdometryTopic(node, "odom", matrix_of_text(f"2 0 1.5 0 0 {np.pi / 2}", "odometry_extrinsic"))
    message = Odometry()
    message.pose.pose.position.x, message.pose.pose.orientation.w = 10.0, 1.0
    topic._on_pose(message)
    pose = topic.pose_at(0)
    assert pose is not None
    np.testing.assert_allclose(pose @ (1, 0, 0, 1), (12, 1, 1.5, 1), atol=1e-9)
    topic.close()
    node.destroy_node()


def test_angles_are_those_of_urdf() -> None:
    from weakseg_ros.points.poses import matrix_of, matrix_of_text

    roll = matrix_of_text(f"0 0 0 {np.pi / 2} 0 0", "x")
    np.testing.assert_allclose(roll @ (0, 1, 0, 1), (0, 0, 1, 1), atol=1e-12)
    pitch = matrix_of_text(f"0, 0, 0, 0, {np.pi / 2}, 0", "x")
    np.testing.assert_allclose(pitch @ (1, 0, 0, 1), (0, 0, -1, 1), atol=1e-12)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(matrix_of((0, 0, 0), (half, 0, 0, half)), roll, atol=1e-12)
