# SPDX-License-Identifier: Apache-2.0
"""The node's settings: one typed class, seen as ROS parameters, command-line flags and YAML."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from weakseg_ros.config import check_ranges, field_docs, from_mapping, setting
from weakseg_ros.deploy.engines import engine_names
from weakseg_ros.deploy.track_settings import TrackSettings
from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.points.poses import matrix_of_text
from weakseg_ros.registry import DEFAULT_BUNDLE
from weakseg_ros.ros.names import check_topic

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
    from rclpy.node import Node
    from rclpy.parameter import Parameter

FORMER_NAMES = {"intensity_field": "input.intensity_field", "intensity_scale": "input.intensity_scale"}
"""what parameters were called before, still taken at the start"""
PARAMETERS_OF_RCLPY = ("use_sim_time", "start_type_description_service")
TOPIC = "points"
"""the name to remap to the LiDAR's topic"""


@dataclass(frozen=True, kw_only=True)
class NodeInputSettings(InputSettings):
    """Sets how the node reads clouds."""

    target_frame: str = setting("", read_only=True)
    """Names the frame that clouds are transformed to before the model sees them, with the TF at the cloud's time and after the
    other input settings, for example the sensor's own frame if clouds arrive in base_link; '' keeps the cloud's own frame."""


@dataclass(frozen=True)
class NodeConfig:
    """Settings of the node. Those that are `read_only` are taken when the node is configured, the others at any time."""

    bundle: str = DEFAULT_BUNDLE
    """Names the model: the path of its folder, or the name of an installed one; call ~/reload to apply a change."""
    watch_bundle: float = setting(0.0, 0.0, 3600.0, read_only=True)
    """Sets how often the node checks whether 'bundle' points to another model, in seconds, as models/current does after
    retraining; the new model is hot-swapped without losing a frame, and 0 swaps only on ~/reload."""
    engine: str = "auto"
    """Selects the inference engine: 'auto' uses the fastest on this machine, and a list such as 'onnxruntime:int8, torch' gives
    the names to try in order, with the precision after a colon; call ~/reload to apply a change."""
    threads: int = setting(0, 0, 256)
    """Sets the number of CPU threads of the engine, where 0 lets the engine choose and a small number leaves cores for other
    processes; call ~/reload to apply a change."""
    lift: Literal["auto", "pixel", "vote", "knn"] = "auto"
    """Selects how points get their class from the range image: 'pixel' copies their pixel's class, 'vote' lets the pixels around
    it vote that are at the same range, 'knn' is the vote of RangeNet++, and 'auto' does what the model was made for."""
    instances: Literal["auto", "components", "none"] = "auto"
    """Selects how thing points become objects: 'auto' uses the model's own head if it has one, 'components' connects touching
    points of a class, and 'none' leaves instance_id at 0."""
    track_instances: bool = True
    """Keeps the instance_id of an object from cloud to cloud; if false, an id is valid within its own cloud only."""
    odometry_topic: str = setting("", read_only=True)
    """Names the nav_msgs/Odometry topic from which track_instances takes the sensor's motion; '' means that there is none."""
    odometry_extrinsic: str = setting("", read_only=True)
    """Sets the pose of the LiDAR in the body frame of odometry_topic, as 'x y z roll pitch yaw' in metres and radians; 'tf'
    looks it up in TF, and '' takes the LiDAR's axes as parallel to the body's."""
    target_frame: str = setting("", read_only=True)
    """Names the frame in which ~/labels, ~/objects and ~/detections are published, with the TF at the cloud's time; '' keeps
    the cloud's own frame."""
    object_texts: bool = False
    """Shows the class, id and score above the boxes in ~/objects."""
    min_confidence: float = setting(0.0, 0.0, 1.0)
    """Sets the confidence below which a point gets class 0 in ~/labels; its confidence is published unchanged."""
    publish_rgb: bool = False
    """Adds the field rgb to ~/labels, with the colour of each point's class."""
    labels_reliability: Literal["best_effort", "reliable"] = setting("best_effort", read_only=True)
    """Selects the reliability of ~/labels and the masks: 'reliable' also reaches subscribers that request it, such as
    create_subscription(..., 10), but a slow one can then delay the node."""
    stale_after_s: float = setting(2.0, 0.1, 3600.0)
    """Sets after how many seconds without a cloud the diagnostics report the input as stale."""
    mode: Literal["live", "replay"] = setting("live", read_only=True)
    """Selects how clouds are queued: 'live' answers the newest cloud and drops older ones, and 'replay' answers every cloud and
    drops none."""
    reliability: Literal["auto", "reliable", "best_effort"] = setting("auto", read_only=True)
    """Selects the reliability of the subscription to the clouds; 'auto' requests reliable if every publisher offers it."""
    replay_queue: int = setting(64, 1, 4096, read_only=True)
    """Limits the number of clouds that are queued in the node in replay mode; the sender is slowed down when the queue is
    full."""
    diagnostics_period_s: float = setting(1.0, 0.1, 60.0, read_only=True)
    """Sets the time in seconds between two messages on /diagnostics."""
    autostart: bool = setting(True, read_only=True)
    """Configures and activates the node when its process starts; if false, a lifecycle manager has to do it."""
    input: NodeInputSettings = dataclasses.field(default_factory=NodeInputSettings)
    """Sets how clouds are read before the model sees them."""
    track: TrackSettings = dataclasses.field(default_factory=TrackSettings)
    """Sets when track_instances recognises an object as one that was seen before."""
    log: LogSettings = dataclasses.field(default_factory=LogSettings)
    """Sets which frames are kept for labelling, and where."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.odometry_extrinsic not in ("", "tf"):
            matrix_of_text(self.odometry_extrinsic, "odometry_extrinsic")
        if self.odometry_topic:
            check_topic("odometry_topic", self.odometry_topic)
        for topic in self.log.context_names:
            check_topic("log.context_topics", topic)
        _ = self.engines

    @property
    def engines(self) -> tuple[str, ...]:
        """The names of `engine`, in the order to try them; ConfigError for one that is not registered."""
        return engine_names(self.engine, "engine", "auto")


AT_THE_START = frozenset({"autostart"})
"""what is looked at once in the life of a process"""
GROUPS: dict[str, type] = {"": NodeConfig, "input": NodeInputSettings, "track": TrackSettings, "log": LogSettings}
"""settings that belong together; their parameters are called GROUP.NAME"""
FIELDS = {
    f"{group}.{field.name}".lstrip("."): field
    for group, kind in GROUPS.items()
    for field in dataclasses.fields(kind)
    if group or field.name not in GROUPS
}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by parameter name as the mapping that NodeConfig is filled from."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        group, _, own = name.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[own] = value
    return tree


def named_in(tree: Mapping[str, Any]) -> set[str]:
    """The parameters that such a mapping gives a value, which NodeConfig must have been filled from."""
    outside = {name for name in tree if name not in GROUPS}
    return outside | {f"{group}.{name}" for group in GROUPS.keys() & tree.keys() for name in tree[group]}


def flat(config: NodeConfig) -> dict[str, Any]:
    """The settings by parameter name."""
    inner = {group: getattr(config, group) if group else config for group in GROUPS}
    return {name: getattr(inner[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in FIELDS}


def choices(name: str) -> tuple[str, ...]:
    """The words that a setting takes, or nothing where it takes any value of its type."""
    group, _, own = name.rpartition(".")
    hint = typing.get_type_hints(GROUPS[group])[own]
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def takes(name: str, between: str = "|") -> str:
    """What a setting takes: its type or its words, and its bounds."""
    default, bounds = FIELDS[name].default, FIELDS[name].metadata
    kind = f"{len(default)} floats" if isinstance(default, tuple) else type(default).__name__
    limits = f" {bounds['low']}..{bounds['high']}" if bounds.get("low") is not None else ""
    return (between.join(choices(name)) or kind) + limits


def purpose(name: str) -> str:
    """What a setting does, without its bounds, which `takes` gives."""
    group, _, own = name.rpartition(".")
    return re.sub(r" \([-\d.e]+ to [-\d.e]+\)", "", field_docs(GROUPS[group])[own])


def explain(name: str) -> str:
    """What a setting does and what it takes, in one sentence."""
    late = ", read at configure" if FIELDS[name].metadata.get("read_only") else ""
    fixed = ", fixed after the start" if name in AT_THE_START else late
    return f"{purpose(name).rstrip('.')} ({takes(name)}{fixed})."


class Parameters:
    """The node's settings as ROS parameters: declared once, checked as a whole, changed atomically.

    The node must have been made with `automatically_declare_parameters_from_overrides`. `config` is always valid: a
    start value that cannot be used leaves the default in place and its sentence in `faults`, until the parameter is
    set to something that can be used. `notes` are sentences worth a warning at the start. What is taken when the node is
    configured is refused while `is_configured()`.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool]) -> None:
        self._where = node.get_name()
        self._is_configured, self._is_declared = is_configured, node.has_parameter
        self.faults: dict[str, str] = {}
        self.notes: list[str] = []
        given = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
        for former, name in FORMER_NAMES.items():
            if former in given:
                self.notes.append(f"{self._where}.{former}: is now called {name}; its value was used")
                given.setdefault(name, given.pop(former))
                node.undeclare_parameter(former)
        usable = {name: value for name, value in given.items() if name in FIELDS and self._is_usable(name, value)}
        self.config = from_mapping(NodeConfig, nested(usable), self._where)
        for name in given:
            if name in FIELDS:
                if node.has_parameter(name):
                    node.undeclare_parameter(name)
            elif name not in PARAMETERS_OF_RCLPY and not name.startswith("qos_overrides."):
                self.notes.append(f"{self._where}.{name}: unknown parameter, ignored{_hint_on(name)}")
        for name, value in flat(self.config).items():
            plain = list(value) if isinstance(value, tuple) else value
            node.declare_parameter(name, plain, _descriptor(name), ignore_override=True)
        node.add_on_set_parameters_callback(self._on_set)

    def refusal(self, parameters: Sequence[Parameter[Any]]) -> str:
        """A sentence on the first value that cannot be set, or nothing; rclpy's own tell types by number and no names."""
        return next(filter(None, map(self._refusal_of, parameters)), "")

    def is_news(self, parameter: Parameter[Any]) -> bool:
        """Whether a value is another one than that at work: a whole file is often loaded again for one line of it."""
        return parameter.name not in FIELDS or parameter.value != flat(self.config)[parameter.name]

    def _refusal_of(self, parameter: Parameter[Any]) -> str:
        name, value, field = parameter.name, parameter.value, FIELDS.get(parameter.name)
        if not self._is_declared(name):
            return f"{self._where}.{name}: unknown parameter{_hint_on(name)}"
        if value is None:
            return f"{self._where}.{name}: cannot be deleted, as the node needs it; set it to another value"
        if field is None or _is_of_type(value, field.default):
            return ""
        return f"{self._where}.{name}: {_wrong_type(value, field.default)}"

    def _is_usable(self, name: str, value: Any) -> bool:
        try:
            from_mapping(NodeConfig, nested({name: value}), self._where)
        except ConfigError as error:
            self.faults[name] = str(error)
            return False
        if isinstance(FIELDS[name].default, float) and isinstance(value, int):
            self.notes.append(
                f"{self._where}.{name}: the integer {value} is read as {float(value)}; write {float(value)} in later changes"
            )
        return True

    def _on_set(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        from rcl_interfaces.msg import SetParametersResult

        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in FIELDS}
        news = [parameter.name for parameter in parameters if self.is_news(parameter)]
        fixed = [name for name in news if name in FIELDS and FIELDS[name].metadata.get("read_only")]
        if fixed and self._is_configured():
            return SetParametersResult(successful=False, reason=self._too_late(fixed[0]))
        try:
            self.config = from_mapping(NodeConfig, nested(changes), self._where, self.config)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in changes:
            self.faults.pop(name, None)
        return SetParametersResult(successful=True)

    def _too_late(self, name: str) -> str:
        return (
            f"{self._where}.{name}: can be changed only while the node is unconfigured; deactivate the node and clean it up "
            "('ros2 lifecycle set NODE deactivate', then cleanup), set it, then configure and activate again"
        )


