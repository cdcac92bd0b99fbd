# SPDX-License-Identifier: Apache-2.0
"""The launch file: what it starts, recorded without a launch library, and as a black box under a real `ros2 launch`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "segment.launch.py"
LIBRARY = (
    *("launch", "launch.actions", "launch.event_handlers", "launch_ros", "launch_ros.actions"),
    "launch_ros.parameter_descriptions",
)


class Recorded:
    """An action of the launch library that keeps what it was made with."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options


def library() -> dict[str, types.ModuleType]:
    """Modules by the names of the launch library whose every class is a Recorded of its own."""

    def of(module: types.ModuleType) -> Callable[[str], type]:
        return lambda name: module.__dict__.setdefault(name, type(name, (Recorded,), {}))

    modules = {name: types.ModuleType(name) for name in LIBRARY}
    for module in modules.values():
        module.__getattr__ = of(module)  # type: ignore[method-assign]
    return modules


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """The actions of the launch file for these arguments, under a library that only records."""
    for name, module in library().items():
        monkeypatch.setitem(sys.modules, name, module)
    file = load()

    def run(namespace: str = "", **arguments: str) -> list[Any]:
        description = file.generate_launch_description().arguments[0]
        declared = {
            a.arguments[0]: a.options["default_value"] for a in description if type(a).__name__ == "DeclareLaunchArgument"
        }
        assert set(arguments) <= set(declared)
        context = types.SimpleNamespace(
            launch_configurations={**declared, **arguments, "ros_namespace": namespace}, is_shutdown=False
        )
        return list(description[-1].options["function"](context))

    return run


