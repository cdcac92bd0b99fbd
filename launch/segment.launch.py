# SPDX-License-Identifier: Apache-2.0
"""Run the node, which configures and activates itself, and start it again when it dies.

    ros2 launch weakseg_ros segment.launch.py input_topic:=/ouster/points
    ros2 launch weakseg_ros segment.launch.py --show-args        # the manual
    ros2 launch weakseg_ros segment.launch.py bag:=drive rviz:=true

Works on Humble to Lyrical. It sends no transitions and sets no environment variable, so that it can be included anywhere;
what it decides is in weakseg_ros/ros/launching.py.
"""

import sys
import tempfile
import time
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction, RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessExit
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from weakseg_ros.files import share_folder
from weakseg_ros.ros import launching
from weakseg_ros.ros.params import choices, explain

SHARE = share_folder()


def generate_launch_description() -> LaunchDescription:
    """Every argument, and what they start."""
    return LaunchDescription([*own_arguments(), *setting_arguments(), OpaqueFunction(function=actions)])


def own_arguments() -> list:
    """Arguments about the process and what runs beside it."""
    return [
        DeclareLaunchArgument(name, default_value=default, description=_with_words(text, launching.WORDS.get(name, ())))
        for name, (default, text) in launching.ARGUMENTS.items()
    ]


def setting_arguments() -> list:
    """One argument for each parameter of the node; left empty, the parameter file decides."""
    return [
        DeclareLaunchArgument(name, default_value="", description=_with_words(explain(name), choices(name)))
        for name in launching.SETTINGS
    ]


def _with_words(text: str, words: tuple) -> str:
    return f"{text} One of: {', '.join(word or repr(word) for word in words)}." if words else text


def actions(context: LaunchContext, *_: object) -> list:
    """The node, and what else was asked for; a wrong argument ends the launch with a sentence."""
    launching.check_names(sys.argv)
    texts = {name: context.launch_configurations[name] for name in (*launching.ARGUMENTS, *launching.SETTINGS)}
    launching.check_words(texts)
    launching.check_places(texts)
    overrides = parameters(texts)
    namespaces = (context.launch_configurations.get("ros_namespace", ""), texts["namespace"])
    node = launching.full_name(namespaces, texts["name"])
    for name in ("respawn_delay", "bag_rate"):
        launching.number(name, texts[name], float)
    respawning = launching.Respawning(
        texts["respawn"] == "true", launching.number("respawn_max_retries", texts["respawn_max_retries"], int)
    )
    file = launching.parameters_of(texts["params_file"], SHARE / "config" / "segment.yaml")
    beside = [bag_player(node, texts)] if texts["bag"] else []
    if texts["rviz"] == "true":
        beside.append(viewer(node, texts["fixed_frame"] or texts["target_frame"]))
    return [*process(texts, [str(file), overrides], respawning), *beside]


def parameters(texts: dict) -> dict:
    """The parameters that win over the file."""
    overrides = {name: _parameter(value) for name, value in launching.settings_of(texts).items()}
    if texts["rviz"] == "true":
        overrides.setdefault("publish_rgb", True)
    if texts["use_sim_time"] or texts["bag"]:
        overrides["use_sim_time"] = texts["use_sim_time"] != "false"
    return {**overrides, "autostart": texts["autostart"] == "true"}


def _parameter(value: object) -> object:
    """Text stays text, whatever it looks like."""
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value


def process(texts: dict, settings: list, respawning: launching.Respawning) -> list:
    """The node's process, and what happens after it; each start is an action of its own."""
    started_s = time.monotonic()
    node = Node(
        package="weakseg_ros",
        executable="segment_node",
        name=texts["name"],
        namespace=texts["namespace"],
        output="screen",
        arguments=["--transport", texts["transport"], "--log-level", texts["log_level"]],
        parameters=settings,
        remappings=[("points", texts["input_topic"])],
    )

    def after(event: object, context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        verdict = respawning.after(event.returncode, time.monotonic() - started_s)
        said = [LogInfo(msg=verdict.text)] if verdict.text else []
        if not verdict.again:
            return said
        again = OpaqueFunction(function=lambda _: process(texts, settings, respawning))
        return [*said, TimerAction(period=launching.number("respawn_delay", texts["respawn_delay"], float), actions=[again])]

    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=after)), node]


def bag_player(node: str, texts: dict) -> ExecuteProcess:
    """Play the bag once, from the moment the node takes clouds."""
    play = ["ros2", "bag", "play", texts["bag"], "--clock", "--rate", texts["bag_rate"]]
    return ExecuteProcess(cmd=[*waiting("active", node), *play], output="screen")


def viewer(node: str, fixed_frame: str) -> ExecuteProcess:
    """RViz with the labelled cloud and the boxes of this node, in the cloud's own frame where none is given."""
    shipped = (SHARE / "launch" / "segment.rviz").read_text(encoding="utf-8")
    config = Path(tempfile.mkdtemp(prefix="weakseg_rviz_"), "segment.rviz")
    config.write_text(launching.rviz_config(shipped, node, fixed_frame), encoding="utf-8")
    until = "active" if fixed_frame else "frame"
    return ExecuteProcess(cmd=[*waiting(until, node), "rviz2", "-d", str(config), "-f", fixed_frame or "{frame}"], output="log")


def waiting(until: str, node: str) -> list:
    """The beginning of a command that waits for the node."""
    return ["python3", "-m", "weakseg_ros.ros.beside", until, node]
