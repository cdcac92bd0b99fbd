# SPDX-License-Identifier: Apache-2.0
"""The node's settings: one typed class, seen as ROS parameters, command-line flags and YAML."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from weakseg_ros.config import check_ranges, field_docs, from_mapping, setting
from weakseg_ros.deploy.track_settings import TrackSettings
from weakseg_ros.errors import ConfigError, did_you_mean
from weakseg_ros.improve.log.admission import LogSettings
from weakseg_ros.registry import ENGINES

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
    from rclpy.node import Node
    from rclpy.parameter import Parameter

PARAMETERS_OF_RCLPY = ("use_sim_time", "start_type_description_service")
TOPIC = "points"
"""the name to remap to the LiDAR's topic"""


@dataclass(frozen=True)
class NodeConfig:
    """Settings of the node. Those that are not read-only change while it runs."""

    bundle: str = "models/street64"
    """folder of the model: a path, or a name among the installed models; a change is taken by ~/reload"""
    watch_bundle: float = setting(0.0, 0.0, 3600.0, read_only=True)
    """seconds between two looks whether 'bundle' names another model than before, as models/current does after a retraining,
    which is then taken without losing a frame; 0 = only ~/reload takes one"""
    engine: str = "auto"
    """inference engine: 'auto', or names in the order to try them, separated by commas; a change is taken by ~/reload"""
    threads: int = setting(0, 0, 256)
    """CPU threads of the engine, 0 = as many as it likes; fewer help beside other work; a change is taken by ~/reload"""
    lift: Literal["pixel", "knn"] = "pixel"
    """how points behind the nearest one of their pixel get their class: the pixel's own, or a vote of the neighbours"""
    instances: Literal["auto", "components", "none"] = "auto"
    """how points of countable classes become objects: 'auto' by the model where it has a head for it, else by 'components',
    points of a class that touch; 'none': instance_id stays 0"""
    track_instances: bool = True
    """an object keeps its instance_id from cloud to cloud; false: ids mean nothing beyond one cloud"""
    odometry_topic: str = setting("", read_only=True)
    """nav_msgs/Odometry of the sensor, or of a body with axes parallel to its own, for track_instances; '' = without"""
    object_texts: bool = False
    """write class, id and score above the boxes in ~/objects"""
    intensity_field: str = "auto"
    """field of the cloud that holds the intensity: 'auto' tries the usual names, '' feeds zeros"""
    intensity_scale: float = setting(0.0, 0.0, 1e6)
    """factor to the intensity the model was trained with; 0 = by the field's datatype"""
    min_confidence: float = setting(0.0, 0.0, 1.0)
    """points below this confidence get class 0 in ~/labels; the confidence itself stays there"""
    publish_rgb: bool = False
    """add a field rgb with the class's colour to ~/labels"""
    stale_after_s: float = setting(2.0, 0.1, 3600.0)
    """seconds without a cloud after which the diagnostics call the input stale"""
    mode: Literal["live", "replay"] = setting("live", read_only=True)
    """live: the newest cloud wins and waiting ones are dropped; replay: reliable and complete, nothing is dropped"""
    reliability: Literal["auto", "reliable", "best_effort"] = setting("auto", read_only=True)
    """of the subscription; auto asks for reliable where every publisher offers it"""
    replay_queue: int = setting(64, 1, 4096, read_only=True)
    """clouds that wait inside the node in replay mode before the sender is slowed down"""
    diagnostics_period_s: float = setting(1.0, 0.1, 60.0, read_only=True)
    """seconds between two messages on /diagnostics"""
    autostart: bool = setting(True, read_only=True)
    """configure and activate at the start; the launch file does it by events and sets false"""
    track: TrackSettings = dataclasses.field(default_factory=TrackSettings)
    """how track_instances tells that an object is one that it has seen"""
    log: LogSettings = dataclasses.field(default_factory=LogSettings)
    """which frames are kept for labelling, and where"""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in self.engines:
            if name != "auto" and name not in ENGINES:
                raise ConfigError(
                    f"engine: unknown '{name}'{did_you_mean(name, ENGINES)}; known: auto, {', '.join(sorted(ENGINES))}"
                )

    @property
    def engines(self) -> tuple[str, ...]:
        """The names of `engine`, in the order to try them."""
        return tuple(name.strip() for name in self.engine.split(","))


GROUPS: dict[str, type] = {"": NodeConfig, "track": TrackSettings, "log": LogSettings}
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
    return typing.get_args(typing.get_type_hints(GROUPS[group])[own])


def explain(name: str) -> str:
    """What a setting does and what it takes, in one line."""
    bounds = FIELDS[name].metadata
    takes = "|".join(choices(name)) or type(FIELDS[name].default).__name__
    if bounds.get("low") is not None:
        takes += f" {bounds['low']}..{bounds['high']}"
    fixed = ", fixed after the start" if bounds.get("read_only") else ""
    group, _, own = name.rpartition(".")
    return f"{field_docs(GROUPS[group])[own]} ({takes}{fixed})"


class Parameters:
    """The node's settings as ROS parameters: declared once, checked as a whole, changed atomically.

    The node must have been made with `automatically_declare_parameters_from_overrides`. `config` is always valid: a
    start value that cannot be used leaves the default in place and its sentence in `faults`, until the parameter is
    set to something that can be used. `notes` are sentences worth a warning at the start.
    """

    def __init__(self, node: Node) -> None:
        self._where = node.get_name()
        self.faults: dict[str, str] = {}
        self.notes: list[str] = []
        given = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
        usable = {name: value for name, value in given.items() if name in FIELDS and self._is_usable(name, value)}
        self.config = from_mapping(NodeConfig, nested(usable), self._where)
        for name in given:
            if name in FIELDS:
                node.undeclare_parameter(name)
            elif name not in PARAMETERS_OF_RCLPY and not name.startswith("qos_overrides."):
                self.notes.append(f"{self._where}.{name}: unknown parameter, ignored{did_you_mean(name, FIELDS)}")
        for name, value in flat(self.config).items():
            node.declare_parameter(name, value, _descriptor(name), ignore_override=True)
        node.add_on_set_parameters_callback(self._on_set)

    def wrong_type(self, parameters: Sequence[Parameter[Any]]) -> str:
        """A sentence on the first value that is not of its parameter's type; rclpy's own names types by number."""
        for parameter in parameters:
            field = FIELDS.get(parameter.name)
            if field is None or type(parameter.value) is type(field.default):
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
        try:
            self.config = from_mapping(NodeConfig, nested(changes), self._where, self.config)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in changes:
            self.faults.pop(name, None)
        return SetParametersResult(successful=True)


def _descriptor(name: str) -> ParameterDescriptor:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    default, bounds = FIELDS[name].default, FIELDS[name].metadata
    descriptor = ParameterDescriptor(description=explain(name), read_only=bool(bounds.get("read_only")))
    if choices(name):
        descriptor.additional_constraints = "one of: " + ", ".join(choices(name))
    if bounds.get("low") is not None and isinstance(default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=bounds["low"], to_value=bounds["high"])]
    elif bounds.get("low") is not None:
        descriptor.integer_range = [IntegerRange(from_value=bounds["low"], to_value=bounds["high"])]
    return descriptor
