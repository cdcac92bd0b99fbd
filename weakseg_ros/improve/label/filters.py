# SPDX-License-Identifier: Apache-2.0
"""Which points are on the page: classes, the ground and whatever is too low or too high can be hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg_ros.improve.label.frame_source import Frame


@dataclass(frozen=True)
class Filters:
    """What is hidden. A hidden point is not drawn, cannot be clicked, and no brush, box or mask labels it."""

    classes: frozenset[int] = frozenset()
    """classes that are hidden: by a point's label, or by the model's guess where it has none"""
    ground: bool = False
    """whether the ground is hidden"""
    low_m: float = -np.inf
    """points lower than this are hidden, in m above the sensor"""
    high_m: float = np.inf
    """points higher than this are hidden, in m above the sensor"""

    @property
    def hide_nothing(self) -> bool:
        return self == Filters()


def shown_points(frame: Frame, labelled: NDArray[np.uint8], filters: Filters) -> NDArray[np.bool_]:
    """(N,) the usable points of a frame that `filters` leave; `labelled` (N,) holds class ids, 0 = no label."""
    shown = frame.cloud.valid.copy()
    if filters.classes:
        known = labelled if frame.prediction is None else np.where(labelled > 0, labelled, frame.prediction)
        shown &= ~np.isin(known, list(filters.classes))
    if filters.ground:
        shown &= ~frame.ground
    height = frame.cloud.xyz[:, 2]
    return shown & (height >= filters.low_m) & (height <= filters.high_m)
