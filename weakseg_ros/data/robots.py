# SPDX-License-Identifier: Apache-2.0
"""Which robot recorded a bag, by where the bag lies."""

from __future__ import annotations

import re
from pathlib import Path

from weakseg_ros.data.ray_settings import as_given
from weakseg_ros.errors import ConfigError


def robot_of(bag: Path, pattern: str = "") -> str:
    """The first group of the regular expression `pattern` in the bag's path; without one the name of the folder it lies in.

    '' where the pattern does not match. Raises ConfigError for a pattern that is none, or that has no group.
    """
    if not pattern:
        return bag.absolute().parent.name
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"robot: '{pattern}' is not a regular expression ({error}); for robots/NAME/drive write 'robots/([^/]+)/'"
        ) from None
    if not compiled.groups:
        raise ConfigError(f"robot: '{pattern}' has no group; put the part that is the robot's name in parentheses")
    found = compiled.search(as_given(bag))
    return found[1] or "" if found else ""
