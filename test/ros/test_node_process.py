# SPDX-License-Identifier: Apache-2.0
"""The node's process from start to exit code: quality of service, signals, start values, engines that misbehave."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg_ros.points.labelled import unpack_labelled

Start = Callable[..., tuple[Any, Any]]


@pytest.mark.parametrize("steps", [(), ("configure",), ("configure", "activate")], ids=len)
def test_shutdown_from_any_state(rig: Any, start: Start, bundle: Any, steps: tuple[str, ...]) -> None:
    process, client = start("--bundle", str(bundle.folder), "--autostart", "false")
    transition = rig.Transition
    assert client.state() == "unconfigured"
    for step in steps:
        assert client.change(getattr(transition, f"TRANSITION_{step.upper()}"))
    state = ("UNCONFIGURED", "INACTIVE", "ACTIVE")[len(steps)]
    assert client.change(getattr(transition, f"TRANSITION_{state}_SHUTDOWN"))
    assert client.state() == "finalized"
    assert process.end() == 0


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_auto_hears_either_kind_of_publisher(rig: Any, start: Start, bundle: Any, reliability: str) -> None:
    profile = rig.QoSProfile(depth=10, reliability=rig.ReliabilityPolicy[reliability])
    process, client = start("--bundle", str(bundle.folder), client={"publish": profile})
    client.connect()
    client.wait(lambda: client.value("input", "reliability") == reliability.lower(), "the subscription to follow")
    client.wait(lambda: client.answer_to(rig.make_cloud(rig.street_points(124_000)), 0.5), "an answer to a large cloud")
    assert process.end() == 0


def test_a_mismatch_is_an_error_and_not_silence(rig: Any, start: Start, bundle: Any) -> None:
    best_effort = rig.QoSProfile(depth=10, reliability=rig.ReliabilityPolicy.BEST_EFFORT)
    reliable = rig.QoSProfile(depth=10, reliability=rig.ReliabilityPolicy.RELIABLE)
    process, client = start(
        "--bundle", str(bundle.folder), "--reliability", "reliable", client={"publish": best_effort, "listen": reliable}
    )
    for name, word in (("input", "publisher offers another reliability"), ("output", "subscriber asks for another reliability")):
        client.wait(lambda n=name, w=word: w in (client.status[n].message if n in client.status else ""), word)
        assert client.status[name].level == rig.DiagnosticStatus.ERROR
    client.node.destroy_publisher(client.points)
    client.node.destroy_subscription(client.labels)
    client.wait(lambda: client.status["output"].level == rig.DiagnosticStatus.OK, "the problem to go with its subscriber")
    client.wait(lambda: "offers another" not in client.status["input"].message, "the problem to go with its publisher")
    assert process.end() == 0


def test_a_subscriber_that_goes_takes_its_problem_with_it_where_another_one_is_served(
    rig: Any, start: Start, bundle: Any
) -> None:
    process, client = start("--bundle", str(bundle.folder))
    client.connect()
    durable = rig.QoSProfile(
        depth=1, reliability=rig.ReliabilityPolicy.BEST_EFFORT, durability=rig.DurabilityPolicy.TRANSIENT_LOCAL
    )
    for profile, word in ((durable, "durability"), (rig.QoSProfile(depth=1), "reliability")):
        asking = client.node.create_subscription(rig.PointCloud2, client.labels.topic_name, print, profile)
        client.wait(lambda w=word: f"another {w} than" in client.status["output"].message, f"the problem with {word}")
        assert ("qos_overrides." in client.status["output"].message) == (word == "reliability"), "no way that leads nowhere"
        client.node.destroy_subscription(asking)
        client.wait(lambda: client.status["output"].level == rig.DiagnosticStatus.OK, "the problem to go with its subscriber")
    assert process.end() == 0


def test_publishers_that_come_back_with_another_reliability_are_followed_without_a_complaint(
    rig: Any, start: Start, bundle: Any
) -> None:
    process, client = start("--bundle", str(bundle.folder))
    client.connect()
    client.wait(lambda: client.value("input", "reliability") == "reliable", "the subscription to follow")
    client.node.destroy_publisher(client.points)
    best_effort = rig.QoSProfile(depth=10, reliability=rig.ReliabilityPolicy.BEST_EFFORT)
    client.points = client.node.create_publisher(rig.PointCloud2, "points", best_effort)
    client.wait(lambda: client.answer_to(rig.make_cloud(rig.street_points(100)), 0.5), "an answer")
    assert client.value("input", "reliability") == "best_effort"
    assert "offers another" not in process.text()
    assert process.end() == 0


def test_quality_of_service_can_be_overridden(rig: Any, start: Start, bundle: Any) -> None:
    reliable = rig.QoSProfile(depth=10, reliability=rig.ReliabilityPolicy.RELIABLE)
    namespace = f"/robot{rig.NodeProcess.count + 1}"
    process, client = start(
        "--bundle", str(bundle.folder), "--ros-args",
        "-p", f"qos_overrides.{namespace}/weakseg/labels.publisher.reliability:=reliable",
        "-p", f"qos_overrides.{namespace}/points.subscription.reliability:=best_effort",
        "-p", "qos_overrides./points.subscription.reliability:=reliable",
        "-p", f"qos_overrides.{namespace}/weakseg/labels.subscription.depth:=9",
        client={"listen": reliable},
    )  # fmt: skip
    client.connect()
    client.wait(lambda: client.value("input", "reliability") == "best_effort", "the subscription as overridden")
    assert process.end() == 0
    warnings = [line for line in process.text().splitlines() if "has no effect" in line]
    assert len(warnings) == 2
    assert "qos_overrides./points.subscription.reliability: has no effect, because the node has no such topic" in warnings[0]
    assert f"write qos_overrides.{namespace}/weakseg/labels.publisher.depth" in warnings[1]


def test_an_override_with_a_value_that_means_nothing_is_named(rig: Any, start: Start, bundle: Any) -> None:
    namespace = f"/robot{rig.NodeProcess.count + 1}"
    labels, points = f"qos_overrides.{namespace}/weakseg/labels.publisher", f"qos_overrides.{namespace}/points.subscription"
    process, client = start(
        "--bundle", str(bundle.folder), "--ros-args", "-p", f"{labels}.reliability:=relaible", "-p", f"{points}.depth:=-1",
        "-p", f"{points}.durability:=volatile", "-p", "qos_overrides./diagnostics.publisher.depth:=0",
    )  # fmt: skip
    process.wait_for_text("cannot configure")
    assert f"{labels}.reliability: unknown value 'relaible'; did you mean 'reliable'?" in process.text()
    for name, value in ((f"{points}.depth", "-1"), ("qos_overrides./diagnostics.publisher.depth", "0")):
        assert f"{name}: expected a whole number above 0, found {value}" in process.text()
    assert client.set(**{f"{labels}.reliability": "reliable", "qos_overrides./diagnostics.publisher.depth": 5}) == ""
    assert client.set(**{f"{points}.depth": 3}) == ""
    assert client.change(rig.Transition.TRANSITION_CONFIGURE)
    assert client.change(rig.Transition.TRANSITION_ACTIVATE)
    process.wait_for_text(f"{points}.durability: has no effect, because the node lets history, depth, reliability be overridden")
    offered = {
        name: client.node.get_publishers_info_by_topic(f"{namespace}/weakseg/{name}")[0].qos_profile.reliability
        for name in ("labels", "class_mask")
    }
    assert offered == {"labels": rig.ReliabilityPolicy.RELIABLE, "class_mask": rig.ReliabilityPolicy.BEST_EFFORT}
    assert process.end() == 0


def test_a_second_configuration_takes_its_own_settings_and_offers_everything_once(rig: Any, start: Start, bundle: Any) -> None:
    """rclpy's own QoS overrides keep those of the first; and what a failed configuration has made must not stay."""
    best_effort = rig.QoSProfile(depth=10, reliability=rig.ReliabilityPolicy.BEST_EFFORT)
    process, client = start("--bundle", str(bundle.folder), client={"publish": best_effort})
    client.connect()
    transition = rig.Transition

    def configure(**values: Any) -> bool:
        if client.state() == "active":
            assert client.change(transition.TRANSITION_DEACTIVATE)
            assert client.change(transition.TRANSITION_CLEANUP)
        assert client.set(**values) == ""
        return client.change(transition.TRANSITION_CONFIGURE) and client.change(transition.TRANSITION_ACTIVATE)

    def labels() -> list[Any]:
        return [info.qos_profile.reliability for info in client.node.get_publishers_info_by_topic(client.labels.topic_name)]

    assert configure(mode="replay")
    client.wait(lambda: labels() == [rig.ReliabilityPolicy.RELIABLE], "reliable labels")
    client.wait(lambda: "'reliability' to best_effort" in client.status["input"].message, "the remedy of replay mode")
    assert configure(mode="live")
    client.wait(lambda: labels() == [rig.ReliabilityPolicy.BEST_EFFORT], "best-effort labels")
    client.connect()
    assert not configure(**{"input.target_frame": "base"})
    assert configure(**{"input.target_frame": ""})
    client.wait(lambda: len(labels()) == 1, "one publisher of the labels")
    assert client.node.count_subscribers(f"{process.namespace}/weakseg/log_event") == 1
    client.connect()
    assert process.end() == 0


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM, signal.SIGINT)],
    ids=lambda signals: "+".join(s.name for s in signals),
)
def test_a_signal_is_a_clean_end(rig: Any, start: Start, bundle: Any, signals: tuple[int, ...]) -> None:
    process, client = start("--bundle", str(bundle.folder))
    process.wait_for_text("labelling")
    client.wait(lambda: client.points.get_subscription_count(), "the node")
    client.points.publish(rig.make_cloud(rig.street_points(300_000)))
    assert process.end(*signals) == 0
    assert "Traceback" not in process.text()