def load() -> Any:
    spec = importlib.util.spec_from_file_location("segment_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def only(actions: list[Any], kind: str) -> Any:
    found = [action for action in actions if type(action).__name__ == kind]
    assert len(found) == 1
    return found[0]


def test_it_sets_no_environment_and_sends_no_transition(recorded: Callable[..., list[Any]]) -> None:
    actions = recorded()
    assert [type(action).__name__ for action in actions] == ["RegisterEventHandler", "Node"]
    node = only(actions, "Node")
    assert "additional_env" not in node.options
    file, overrides = node.options["parameters"]
    assert Path(file).name == "segment.yaml"
    assert overrides == {"autostart": True}, "use_sim_time stays what a parent or the file makes it"
    assert node.options["remappings"] == [("points", "points")]


def test_arguments_reach_the_node(recorded: Callable[..., list[Any]]) -> None:
    node = only(
        recorded(autostart="false", use_sim_time="true", min_confidence="0.5", bundle="12", name="seg", log_level="debug"), "Node"
    )
    overrides = node.options["parameters"][1]
    bundle = overrides.pop("bundle")
    assert (bundle.arguments, bundle.options) == (("12",), {"value_type": str})
    assert overrides == {"autostart": False, "use_sim_time": True, "min_confidence": 0.5}
    assert node.options["name"] == "seg"
    assert node.options["arguments"][-2:] == ["--log-level", "debug"]


def test_bag_and_rviz_wait_for_the_node(recorded: Callable[..., list[Any]]) -> None:
    actions = recorded(bag="drive", rviz="true", namespace="front")
    bag, rviz = (action.options["cmd"] for action in actions if type(action).__name__ == "ExecuteProcess")
    assert bag[3:] == ["active", "/front/weakseg", "ros2", "bag", "play", "drive", "--clock", "--rate", "1.0"]
    assert rviz[3:5] == ["frame", "/front/weakseg"]
    assert rviz[-1] == "{frame}"
    assert "/front/weakseg/objects" in Path(rviz[-3]).read_text()
    assert only(actions, "Node").options["parameters"][1] == {"autostart": True, "use_sim_time": True, "publish_rgb": True}
    framed = recorded(rviz="true", target_frame="base_link")
    assert only(framed, "ExecuteProcess").options["cmd"][-1] == "base_link"


def test_a_dead_node_is_started_again_until_that_is_vain(recorded: Callable[..., list[Any]]) -> None:
    actions = recorded(respawn_max_retries="1")
    context = types.SimpleNamespace(is_shutdown=False)
    handler = only(actions, "RegisterEventHandler").arguments[0].options
    assert handler["target_action"] is only(actions, "Node")
    killed = types.SimpleNamespace(returncode=-11)
    again = only(handler["on_exit"](killed, context), "TimerAction").options["actions"][0].options["function"](context)
    second = only(again, "RegisterEventHandler").arguments[0].options
    assert only(again, "Node") is not only(actions, "Node"), "an action is executed once"
    assert [type(action).__name__ for action in second["on_exit"](killed, context)] == ["LogInfo"]
    assert [type(a).__name__ for a in handler["on_exit"](types.SimpleNamespace(returncode=2), context)] == ["LogInfo"]
    context.is_shutdown = True
    assert handler["on_exit"](killed, context) == []


# under a real launch


@pytest.fixture(scope="module")
def ros2() -> str:
    for name in ("launch", "launch_ros", "ros2cli"):
        pytest.importorskip(name, reason=f"{name} comes with an apt ROS 2, not from PyPI")
    program = shutil.which("ros2")
    if program is None:
        pytest.skip("ros2 is not on PATH")
    return program


def test_every_parameter_is_an_explained_argument(ros2: str) -> None:
    from weakseg_ros.ros.params import FIELDS

    arguments = {argument.name: argument for argument in load().generate_launch_description().get_launch_arguments()}
    assert set(FIELDS) < set(arguments)
    assert all(argument.description and argument.default_value is not None for argument in arguments.values())


@pytest.fixture
def launch(ros2: str, rig: Any, bundle: Any, tmp_path: Path) -> Iterator[Callable[..., tuple[Any, Path, Any]]]:
    """`ros2 launch` in a process group of its own, its log, and a client in the node's namespace."""
    running: list[tuple[Any, Any]] = []

    def run(*arguments: str) -> tuple[Any, Path, Any]:
        namespace, log = f"/launched{os.getpid()}_{len(running)}", tmp_path / f"launch{len(running)}.log"
        command = [ros2, "launch", str(LAUNCH_FILE), f"bundle:={bundle.folder}", f"namespace:={namespace}"]
        with open(log, "wb") as stream:
            command += ["diagnostics_period_s:=0.1", *arguments]
            process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        running.append((process, rig.Client(namespace)))
        return process, log, running[-1][1]

    yield run
    for process, client in running:
        client.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def node_pid(log: Path) -> int:
    """Process id that launch printed last for the node."""
    lines = [line for line in log.read_text().splitlines() if "segment_node" in line and "started with pid" in line]
    return int(lines[-1].rpartition("[")[2].rstrip("]")) if lines else 0


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_it_is_active_by_itself_survives_a_crash_and_ends_cleanly(rig: Any, launch: Callable[..., Any], death: int) -> None:
    process, log, client = launch()
    client.connect()
    assert client.state() == "active"
    first = node_pid(log)
    os.kill(first, death)
    client.wait(lambda: node_pid(log) not in (0, first), "the respawn")
    client.wait(lambda: client.answer_to(rig.make_cloud(rig.street_points(100)), 0.5), "answers of the new process")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()


def test_without_autostart_a_manager_configures_and_activates(rig: Any, launch: Callable[..., Any]) -> None:
    _, _, client = launch("autostart:=false")
    assert client.state() == "unconfigured"
    assert client.change(rig.Transition.TRANSITION_CONFIGURE)
    assert client.state() == "inactive", "nobody activates it but the manager"
    assert client.change(rig.Transition.TRANSITION_ACTIVATE)
    assert client.state() == "active"


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("min_confidnce:=0.5", "did you mean 'min_confidence'?"),
        ("min_confidence:=much", "min_confidence:=much: expected a number"),
        ("params_file:=/no/such.yaml", "params_file:=/no/such.yaml: there is no such file"),
    ],
)
def test_a_wrong_argument_ends_the_launch_with_a_sentence(launch: Callable[..., Any], argument: str, text: str) -> None:
    process, log, _ = launch(argument)
    assert process.wait(60) != 0
    assert text in log.read_text()


def test_a_permanent_fault_is_not_respawned(launch: Callable[..., Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("/**: {ros__parameters: [1, 2]}")
    process, log, _ = launch(f"params_file:={broken}")
    process.wait(60)
    assert "permanent fault" in log.read_text()
    assert log.read_text().count("process started with pid") == 1
