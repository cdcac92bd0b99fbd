# SPDX-License-Identifier: Apache-2.0
"""The settings of `weakseg adapt`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from weakseg_ros.config import setting
from weakseg_ros.points.input_settings import InputSettings
from weakseg_ros.registry import DEFAULT_BUNDLE
from weakseg_ros.train.adapt_settings import AdaptSettings


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(AdaptSettings, InputSettings):
    """Adapt a bundle to your own clouds without labels, and write it if it still agrees with the original bundle."""

    data: Positional[tuple[Path, ...]] = ()
    """Lists bags, folders of bags, quoted globs such as 'drives/*', or folders of scans; labels in them are ignored."""
    bundle: str = DEFAULT_BUNDLE
    """Names the bundle to adapt: the path of its folder, or the name of an installed one."""
    out: Path = Path("models/adapted")
    """Names the folder for the adapted bundle; a symbolic link is never replaced, and a bundle is replaced only with
    `overwrite`."""
    overwrite: bool = False
    """Replaces the bundle at `out`."""
    report: Path = Path("runs/adapt")
    """Names the folder for report.html and summary.json, which are also written if the adapted bundle is refused."""
    topic: str = ""
    """Names the topic of the clouds in a bag; it may be empty if there is only one."""
    split: str = ""
    """Selects a split of a data set, for example train; an empty string uses all of it."""
    max_clouds: int = setting(60, 2)
    """Limits the number of clouds to adapt to (2 or more); they are evenly spaced over the data."""
    guard_clouds: int = setting(6, 1)
    """Sets the number of clouds on which the adapted model is compared with the original (1 or more); they are kept out of the
    training if there are enough others."""
    steadiness_drop: float = setting(0.02, 0.0, 1.0)
    """Sets the largest permitted drop in the share of points that keep their class when the cloud is rotated (0 to 1)."""
    unfit: bool = False
    """Runs the self-training even if the bundle does not fit these clouds; this mostly reinforces its own mistakes."""

    def __post_init__(self) -> None:
        AdaptSettings.__post_init__(self)
        InputSettings.__post_init__(self)
