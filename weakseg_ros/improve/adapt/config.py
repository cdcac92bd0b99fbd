# SPDX-License-Identifier: Apache-2.0
"""The settings of `weakseg adapt`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from weakseg_ros.config import setting
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.train.adapt_settings import AdaptSettings


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(AdaptSettings, InputSettings):
    """Adapt a bundle to your own clouds without labels, and write it if it still agrees with the one it began from."""

    data: Positional[tuple[Path, ...]] = ()
    """Bags, folders of bags, quoted globs such as 'drives/*', or folders of scans, whose labels are not looked at."""
    bundle: str = "models/street64"
    """The bundle to adapt: the path of its folder, or the name of one that ships."""
    out: Path = Path("models/adapted")
    """Folder to write the adapted bundle to; a link is never replaced, and a bundle only with `overwrite`."""
    overwrite: bool = False
    """Replace the bundle at `out`."""
    report: Path = Path("runs/adapt")
    """Folder to write report.html and summary.json to, also where the adapted bundle is refused."""
    topic: str = ""
    """Topic of the clouds in a bag; it can be left empty where there is only one."""
    split: str = ""
    """Split of a data set, for example train; empty takes all of it."""
    max_clouds: int = setting(60, 2)
    """Largest number of clouds to adapt to (2 or more), evenly spaced over the data."""
    guard_clouds: int = setting(6, 1)
    """Number of clouds (1 or more) on which the guard measures the model; they are not trained on where there are enough
    others."""
    steadiness_drop: float = setting(0.02, 0.0, 1.0)
    """Largest permitted drop of the share of points that keep their class where the cloud is turned (0 to 1)."""
    unfit: bool = False
    """Self-train although the bundle does not fit these clouds, which mostly teaches it its own mistakes."""

    def __post_init__(self) -> None:
        AdaptSettings.__post_init__(self)
        InputSettings.__post_init__(self)
