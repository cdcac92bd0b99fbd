# SPDX-License-Identifier: Apache-2.0
"""How large clouds get from one process to the next without loss: the Fast DDS profile that ships with the package.

The settings belong to the sending process as much as to the receiving one: set the same variables for the driver.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from weakseg_ros.memory import keep_large_blocks

PROFILE = Path(__file__).with_name("fastdds.xml")
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Fast DDS 3 (Kilted and later) reads the first and warns of the second, Fast DDS 2 (Humble to Jazzy) reads the second"""
FAST_DDS_2 = ("humble", "iron", "jazzy")
RCLPY_OF_JAZZY = 7
_SETTINGS_OF_USERS = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")


def profile_variables(distro: str | None = None, rclpy: str | None = None) -> tuple[str, ...]:
    """The variables that Fast DDS reads here, by the name of the ROS 2 release, else by rclpy's version; both where unknown."""
    distro = os.environ.get("ROS_DISTRO", "") if distro is None else distro
    major = (_version_of_rclpy() if rclpy is None else rclpy).partition(".")[0]
    if distro:
        return PROFILE_VARIABLES[1:] if distro in FAST_DDS_2 else PROFILE_VARIABLES[:1]
    if major.isdecimal():
        return PROFILE_VARIABLES[1:] if int(major) <= RCLPY_OF_JAZZY else PROFILE_VARIABLES[:1]
    return PROFILE_VARIABLES


def _version_of_rclpy() -> str:
    try:
        return metadata.version("rclpy")
    except metadata.PackageNotFoundError:
        return ""


def transport_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that select our profile; none where `environment` shows that the user has chosen a transport."""
    if any(environment.get(name) for name in _SETTINGS_OF_USERS):
        return {}
    return {name: str(PROFILE) for name in profile_variables()}


def apply_transport(own_settings: bool = False) -> str:
    """Tune this process for large clouds; returns one sentence that says what was done.

    Call it before `rclpy.init` and before the first cloud is made. `own_settings` leaves the transport to the user.
    """
    keep_large_blocks()
    if own_settings:
        return "transport: left to your own settings"
    variables = transport_variables(os.environ)
    os.environ.update(variables)
    if not variables:
        return _chosen_by_user(os.environ)
    return f"transport: Fast DDS profile {PROFILE}; set {' and '.join(variables)} to it in the driver's process, too"


def _chosen_by_user(environment: Mapping[str, str]) -> str:
    """A sentence on the user's own transport, and on what Fast DDS will not make of it."""
    here = (*profile_variables(), _SETTINGS_OF_USERS[-1])
    chosen = next(name for name in (*here, *PROFILE_VARIABLES) if environment.get(name))
    if chosen not in here:
        return f"transport: {chosen} is set, and this release of ROS 2 does not read it; set {' and '.join(here[:-1])} instead"
    if chosen in PROFILE_VARIABLES and not Path(environment[chosen]).is_file():
        return f"transport: {chosen} names {environment[chosen]}, which is no file, so Fast DDS uses its defaults; correct it"
    return f"transport: {chosen} is set, so your own settings are used"
