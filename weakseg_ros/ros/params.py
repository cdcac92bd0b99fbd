# SPDX-License-Identifier: Apache-2.0
"""The node's settings: one typed class, seen as ROS parameters, command-line flags and YAML."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from weakseg_ros.config import check_ranges, field_docs, from_mapping, setting
from weakseg_ros.deploy.engines import engine_names
from weakseg_ros.deploy.track_settings import TrackSettings
from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.registry import DEFAULT_BUNDLE
from weakseg_ros.ros.poses import matrix_of_text

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
    """How the node takes clouds in."""

    target_frame: str = setting("", read_only=True)
    """Frame that clouds are brought into before the model sees them, by the TF of the cloud's time and after the other input
    settings, for instance the sensor's own frame where clouds come in base_link; '' leaves them in their own."""


@dataclass(frozen=True)
class NodeConfig:
    """Settings of the node. Those that are `read_only` are taken when the node is configured, the others at any time."""

    bundle: str = DEFAULT_BUNDLE
    """The model: a path to its folder, or a name among the installed models; ~/reload takes a change."""
    watch_bundle: float = setting(0.0, 0.0, 3600.0, read_only=True)
    """Seconds between two checks whether 'bundle' points to another model, as models/current does after a retraining; the
    new one is hot-swapped without losing a frame, and with 0 only ~/reload takes one."""
    engine: str = "auto"
    """Inference engine: 'auto' takes what is fastest on this machine; or names in the order to try them, separated by commas,
    with an arithmetic after a colon ('onnxruntime:int8, torch'); ~/reload takes a change."""
    threads: int = setting(0, 0, 256)
    """CPU threads of the engine, where 0 lets the engine choose and fewer help other work beside it; ~/reload takes a
    change."""
    lift: Literal["pixel", "knn"] = "pixel"
    """How points behind the nearest one of their pixel get their class: 'pixel' gives them the pixel's own, 'knn' lets their
    neighbours vote."""
    instances: Literal["auto", "components", "none"] = "auto"
    """How points of countable classes become objects: 'auto' uses the model's own head where it has one, 'components' joins
    points of a class that touch, and 'none' leaves instance_id at 0."""
    track_instances: bool = True
    """An object keeps its instance_id from cloud to cloud; with false, an id means nothing beyond its cloud."""
    odometry_topic: str = setting("", read_only=True)
    """Topic of the nav_msgs/Odometry that track_instances takes the sensor's motion from; '' means that there is none."""
    odometry_extrinsic: str = setting("", read_only=True)
    """Pose of the LiDAR in the body frame of odometry_topic, as 'x y z roll pitch yaw' in metres and radians; 'tf' looks it up in
    TF, and '' takes the LiDAR's axes as parallel to the body's."""
    target_frame: str = setting("", read_only=True)
    """Frame in which ~/labels, ~/objects and ~/detections are published, by the TF of the cloud's time; '' keeps the cloud's own
    frame."""
    object_texts: bool = False
    """Class, id and score are written above the boxes in ~/objects."""
    min_confidence: float = setting(0.0, 0.0, 1.0)
    """Points below this confidence get class 0 in ~/labels, while their confidence is published as it is."""
    publish_rgb: bool = False
    """~/labels has a field rgb with the colour of each point's class."""
    labels_reliability: Literal["best_effort", "reliable"] = setting("best_effort", read_only=True)
    """Quality of service of ~/labels and the masks: 'reliable' also reaches subscribers that ask for it, such as
    create_subscription(..., 10), and a slow one can then delay the node."""
    stale_after_s: float = setting(2.0, 0.1, 3600.0)
    """Seconds without a cloud after which the diagnostics call the input stale."""
    mode: Literal["live", "replay"] = setting("live", read_only=True)
    """'live' answers the newest cloud and drops those that wait; 'replay' is reliable and complete, and drops nothing."""
    reliability: Literal["auto", "reliable", "best_effort"] = setting("auto", read_only=True)
    """Quality of service of the subscription to the clouds; 'auto' asks for reliable where every publisher offers it."""
    replay_queue: int = setting(64, 1, 4096, read_only=True)
    """Clouds that wait inside the node in replay mode before the sender is slowed down."""
    diagnostics_period_s: float = setting(1.0, 0.1, 60.0, read_only=True)
    """Seconds between two messages on /diagnostics."""
    autostart: bool = setting(True, read_only=True)
    """The node configures and activates itself when its process starts; with false, a lifecycle manager does."""
    input: NodeInputSettings = dataclasses.field(default_factory=NodeInputSettings)
    """How clouds are taken in before the model sees them; changes are taken at once."""
    track: TrackSettings = dataclasses.field(default_factory=TrackSettings)
    """How track_instances tells that an object is one that it has seen."""
    log: LogSettings = dataclasses.field(default_factory=LogSettings)
    """Which frames are kept for labelling, and where."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.odometry_extrinsic not in ("", "tf"):
            matrix_of_text(self.odometry_extrinsic, "odometry_extrinsic")
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


def explain(name: str) -> str:
    """What a setting does and what it takes, in one sentence."""
    late = ", taken at configure" if FIELDS[name].metadata.get("read_only") else ""
    fixed = ", fixed after the start" if name in AT_THE_START else late
    group, _, own = name.rpartition(".")
    return f"{field_docs(GROUPS[group])[own].rstrip('.')} ({takes(name)}{fixed})."


class Parameters:
    """The node's settings as ROS parameters: declared once, checked as a whole, changed atomically.

    The node must have been made with `automatically_declare_parameters_from_overrides`. `config` is always valid: a
    start value that cannot be used leaves the default in place and its sentence in `faults`, until the parameter is
    set to something that can be used. `notes` are sentences worth a warning at the start. What is taken when the node is
    configured is refused while `is_configured()`.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool]) -> None:
        self._where = node.get_name()
        self._is_configured = is_configured
        self.faults: dict[str, str] = {}
        self.notes: list[str] = []
        given = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
        for former, name in FORMER_NAMES.items():
            if former in given:
                self.notes.append(f"{self._where}.{former}: is called {name} now; it was taken")
                given.setdefault(name, given.pop(former))
                node.undeclare_parameter(former)
        usable = {name: value for name, value in given.items() if name in FIELDS and self._is_usable(name, value)}
        self.config = from_mapping(NodeConfig, nested(usable), self._where)
        for name in given:
            if name in FIELDS:
                if node.has_parameter(name):
                    node.undeclare_parameter(name)
            elif name not in PARAMETERS_OF_RCLPY and not name.startswith("qos_overrides."):
                self.notes.append(f"{self._where}.{name}: unknown parameter, ignored{did_you_mean(name, FIELDS)}")
        for name, value in flat(self.config).items():
            plain = list(value) if isinstance(value, tuple) else value
            node.declare_parameter(name, plain, _descriptor(name), ignore_override=True)
        node.add_on_set_parameters_callback(self._on_set)

    def wrong_type(self, parameters: Sequence[Parameter[Any]]) -> str:
        """A sentence on the first value that is not of its parameter's type; rclpy's own names types by number."""
        for parameter in parameters:
            field = FIELDS.get(parameter.name)
            if field is None or _is_of_type(parameter.value, field.default):
                continue
            found, expected = type(parameter.value).__name__, type(field.default).__name__
            hint = f"; write {float(parameter.value)}" if (found, expected) == ("int", "float") else ""
            return f"{self._where}.{parameter.name}: expected {expected}, found {found} {parameter.value}{hint}"
        return ""

    def _is_usable(self, name: str, value: Any) -> bool:
        try:
            from_mapping(NodeConfig, nested({name: value}), self._where)
        except ConfigError as error:
            self.faults[name] = str(error)
            return False
        if isinstance(FIELDS[name].default, float) and isinstance(value, int):
            self.notes.append(
                f"{self._where}.{name}: integer {value} taken as {float(value)}; a later change must say {float(value)}"
            )
        return True

    def _on_set(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        from rcl_interfaces.msg import SetParametersResult

        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in FIELDS}
        fixed = [name for name in changes if FIELDS[name].metadata.get("read_only")]
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
            f"{self._where}.{name}: is taken when the node is configured; deactivate the node and clean it up "
            "('ros2 lifecycle set NODE deactivate', then cleanup), set it, then configure and activate again"
        )


def _is_of_type(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, Sequence) and not isinstance(value, str)
    return type(value) is type(default)


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
