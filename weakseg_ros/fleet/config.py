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
    """Write one report over the bags of many robots, from an evaluation of them."""

    run: Annotated[Path, tyro.conf.Positional] = Path()
    """Output folder of 'weakseg evaluate' over several bags, also of one that is still running."""
    log: Path | None = None
    """Frame log that 'weakseg select --together' wrote for these bags, for the list of the frames most worth a click."""
    robot: str = ""
    """Regular expression that finds the robot's name in the path of a bag, in its first group; empty takes the name of the
    folder that the bag lies in."""
    cell_m: float = setting(50.0, 1.0, 100_000.0)
    """Side of the squares, in metres (1 to 100000), over which the uncertainty is averaged to compare places."""
    out: Path = Path("runs/fleet")
    """Output folder for fleet.html and fleet.json."""

    def __post_init__(self) -> None:
        check_ranges(self)
