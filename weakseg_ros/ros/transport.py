# SPDX-License-Identifier: Apache-2.0
"""How large clouds get from one process to the next without loss: the Fast DDS profile that ships with the package.

The settings belong to the sending process as much as to the receiving one: set the same variables for the driver.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from weakseg_ros.memory import keep_large_blocks

PROFILE = Path(__file__).with_name("fastdds.xml")
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Fast DDS 3 (Kilted and later) reads the first, Fast DDS 2 (Humble, Jazzy) the second"""
_SETTINGS_OF_USERS = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")


def transport_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that select our profile; none where `environment` shows that the user has chosen a transport."""
    if any(environment.get(name) for name in _SETTINGS_OF_USERS):
        return {}
    return {name: str(PROFILE) for name in PROFILE_VARIABLES}


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
        chosen = next(name for name in _SETTINGS_OF_USERS if os.environ.get(name))
        return f"transport: {chosen} is set, so your own settings are used"
    return (
        f"transport: Fast DDS profile {PROFILE}; set {PROFILE_VARIABLES[0]} and {PROFILE_VARIABLES[1]} to it for the driver, too"
    )
