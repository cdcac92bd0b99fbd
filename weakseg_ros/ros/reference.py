# SPDX-License-Identifier: Apache-2.0
"""Two files that say what the node takes and gives, made from its settings: `python -m weakseg_ros.ros.reference` writes them.

config/segment.yaml is the parameter file with its defaults; docs/node.md lists topics, services, parameters and launch
arguments.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import NamedTuple

import yaml

from weakseg_ros.config import field_docs
from weakseg_ros.files import share_folder, write_atomic
from weakseg_ros.ros.launching import ARGUMENTS, PERMANENT, SETTINGS
from weakseg_ros.ros.params import AT_THE_START, FIELDS, GROUPS, NodeConfig, explain, purpose, takes

PARAMETER_FILE = Path("config", "segment.yaml")
PAGE = Path("docs", "node.md")
WIDTH = 120


class Topic(NamedTuple):
    """A topic of the node."""

    name: str
    type: str
    reliability: str
    text: str


HEARD = (
    Topic("points", "sensor_msgs/msg/PointCloud2", "parameter `reliability`", "The clouds; remap it to the LiDAR's topic."),
    Topic("parameter `odometry_topic`", "nav_msgs/msg/Odometry", "best effort", "The sensor's motion, for stable object ids."),
    Topic(
        "~/prompt",
        "std_msgs/msg/String",
        "reliable",
        "An English expression that refers to an object; an empty one ends the search.",
    ),
    Topic("~/log_event", "std_msgs/msg/String", "reliable", "Keeps the next frame with a tag: `tag: reason`."),
    Topic("parameter `log.context_topics`", "any", "best effort", "Messages that are kept with the logged frames."),
)
SAID = (
    Topic("~/labels", "sensor_msgs/msg/PointCloud2", "parameter `labels_reliability`", "The cloud with its labels, see below."),
    Topic("~/class_mask", "sensor_msgs/msg/Image", "parameter `labels_reliability`", "Class ids of the range image, 8UC1."),
    Topic(
        "~/instance_mask", "sensor_msgs/msg/Image", "parameter `labels_reliability`", "Instance ids of the range image, 16UC1."
    ),
    Topic("~/objects", "visualization_msgs/msg/MarkerArray", "reliable", "One box per object, for RViz."),
    Topic(
        "~/detections",
        "vision_msgs/msg/Detection3DArray",
        "reliable",
        "The same boxes, if vision_msgs is installed.",
    ),
    Topic("~/referred", "sensor_msgs/msg/PointCloud2", "reliable", "The points that the expression on `~/prompt` means."),
    Topic("~/uncertain", "sensor_msgs/msg/PointCloud2", "reliable", "The points suggested for labelling in each logged frame."),
    Topic(
        "~/classes",
        "std_msgs/msg/String",
        "reliable, latched",
        "JSON: bundle, hash, and each class.",
    ),
    Topic("~/label_info", "vision_msgs/msg/LabelInfo", "reliable, latched", "The classes, if vision_msgs is installed."),
    Topic(
        "/diagnostics",
        "diagnostic_msgs/msg/DiagnosticArray",
        "reliable",
        "Input, engine, model, output, frame log, odometry.",
    ),
)
SERVICES = (
    Topic(
        "~/reload",
        "std_srvs/srv/Trigger",
        "",
        "Loads the bundle that the parameter names; if this fails, the old one stays in use.",
    ),
    Topic(
        "~/refer", "std_srvs/srv/Trigger", "", "Returns the answer to the expression on `~/prompt` in the latest cloud, as JSON."
    ),
    Topic("~/log_frame", "std_srvs/srv/Trigger", "", "Keeps the next frame, whatever its score."),
)
POSITIONS = """
`input.mirror`, `input.rotation_rpy_deg`, `input.unit_m`, `input.translation_m` and `input.target_frame` change what the model
sees and what the frame log keeps. They do not change the output: `~/labels`, `~/uncertain`, `~/objects` and `~/detections` have
the positions, axes and unit of the incoming cloud, or those of `target_frame` (without `input.`). Boxes are aligned with the z
axis of that frame. TF is in metres, so leave both frames empty for clouds in another unit.
""".lstrip()
"""what stands below the fields"""
REFERRED = """
`~/referred` has x, y, z (in m, in the frame of the incoming cloud), `score` (float32, the expected IoU of the answer) and
`instance_id` (uint16, the tracked object, 0 = none). While an expression is set, the node publishes one message for each cloud;
it has no points if nothing matches. See [referring](referring.md).
""".strip()
LABEL_FIELDS = """\
| field | type | offset | meaning |
|---|---|---|---|
| x, y, z | float32 | 0, 4, 8 | position in m, unchanged, or in `target_frame` |
| class_id | uint8 | 12 | 0 = unlabelled; names and colours are on `~/classes` |
| flags | uint8 | 13 | why there is no class: 1 non-finite, 2 non-return, 4 outside the model's range |
| instance_id | uint16 | 14 | 0 = none |
| confidence | float32 | 16 | calibrated, 0..1 |
| uncertainty | float32 | 20 | entropy over log K, 0..1 |
| rgb | float32 | 24 | colour of the class, with `publish_rgb` only |
"""


def parameter_file() -> str:
    """config/segment.yaml: every parameter but `autostart`, with its sentence above it."""
    head = (
        "# SPDX-License-Identifier: Apache-2.0\n"
        "# Parameters of the node, with their defaults. Copy the file, change what you need, and start with\n"
        "#   ros2 launch weakseg_ros segment.launch.py params_file:=/path/to/yours.yaml\n"
        "# Launch arguments override it. Parameters that are not read at configure can be changed at any time with\n"
        "# `ros2 param set /weakseg NAME VALUE`.\n"
        "/**:\n  ros__parameters:\n"
    )
    return head + "".join(_group(group) for group in GROUPS)


def _group(group: str) -> str:
    names = [name for name in SETTINGS if name.rpartition(".")[0] == group]
    if not group:
        return "".join(_entry(name, "    ") for name in names)
    title = _comment(f"{field_docs(NodeConfig)[group]}", "    ")
    return f"{title}    {group}:\n" + "".join(_entry(name, "      ") for name in names)


def _entry(name: str, indent: str) -> str:
    default = FIELDS[name].default
    plain = list(default) if isinstance(default, tuple) else default
    value = yaml.dump(plain, default_style='"' if isinstance(plain, str) else None, default_flow_style=True)
    return f"{_comment(explain(name), indent)}{indent}{name.rpartition('.')[2]}: {value.splitlines()[0]}\n"


def _comment(text: str, indent: str) -> str:
    lines = textwrap.wrap(text, WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{indent}# {line}\n" for line in lines)


def page() -> str:
    """docs/node.md."""
    parts = [
        "# The node: topics, services, parameters",
        "This page is generated by `python -m weakseg_ros.ros.reference`. `~` stands for the name of the node, `/weakseg` by\n"
        "default.",
        "## Subscribed topics",
        _table(("topic", "type", "reliability", "meaning"), HEARD),
        "## Published topics",
        _table(("topic", "type", "reliability", "meaning"), SAID),
        "Each of them accepts `qos_overrides` of history, depth and reliability, and so does each subscription but those of\n"
        "`log.context_topics`. `~/labels` has every point of the input, in the same order:",
        LABEL_FIELDS.rstrip(),
        POSITIONS.rstrip(),
        REFERRED,
        "## Services",
        _table(("service", "type", "meaning"), [(row.name, row.type, row.text) for row in SERVICES]),
        "The node also has the services of every lifecycle node (`~/change_state`, `~/get_state`, ...) and of parameters.",
        "## Parameters",
        "Parameters marked *at configure* can be set while the node is unconfigured, the others at any time.",
        _table(("parameter", "default", "type and range", "takes effect", "what it does"), map(_row, FIELDS)),
        "## Arguments of segment.launch.py",
        "Every parameter above is also a launch argument; if it is empty, the parameter file applies. Further arguments:",
        _table(
            ("argument", "default", "what it does"), ((name, _code(default), text) for name, (default, text) in ARGUMENTS.items())
        ),
        "## Exit codes of the node",
        _table(
            ("code", "meaning", "segment.launch.py"),
            (
                ("0", "ended by a signal or a shutdown transition", "ends it"),
                (
                    str(PERMANENT),
                    "permanent fault: wrong arguments, unreadable settings, a missing library",
                    "ends it",
                ),
                ("70", "the process has lost the GPU", "restarts it"),
                ("others", "crash or kill", "restarts it, up to `respawn_max_retries` times in a row"),
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _row(name: str) -> tuple[str, ...]:
    field = FIELDS[name]
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    taken = "at the start" if name in AT_THE_START else "at configure" if field.metadata.get("read_only") else "at once"
    taken = "~/reload" if name in ("bundle", "engine", "threads") else taken
    return f"`{name}`", _code(str(default)), takes(name, " \\| "), taken, purpose(name)


def _code(text: str) -> str:
    return f"`{text}`" if text else "`''`"


def _table(head: tuple[str, ...], rows: object) -> str:
    lines = [head, tuple("---" for _ in head), *rows]  # type: ignore[misc]
    return "\n".join("|" + "|".join(f" {cell} " if cell != "---" else cell for cell in line) + "|" for line in lines)


def main() -> None:
    """Write both files into the checkout."""
    for file, text in ((PARAMETER_FILE, parameter_file()), (PAGE, page())):
        write_atomic(share_folder() / file, text)


if __name__ == "__main__":
    main()
