# SPDX-License-Identifier: Apache-2.0
"""One node that gets what nobody should send: each is refused with a sentence, and the same process answers the next cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Start = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def shared(start: Start, bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A node that watches its bundle and keeps the seconds around its frames."""
    folder = tmp_path_factory.mktemp("survives") / "frames"
    options = ("--bundle", str(bundle.folder), "--watch-bundle", "0.1", "--log-folder", str(folder), "--log-before-s", "1")
    process, client = start(*options, "--log-min-free-mib", "0")
    return process, client.connect()


@pytest.fixture
def node(rig: Any, shared: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """The node, which answers a cloud after each test."""
    yield shared
    process, client = shared
    assert client.answer_to(rig.make_cloud(rig.street_points(100))), process.text()
    assert "Traceback" not in process.text()


def test_a_parameter_of_no_type(rig: Any, node: tuple[Any, Any]) -> None:
    """Such a request raises in rclpy's own service, out of the reach of the node's callbacks."""
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    process, client = node
    setter = client.node.create_client(SetParameters, "weakseg/set_parameters")
    client.wait(setter.service_is_ready, "the service")
    odd = Parameter(name="min_confidence", value=ParameterValue(type=77))
    setter.call_async(SetParameters.Request(parameters=[odd]))
    client.wait(lambda: "a message or request is not answered: ValueError: 77" in process.text(), "the sentence")


def test_a_time_before_1970_on_the_clock(rig: Any, node: tuple[Any, Any]) -> None:
    from rosgraph_msgs.msg import Clock

    process, client = node
    clock = client.node.create_publisher(Clock, "/clock", 1)
    assert client.set(use_sim_time=True) == ""
    client.wait(clock.get_subscription_count, "the node to listen to the clock")
    message = Clock()
    message.clock.sec = -1

    def said() -> bool:
        clock.publish(message)
        client.spin(0.1)
        return "a message or request is not answered: ValueError: Seconds value" in process.text()

    client.wait(said, "the sentence")
    assert client.set(use_sim_time=False) == ""


@pytest.mark.parametrize("names", ["/camera image", "/ok, /a//b"])
def test_a_context_topic_that_is_no_name(node: tuple[Any, Any], names: str) -> None:
    assert "weakseg.log.context_topics: '" in node[1].set(**{"log.context_topics": names})


def test_the_home_of_nobody(rig: Any, node: tuple[Any, Any], bundle: Any) -> None:
    process, client = node
    assert client.set(bundle="~nobody_here/models", **{"log.folder": "~nobody_here/frames"}) == ""
    assert client.answer_to(rig.make_cloud(rig.street_points(100)))
    for name in ("model", "frame_log"):
        client.wait(lambda n=name: "nobody here has such a home folder" in client.status[n].message, f"the error of {name}")
        assert client.status[name].level == rig.DiagnosticStatus.ERROR
    assert client.set(bundle=str(bundle.folder)) == ""
    client.wait(lambda: client.status["model"].level == rig.DiagnosticStatus.OK, "the model to be well")
    assert not client.value("input", "dropped internal")
    assert not (process.log.parent / "~nobody_here").exists(), "in the folder where the node runs"


def test_unknown_names_are_told_and_nothing_is_deleted(node: tuple[Any, Any]) -> None:
    _, client = node
    assert client.set(min_confidnce=0.5) == "weakseg.min_confidnce: unknown parameter; did you mean 'min_confidence'?"
    assert "it is a group, so name a setting in it, as log.folder" in client.set(log=5)
    assert (
        client.set(min_confidence=None)
        == "weakseg.min_confidence: cannot be deleted, as the node needs it; set it to another value"
    )
    assert client.set(min_confidence=0.0) == "", "it is still there"
    assert "expected 3 floats, found str 180 0 0" in client.set(**{"input.rotation_rpy_deg": "180 0 0"})
    assert "expected 3 values, found 2" in client.set(**{"input.rotation_rpy_deg": [180.0, 0.0]})


def test_values_that_are_at_work_may_be_set_again(node: tuple[Any, Any]) -> None:
    """As `ros2 param load` does with a whole file of which one line is new."""
    _, client = node
    assert client.set(mode="live", autostart=True, replay_queue=64, odometry_topic="", stale_after_s=2.0) == ""
    assert "replay_queue: can be changed only while" in client.set(mode="live", replay_queue=65)
