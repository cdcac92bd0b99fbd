# SPDX-License-Identifier: Apache-2.0
"""The settings of a fleet report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from weakseg_ros.config import check_ranges, setting


@dataclass(frozen=True)
class FleetConfig:
    """Write one report over the bags of many robots from their evaluation."""

    run: Annotated[Path, tyro.conf.Positional] = Path()
    """Names the output folder of 'weakseg evaluate' over several bags, which may still be running."""
    log: Path | None = None
    """Names the frame log that 'weakseg select --together' wrote for these bags; the report then lists the frames that are most
    worth labelling."""
    robot: str = ""
    """Sets a regular expression whose first group is the robot's name in the path of a bag; an empty string uses the name of
    the folder that holds the bag."""
    cell_m: float = setting(50.0, 1.0, 100_000.0)
    """Sets the side length in metres of the map squares over which the uncertainty is averaged to compare places (1 to
    100000)."""
    out: Path = Path("runs/fleet")
    """Names the output folder for fleet.html and fleet.json."""

    def __post_init__(self) -> None:
        check_ranges(self)
