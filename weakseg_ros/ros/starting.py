# SPDX-License-Identifier: Apache-2.0
"""Starting ROS in this process, and a sentence where it does not start."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weakseg_ros.errors import ConfigError
from weakseg_ros.extras import need
from weakseg_ros.ros.names import check_remappings

HIGHEST_DOMAIN = 232
"""beyond it DDS has no port numbers, and Fast DDS ends the process"""


def start_ros(arguments: Sequence[str] = (), context: Any = None) -> None:
    """Initialise rclpy with these arguments of ROS's own and without its signal handlers.

    Raises MissingLibraryError where rclpy is not here, ConfigError where ROS refuses the arguments or the domain, or cannot
    write its logs.
    """
    need("rclpy")
    check_remappings(arguments)
    check_domain(os.environ.get("ROS_DOMAIN_ID", ""))
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(args=["weakseg", *arguments], context=context, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # what rclpy's own errors are derived from
        raise ConfigError(_refused(arguments, error)) from None


def check_domain(text: str) -> None:
    """ConfigError for a ROS_DOMAIN_ID that is no domain; nothing set is domain 0."""
    if text and not (text.isdecimal() and int(text) <= HIGHEST_DOMAIN):
        raise ConfigError(
            f"ROS_DOMAIN_ID: '{text}' is no whole number from 0 to {HIGHEST_DOMAIN}; set it to one, as all nodes have"
        )


def log_folder(environment: Mapping[str, str]) -> Path | None:
    """Where ROS writes its logs, as its own rules say; None where they name no folder, as without a HOME."""
    if environment.get("ROS_LOG_DIR"):
        return Path(environment["ROS_LOG_DIR"])
    if environment.get("ROS_HOME"):
        return Path(environment["ROS_HOME"], "log")
    return Path(environment["HOME"], ".ros", "log") if environment.get("HOME") else None


def said_by_ros(error: Exception) -> str:
    """What rclpy's error says, on one line and without the places in its source that it names."""
    return " ".join(re.sub(r", at \S+:\d+", "", str(error)).split())


def _refused(arguments: Sequence[str], error: RuntimeError) -> str:
    """A sentence on why ROS does not start."""
    reason = said_by_ros(error).removeprefix("failed to initialize rcl: ")
    if "logging" in reason or "log directory" in reason:
        folder = log_folder(os.environ)
        why = "HOME is not set" if folder is None else f"{folder} cannot be written"
        return f"ROS has no folder for its logs; set ROS_LOG_DIR to one that can be written ({why})"
    return f"{shlex.join(arguments)}: ROS does not start with it ({reason}); check the options, topics and files in it"
