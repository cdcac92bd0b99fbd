# SPDX-License-Identifier: Apache-2.0
"""ROS parameter files that were given to the node and speak of other nodes only: ROS ignores those without a word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from weakseg_ros.errors import WeaksegError
from weakseg_ros.yaml_files import read_yaml

SETTINGS = "ros__parameters"


def files_for_others(ros_arguments: Sequence[str], node: str) -> list[str]:
    """A sentence for each --params-file that holds nothing for the node with this full name."""
    files = [Path(value) for option, value in pairwise(ros_arguments) if option == "--params-file"]
    return [sentence for sentence in (_unheard(file, node) for file in files) if sentence]


def _unheard(file: Path, node: str) -> str:
    try:
        names = list(_nodes_in(read_yaml(file)))
    except WeaksegError:  # ROS reads more than we do
        return ""
    if not names or any(_means(name, node) for name in names):
        return ""
    return f"{file}: holds settings of {', '.join(names)} and none of {node}, so all are ignored; name {node} there, or /**"


def _nodes_in(content: Any, above: str = "") -> Iterator[str]:
    """The full names, or patterns of them, that have settings."""
    if not isinstance(content, Mapping):
        return
    for name, inner in content.items():
        if name == SETTINGS:
            yield above
        else:
            yield from _nodes_in(inner, f"{above}/{str(name).strip('/')}")


def _means(pattern: str, node: str) -> bool:
    """Whether a name of a file, in which * is a part of a name and ** any number of them, is that of the node."""
    parts = [r"(?:/[^/]+)*" if part == "**" else "/" + re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("/")[1:]]
    return re.fullmatch("".join(parts), node) is not None
