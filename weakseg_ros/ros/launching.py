# SPDX-License-Identifier: Apache-2.0
"""What the launch file decides, apart from the launch library: its arguments, their values, when to start the node again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weakseg_ros.config import from_mapping
from weakseg_ros.errors import ConfigError, counted, did_you_mean
from weakseg_ros.files import users_path
from weakseg_ros.ros.names import check_namespace, check_node, check_topic
from weakseg_ros.ros.node import LOG_LEVELS, PERMANENT_FAULT_EXIT_CODE
from weakseg_ros.ros.params import FIELDS, FORMER_NAMES, NodeConfig, nested

LAUNCH_FILE = "segment.launch.py"
PERMANENT = PERMANENT_FAULT_EXIT_CODE
STEADY_S = 60.0
"""a process that ran for so long was well; its death is the first of a new series"""
YES_OR_NO = ("true", "false")
SETTINGS = {name: field for name, field in FIELDS.items() if name != "autostart"}
"""parameters of the node that are left to the parameter file where their argument is empty"""
ARGUMENTS = {
    "input_topic": ("points", "Names the topic of the clouds (sensor_msgs/PointCloud2); a relative name is in the namespace."),
    "params_file": (
        "",
        "Names a ROS parameter file; empty uses this package's config/segment.yaml. Other arguments override it.",
    ),
    "name": ("weakseg", "Sets the name of the node."),
    "namespace": ("", "Sets the namespace of the node."),
    "autostart": ("true", "Configures and activates the node; false leaves this to a lifecycle manager such as nav2's."),
    "use_sim_time": (
        "",
        "Takes the time from /clock; empty means true with bag, or else what params_file or a parent launch file sets.",
    ),
    "log_level": ("info", "Sets the lowest severity of messages that are printed."),
    "respawn": ("true", "Restarts the node after any exit that is not a permanent fault."),
    "respawn_max_retries": (
        "10",
        f"Limits the number of restarts in a row, counting exits within {STEADY_S:.0f} s of a start; -1 sets no limit.",
    ),
    "respawn_delay": ("2.0", "Sets the delay before a restart in seconds."),
    "transport": (
        "tuned",
        "Selects the DDS transport: tuned configures Fast DDS for large clouds unless you have set a profile yourself "
        "(docs/transport.md), and untouched changes nothing.",
    ),
    "bag": ("", "Names a bag to play with /clock once the node is active."),
    "bag_rate": ("1.0", "Sets the playback rate of the bag; 2.0 plays twice as fast as recorded."),
    "rviz": ("false", "Shows the labelled cloud and the boxes in RViz."),
    "fixed_frame": ("", "Sets the fixed frame of RViz; empty uses target_frame, or the frame of the first labelled cloud."),
}
"""arguments beside SETTINGS: default and what they do"""
WORDS = {
    **dict.fromkeys(("autostart", "respawn", "rviz"), YES_OR_NO),
    "use_sim_time": ("", *YES_OR_NO),
    "log_level": LOG_LEVELS,
    "transport": ("tuned", "untouched"),
}
"""arguments that take one of these words"""
OF_LAUNCH = ("emulate_tty", "sigterm_timeout", "sigkill_timeout")
"""arguments that the launch library reads itself"""


def check_names(command: Sequence[str]) -> None:
    """Raise ConfigError for an argument that does not exist, in the command line of a `ros2 launch` of our own file.

    Included in another launch file, the arguments are that one's, and nothing is checked.
    """
    if not any(Path(word).name == LAUNCH_FILE for word in command):
        return
    known = {*ARGUMENTS, *SETTINGS, *OF_LAUNCH}
    for name, given, value in (word.partition(":=") for word in command):
        if given and name not in known:
            today = f"; it is now called {FORMER_NAMES[name]}" if name in FORMER_NAMES else ""
            hint = today or did_you_mean(name, known) or f" ('ros2 launch weakseg_ros {LAUNCH_FILE} --show-args' lists them)"
            raise ConfigError(f"{name}:={value}: {LAUNCH_FILE} has no argument '{name}'{hint}")


def settings_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """The node's parameters that arguments give a value, in the parameters' types; ConfigError names the argument."""
    values = {name: _value(name, texts[name]) for name in SETTINGS if texts.get(name, "") != ""}
    for name, value in values.items():
        try:
            from_mapping(NodeConfig, nested({name: value}), "")
        except ConfigError as error:
            raise ConfigError(f"{name}:={texts[name]}: {str(error).partition(': ')[2]}") from None
    return values


def _value(name: str, text: str) -> Any:
    default = SETTINGS[name].default
    if isinstance(default, tuple):
        return [_typed(name, part, float) for part in text.strip("[] ").replace(",", " ").split()]
    return _typed(name, text, type(default))


def number(name: str, text: str, kind: type) -> Any:
    """An argument's number; ConfigError names the argument."""
    return _typed(name, text, kind)


