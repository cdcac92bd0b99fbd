# SPDX-License-Identifier: Apache-2.0
"""Run the node: configure it when its process starts, activate it when it is configured, start it again when it dies.

    ros2 launch weakseg_ros segment.launch.py input_topic:=/ouster/points
    ros2 launch weakseg_ros segment.launch.py --show-args        # the manual
    ros2 launch weakseg_ros segment.launch.py bag:=drive rviz:=true

Works on Humble to Lyrical: the transitions are events, so it needs no `autostart` of launch_ros.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from weakseg_ros.ros.params import FIELDS, choices, explain
from weakseg_ros.ros.transport import transport_variables

SHARE = get_package_share_directory("weakseg_ros")
YES_OR_NO = ["true", "false"]
# the launch file says itself when to configure and activate
SETTINGS = {name: field for name, field in FIELDS.items() if name != "autostart"}


def generate_launch_description() -> LaunchDescription:
    """Every argument, and what they start."""
    return LaunchDescription([*own_arguments(), *setting_arguments(), OpaqueFunction(function=actions)])


def own_arguments() -> list[DeclareLaunchArgument]:
    """Arguments about the process and what runs beside it."""
    argument = DeclareLaunchArgument
    parameters = os.path.join(SHARE, "config", "segment.yaml")
    return [
        argument("input_topic", default_value="/points", description="topic of the LiDAR's clouds (sensor_msgs/PointCloud2)"),
        argument("params_file", default_value=parameters, description="ROS parameter file; the arguments below win over it"),
        argument("namespace", default_value="", description="namespace of the node"),
        argument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error"],
            description="least severity that is printed",
        ),
        argument("respawn", default_value="true", choices=YES_OR_NO, description="start the node again when it dies"),
        argument(
            "transport",
            default_value="tuned",
            choices=["tuned", "untouched"],
            description="tuned: Fast DDS with room for large clouds, unless you have chosen a profile; see docs/transport.md",
        ),
        argument("bag", default_value="", description="rosbag2 to play with /clock once the node is active"),
        argument("bag_rate", default_value="1.0", description="speed at which the bag is played"),
        argument("rviz", default_value="false", choices=YES_OR_NO, description="show the labelled cloud in RViz, in colours"),
        argument("fixed_frame", default_value="velodyne", description="frame of the LiDAR, for RViz"),
    ]


def setting_arguments() -> list[DeclareLaunchArgument]:
    """One argument for each parameter of the node; left empty, the parameter file decides."""
    return [
        DeclareLaunchArgument(
            name,
            default_value="",
            choices=["", *(choices(name) or YES_OR_NO)] if choices(name) or isinstance(field.default, bool) else None,
            description=f"{explain(name)}; empty: as in params_file",
        )
        for name, field in SETTINGS.items()
    ]


def actions(context: LaunchContext) -> list:
    """The node, its transitions, and what else was asked for."""

    def text(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=type(field.default))
        for name, field in SETTINGS.items()
        if text(name) != ""
    }
    if text("rviz") == "true":
        overrides.setdefault("publish_rgb", True)
    node = LifecycleNode(
        package="weakseg_ros",
        executable="segment_node",
        name="weakseg",
        namespace=text("namespace"),
        output="screen",
        arguments=["--transport", text("transport")],
        ros_arguments=["--log-level", f"weakseg:={text('log_level')}"],
        parameters=[text("params_file"), {**overrides, "autostart": False, "use_sim_time": bool(text("bag"))}],
        remappings=[("points", text("input_topic"))],
        respawn=text("respawn") == "true",
        respawn_delay=2.0,
    )
    variables = transport_variables(os.environ) if text("transport") == "tuned" else {}
    beside = [bag_player(node, text("bag"), text("bag_rate"))] if text("bag") else []
    if text("rviz") == "true":
        beside.append(viewer(text("fixed_frame")))
    environment = [SetEnvironmentVariable(name, value) for name, value in variables.items()]
    return [*environment, *transitions(node), *beside, node]


def transitions(node: LifecycleNode) -> list[RegisterEventHandler]:
    """Configure the node whenever its process starts, and activate it whenever that has gone well."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[change(Transition.TRANSITION_ACTIVATE)],
            )
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="unconfigured",
                entities=[LogInfo(msg="weakseg could not be configured; its log says why, 'ros2 lifecycle set' tries again")],
            )
        ),
    ]


def bag_player(node: LifecycleNode, bag: str, rate: str) -> RegisterEventHandler:
    """Play the bag once, from the moment the node takes clouds."""
    play = ExecuteProcess(cmd=["ros2", "bag", "play", bag, "--clock", "--rate", rate], output="screen")
    return RegisterEventHandler(
        OnStateTransition(target_lifecycle_node=node, goal_state="active", entities=[play], handle_once=True)
    )


def viewer(fixed_frame: str) -> Node:
    """RViz with the labelled cloud."""
    config = os.path.join(SHARE, "launch", "segment.rviz")
    return Node(package="rviz2", executable="rviz2", name="rviz2", arguments=["-d", config, "-f", fixed_frame], output="log")