def test_a_signal_while_the_model_is_loaded_is_a_clean_end(start: Start, bundle: Any) -> None:
    process, _ = start("--bundle", str(bundle.folder))
    process.wait_for_text("transport:")  # said just before
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.text()


# engines that misbehave: a plug-in with one line in the registry, as anyone may write one

ENGINE = """
import time
import numpy as np
from weakseg_ros.deploy.engines import DeviceLostError
from weakseg_ros.deploy.tensors import ANSWERS
from weakseg_ros.errors import EngineError

class Slow:
    name = device = "slow"
    def __init__(self, bundle, threads=0):
        pass
    def run(self, inputs):
        time.sleep(0.5)
        image = inputs["image"]
        shape = (image.shape[0], *image.shape[2:])
        return dict(zip(ANSWERS, (np.ones(shape, np.uint8), np.ones(shape, np.float32), np.zeros(shape, np.float32))))
    def close(self):
        self.run = None

class Failing(Slow):
    name = device = "failing"
    def run(self, inputs):
        raise EngineError("the engine has caught a cold")

class Losing(Slow):
    name = device = "losing"
    def run(self, inputs):
        raise DeviceLostError("cuda:0: gone for good")

class Slowly(Slow):
    name = device = "slowly"
    def __init__(self, bundle, threads=0):
        print("slowly loading", flush=True)
        time.sleep(2)
"""
MAIN = """
import sys
from weakseg_ros.registry import ENGINES
for name in ("Slow", "Failing", "Losing", "Slowly"):
    ENGINES[name.lower()] = "plugin:" + name
from weakseg_ros.ros.node import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that runs the node with four more engines."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "plugin.py").write_text(ENGINE)
    (folder / "main.py").write_text(MAIN)
    return folder / "main.py"


def test_leaving_while_inferring_waits_for_the_cloud_at_hand(rig: Any, start: Start, bundle: Any, plugin: Path) -> None:
    process, client = start("--bundle", str(bundle.folder), "--engine", "slow", program=plugin)
    client.wait(lambda: client.answer_to(rig.make_cloud(rig.street_points(100)), 1.0), "a slow answer")
    transition = rig.Transition
    for _ in range(2):
        client.points.publish(rig.make_cloud(rig.street_points(100)))
        client.spin(0.1)
        assert client.change(transition.TRANSITION_DEACTIVATE)
        assert client.change(transition.TRANSITION_CLEANUP)
        assert client.change(transition.TRANSITION_CONFIGURE)
        assert client.change(transition.TRANSITION_ACTIVATE)
    client.points.publish(rig.make_cloud(rig.street_points(100)))
    client.spin(0.1)
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.text()


def test_a_failing_engine_is_replaced_by_the_next(rig: Any, start: Start, bundle: Any, plugin: Path) -> None:
    process, client = start("--bundle", str(bundle.folder), "--engine", "failing, onnxruntime", program=plugin)

    def answered() -> bool:
        return bool(client.answer_to(rig.make_cloud(rig.street_points(100)), 0.2))

    client.wait(answered, "the next engine's answer")
    client.wait(lambda: client.value("inference", "engine") == "onnxruntime", "the diagnostics to know")
    assert "caught a cold" in client.value("inference", "refused failing")
    assert int(client.value("input", "dropped engine")) == 5
    assert process.end() == 0


def test_a_lost_device_ends_the_process_so_that_launch_starts_another(rig: Any, start: Start, bundle: Any, plugin: Path) -> None:
    process, client = start("--bundle", str(bundle.folder), "--engine", "losing", program=plugin)

    def ended() -> bool:
        client.points.publish(rig.make_cloud(rig.street_points(100)))
        client.spin(0.1)
        return process.process.poll() is not None

    client.wait(ended, "the end of the process")
    assert process.process.returncode == 70
    assert "gone for good" in process.text()
    assert "Traceback" not in process.text()


def test_a_signal_during_a_slow_reload_is_a_clean_end(rig: Any, start: Start, bundle: Any, plugin: Path) -> None:
    process, client = start("--bundle", str(bundle.folder), program=plugin)
    client.connect()
    assert client.set(engine="slowly") == ""
    client.node.create_client(rig.Trigger, "weakseg/reload").call_async(rig.Trigger.Request())
    process.wait_for_text("slowly loading")
    assert client.answer_to(rig.make_cloud(rig.street_points(100))), "the old model works meanwhile"
    assert process.end(signal.SIGINT, signal.SIGINT) == 0
    assert "Traceback" not in process.text()


def test_start_values_that_cannot_be_used_are_named(start: Start, bundle: Any, rig: Any) -> None:
    process, client = start(
        "--ros-args",
        "-p",
        f"bundle:={bundle.folder}",
        "-p",
        "min_confidence:=2.5",
        "-p",
        "stale_after_s:=3",
        "-p",
        "mdoe:=x",
        "-p",
        "log:=5",
    )
    process.wait_for_text("cannot configure")
    for text in (
        "min_confidence: 2.5 is outside 0.0..1.0",
        "the integer 3 is read as 3.0",
        "mdoe: unknown parameter, ignored; did you mean 'mode'?",
        "log: unknown parameter, ignored; it is a group, so name a setting in it, as log.folder",
    ):
        assert text in process.text()
    assert client.state() == "unconfigured"
    assert client.set(min_confidence=0.5) == ""
    assert client.change(rig.Transition.TRANSITION_CONFIGURE)
    assert process.end() == 0


def test_the_nodes_own_answers_are_no_input(start: Start, bundle: Any) -> None:
    process, client = start("--bundle", str(bundle.folder), "--input-topic", "~/labels")
    process.wait_for_text("weakseg/labels: holds this node's own answers; remap 'points' to the LiDAR's topic")
    assert client.state() == "inactive"
    assert process.end() == 0


def test_a_settings_file_overrides_only_what_it_names(start: Start, bundle: Any, tmp_path: Path) -> None:
    from rcl_interfaces.srv import GetParameters

    config, parameters = tmp_path / "node.yaml", tmp_path / "parameters.yaml"
    config.write_text(f"bundle: {bundle.folder}\nstale_after_s: 3\nlog: {{max_frames: 7}}\n")
    parameters.write_text("/**: {ros__parameters: {publish_rgb: true, log: {max_frames: 8, max_mib: 123}}}\n")
    arguments = ("--config", str(config), "--params-file", str(parameters), "--autostart", "false")
    process, client = start(*arguments, "--ros-args", "-p", "min_confidence:=0.7", "-p", "stale_after_s:=4.0")
    names = ["min_confidence", "publish_rgb", "log.max_mib", "stale_after_s", "log.max_frames"]
    values = client.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
    assert [value.double_value for value in (values[0], values[3])] == [0.7, 3.0]
    assert values[1].bool_value
    assert [value.integer_value for value in (values[2], values[4])] == [123, 7]
    assert process.end() == 0


def test_a_wrong_option_is_one_sentence(start: Start) -> None:
    process, _ = start("--min-confidence", "2")
    assert process.process.wait(15) == 2
    assert "min_confidence: 2.0 is outside" in process.text()
    assert "Traceback" not in process.text()


if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="signals and exit codes as on Linux")


def test_former_names_of_the_input_settings_are_still_taken_at_the_start(rig: Any, start: Start, bundle: Any) -> None:
    from rcl_interfaces.srv import GetParameters

    given = ("intensity_scale:=0.25", "intensity_field:=i", "input.rotation_rpy_deg:=[180.0, 0.0, 0.0]", "input.unit_m:=0.001")
    arguments = [word for value in given for word in ("-p", value)]
    process, client = start("--bundle", str(bundle.folder), "--ros-args", *arguments)
    names = ["input.intensity_scale", "input.intensity_field", "input.rotation_rpy_deg"]
    values = client.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
    assert (values[0].double_value, values[1].string_value) == (0.25, "i")
    assert list(values[2].double_array_value) == [180.0, 0.0, 0.0]
    process.wait_for_text("intensity_scale: is now called input.intensity_scale")
    assert client.set(**{"input.intensity_field": "auto", "input.rotation_rpy_deg": [0.0, 0.0, 0.0]}) == ""
    client.connect()
    points = rig.street_points(300)
    labels = unpack_labelled(client.answer_to(rig.make_cloud(points * [1000, 1000, 1000, 1])))
    np.testing.assert_array_equal(labels["x"], points[:, 0] * np.float32(1000), err_msg="points come back as they were sent")
    assert (labels["class_id"] > 0).sum() > 250
