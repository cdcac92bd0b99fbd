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


def start_ros(arguments: Sequence[str] = (), context: Any = None) -> None:
    """Initialise rclpy with these arguments of ROS's own and without its signal handlers.

    Raises MissingLibraryError where rclpy is not here, ConfigError where ROS refuses the arguments or cannot write its logs.
    """
    need("rclpy")
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(args=["weakseg", *arguments], context=context, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # what rclpy's own errors are derived from
        raise ConfigError(_refused(arguments, error)) from None


def log_folder(environment: Mapping[str, str]) -> Path | None:
    """Where ROS writes its logs, as its own rules say; None where they name no folder, as without a HOME."""
    if environment.get("ROS_LOG_DIR"):
        return Path(environment["ROS_LOG_DIR"])
    if environment.get("ROS_HOME"):
        return Path(environment["ROS_HOME"], "log")
    return Path(environment["HOME"], ".ros", "log") if environment.get("HOME") else None


def _refused(arguments: Sequence[str], error: RuntimeError) -> str:
    """A sentence on why ROS does not start, without the places in its source that rcl names."""
    reason = re.sub(r", at \S+:\d+", "", str(error)).removeprefix("failed to initialize rcl: ")
    if "logging" in reason or "log directory" in reason:
        folder = log_folder(os.environ)
        why = "HOME is not set" if folder is None else f"{folder} cannot be written"
        return f"ROS has no folder for its logs; set ROS_LOG_DIR to one that can be written ({why})"
    return f"{shlex.join(arguments)}: ROS does not start with it ({reason}); check the options, topics and files in it"
