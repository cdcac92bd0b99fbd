# SPDX-License-Identifier: Apache-2.0
"""The node's process: `weakseg node` and the executable `segment_node`, from the command line to the exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weakseg_ros.config import from_mapping
from weakseg_ros.errors import ConfigError, WeaksegError, complain, say
from weakseg_ros.extras import explain as explain_import
from weakseg_ros.memory import share_free_blocks
from weakseg_ros.processes import ENDS, when_asked_to_end
from weakseg_ros.ros.names import check_topic
from weakseg_ros.ros.params import FIELDS, TOPIC, NodeConfig, choices, explain, flat, named_in, nested
from weakseg_ros.ros.params_files import files_for_others
from weakseg_ros.ros.starting import said_by_ros, start_ros
from weakseg_ros.ros.transport import PROFILE, apply_transport
from weakseg_ros.yaml_files import read_yaml

DEVICE_LOST_EXIT_CODE = 70
PERMANENT_FAULT_EXIT_CODE = 2
"""of a process that another one like it would not help: a missing library, unreadable settings, arguments that are wrong"""
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
SWITCH_INTERVAL_S = 5e-4
"""how long one thread may keep the interpreter while another wants it: Python's 5 ms, a few times in a row, would show in
the latency whenever the frame log writes"""


def main(argv: Sequence[str]) -> int:
    """The verb `weakseg node`; everything after `--ros-args` is ROS's own.

    Returns 0 after SIGINT or SIGTERM, and DEVICE_LOST_EXIT_CODE where only a new process helps; what raises WeaksegError ends
    with PERMANENT_FAULT_EXIT_CODE.
    """
    options, ros_arguments = _read_arguments(argv)
    if options.print_transport_profile:
        say(PROFILE)
        return 0
    share_free_blocks()
    report = apply_transport(own_settings=options.transport == "untouched")
    return _spin(_overrides(options), ros_arguments, report, options.log_level)


def console() -> int:
    """The executable `segment_node`, as `ros2 run` and launch files call it."""
    try:
        return main(sys.argv[1:])
    except (WeaksegError, ImportError) as error:
        sentence = explain_import(error) if isinstance(error, ImportError) else ""
        complain(f"segment_node: {sentence or error}")
        return PERMANENT_FAULT_EXIT_CODE


def _read_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the arguments for rclpy that say the rest."""
    arguments = list(argv)
    at = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:at])
    ros = arguments[at:] or ["--ros-args"]
    if ros[-1] == "--":
        ros.pop()
    if options.input_topic is not None:
        check_topic("--input-topic", options.input_topic)
        ros += ["-r", f"{TOPIC}:={options.input_topic}"]
    if options.params_file:
        ros += ["--params-file", str(options.params_file)]
    return options, ros


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weakseg node",
        description="Label every point of every cloud on a topic. Each option below is a ROS parameter of the same name, too.",
        epilog="Everything after --ros-args is passed to ROS: remappings, log levels, further parameters.",
    )
    parser.add_argument("--input-topic", metavar="TOPIC", help="Names the topic of the clouds (default: /points).")
    parser.add_argument("--config", type=Path, metavar="FILE", help="Names a YAML file with the options below.")
    parser.add_argument("--params-file", type=Path, metavar="FILE", help="Names a ROS parameter file.")
    parser.add_argument(
        "--transport",
        choices=("tuned", "untouched"),
        default="tuned",
        help="Selects the DDS transport: tuned configures Fast DDS for large clouds unless you have set a profile yourself, and "
        "untouched changes nothing.",
    )
    parser.add_argument(
        "--log-level", choices=LOG_LEVELS, default="info", help="Sets the lowest severity of messages that the node prints."
    )
    parser.add_argument(
        "--print-transport-profile",
        action="store_true",
        help="Prints the path of the Fast DDS profile for your driver, and exits.",
    )
    for name, field in FIELDS.items():
        count = len(field.default) if isinstance(field.default, tuple) else None
        kind = float if count else type(field.default)
        parser.add_argument(
            f"--{_short(name)}",
            dest=name,
            nargs=count,
            type=_boolean if kind is bool else kind,
            choices=choices(name) or None,
            metavar=None if choices(name) else kind.__name__.upper(),
            help=f"{explain(name)} Default: {field.default!r}".replace("%", "%%"),
        )
    return parser


def _short(name: str) -> str:
    """The flag of a parameter; those of `input` go without their group, as in the other verbs, where that names no other."""
    own = name.removeprefix("input.")
    return (name if own != name and own in FIELDS else own).replace("_", "-").replace(".", "-")


def _boolean(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"expected true or false, found '{text}'")
    return words[text.lower()]


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line and its YAML file name, checked; only these win over ROS's own parameters."""
    given: dict[str, Any] = {}
    if options.config:
        content = read_yaml(options.config) or {}
        config = from_mapping(NodeConfig, content, options.config.name)
        named = named_in(content)
        given = {name: value for name, value in flat(config).items() if name in named}
    given |= {name: getattr(options, name) for name in FIELDS if getattr(options, name) is not None}
    from_mapping(NodeConfig, nested(given), "node")
    return given


def _spin(overrides: dict[str, Any], ros_arguments: list[str], report: str, log_level: str) -> int:
    """Run the node until a signal or a lost device ends it.

    Signals set a flag and raise nothing: whatever they hit is finished, the way out included, and launch, which sends
    SIGINT twice, gets exit code 0. The node's timers end the waiting often enough for the flag to be seen.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    ended = threading.Event()
    when_asked_to_end(ended.set)
    start_ros(ros_arguments)
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from weakseg_ros.ros.lifecycle import SegmentNode

    try:
        node = SegmentNode([Parameter(name, value=value) for name, value in overrides.items()], log_level)
    except RuntimeError as error:  # what rclpy's own errors are derived from
        raise ConfigError(f"ROS cannot make the node: {said_by_ros(error)}") from None
    node.ending = ended
    try:
        node.get_logger().info(report)
        for sentence in files_for_others(ros_arguments, node.get_fully_qualified_name()):
            node.get_logger().warning(sentence)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.autostart:
            node.start()
        while not ended.is_set():
            try:
                executor.spin_once()
            except ExternalShutdownException:
                raise
            except Exception as error:  # whatever a message or a request brings up must not end the node
                node.survive(error)
    except ExternalShutdownException:
        pass  # the node itself has ended the spinning
    finally:
        node.release()
        node.destroy_node()
        rclpy.try_shutdown()
        # Python's own end restores the default handlers, and a second Ctrl+C during it would count as a crash
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)
    if node.fatal:
        complain(f"segment_node: {node.fatal}")
    code = DEVICE_LOST_EXIT_CODE if node.fatal else 0
    if node.left_behind:  # a thread that does not end would be torn out of the middle of its library
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