def _typed(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in YES_OR_NO:
            raise ConfigError(f"{name}:={text}: expected true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        expected = {int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name}:={text}: expected {expected}") from None


def check_words(texts: Mapping[str, str]) -> None:
    """Raise ConfigError for an argument that takes certain words and got another."""
    for name, words in WORDS.items():
        if texts[name] not in words:
            known = ", ".join(word or "''" for word in words)
            raise ConfigError(f"{name}:={texts[name]}: unknown value{did_you_mean(texts[name], words)}; known: {known}")


def check_places(texts: Mapping[str, str]) -> None:
    """Raise ConfigError for an argument that ROS would not take as the name of a topic, a node or a namespace."""
    check_topic("input_topic", texts["input_topic"])
    check_node("name", texts["name"])
    check_namespace("namespace", texts["namespace"])


def parameters_of(file: str, shipped: Path) -> Path:
    """The parameter file to use; WeaksegError where the one that was asked for is not there."""
    path = users_path(file) if file else shipped
    if not path.is_file():
        raise ConfigError(f"params_file:={file}: there is no such file ({path.absolute()}); check the path")
    return path


def full_name(namespaces: Iterable[str], name: str) -> str:
    """The fully qualified name of a node: a namespace that begins with '/' sets aside those before it."""
    path = ""
    for namespace in filter(None, namespaces):
        path = namespace if namespace.startswith("/") else f"{path}/{namespace}"
    return f"/{path.strip('/')}/{name}".replace("//", "/")


def rviz_config(shipped: str, node: str, fixed_frame: str) -> str:
    """The RViz configuration for a node of this fully qualified name, in this frame where one is given."""
    text = shipped.replace("/weakseg/", f"{node}/")
    return text.replace("Fixed Frame: lidar", f"Fixed Frame: {fixed_frame}") if fixed_frame else text


class RespawnDecision(NamedTuple):
    """Whether the node is started again, and a sentence on why."""

    again: bool
    text: str


class Respawning:
    """Counts the deaths of the node's processes, and says whether another is started."""

    def __init__(self, enabled: bool, max_retries: int) -> None:
        self._enabled = enabled
        self._max_retries = max_retries
        self._deaths = 0

    def after(self, exit_code: int, ran_s: float) -> RespawnDecision:
        """What follows after a process that ended with `exit_code` after `ran_s` seconds."""
        if exit_code == 0:
            return RespawnDecision(False, "")
        if exit_code == PERMANENT:
            return RespawnDecision(
                False, f"weakseg: exit code {PERMANENT} is a permanent fault, explained above; it is not restarted"
            )
        if not self._enabled:
            return RespawnDecision(False, f"weakseg: ended with exit code {exit_code}; respawn:=true would restart it")
        self._deaths = 1 if ran_s >= STEADY_S else self._deaths + 1
        if 0 <= self._max_retries < self._deaths:
            return RespawnDecision(
                False, f"weakseg: died {counted(self._deaths, 'time')} in a row; respawn_max_retries is {self._max_retries}"
            )
        return RespawnDecision(True, f"weakseg: ended with exit code {exit_code} and is restarted")
