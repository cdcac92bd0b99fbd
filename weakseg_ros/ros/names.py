# SPDX-License-Identifier: Apache-2.0
"""Names of topics, nodes and namespaces: what ROS would refuse is said in words, and before anything is started."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from weakseg_ros.errors import ConfigError

RENAMED_NODE, RENAMED_NAMESPACE = ("__node", "__name"), "__ns"
"""what a remapping calls the node and its namespace"""


def check_topic(where: str, name: str) -> None:
    """ConfigError with `where` for what ROS does not take as the name of a topic."""
    _check(where, name, "topic", _fault_of_path(name.removeprefix("~/")))


def check_namespace(where: str, name: str) -> None:
    """ConfigError with `where` for what is no namespace; the root is one, and so is a relative one."""
    if name.strip("/") or "//" in name:
        _check(where, name, "namespace", _fault_of_path(name))


def check_node(where: str, name: str) -> None:
    """ConfigError with `where` for what is no name of a node, which is without a namespace."""
    _check(where, name, "node", "contains '/'" if "/" in name else _fault_of_path(name))


def check_remappings(ros_arguments: Sequence[str]) -> None:
    """ConfigError for a remapping (`-r FROM:=TO`) in arguments of ROS whose new name ROS would not take."""
    for option, rule in pairwise(ros_arguments):
        former, is_rule, name = rule.partition(":=")
        if option not in ("-r", "--remap") or not is_rule:
            continue
        former = former.rpartition(":")[2]
        if former in RENAMED_NODE:
            check_node(rule, name)
        elif former == RENAMED_NAMESPACE:
            _check(rule, name, "namespace", "" if name.startswith("/") else "does not begin with '/'")
            check_namespace(rule, name)
        else:
            check_topic(rule, name.removeprefix("rostopic://").removeprefix("rosservice://"))


def _check(where: str, name: str, kind: str, fault: str) -> None:
    if fault:
        allowed = "letters, digits and '_'" if kind == "node" else "letters, digits and '_' between single '/'"
        raise ConfigError(f"{where}: '{name}' {fault}, which the name of a {kind} must not; write {allowed}")


def _fault_of_path(name: str) -> str:
    """What is wrong with the parts of a name, or nothing; `{node}` and the like are left to ROS."""
    parts = name.removeprefix("/").split("/")
    odd = re.search(r"[^A-Za-z0-9_/{}]", name)
    if odd:
        return f"contains {odd[0]!r}"
    if not name.strip("/"):
        return "is empty"
    if name.endswith("/"):
        return "ends with '/'"
    if "" in parts:
        return "contains '//'"
    numbered = next((part for part in parts if part[0].isdigit()), "")
    return f"has a part that begins with a digit ('{numbered}')" if numbered else ""