def _hint_on(name: str) -> str:
    """What to write in place of a parameter that there is none of."""
    if name in GROUPS:
        return f"; it is a group, so name a setting in it, as {name}.{dataclasses.fields(GROUPS[name])[0].name}"
    return did_you_mean(name, FIELDS)


def _is_of_type(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return not isinstance(value, str) and isinstance(value, Iterable) and all(isinstance(part, float) for part in value)
    return type(value) is type(default)


def _wrong_type(value: Any, default: Any) -> str:
    """What was expected and found, and how a number has to be written."""
    if not isinstance(default, tuple):
        expected, found = type(default).__name__, type(value).__name__
        hint = f"; write {float(value)}" if (found, expected) == ("int", "float") else ""
        return f"expected {expected}, found {found} {value}{hint}"
    expected = f"expected {len(default)} floats, found"
    parts = [] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if parts and all(type(part) is int for part in parts):
        return f"{expected} {parts}; write {[float(part) for part in parts]}"
    return f"{expected} {type(value).__name__} {parts or value}"


def _descriptor(name: str) -> ParameterDescriptor:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    default, bounds = FIELDS[name].default, FIELDS[name].metadata
    descriptor = ParameterDescriptor(description=explain(name), read_only=name in AT_THE_START)
    if choices(name):
        descriptor.additional_constraints = "one of: " + ", ".join(choices(name))
    if bounds.get("low") is not None and isinstance(default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=bounds["low"], to_value=bounds["high"])]
    elif bounds.get("low") is not None:
        descriptor.integer_range = [IntegerRange(from_value=bounds["low"], to_value=bounds["high"])]
    return descriptor
